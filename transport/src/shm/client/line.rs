//! The connection's socket once requests travel through memory: it tells that the server lives, and carries its doorbell for
//! clients that wait for descriptors.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::super::link::{alive, is_farewell};
use crate::error::Lost;
use crate::mem::fork;

/// No process is so many forks away from the first one.
const OVER: u64 = u64::MAX;

/// Reads that one look takes at most: a server that has not rung for long, and then rings for all of it, must not keep us from everything else.
const MAX_READS: usize = 64;

pub(super) struct Line {
    socket: UnixStream,
    /// The fork generation in which requests may be sent: the owner's, and none any more once the end was met. One word, since it is looked at for
    /// every request.
    open_in: u64,
    /// Bells that may ring yet: those asked for, without what was taken back before the server saw it. Each is one zero, so more than these are nonsense;
    /// and where none is due, none needs to be looked for.
    due: u64,
    /// The end that was met was a farewell.
    farewell: bool,
}

impl Line {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            open_in: fork::generation(),
            due: 0,
            farewell: false,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A bell is about to be asked for.
    pub(super) fn expect_bell(&mut self) {
        self.due += 1;
    }

    /// It was taken back, and will not ring.
    pub(super) fn withdrawn(&mut self) {
        self.due -= 1;
    }

    /// Whether a bell may ring yet, or has rung and was not heard.
    #[inline]
    pub(super) fn expects_bell(&self) -> bool {
        self.due > 0
    }

    /// Whether requests may be sent: this is no fork's copy, and no end was met.
    #[inline(always)]
    pub(super) fn is_open(&self) -> bool {
        self.open_in == fork::generation()
    }

    /// True once the end was met, or [`Self::close`]d.
    #[inline(always)]
    pub(super) fn has_ended(&self) -> bool {
        self.open_in == OVER
    }

    /// How it ended, once it has.
    #[cold]
    pub(super) fn end(&self) -> Lost {
        if self.farewell {
            Lost::Closed
        } else {
            Lost::PeerGone
        }
    }

    /// Whether the server still holds its end. A system call, or two.
    ///
    /// The end is noted: a caller that finds a last reply in the ring drops what is said here, and the next one need not wait to find it again. Behind
    /// a doorbell it is read as that is, and that one would find a socket from which the farewell is gone.
    pub(super) fn alive(&mut self) -> Result<(), Lost> {
        if self.expects_bell() {
            self.drain();
        }
        if self.has_ended() {
            return Err(self.end());
        }
        if self.expects_bell() {
            // It may have rung by now, and a look would take that for the end.
            return Ok(());
        }
        let found = alive(&self.socket);
        if let Err(Lost::Closed | Lost::PeerGone) = &found {
            self.note(matches!(found, Err(Lost::Closed)));
        }
        found
    }

    fn note(&mut self, farewell: bool) {
        self.open_in = OVER;
        self.farewell |= farewell;
    }

    /// Takes bells off the socket: one read, and as many more as bells are due after it. Anything else is a farewell, which comes right before the end, or
    /// nonsense, which is an end as well.
    pub(super) fn drain(&mut self) {
        let mut bytes = [0u8; 64];
        for _ in 0..MAX_READS {
            let n = match recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Ok(n) => n,
                // An error of the socket is its end; the next call reports that.
                Err(_) => 0,
            };
            let bells = bytes[..n].iter().take_while(|byte| **byte == 0).count();
            if n == 0 || bells < n || bells as u64 > self.due {
                self.note(is_farewell(&bytes[bells..n]));
                return;
            }
            self.due -= bells as u64;
            if self.due == 0 {
                return;
            }
        }
    }

    /// Ends the connection. Errors don't matter, the end is the message.
    pub(super) fn close(&mut self) {
        self.open_in = OVER;
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}
