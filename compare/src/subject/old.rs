//! The design that the seed document replaces: one shared ring for the requests of all clients, one for all replies.
//!
//! Every client contends for the write pointer of the one and the read pointer of the other; a reply at the head holds up all
//! behind it until its addressee has come for it. Waiting is the document's "before": spinning, here with yields so that it works
//! at all with more threads than CPUs.

use std::io;

use super::Subject;
use super::drive::{self, Client};
use super::old_ring::{ANYBODY, Ring};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// Pauses before the first yield.
const SPINS: u32 = 100;

/// The subject.
pub(crate) struct Old;

/// Spins, then yields for as long as it takes.
#[derive(Default)]
struct Wait(u32);

impl Wait {
    #[inline]
    fn pause(&mut self) {
        self.0 += 1;
        if self.0 <= SPINS {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

impl Subject for Old {
    fn id(&self) -> &'static str {
        "old-design"
    }
    fn title(&self) -> &'static str {
        "the document's old design"
    }
    fn how(&self) -> &'static str {
        "one shared 32 MiB ring for all requests and one for all replies, write and read pointers contended by everybody, a single server \
         thread, 100 spins and then yields. Kinder than the document's description: it looks at the pointers per record, not per byte."
    }
    fn does(&self, shape: Shape, _: usize) -> bool {
        shape != Shape::Pipelined
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let (requests, replies) = (
            Ring::create(&job.dir.join("up"))?,
            Ring::create(&job.dir.join("down"))?,
        );
        stop.ready();
        let mut buffer = vec![0; job.size + 8];
        while !stop.is_set() {
            let mut wait = Wait::default();
            let length = loop {
                match requests.pop(ANYBODY, &mut buffer, || wait.pause()) {
                    Some(length) => break length,
                    None if stop.is_set() => return Ok(()),
                    None => wait.pause(),
                }
            };
            // The client's number stands in front of its payload.
            let client = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            let mut wait = Wait::default();
            replies.push(client, &buffer[8..length], || wait.pause());
        }
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |number| {
            Ok(Connection {
                requests: Ring::open(&job.dir.join("up"))?,
                replies: Ring::open(&job.dir.join("down"))?,
                number: number as u32,
                request: vec![0; job.size + 8],
                reply: vec![0; job.size],
            })
        })
    }
}

struct Connection {
    requests: Ring,
    replies: Ring,
    number: u32,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Client for Connection {
    type Reply<'a> = &'a [u8];

    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<&'a [u8]> {
        self.request[..4].copy_from_slice(&self.number.to_le_bytes());
        self.request[8..].copy_from_slice(request);
        let mut wait = Wait::default();
        self.requests.push(ANYBODY, &self.request, || wait.pause());
        let mut wait = Wait::default();
        loop {
            match self
                .replies
                .pop(self.number, &mut self.reply, std::hint::spin_loop)
            {
                Some(length) => return Ok(&self.reply[..length]),
                None => wait.pause(),
            }
        }
    }

    fn submit(&mut self, _: &[u8]) -> io::Result<bool> {
        Err(io::Error::other("not pipelined"))
    }

    fn try_receive(&mut self) -> io::Result<Option<&[u8]>> {
        Err(io::Error::other("not pipelined"))
    }
}
