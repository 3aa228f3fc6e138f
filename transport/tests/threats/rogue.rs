//! A peer made of bytes: it speaks `docs/protocol.md` from outside the crate, and so proves the document too. What it says well is
//! here; how it misbehaves is in the tests that use it.

mod client;
mod memory;
mod rings;
pub(crate) mod server;

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::role::WATCHDOG;

pub(crate) use client::Client;
pub(crate) use memory::*;
pub(crate) use rings::*;

pub(crate) const HELLO: u32 = 1;
pub(crate) const WELCOME: u32 = 2;
pub(crate) const REFUSED: u32 = 3;
pub(crate) const UPGRADE: u32 = 4;
pub(crate) const OFFER: u32 = 5;
pub(crate) const NO_OFFER: u32 = 6;
pub(crate) const COMMIT: u32 = 7;
pub(crate) const DECLINE: u32 = 8;
pub(crate) const READY: u32 = 9;
pub(crate) const BYE: u32 = 10;
pub(crate) const REQUEST: u32 = 16;
pub(crate) const REPLY: u32 = 17;
/// Version 1.0, as it stands in `aux`.
pub(crate) const VERSION: u32 = 1 << 16;
/// Bytes of a handshake message.
pub(crate) const MESSAGE: usize = 256;

/// A frame's header.
pub(crate) fn header(kind: u32, id: u64, length: u32, aux: u32) -> Vec<u8> {
    let mut bytes = b"SHM1".to_vec();
    bytes.extend_from_slice(&kind.to_le_bytes());
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&aux.to_le_bytes());
    bytes
}

/// A handshake message with u64 fields at these offsets (a u32 field is its low half).
pub(crate) fn message(kind: u32, attempt: u64, fields: &[(usize, u64)]) -> Vec<u8> {
    let mut bytes = header(kind, attempt, 232, VERSION);
    bytes.resize(MESSAGE, 0);
    for &(at, value) in fields {
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// A HELLO that any server takes. Offset 24 holds pid and wait policy, 56 the transport wanted.
pub(crate) fn hello(ring_bytes: u64, max_message: u64) -> Vec<u8> {
    message(
        HELLO,
        0,
        &[
            (24, 1 << 32 | 7),
            (40, ring_bytes),
            (48, max_message),
            (56, 1),
        ],
    )
}

/// One end of a socket.
pub(crate) struct Raw(pub(crate) UnixStream);

/// A handshake message that came.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) bytes: [u8; MESSAGE],
    pub(crate) fds: Vec<OwnedFd>,
}

impl Heard {
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub(crate) fn kind(&self) -> u32 {
        self.u32(4)
    }
}

impl Raw {
    pub(crate) fn connect(path: &Path) -> Self {
        Self::over(UnixStream::connect(path).expect("a server"))
    }

    pub(crate) fn over(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        socket.set_write_timeout(Some(WATCHDOG)).unwrap();
        Self(socket)
    }

    /// Sends bytes; the peer may have closed, which tests see when they listen.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).is_ok()
    }

    /// Sends bytes with descriptors.
    pub(crate) fn say_with(&mut self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[][..] } else { &rights[..] };
        let sent = sendmsg::<()>(
            self.0.as_raw_fd(),
            &[IoSlice::new(bytes)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        );
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// The next message; `None` when the peer has closed.
    pub(crate) fn hear(&mut self) -> Option<Heard> {
        let mut heard = Heard {
            bytes: [0; MESSAGE],
            fds: Vec::new(),
        };
        let mut at = 0;
        while at < MESSAGE {
            let mut space = nix::cmsg_space!([std::os::fd::RawFd; 253]);
            let mut part = [IoSliceMut::new(&mut heard.bytes[at..])];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let got = match recvmsg::<()>(self.0.as_raw_fd(), &mut part, Some(&mut space), flags) {
                Ok(got) => got,
                Err(nix::errno::Errno::ECONNRESET) => return None,
                Err(e) => panic!("no answer: {e}"),
            };
            for control in got.cmsgs().expect("room for all") {
                if let ControlMessageOwned::ScmRights(fds) = control {
                    // SAFETY: the kernel has just installed these descriptors for us, and nobody else knows them.
                    heard
                        .fds
                        .extend(fds.iter().map(|&fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                }
            }
            if got.bytes == 0 {
                assert_eq!(at, 0, "half a message");
                return None;
            }
            at += got.bytes;
        }
        Some(heard)
    }

    /// Waits until the peer closes, whatever it says before.
    pub(crate) fn is_closed(&mut self) {
        let mut sink = [0; 4096];
        loop {
            match self.0.read(&mut sink) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return,
                Err(e) => panic!("the peer does not close: {e}"),
            }
        }
    }

    /// Whether the peer has closed, or does so in this time. What it says meanwhile is dropped.
    pub(crate) fn is_closed_within(&mut self, limit: std::time::Duration) -> bool {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let begun = std::time::Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            let timeout = PollTimeout::try_from(left).expect("short");
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => panic!("{e}"),
            }
            match self.0.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return true,
                Err(e) => panic!("{e}"),
            }
        }
    }

    /// The next message, which must be of this kind.
    pub(crate) fn expect(&mut self, kind: u32) -> Heard {
        let heard = self.hear().expect("an answer");
        assert_eq!(heard.kind(), kind, "{heard:?}");
        heard
    }
}
