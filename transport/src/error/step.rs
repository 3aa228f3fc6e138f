//! Why a connection is not on shared memory: the step at which that failed, and the numbers to it.

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
