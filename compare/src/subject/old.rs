//! The design that this transport replaces: one shared ring for the requests of all clients, one for all replies.
//!
//! Every client contends for the write pointer of the one and the read pointer of the other; a reply at the head holds up all
//! behind it until its addressee has come for it. Its waiting was spinning; here it waits as the polling peers do, because that is what it does
//! best with: with 16 clients on two CPUs, yielding at once serves 1.3 times as many requests as yielding after 100 spins, and three times as many
//! as after 1,000.

use std::io;

use super::drive::{self, Client};
use super::old_ring::Ring;
use super::{Patience, Subject};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// The subject.
pub(crate) struct Old;

impl Subject for Old {
    fn id(&self) -> &'static str {
        "old-design"
    }
    fn title(&self) -> &'static str {
        "the old design, one shared ring"
    }
    fn how(&self) -> &'static str {
        "one shared 32 MiB ring for all requests and one for all replies, write and read pointers contended by everybody, a single server \
         thread. Kinder than the design as it was described: it looks at the pointers per record, not per byte; a record's header says whose it is; and it \
         waits as the polling peers do, busy for one client and `yield_now` for 16, where it was said to spin."
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
        let mut buffer = vec![0; job.size];
        let wait = Patience::of(job);
        while !stop.is_set() {
            let (client, length) = loop {
                match requests.pop(None, &mut buffer, || wait.pause()) {
                    Some(taken) => break taken,
                    None if stop.is_set() => return Ok(()),
                    None => wait.pause(),
                }
            };
            replies.push(client, &buffer[..length], || wait.pause());
        }
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |number| {
            Ok(Connection {
                requests: Ring::open(&job.dir.join("up"))?,
                replies: Ring::open(&job.dir.join("down"))?,
                number: number as u32,
                patience: Patience::of(job),
                reply: vec![0; job.size],
            })
        })
    }
}

struct Connection {
    requests: Ring,
    replies: Ring,
    number: u32,
    patience: Patience,
    reply: Vec<u8>,
}

impl Client for Connection {
    type Reply<'a> = &'a [u8];

    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<&'a [u8]> {
        let wait = self.patience;
        self.requests.push(self.number, request, || wait.pause());
        loop {
            match self
                .replies
                .pop(Some(self.number), &mut self.reply, || wait.pause())
            {
                Some((_, length)) => return Ok(&self.reply[..length]),
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
