//! What can go wrong: [`BindError`] of a server, [`ConnectError`] and [`RequestError`] of a client. Each variant calls for a different reaction,
//! and carries the numbers to decide by.

mod reason;
mod step;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use reason::{BindStep, Refusal};
pub use step::{Fallback, Step, errno_name};

use crate::calls::RequestId;

/// Longest error text that goes to a client, in bytes.
pub(crate) const MAX_ERROR_BYTES: usize = 1024;

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
    /// The path is empty, or has a zero byte in it. Sockets have a place in the file system here: abstract names are not supported.
    #[error("{path:?} is no path of a socket")]
    #[non_exhaustive]
    NoPath {
        /// The path.
        path: PathBuf,
    },
    /// The path does not fit into a socket address (107 bytes on Linux).
    #[error("socket path is too long: {length} bytes, at most {limit}: {path}")]
    #[non_exhaustive]
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
    #[non_exhaustive]
    NoServer {
        /// The path.
        path: PathBuf,
        /// ENOENT or ECONNREFUSED.
        source: io::Error,
    },
    /// The way there is closed to this user: the socket, or a directory before it. Whether a server listens can't be seen.
    #[error("not allowed to connect to {path}: {source}")]
    #[non_exhaustive]
    Denied {
        /// The path.
        path: PathBuf,
        /// EACCES or EPERM.
        source: io::Error,
    },
    /// The server is there but did not answer in time (stopped, or its accept queue is full: EAGAIN).
    #[error("server at {path} did not answer within {timeout:?} (step {step}, {source})", step = .step.name())]
    #[non_exhaustive]
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
    #[non_exhaustive]
    Refused {
        /// Its reason.
        reason: Refusal,
    },
    /// Shared memory was demanded (`TransportChoice::Shm`) and can't be had.
    #[error("shared memory can't be had: {0}")]
    NoSharedMemory(Fallback),
    /// Another system call failed.
    #[error("{step}: {source}", step = .step.name())]
    #[non_exhaustive]
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
    #[non_exhaustive]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// More was written into a [`crate::Draft`] than it has room for. Nothing of the last piece was.
    #[error("draft of {size} bytes is above the {room} that were reserved for it")]
    #[non_exhaustive]
    DraftFull {
        /// What it would have been, in bytes.
        size: usize,
        /// What was reserved, in bytes.
        room: usize,
    },
    /// No room for the request within the timeout, or [`MAX_IN_FLIGHT`](crate::MAX_IN_FLIGHT) requests are in flight already, or the server ends, or has
    /// ended, and replies are left from before. Nothing was sent: receive replies first, or try again later if there are none to receive.
    #[error("no room for the request: {in_flight} in flight")]
    #[non_exhaustive]
    Full {
        /// Requests in flight. If 0, the room is taken by requests that were given up and that the server has not read yet.
        in_flight: usize,
    },
    /// No reply in time. Should it still come, it is discarded and counted.
    #[error("no reply within {timeout:?}")]
    #[non_exhaustive]
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

impl RequestError {
    /// That `timeout` has passed, for those who wait with a clock of their own, such as [`Group::wait`](crate::Group::wait)'s.
    pub fn timed_out(timeout: Duration) -> Self {
        Self::Timeout { timeout }
    }
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
    /// The server ended the connection on purpose, and said so, or takes nothing more and lives: it was told to end. Requests that it had not begun to handle were not carried out;
    /// which those are, of the ones that have no reply, it does not say.
    #[error("server was shut down")]
    Closed,
    /// The peer closed its socket without a word, or died.
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
            Self::Closed => Self::Closed,
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
    /// The path is empty, or has a zero byte in it. Sockets have a place in the file system here: abstract names are not supported.
    #[error("{path:?} is no path of a socket")]
    #[non_exhaustive]
    NoPath {
        /// The path.
        path: PathBuf,
    },
    /// The path does not fit into a socket address.
    #[error("socket path is too long: {length} bytes, at most {limit}: {path}")]
    #[non_exhaustive]
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
    #[non_exhaustive]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Something that is no socket is at the path. It is left alone.
    #[error("{path} exists and is not a socket")]
    #[non_exhaustive]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{step} {path}: {source}")]
    #[non_exhaustive]
    Io {
        /// What was being done.
        step: BindStep,
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
