//! The connection's socket once requests travel through memory: it tells that the server lives, and carries its doorbell for
//! clients that wait for descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::super::link::alive;
use crate::error::Lost;

/// Reads that one look takes at most: a server that sends without end must not keep us from everything else.
const MAX_READS: usize = 64;

pub(super) struct Line {
    socket: UnixStream,
    /// A byte was asked for at some time, so bytes that stand there need not be the end.
    rung: bool,
    /// The end was met while draining; the next call that finds no reply reports it.
    ended: bool,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left: the next byte makes the descriptor readable anew.
    Empty,
    /// There may be more.
    More,
    /// The server is gone.
    Ended,
}

impl Line {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            rung: false,
            ended: false,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// From here on bytes of zero are doorbells.
    pub(super) fn expect_bells(&mut self) {
        self.rung = true;
    }

    /// True once [`Self::drain`] has met the end.
    #[inline(always)]
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the server still holds its end. A system call.
    pub(super) fn alive(&self) -> Result<(), Lost> {
        if self.ended {
            return Err(Lost::PeerGone);
        }
        if !self.rung {
            return alive(&self.socket);
        }
        match read_bells(&self.socket)? {
            Drained::Ended => Err(Lost::PeerGone),
            Drained::Empty | Drained::More => Ok(()),
        }
    }

    /// Takes doorbell bytes off the socket.
    pub(super) fn drain(&mut self) -> Drained {
        // An error of the socket is its end; the next call reports that.
        let drained = read_bells(&self.socket).unwrap_or(Drained::Ended);
        self.ended |= drained == Drained::Ended;
        drained
    }

    /// Ends the connection. Errors don't matter, the end is the message.
    pub(super) fn close(&self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// Reads zeros. Anything else is a farewell, which comes right before the end.
fn read_bells(socket: &UnixStream) -> Result<Drained, Lost> {
    let mut bytes = [0u8; 64];
    for _ in 0..MAX_READS {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(n) if n > 0 && bytes[..n].iter().all(|b| *b == 0) => {}
            Ok(_) | Err(Errno::ECONNRESET) => return Ok(Drained::Ended),
            Err(Errno::EAGAIN) => return Ok(Drained::Empty),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Lost::Io(io::Error::from(errno))),
        }
    }
    Ok(Drained::More)
}
