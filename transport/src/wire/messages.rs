//! The handshake's messages: 256 bytes each, a frame header and fixed fields.
//!
//! Types here, encoding and decoding in [`codec`]; who may say what when is [`super::handshake`]'s.
//! [`Message::decode`] is total: any 256 bytes are a message or a [`MessageError`]. Fields that bound memory are compared with their limits by
//! `handshake`, which knows them. Bytes not named below are sent as 0 and ignored, for later minor versions.
//!
//! ```text
//! every message     0 header (24): kind, id = upgrade attempt (0 outside of one), length = 232, aux = version
//! HELLO            24 u32 pid         28 u32 wait policy   32 u64 features   40 u64 ring bytes per direction
//!                  48 u64 max message 56 u32 transport     64 name (64)
//! WELCOME          24 u32 client no.  32 u64 features      40 u64 connection 48 u64 max message  64 name (64)
//! REFUSED          24 u32 reason      28 u32 your version  32 u64 limit      40 u64 used
//! OFFER            24 u32 layout      32 u64 total bytes   40 u64 client→server bytes
//!                  48 u64 server→client bytes              56 u64 max message
//! NO_OFFER,DECLINE 24 u32 step        28 i32 errno         32 u64 limit      40 u64 used
//! ```
//! HELLO's version and REFUSED as a whole stay as they are in every major version, so that two programs that
//! can't talk can still say so.

mod codec;
#[cfg(test)]
mod tests;

use super::frame::FrameError;
use crate::config::TransportChoice;
use crate::error::Refusal;
use crate::mem::StepError;

/// A protocol version. Majors must be equal; minors may differ, and both sides use the smaller one's features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) major: u16,
    pub(crate) minor: u16,
}

impl Version {
    /// Spoken here.
    pub(crate) const OURS: Self = Self { major: 1, minor: 0 };

    const fn to_word(self) -> u32 {
        (self.major as u32) << 16 | self.minor as u32
    }

    const fn from_word(word: u32) -> Self {
        Self {
            major: (word >> 16) as u16,
            minor: word as u16,
        }
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A name as it travels: at most 63 bytes of UTF-8 and zeros.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name([u8; 64]);

impl Name {
    /// Cut at a character's border to what fits.
    pub(crate) fn new(text: &str) -> Self {
        let mut bytes = [0; 64];
        let end = text.floor_char_boundary(63);
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(bytes)
    }
}

/// The text up to the first zero. A peer wrote it: it may hold anything but invalid UTF-8, which is replaced.
impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(64);
        f.write_str(&String::from_utf8_lossy(&self.0[..end]))
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Why a server refuses a client. The numbers are stable; `ProcessCounters::rejected_*` counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum Reject {
    /// Not our protocol.
    Magic = 1,
    /// Another major version.
    Version = 2,
    /// Impossible sizes, or a message out of order.
    Layout = 3,
    /// User not allowed.
    Uid = 4,
    /// Too slow.
    Timeout = 5,
    /// Max clients reached.
    Full = 6,
    /// The server has no descriptor left for one more connection.
    Descriptors = 7,
    /// Too many handshakes of this user under way.
    Pending = 8,
    /// The server has no memory, or no thread, left for one more client.
    Resources = 9,
}

impl Reject {
    pub(crate) const fn from_number(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::Magic,
            2 => Self::Version,
            3 => Self::Layout,
            4 => Self::Uid,
            5 => Self::Timeout,
            6 => Self::Full,
            7 => Self::Descriptors,
            8 => Self::Pending,
            9 => Self::Resources,
            _ => return None,
        })
    }
}

/// What a client says first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// In its own pid namespace; the kernel's word is SO_PEERCRED.
    pub(crate) pid: u32,
    /// [`crate::WaitPolicy::number`].
    pub(crate) wait_policy: u32,
    /// `FEATURE_*`; unknown bits are ignored.
    pub(crate) features: u64,
    /// Largest ring it wants, per direction.
    pub(crate) ring_bytes: u64,
    /// Largest message it wants.
    pub(crate) max_message: u64,
    /// What it intends to use.
    pub(crate) transport: TransportChoice,
    pub(crate) name: Name,
}

/// The server's yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Welcome {
    /// From 1, reused after close.
    pub(crate) client_number: u32,
    /// `FEATURE_*`; unknown bits are ignored.
    pub(crate) features: u64,
    /// Drawn at random.
    pub(crate) connection_id: u64,
    /// For both transports and directions.
    pub(crate) max_message: u64,
    pub(crate) name: Name,
}

/// The server's no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// A [`Reject`], or the number of one that a newer server knows.
    pub(crate) reason: u32,
    /// The server's version.
    pub(crate) server: Version,
    /// The client's version as the server read it; 0.0 if it read none.
    pub(crate) client: Version,
    /// For [`Reject::Full`], [`Reject::Descriptors`] and [`Reject::Pending`]: how many there may be; else 0.
    pub(crate) limit: u64,
    /// For the same: how many there are. For [`Reject::Uid`]: the user. Else 0.
    pub(crate) used: u64,
}

impl Refused {
    /// For who connects.
    pub(crate) fn refusal(&self) -> Refusal {
        let (used, limit) = (self.used, self.limit);
        match Reject::from_number(self.reason) {
            Some(Reject::Magic) => Refusal::NotAClient,
            Some(Reject::Version) => Refusal::Version {
                theirs: (self.server.major, self.server.minor),
                ours: (self.client.major, self.client.minor),
            },
            Some(Reject::Layout) => Refusal::Sizes,
            Some(Reject::Uid) => Refusal::User { uid: used },
            Some(Reject::Timeout) => Refusal::TooSlow,
            Some(Reject::Full) => Refusal::Full { used, limit },
            Some(Reject::Descriptors) => Refusal::Descriptors { used, limit },
            Some(Reject::Pending) => Refusal::Handshakes { used, limit },
            Some(Reject::Resources) => Refusal::Resources,
            None => Refusal::Unknown {
                number: self.reason,
            },
        }
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.refusal().fmt(f)
    }
}

/// Sizes of the rings that one descriptor carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Of the ring memory.
    pub(crate) layout_version: u32,
    /// Size of the memfd.
    pub(crate) total_bytes: u64,
    /// Capacity of the ring for requests.
    pub(crate) client_to_server_bytes: u64,
    /// Capacity of the ring for replies.
    pub(crate) server_to_client_bytes: u64,
    /// As in the WELCOME.
    pub(crate) max_message: u64,
}

/// A handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Hello(Hello),
    Welcome(Welcome),
    Refused(Refused),
    Upgrade,
    Offer(Offer),
    NoOffer(StepError),
    Commit,
    Decline(StepError),
    Ready,
    Bye,
}

/// 256 bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MessageError {
    /// The header is none of ours, or one of another length.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Another major version; its messages may mean anything.
    #[error("protocol version {theirs}, ours is {ours}", ours = Version::OURS)]
    Version {
        /// The sender's.
        theirs: Version,
    },
    /// A field holds what no version of this major defines.
    #[error("impossible {0}")]
    Field(&'static str),
}
