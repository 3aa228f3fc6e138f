//! The design that this transport replaces: one shared ring for the requests of all clients, one for all replies.
//!
//! Every client contends for the write pointer of the one and the read pointer of the other; a reply at the head holds up all
//! behind it until its addressee has come for it. It was described as spinning, which with more threads than CPUs serves next to nobody. So there are
//! two: one that spins a little before it gives its core up, and one that, with 16 clients, gives it up at once, which is what it does best with.

use std::io;

use super::drive::{self, Client};
use super::old_ring::Ring;
use super::{Patience, Subject};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// Pauses before the first yield of the one that spins: as many as the first step of the waiting that replaced it.
const SPINS: u32 = 100;

/// How it waits.
#[derive(Clone, Copy)]
enum Waiting {
    /// Spins, then yields.
    Spinning,
    /// As the polling peers do.
    Yielding,
}

/// A way to use it.
pub(crate) struct Old(Waiting);

/// As it was described, as far as that works.
pub(crate) const SPINNING: Old = Old(Waiting::Spinning);
/// At its best.
pub(crate) const YIELDING: Old = Old(Waiting::Yielding);

/// What waits; `pause` is called for as long as there is nothing.
#[derive(Clone, Copy)]
struct Wait {
    waiting: Waiting,
    patience: Patience,
}

impl Wait {
    /// A wait begins: the pauses of one count together.
    fn begin(self) -> impl FnMut() {
        let mut spins = 0;
        move || match self.waiting {
            Waiting::Yielding => self.patience.pause(),
            Waiting::Spinning if spins < SPINS => {
                spins += 1;
                std::hint::spin_loop();
            }
            Waiting::Spinning => std::thread::yield_now(),
        }
    }
}

impl Old {
    fn wait(&self, job: &Job) -> Wait {
        Wait {
            waiting: self.0,
            patience: Patience::of(job),
        }
    }
}

impl Subject for Old {
    fn id(&self) -> &'static str {
        match self.0 {
            Waiting::Spinning => "old-design",
            Waiting::Yielding => "old-design-yield",
        }
    }
    fn title(&self) -> &'static str {
        match self.0 {
            Waiting::Spinning => "the old design, one shared ring",
            Waiting::Yielding => "the old design, yielding at once",
        }
    }
    fn how(&self) -> &'static str {
        match self.0 {
            Waiting::Spinning => {
                "one shared 32 MiB ring for all requests and one for all replies, write and read pointers contended by everybody, a single server \
                 thread, 100 spins and then yields. Kinder than the design as it was described: that spins without yielding, and looks at the pointers per byte, \
                 not per record."
            }
            Waiting::Yielding => {
                "the same, but it waits as the polling peers do, which with 16 clients is `yield_now` at once: what it does best with."
            }
        }
    }
    fn does(&self, shape: Shape, clients: usize) -> bool {
        // With one client neither has anybody to yield to.
        let differs = matches!(self.0, Waiting::Spinning) || clients > 1;
        shape != Shape::Pipelined && differs
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let (requests, replies) = (
            Ring::create(&job.dir.join("up"))?,
            Ring::create(&job.dir.join("down"))?,
        );
        stop.ready();
        let mut buffer = vec![0; job.size];
        let wait = self.wait(job);
        while !stop.is_set() {
            let mut pause = wait.begin();
            let (client, length) = loop {
                match requests.pop(None, &mut buffer, &mut pause) {
                    Some(taken) => break taken,
                    None if stop.is_set() => return Ok(()),
                    None => pause(),
                }
            };
            replies.push(client, &buffer[..length], wait.begin());
        }
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |number| {
            Ok(Connection {
                requests: Ring::open(&job.dir.join("up"))?,
                replies: Ring::open(&job.dir.join("down"))?,
                number: number as u32,
                wait: self.wait(job),
                reply: vec![0; job.size],
            })
        })
    }
}

struct Connection {
    requests: Ring,
    replies: Ring,
    number: u32,
    wait: Wait,
    reply: Vec<u8>,
}

impl Client for Connection {
    type Reply<'a> = &'a [u8];

    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<&'a [u8]> {
        self.requests.push(self.number, request, self.wait.begin());
        let mut pause = self.wait.begin();
        loop {
            match self
                .replies
                .pop(Some(self.number), &mut self.reply, &mut pause)
            {
                Some((_, length)) => return Ok(&self.reply[..length]),
                None => pause(),
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
