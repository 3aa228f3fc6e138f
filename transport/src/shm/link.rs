//! The two rings of one connection, from either end, and the socket that tells whether the other end lives.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use crate::error::Lost;
use crate::mem::mapping::Mapping;
use crate::ring::consumer::Consumer;
use crate::ring::plan::Plan;
use crate::ring::producer::Producer;
use crate::ring::storage::{Bell, Direction, Flag, Mapped, Storage, Word};
use crate::wait::futex;
use crate::wire::frame::{Kind, MAGIC};

/// One end of a connection.
pub(crate) struct Rings {
    pub(crate) tx: Producer<Mapped>,
    pub(crate) rx: Consumer<Mapped>,
}

impl Rings {
    /// The client's end of a fresh mapping. To be called once per mapping: a ring has one producer and one consumer.
    pub(crate) fn client(mapping: &Arc<Mapping>, capacity: usize, max_message: usize) -> Self {
        Self::end(
            mapping,
            capacity,
            max_message,
            Direction::Request,
            Direction::Reply,
        )
    }

    /// The server's end of a fresh mapping. To be called once per mapping.
    pub(crate) fn server(mapping: &Arc<Mapping>, capacity: usize, max_message: usize) -> Self {
        Self::end(
            mapping,
            capacity,
            max_message,
            Direction::Reply,
            Direction::Request,
        )
    }

    fn end(
        mapping: &Arc<Mapping>,
        capacity: usize,
        max_message: usize,
        out: Direction,
        back: Direction,
    ) -> Self {
        let plan = Plan::new(capacity, max_message);
        Self {
            tx: Producer::new(Mapped::new(mapping, out, capacity), plan),
            rx: Consumer::new(Mapped::new(mapping, back, capacity), plan),
        }
    }
}

/// What a server's housekeeping sees of a connection: both rings' published numbers, and the window advice.
/// Of what it reads, half is the client's claim: bounded, used for statistics only.
pub(crate) struct HouseView {
    request: Mapped,
    reply: Mapped,
    capacity: u64,
}

/// One look at both rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HouseLook {
    /// Request bytes produced and not consumed; `None` if the numbers make no sense.
    pub(crate) request_occupancy: Option<u64>,
    /// Reply bytes produced and not consumed.
    pub(crate) reply_occupancy: Option<u64>,
    /// Request bytes consumed (ours).
    pub(crate) request_consumed: u64,
    /// Reply bytes consumed (the client's claim).
    pub(crate) reply_consumed: u64,
    /// Whether the client sleeps for a reply.
    pub(crate) peer_asleep: bool,
    /// The CPU on which the client waits, if it gives it away meanwhile (the client's claim).
    pub(crate) peer_cpu: Option<usize>,
}

impl HouseLook {
    /// Whether the client sleeps for a reply, and one is there.
    pub(crate) fn sleeps_beside_a_reply(&self) -> bool {
        self.peer_asleep && self.reply_occupancy.is_some_and(|bytes| bytes > 0)
    }
}

impl HouseView {
    pub(crate) fn new(mapping: &Arc<Mapping>, capacity: usize) -> Self {
        Self {
            request: Mapped::new(mapping, Direction::Request, capacity),
            reply: Mapped::new(mapping, Direction::Reply, capacity),
            capacity: capacity as u64,
        }
    }

    /// Whether requests wait that the server has not taken. Numbers that make no sense are no request.
    pub(crate) fn holds_requests(&self) -> bool {
        self.request.holds_records(self.capacity)
    }

    /// Looks once, for statistics. Relaxed loads: the words move while being read, so a difference may be off by a message or two; nothing is decided
    /// by it.
    pub(crate) fn look(&self) -> HouseLook {
        let occupancy = |ring: &Mapped, consumed: u64| {
            let used = ring.load(Word::Produced).wrapping_sub(consumed);
            // `produced` is stored after the commit word, so a fast consumer may be ahead of it by a record.
            let behind = used.wrapping_neg();
            if used <= self.capacity {
                Some(used)
            } else if behind <= self.capacity {
                Some(0)
            } else {
                None
            }
        };
        // Consumed first: where loads stay in order (x86-64), what is consumed between the two makes the occupancy too large. Elsewhere it may be too
        // small, or less than nothing, which counts as nothing. Acquire would have no partner: both words are stored Relaxed.
        let request_consumed = self.request.load(Word::Consumed);
        let reply_consumed = self.reply.load(Word::Consumed);
        HouseLook {
            request_occupancy: occupancy(&self.request, request_consumed),
            reply_occupancy: occupancy(&self.reply, reply_consumed),
            request_consumed,
            reply_consumed,
            peer_asleep: self.reply.flag(Flag::Empty) != 0,
            peer_cpu: usize::try_from(self.request.load(Word::Cpu))
                .ok()
                .and_then(|cpu| cpu.checked_sub(1)),
        }
    }

    /// Wakes a client that sleeps while a reply is there. A turn rings once, at its end, and a request in the middle of it may keep its
    /// handler for as long as it likes: who is told over its socket, and has no timer of its own, would not see the earlier replies before.
    pub(crate) fn wake(&self, socket: &UnixStream) {
        if let Some(bell) = self.reply.take_bell(Flag::Empty) {
            ring(bell, self.reply.futex(Flag::Empty), socket);
        }
    }

    /// Advises both producers where to start over while their ring is nearly empty.
    pub(crate) fn advise_window(&self, bytes: u64) {
        for ring in [&self.request, &self.reply] {
            if ring.load(Word::Window) != bytes {
                ring.store(Word::Window, bytes);
            }
        }
    }
}

/// Whether the peer still holds its end of the socket. Costs a system call; called some ten times a second while waiting.
///
/// To a client that sleeps on futexes, nothing but the end (or a farewell, which comes right before it) travels over the socket in
/// shared-memory mode. One that asked to be woken over the socket must not ask here.
pub(crate) fn alive(socket: &UnixStream) -> Result<(), Lost> {
    let mut bytes = [0u8; 8];
    match recv(
        socket.as_fd().as_raw_fd(),
        &mut bytes,
        MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
    ) {
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Ok(()),
        Ok(n) if is_farewell(&bytes[..n]) => Err(Lost::Closed),
        Ok(_) | Err(nix::errno::Errno::ECONNRESET) => Err(Lost::PeerGone),
        Err(errno) => Err(Lost::Io(io::Error::from(errno))),
    }
}

/// Whether what stands on the socket begins a BYE. Only as much as there is was read: one that is cut short is one, too, since nothing else may come.
pub(crate) fn is_farewell(bytes: &[u8]) -> bool {
    let mut bye = [0; 8];
    bye[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bye[4..].copy_from_slice(&(Kind::Bye as u32).to_le_bytes());
    let n = bytes.len().min(bye.len());
    n > 0 && bytes[..n] == bye[..n]
}

/// As [`is_farewell`] where replies may come instead, which begin as a BYE does: too little to tell them apart is none.
pub(crate) fn is_whole_farewell(bytes: &[u8]) -> bool {
    bytes.len() >= 8 && is_farewell(bytes)
}

/// Whether what waits to be read begins with a whole BYE.
pub(crate) fn says_farewell(socket: &UnixStream) -> bool {
    let mut bytes = [0u8; 8];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(socket.as_raw_fd(), &mut bytes, flags).is_ok_and(|n| is_whole_farewell(&bytes[..n]))
}

/// Wakes a sleeping peer, the way it asked for.
#[inline]
pub(crate) fn ring(bell: Bell, word: &AtomicU32, socket: &UnixStream) {
    match bell {
        Bell::Futex => futex::wake(word),
        Bell::Socket => {
            // EAGAIN: so many bytes wait unread that it is readable already. Anything else: it is gone, which the socket's
            // owner notices. Never blocks, whatever the peer does with its end.
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            let _ = send(socket.as_raw_fd(), &[0], flags);
        }
    }
}

/// Whether bytes wait to be read (and not just the end).
pub(crate) fn has_input(socket: &UnixStream) -> bool {
    let mut byte = [0u8; 1];
    recv(
        socket.as_fd().as_raw_fd(),
        &mut byte,
        MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
    ) == Ok(1)
}

/// Whether a look at the socket would find anything: bytes, the end or an error. For where the kernel will not say so for several at once.
pub(crate) fn is_readable(socket: BorrowedFd<'_>) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    recv(socket.as_raw_fd(), &mut [0u8; 1], flags) != Err(Errno::EAGAIN)
}
