//! The connection's socket once requests travel through memory: it tells that the server lives, and carries its doorbell for
//! clients that wait for descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::super::link::{alive, is_farewell};
use crate::error::Lost;
use crate::mem::fork;

/// No process is so many forks away from the first one.
const OVER: u64 = u64::MAX;

/// Reads that one look takes at most: a server that sends without end must not keep us from everything else.
const MAX_READS: usize = 64;

pub(super) struct Line {
    socket: UnixStream,
    /// A byte was asked for at some time, so bytes that stand there need not be the end.
    rung: bool,
    /// The fork generation in which requests may be sent: the owner's, and none any more once the end was met. One word, since it is looked at for
    /// every request.
    open_in: u64,
    /// The end that was met was a farewell.
    farewell: bool,
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
            open_in: fork::generation(),
            farewell: false,
        }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// From here on bytes of zero are doorbells.
    pub(super) fn expect_bells(&mut self) {
        self.rung = true;
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

    /// Whether the server still holds its end. A system call.
    ///
    /// The end is noted: a caller that finds a last reply in the ring drops what is said here, and the next one need not wait to find it again. Among
    /// doorbells it is read as they are, and that one would find a socket from which the farewell is gone.
    pub(super) fn alive(&mut self) -> Result<(), Lost> {
        if self.has_ended() {
            return Err(self.end());
        }
        let found = if self.rung {
            read_bells(&self.socket)?
        } else {
            match alive(&self.socket) {
                Ok(()) => Bells::None,
                Err(Lost::Closed) => Bells::Farewell,
                Err(Lost::PeerGone) => Bells::Ended,
                Err(other) => return Err(other),
            }
        };
        match found {
            Bells::None | Bells::More => Ok(()),
            end => {
                self.note(end);
                Err(self.end())
            }
        }
    }

    fn note(&mut self, end: Bells) {
        self.open_in = OVER;
        self.farewell |= end == Bells::Farewell;
    }

    /// Takes doorbell bytes off the socket.
    pub(super) fn drain(&mut self) -> Drained {
        // An error of the socket is its end; the next call reports that.
        match read_bells(&self.socket).unwrap_or(Bells::Ended) {
            Bells::None => Drained::Empty,
            Bells::More => Drained::More,
            end => {
                self.note(end);
                Drained::Ended
            }
        }
    }

    /// Ends the connection. Errors don't matter, the end is the message.
    pub(super) fn close(&mut self) {
        self.open_in = OVER;
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

/// What was read off the socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bells {
    /// Nothing is left.
    None,
    /// There may be more.
    More,
    Ended,
    Farewell,
}

/// Reads zeros. Anything else is a farewell, which comes right before the end, or nonsense, which is an end as well.
fn read_bells(socket: &UnixStream) -> Result<Bells, Lost> {
    let mut bytes = [0u8; 64];
    for _ in 0..MAX_READS {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Ok(0) | Err(Errno::ECONNRESET) => return Ok(Bells::Ended),
            Ok(n) => match bytes[..n].iter().position(|b| *b != 0) {
                None => {}
                Some(at) if is_farewell(&bytes[at..n]) => return Ok(Bells::Farewell),
                Some(_) => return Ok(Bells::Ended),
            },
            Err(Errno::EAGAIN) => return Ok(Bells::None),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(Lost::Io(io::Error::from(errno))),
        }
    }
    Ok(Bells::More)
}
