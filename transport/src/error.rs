//! What can go wrong: [`BindError`] of a server, [`ConnectError`] and [`RequestError`] of a client. Each variant calls for a different reaction,
//! and carries the numbers to decide by.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::calls::RequestId;

/// Longest error text that goes to a client, in bytes.
pub(crate) const MAX_ERROR_BYTES: usize = 1024;

/// The step of an upgrade (or of serving) at which something failed. The numbers are stable: they stand in
/// stats pages and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Step {
    /// `connect()` to the server's socket.
    Connect = 1,
    /// `memfd_create()` for the rings.
    MemfdCreate = 2,
    /// `ftruncate()` of the memfd.
    Ftruncate = 3,
    /// Adding seals.
    Seal = 4,
    /// `mmap()`.
    Mmap = 5,
    /// `sendmsg()` with the descriptor.
    SendFd = 6,
    /// `recvmsg()` with the descriptor.
    ReceiveFd = 7,
    /// The received descriptor came truncated (MSG_CTRUNC) or in the wrong number.
    FdTruncated = 8,
    /// The received descriptor is no memfd of the agreed size with the seals of a fresh ring.
    Validate = 9,
    /// Memory headroom: the rings would exceed a limit (cgroup, RLIMIT_AS, RLIMIT_FSIZE, budget).
    Headroom = 10,
    /// Reading or writing a handshake message.
    Handshake = 11,
    /// `socket()`: the client could not even make a socket.
    Socket = 12,
    /// Starting a thread.
    Thread = 13,
    /// The server is configured for the socket only.
    Disabled = 14,
    /// The offered ring memory is of a layout that the client does not know, or its two rings are of different sizes: another
    /// version of the program, no broken one.
    Layout = 15,
}

impl Step {
    /// Stable name: the system call where there is one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::MemfdCreate => "memfd_create",
            Self::Ftruncate => "ftruncate",
            Self::Seal => "seal",
            Self::Mmap => "mmap",
            Self::SendFd => "sendmsg",
            Self::ReceiveFd => "recvmsg",
            Self::FdTruncated => "fd-truncated",
            Self::Validate => "validate",
            Self::Headroom => "headroom",
            Self::Handshake => "handshake",
            Self::Socket => "socket",
            Self::Thread => "thread",
            Self::Disabled => "disabled",
            Self::Layout => "layout",
        }
    }

    /// The step with this number, if any.
    pub const fn from_number(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::Connect,
            2 => Self::MemfdCreate,
            3 => Self::Ftruncate,
            4 => Self::Seal,
            5 => Self::Mmap,
            6 => Self::SendFd,
            7 => Self::ReceiveFd,
            8 => Self::FdTruncated,
            9 => Self::Validate,
            10 => Self::Headroom,
            11 => Self::Handshake,
            12 => Self::Socket,
            13 => Self::Thread,
            14 => Self::Disabled,
            15 => Self::Layout,
            _ => return None,
        })
    }
}

/// Why a connection is not on shared memory: the step that failed, its errno and the limit in the way, as they were at that moment.
/// What is not known is 0, and never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fallback {
    /// What failed.
    pub step: Step,
    /// errno of the call; 0 if it was no system call.
    pub errno: i32,
    /// The limit (descriptors for EMFILE, bytes for memory); 0 = unknown.
    pub limit: u64,
    /// Usage against it; 0 = unknown.
    pub used: u64,
    /// True if it failed in the peer's process.
    pub at_peer: bool,
}

impl Fallback {
    /// Of which nothing but the step is known. For who writes a stats page.
    #[doc(hidden)]
    pub fn of(step: Step) -> Self {
        Self {
            step,
            errno: 0,
            limit: 0,
            used: 0,
            at_peer: false,
        }
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.step.name())?;
        if self.errno != 0 {
            write!(f, " → {}", errno_name(self.errno))?;
        }
        if self.limit != 0 {
            write!(f, ", {}/{}", self.used, self.limit)?;
        }
        if self.at_peer {
            write!(f, " (at the peer)")
        } else {
            Ok(())
        }
    }
}

/// `EMFILE` for 24 and so on; the number for what this list does not name.
pub fn errno_name(errno: i32) -> String {
    let e = nix::errno::Errno::from_raw(errno);
    if e == nix::errno::Errno::UnknownErrno {
        format!("errno {errno}")
    } else {
        format!("{e:?}")
    }
}

/// Why a connection ended. The numbers are stable: they stand in stats pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it.
    Local = 1,
    /// The peer closed its socket or died.
    PeerGone = 2,
    /// The peer wrote nonsense into the ring or onto the socket.
    Poisoned = 3,
    /// The server shut down.
    Shutdown = 4,
    /// The handshake failed.
    Handshake = 5,
}

/// A ring whose shared words make no sense any more. The connection is given up; nothing was corrupted here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Poison {
    /// A record's length is above the largest message (for an error's text, 1024 bytes) or leaves the ring.
    #[error(
        "record of {length} bytes at index {index}: larger than the ring or message limit allows"
    )]
    RecordLength {
        /// The length found.
        length: u64,
        /// Where.
        index: u64,
    },
    /// A record's kind is unknown.
    #[error("record of unknown kind {kind} at index {index}")]
    RecordKind {
        /// The kind found.
        kind: u32,
        /// Where.
        index: u64,
    },
    /// The peer's index moved backwards or beyond what exists.
    #[error("peer index {found} is impossible (ours {ours}, last {last}, capacity {capacity})")]
    Index {
        /// What the peer wrote.
        found: u64,
        /// The index it had before.
        last: u64,
        /// Our index.
        ours: u64,
        /// Capacity of the ring.
        capacity: u64,
    },
}

/// Errors of [`crate::Synapse::connect`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The path does not fit into a socket address (107 bytes on Linux).
    #[error("socket path is too long: {length} bytes, at most {limit}: {path}")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// No server: nothing listens there. Retry later or start one.
    #[error("no server at {path}: {source}")]
    NoServer {
        /// The path.
        path: PathBuf,
        /// ENOENT or ECONNREFUSED.
        source: io::Error,
    },
    /// The way there is closed to this user: the socket, or a directory before it. Whether a server listens can't be seen.
    #[error("not allowed to connect to {path}: {source}")]
    Denied {
        /// The path.
        path: PathBuf,
        /// EACCES or EPERM.
        source: io::Error,
    },
    /// The server is there but did not answer in time (stopped, or its accept queue is full: EAGAIN).
    #[error("server at {path} did not answer within {timeout:?} (step {step}, {source})", step = .step.name())]
    Unresponsive {
        /// The path.
        path: PathBuf,
        /// Where it stopped.
        step: Step,
        /// The limit that passed.
        timeout: Duration,
        /// The last error seen.
        source: io::Error,
    },
    /// The server refused us, and why.
    #[error("server refused: {reason}")]
    Refused {
        /// Its reason.
        reason: String,
        /// Whether it may change its mind: it was full, or ended just then. Not if it takes us for the wrong program or user.
        may_pass: bool,
    },
    /// Shared memory was demanded (`TransportChoice::Shm`) and can't be had.
    #[error("shared memory can't be had: {0}")]
    NoSharedMemory(Fallback),
    /// Another system call failed.
    #[error("{step}: {source}", step = .step.name())]
    Io {
        /// Which.
        step: Step,
        /// How.
        source: io::Error,
    },
}

/// Errors of requests.
///
/// After `TooLarge`, `DraftFull`, `Full`, `NothingInFlight`, `Timeout` and `Remote` the connection works as before. After `Disconnected` it is
/// lost for good; after `Forked` it is the parent's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The message is above the largest allowed. The ring was not touched.
    #[error("message of {size} bytes is above the largest allowed ({limit})")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// More was written into a [`crate::Draft`] than it has room for. Nothing of the last piece was.
    #[error("draft of {size} bytes is above the {room} that were reserved for it")]
    DraftFull {
        /// What it would have been, in bytes.
        size: usize,
        /// What was reserved, in bytes.
        room: usize,
    },
    /// No room for the request within the timeout, or [`MAX_IN_FLIGHT`](crate::MAX_IN_FLIGHT) requests are in flight already. Nothing was sent: receive
    /// replies first, or try again later if there are none to receive.
    #[error("no room for the request: {in_flight} in flight")]
    #[non_exhaustive]
    Full {
        /// Requests in flight. If 0, the room is taken by requests that were given up and that the server has not read yet.
        in_flight: usize,
    },
    /// No reply in time. Should it still come, it is discarded and counted.
    #[error("no reply within {timeout:?}")]
    Timeout {
        /// The limit that passed.
        timeout: Duration,
    },
    /// Nothing is in flight: there is nothing to receive.
    #[error("no request is in flight")]
    NothingInFlight,
    /// The server answered with an error: the handler failed or panicked, or refused the size.
    #[error("the server answered with an error: {message}")]
    #[non_exhaustive]
    Remote {
        /// The request that failed: which one, where several are in flight.
        id: RequestId,
        /// Its text, at most 1 KiB of it, sanitised.
        message: String,
    },
    /// The connection is gone. Whether the request was carried out is not known: it is never repeated for you.
    #[error("connection lost ({reason}){}", unknown(*in_flight))]
    #[non_exhaustive]
    Disconnected {
        /// What was seen.
        reason: Lost,
        /// Requests whose outcome is unknown.
        in_flight: usize,
    },
    /// This process is a fork of the one that owns the connection.
    #[error("the connection belongs to the parent process: connect again after fork")]
    Forked,
}

/// What a loss leaves open, behind its reason.
fn unknown(in_flight: usize) -> String {
    match in_flight {
        0 => String::new(),
        1 => ": outcome of 1 request unknown".into(),
        n => format!(": outcome of {n} requests unknown"),
    }
}

/// How a connection was lost.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The peer closed its socket or died.
    #[error("peer closed or died")]
    PeerGone,
    /// The peer wrote nonsense.
    #[error("{0}")]
    Poisoned(#[from] Poison),
    /// The peer broke the socket's framing.
    #[error("bad frame: {0}")]
    BadFrame(&'static str),
    /// A socket call failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Lost {
    /// The same loss, told again: to another task, or to who asks later.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::PeerGone => Self::PeerGone,
            Self::Poisoned(poison) => Self::Poisoned(*poison),
            Self::BadFrame(what) => Self::BadFrame(what),
            Self::Io(e) => Self::Io(
                e.raw_os_error()
                    .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error),
            ),
        }
    }
}

/// Errors of [`crate::Membrane::bind`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The path does not fit into a socket address.
    #[error("socket path is too long: {length} bytes, at most {limit}: {path}")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// A live server owns the path. It is left alone.
    #[error("another server is listening at {path}")]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is at the path. It is left alone.
    #[error("{path} exists and is not a socket")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{step} {path}: {source}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
}

/// A configuration that contradicts itself; the sentence names the values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) String);
