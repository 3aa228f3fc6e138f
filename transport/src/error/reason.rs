//! What an error was about, to be matched: why a server said no, and what a server could not do.

use std::fmt;

/// Why a server refused a client, or ended its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// It does not take us for a client of its protocol.
    NotAClient,
    /// It speaks another major version of the protocol. Versions are major and minor.
    #[non_exhaustive]
    Version {
        /// The server's.
        theirs: (u16, u16),
        /// Ours, as the server read it.
        ours: (u16, u16),
    },
    /// It rejected our sizes, or the order of our messages.
    Sizes,
    /// This user is none of [`Config::allowed_uids`](crate::Config::allowed_uids).
    #[non_exhaustive]
    User {
        /// Who we are to the server.
        uid: u64,
    },
    /// Our handshake took longer than its [`Config::handshake_timeout`](crate::Config::handshake_timeout).
    TooSlow,
    /// It has [`Config::max_clients`](crate::Config::max_clients).
    #[non_exhaustive]
    Full {
        /// Clients it has.
        used: u64,
        /// Clients it may have.
        limit: u64,
    },
    /// It has no file descriptor left.
    #[non_exhaustive]
    Descriptors {
        /// Descriptors it has.
        used: u64,
        /// Descriptors it may have.
        limit: u64,
    },
    /// Too many connections of this user are in their handshake.
    #[non_exhaustive]
    Handshakes {
        /// How many.
        used: u64,
        /// [`Config::max_pending_per_uid`](crate::Config::max_pending_per_uid).
        limit: u64,
    },
    /// It has no memory, or no thread, left for another client.
    Resources,
    /// A reason that this version does not know.
    #[non_exhaustive]
    Unknown {
        /// Its number.
        number: u32,
    },
    /// It said what no server of this version says: the text names it.
    Nonsense(&'static str),
    /// It said goodbye: it was ending just then.
    Ending,
    /// It closed the connection, or died.
    Gone,
}

impl Refusal {
    /// Whether another attempt may end otherwise, with nothing changed here: it was full, or ended just then. Not if it takes us for the wrong
    /// program or user.
    pub fn may_pass(self) -> bool {
        match self {
            Self::NotAClient
            | Self::Version { .. }
            | Self::Sizes
            | Self::User { .. }
            | Self::Nonsense(_) => false,
            // An unknown one is a newer server's. Who tries again has a limit to that.
            Self::TooSlow
            | Self::Full { .. }
            | Self::Descriptors { .. }
            | Self::Handshakes { .. }
            | Self::Resources
            | Self::Unknown { .. }
            | Self::Ending
            | Self::Gone => true,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAClient => f.write_str("it does not recognise us as a client"),
            Self::Version { theirs, ours } => write!(
                f,
                "it speaks protocol version {}.{}, we speak {}.{}",
                theirs.0, theirs.1, ours.0, ours.1
            ),
            Self::Sizes => f.write_str("it rejected our sizes or the order of our messages"),
            Self::User { uid } => write!(f, "user {uid} is not allowed"),
            Self::TooSlow => f.write_str("our handshake was too slow"),
            Self::Full { used, limit } => write!(f, "it is full ({used} of {limit})"),
            Self::Descriptors { used, limit } => {
                write!(f, "it has no file descriptor left ({used} of {limit} used)")
            }
            Self::Handshakes { used, limit } => write!(
                f,
                "too many connections of this user are in their handshake ({used} of {limit})"
            ),
            Self::Resources => f.write_str("it has no memory or thread left for another client"),
            Self::Unknown { number } => write!(f, "reason {number} (unknown to this version)"),
            Self::Nonsense(what) => write!(f, "it broke the protocol: {what}"),
            Self::Ending => f.write_str("it said goodbye"),
            Self::Gone => f.write_str("it closed the connection or died"),
        }
    }
}

/// What a server was doing when a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BindStep {
    /// Asking for the current directory, from which a relative path leads.
    CurrentDirectory,
    /// Looking for the directory in which the socket is to be.
    Directory,
    /// Taking the lock beside the socket.
    Lock,
    /// Looking at what is at the path.
    Stat,
    /// Asking whether a server listens there.
    Probe,
    /// Removing the socket of a dead server.
    Unlink,
    /// Making a socket.
    Socket,
    /// Setting the mode of its file.
    Mode,
    /// `bind()`.
    Bind,
    /// `listen()`, and opening the socket's file to other users.
    Listen,
    /// Making the epoll instance.
    Epoll,
    /// Making the eventfd that wakes the control thread.
    EventFd,
    /// Reading the signal mask.
    SignalMask,
    /// Starting a thread.
    Thread,
}

impl BindStep {
    /// Stable name: the system call where there is one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CurrentDirectory => "current directory",
            Self::Directory => "the socket's directory",
            Self::Lock => "lock",
            Self::Stat => "stat",
            Self::Probe => "connect",
            Self::Unlink => "unlink",
            Self::Socket => "socket",
            Self::Mode => "fchmod",
            Self::Bind => "bind",
            Self::Listen => "listen",
            Self::Epoll => "epoll_create",
            Self::EventFd => "eventfd",
            Self::SignalMask => "pthread_sigmask",
            Self::Thread => "thread",
        }
    }
}

impl fmt::Display for BindStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
