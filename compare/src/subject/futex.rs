//! A mailbox and a futex each way: what sleeping and waking cost here, with nothing around it. A server thread per client, no spinning.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Subject;
use super::drive::{self, Client};
use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};
use crate::system::Shared;

/// Where the reply word is; the request word is at 0, the mail at [`MAIL`].
const REPLY: usize = 128;
const MAIL: usize = 256;

/// The subject.
pub(crate) struct Futex;

/// One client's mailbox. The client owns the mail while the words are equal, the server while they differ.
struct Mailbox {
    memory: Shared,
    size: usize,
}

impl Mailbox {
    fn word(&self, at: usize) -> &AtomicU32 {
        // SAFETY: inside the mapping (`Shared::at` checks), aligned, alive as long as `self`, and only used atomically.
        unsafe { AtomicU32::from_ptr(self.memory.at(at, 4).cast()) }
    }

    fn path(job: &Job, number: usize) -> PathBuf {
        job.dir.join(format!("mailbox-{number}"))
    }

    /// Sleeps until the word is no longer `value`, or for 200 ms.
    fn sleep(&self, at: usize, value: u32) {
        let limit = libc::timespec {
            tv_sec: 0,
            tv_nsec: 200_000_000,
        };
        // SAFETY: the word is live for the call, `limit` too. Not private: the other side is another process.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.word(at).as_ptr(),
                libc::FUTEX_WAIT,
                value,
                &limit,
            )
        };
    }

    /// Stores and wakes. Release, partner: the Acquire loads of the word in the other's loop: it sees the mail.
    fn ring(&self, at: usize, value: u32) {
        self.word(at).store(value, Ordering::Release);
        // SAFETY: the word is live for the call.
        unsafe { libc::syscall(libc::SYS_futex, self.word(at).as_ptr(), libc::FUTEX_WAKE, 1) };
    }

    fn serve(&self, stop: &Stop) {
        let mut buffer = vec![0; self.size];
        let mut done = 0;
        while !stop.is_set() {
            let number = self.word(0).load(Ordering::Acquire);
            if number == done {
                self.sleep(0, number);
                continue;
            }
            let mail = self.memory.at(MAIL, self.size);
            // SAFETY: the words differ, so the mail is ours; the bounds were checked.
            unsafe { std::ptr::copy_nonoverlapping(mail, buffer.as_mut_ptr(), self.size) };
            // SAFETY: as above, the other way round.
            unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), mail, self.size) };
            done = number;
            self.ring(REPLY, done);
        }
    }
}

impl Subject for Futex {
    fn id(&self) -> &'static str {
        "futex"
    }
    fn title(&self) -> &'static str {
        "bare futex mailbox"
    }
    fn how(&self) -> &'static str {
        "no transport at all: one buffer and two futex words per client, a server thread per client, both sides sleep at once. What a round trip \
         costs that only sleeps and wakes."
    }
    fn does(&self, shape: Shape, _: usize) -> bool {
        shape != Shape::Pipelined
    }

    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()> {
        let boxes = (0..job.clients)
            .map(|number| {
                let memory = Shared::create(&Mailbox::path(job, number), MAIL + job.size)?;
                Ok(Mailbox {
                    memory,
                    size: job.size,
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            for mailbox in &boxes {
                scope.spawn(|| mailbox.serve(stop));
            }
            stop.ready();
        });
        Ok(())
    }

    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>> {
        drive::run(job, gate, |number| {
            let memory = Shared::open(&Mailbox::path(job, number), MAIL + job.size)?;
            Ok(Connection {
                mailbox: Mailbox {
                    memory,
                    size: job.size,
                },
                number: 0,
                reply: vec![0; job.size],
            })
        })
    }
}

struct Connection {
    mailbox: Mailbox,
    number: u32,
    reply: Vec<u8>,
}

impl Client for Connection {
    type Reply<'a> = &'a [u8];

    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<&'a [u8]> {
        let size = self.reply.len();
        let mail = self.mailbox.memory.at(MAIL, size);
        // SAFETY: the words are equal, so the mail is ours; the bounds were checked.
        unsafe { std::ptr::copy_nonoverlapping(request.as_ptr(), mail, size.min(request.len())) };
        let before = self.number;
        self.number = before.wrapping_add(1);
        self.mailbox.ring(0, self.number);
        while self.mailbox.word(REPLY).load(Ordering::Acquire) != self.number {
            self.mailbox.sleep(REPLY, before);
        }
        // SAFETY: the words are equal again.
        unsafe { std::ptr::copy_nonoverlapping(mail, self.reply.as_mut_ptr(), size) };
        Ok(&self.reply)
    }

    fn submit(&mut self, _: &[u8]) -> io::Result<bool> {
        Err(io::Error::other("not pipelined"))
    }

    fn try_receive(&mut self) -> io::Result<Option<&[u8]>> {
        Err(io::Error::other("not pipelined"))
    }
}
