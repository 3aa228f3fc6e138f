//! rtrb 0.4.1: SPSC rings between threads of one process. No processes, no handshake, no wake-ups: a bound rather than a rival.

use std::io;
use std::sync::Mutex;

use rtrb::{Consumer, Producer, RingBuffer};

use super::drive::{self, Client};
use super::{Patience, Subject, other};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};
use crate::system;

/// Bytes per ring, of which there are two per client. The best of 64 KiB to 4 MiB: what is in use fits the second-level caches.
fn ring_bytes(job: &Job) -> usize {
    if job.crowded() { 256 << 10 } else { 1 << 20 }
}

/// The subject.
pub(crate) struct Rtrb;

/// One end of a pair of rings.
struct End {
    tx: Producer<u8>,
    rx: Consumer<u8>,
}

fn pair(bytes: usize) -> (End, End) {
    let (up, down) = (RingBuffer::new(bytes), RingBuffer::new(bytes));
    (
        End {
            tx: up.0,
            rx: down.1,
        },
        End {
            tx: down.0,
            rx: up.1,
        },
    )
}

impl Subject for Rtrb {
    fn id(&self) -> &'static str {
        "rtrb"
    }
    fn title(&self) -> &'static str {
        "rtrb 0.4.1 †"
    }
    fn how(&self) -> &'static str {
        "† server and clients are threads of **one process**. A pair of byte rings per client, of 1 MiB (of 256 KiB for 16 clients: the best of what was tried), `push_entire_slice` and \
         `pop_entire_slice`; busy waiting for one client, `yield_now` when nothing is there for 16."
    }
    fn does(&self, shape: Shape, clients: usize) -> bool {
        matches!(shape, Shape::Threads | Shape::Pipelined)
            || (shape == Shape::Processes && clients == 1)
    }
    fn one_process(&self) -> bool {
        true
    }

    fn serve(&self, _: &Job, _: &Stop) -> io::Result<()> {
        Err(other("rtrb has no server of its own"))
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        let (theirs, ours): (Vec<_>, Vec<_>) = (0..job.here).map(|_| pair(ring_bytes(job))).unzip();
        let ends: Mutex<Vec<Option<End>>> = Mutex::new(theirs.into_iter().map(Some).collect());
        let stop = Stop::new(false);
        let patience = Patience::of(job);
        std::thread::scope(|scope| {
            let server = scope.spawn(|| serve(ours, job, &stop));
            let reports = drive::run(job, gate, |number| {
                let end = ends.lock().map_err(other)?[number].take();
                Ok(Connection {
                    end: end.ok_or_else(|| other("taken"))?,
                    buffer: vec![0; job.size].into(),
                    patience,
                })
            });
            stop.set();
            server.join().map_err(other)??;
            reports
        })
    }
}

fn serve(mut ends: Vec<End>, job: &Job, stop: &Stop) -> io::Result<()> {
    if let Some((server, _)) = job.pin {
        system::pin(server)?;
    }
    let patience = Patience::of(job);
    let mut buffer = vec![0; job.size];
    while !stop.is_set() {
        let mut busy = false;
        for end in &mut ends {
            // A reply always fits: fewer requests are in flight than the ring holds.
            while end.tx.slots() >= job.size && end.rx.pop_entire_slice(&mut buffer).is_ok() {
                end.tx.push_entire_slice(&buffer).map_err(other)?;
                busy = true;
            }
        }
        if !busy {
            patience.pause();
        }
    }
    Ok(())
}

struct Connection {
    end: End,
    buffer: Box<[u8]>,
    patience: Patience,
}

impl Client for Connection {
    type Reply<'a> = &'a [u8];

    #[inline]
    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<&'a [u8]> {
        self.end.tx.push_entire_slice(request).map_err(other)?;
        while self.end.rx.pop_entire_slice(&mut self.buffer).is_err() {
            self.patience.pause();
        }
        Ok(&self.buffer)
    }

    #[inline]
    fn submit(&mut self, request: &[u8]) -> io::Result<bool> {
        Ok(self.end.tx.push_entire_slice(request).is_ok())
    }

    #[inline]
    fn try_receive(&mut self) -> io::Result<Option<&[u8]>> {
        Ok(self
            .end
            .rx
            .pop_entire_slice(&mut self.buffer)
            .is_ok()
            .then_some(&*self.buffer))
    }
}
