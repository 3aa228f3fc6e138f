//! The handshake's messages: 256 bytes each, a frame header and fixed fields.
//!
//! Encoding and decoding only; who may say what when is [`super::handshake`]'s. [`Message::decode`] is total: any
//! 256 bytes are a message or a [`MessageError`]. Fields that bound memory are compared with their limits by
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

use super::frame::{FrameError, HANDSHAKE_BYTES, HEADER_BYTES, Header, Kind};
use crate::config::TransportChoice;
use crate::error::Step;
use crate::mem::StepError;

/// HELLO and WELCOME: bit 0, the sender has registered for membarrier (see [`crate::mem::membarrier`]).
pub(crate) const FEATURE_MEMBARRIER: u64 = 1;

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
    /// Max clients, or handshakes pending for this user, reached.
    Full = 6,
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
    /// For [`Reject::Full`]: how many there may be; else 0.
    pub(crate) limit: u64,
    /// For [`Reject::Full`]: how many there are. For [`Reject::Uid`]: the user. Else 0.
    pub(crate) used: u64,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Reject::from_number(self.reason) {
            Some(Reject::Magic) => write!(f, "it does not take us for a client"),
            Some(Reject::Version) => {
                write!(f, "it speaks version {}, we {}", self.server, self.client)
            }
            Some(Reject::Layout) => write!(f, "it takes our sizes or messages for impossible"),
            Some(Reject::Uid) => write!(f, "user {} is not allowed", self.used),
            Some(Reject::Timeout) => write!(f, "our handshake was too slow"),
            Some(Reject::Full) => write!(f, "it is full ({} of {})", self.used, self.limit),
            None => write!(f, "reason {} (unknown to this version)", self.reason),
        }
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

/// Fixed fields by offset into a whole message. Offsets are constants below [`HANDSHAKE_BYTES`].
struct Fields([u8; HANDSHAKE_BYTES]);

impl Fields {
    fn put_u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }
    fn put_u64(&mut self, at: usize, value: u64) -> &mut Self {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self
    }
    fn put_name(&mut self, at: usize, name: Name) -> &mut Self {
        self.0[at..at + 64].copy_from_slice(&name.0);
        self
    }
    fn put_step(&mut self, e: StepError) -> &mut Self {
        self.put_u32(24, e.step as u32)
            .put_u32(28, e.errno.cast_unsigned())
            .put_u64(32, e.limit)
            .put_u64(40, e.used)
    }
    fn u32(&self, at: usize) -> u32 {
        let mut word = [0; 4];
        word.copy_from_slice(&self.0[at..at + 4]);
        u32::from_le_bytes(word)
    }
    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) | u64::from(self.u32(at + 4)) << 32
    }
    fn name(&self, at: usize) -> Name {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(&self.0[at..at + 64]);
        Name(bytes)
    }
    /// A step of a newer minor version counts as the handshake's; errno and numbers still say what happened.
    fn step(&self) -> StepError {
        StepError {
            step: Step::from_number(self.u32(24)).unwrap_or(Step::Handshake),
            errno: self.u32(28).cast_signed(),
            limit: self.u64(32),
            used: self.u64(40),
        }
    }
}

const TRANSPORTS: [(TransportChoice, u32); 3] = [
    (TransportChoice::Auto, 1),
    (TransportChoice::Shm, 2),
    (TransportChoice::Socket, 3),
];

impl Message {
    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Welcome(_) => Kind::Welcome,
            Self::Refused(_) => Kind::Refused,
            Self::Upgrade => Kind::Upgrade,
            Self::Offer(_) => Kind::Offer,
            Self::NoOffer(_) => Kind::NoOffer,
            Self::Commit => Kind::Commit,
            Self::Decline(_) => Kind::Decline,
            Self::Ready => Kind::Ready,
            Self::Bye => Kind::Bye,
        }
    }

    /// The bytes to send. `attempt` numbers the upgrade that the message belongs to; 0 for the others.
    pub(crate) fn encode(&self, attempt: u64) -> [u8; HANDSHAKE_BYTES] {
        let header = Header {
            kind: self.kind(),
            id: attempt,
            length: (HANDSHAKE_BYTES - HEADER_BYTES) as u32,
            aux: Version::OURS.to_word(),
        };
        let mut f = Fields([0; HANDSHAKE_BYTES]);
        f.0[..HEADER_BYTES].copy_from_slice(&header.encode());
        match *self {
            Self::Hello(m) => {
                let transport = TRANSPORTS.iter().find(|(t, _)| *t == m.transport);
                f.put_u32(24, m.pid)
                    .put_u32(28, m.wait_policy)
                    .put_u64(32, m.features)
                    .put_u64(40, m.ring_bytes)
                    .put_u64(48, m.max_message)
                    .put_u32(56, transport.map_or(0, |(_, n)| *n))
                    .put_name(64, m.name);
            }
            Self::Welcome(m) => {
                f.put_u32(24, m.client_number)
                    .put_u64(32, m.features)
                    .put_u64(40, m.connection_id)
                    .put_u64(48, m.max_message)
                    .put_name(64, m.name);
            }
            Self::Refused(m) => {
                f.put_u32(20, m.server.to_word())
                    .put_u32(24, m.reason)
                    .put_u32(28, m.client.to_word())
                    .put_u64(32, m.limit)
                    .put_u64(40, m.used);
            }
            Self::Offer(m) => {
                f.put_u32(24, m.layout_version)
                    .put_u64(32, m.total_bytes)
                    .put_u64(40, m.client_to_server_bytes)
                    .put_u64(48, m.server_to_client_bytes)
                    .put_u64(56, m.max_message);
            }
            Self::NoOffer(e) | Self::Decline(e) => {
                f.put_step(e);
            }
            Self::Upgrade | Self::Commit | Self::Ready | Self::Bye => {}
        }
        f.0
    }

    /// The message and its upgrade attempt. The order of the checks is that of docs/protocol.md.
    pub(crate) fn decode(bytes: &[u8; HANDSHAKE_BYTES]) -> Result<(Self, u64), MessageError> {
        let mut first = [0; HEADER_BYTES];
        first.copy_from_slice(&bytes[..HEADER_BYTES]);
        let f = Fields(*bytes);
        let version = Version::from_word(f.u32(20));
        let header = match Header::decode(&first, 0) {
            // A foreign major may have other kinds and lengths: its version is the better explanation.
            Err(FrameError::Kind { .. } | FrameError::Length { .. })
                if version.major != Version::OURS.major =>
            {
                return Err(MessageError::Version { theirs: version });
            }
            other => other?,
        };
        if version.major != Version::OURS.major && header.kind != Kind::Refused {
            return Err(MessageError::Version { theirs: version });
        }
        let message = match header.kind {
            Kind::Hello => Self::Hello(Hello {
                pid: f.u32(24),
                wait_policy: f.u32(28),
                features: f.u64(32),
                ring_bytes: f.u64(40),
                max_message: f.u64(48),
                transport: TRANSPORTS
                    .iter()
                    .find(|(_, n)| *n == f.u32(56))
                    .map(|(t, _)| *t)
                    .ok_or(MessageError::Field("transport"))?,
                name: f.name(64),
            }),
            Kind::Welcome => Self::Welcome(Welcome {
                client_number: f.u32(24),
                features: f.u64(32),
                connection_id: f.u64(40),
                max_message: f.u64(48),
                name: f.name(64),
            }),
            Kind::Refused => Self::Refused(Refused {
                reason: f.u32(24),
                server: version,
                client: Version::from_word(f.u32(28)),
                limit: f.u64(32),
                used: f.u64(40),
            }),
            Kind::Upgrade => Self::Upgrade,
            Kind::Offer => Self::Offer(Offer {
                layout_version: f.u32(24),
                total_bytes: f.u64(32),
                client_to_server_bytes: f.u64(40),
                server_to_client_bytes: f.u64(48),
                max_message: f.u64(56),
            }),
            Kind::NoOffer => Self::NoOffer(f.step()),
            Kind::Commit => Self::Commit,
            Kind::Decline => Self::Decline(f.step()),
            Kind::Ready => Self::Ready,
            Kind::Bye => Self::Bye,
            // Length 0 passes the header's check with `max_message` 0.
            Kind::Request | Kind::Reply | Kind::ErrorReply => {
                return Err(MessageError::Field("kind in a handshake"));
            }
        };
        Ok((message, header.id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn step_error() -> impl Strategy<Value = StepError> {
        (1u32..=14, any::<i32>(), any::<u64>(), any::<u64>()).prop_map(
            |(step, errno, limit, used)| StepError {
                step: Step::from_number(step).unwrap(),
                errno,
                limit,
                used,
            },
        )
    }

    fn message() -> impl Strategy<Value = Message> {
        let words = any::<(u32, u32, u64, u64, u64, u64)>();
        prop_oneof![
            (words, 0..3usize, ".{0,70}").prop_map(|((a, b, c, d, e, _), t, name)| {
                Message::Hello(Hello {
                    pid: a,
                    wait_policy: b,
                    features: c,
                    ring_bytes: d,
                    max_message: e,
                    transport: TRANSPORTS[t].0,
                    name: Name::new(&name),
                })
            }),
            (words, ".{0,70}").prop_map(|((a, _, c, d, e, _), name)| {
                Message::Welcome(Welcome {
                    client_number: a,
                    features: c,
                    connection_id: d,
                    max_message: e,
                    name: Name::new(&name),
                })
            }),
            words.prop_map(|(a, b, c, d, e, _)| Message::Refused(Refused {
                reason: a,
                server: Version::from_word(e as u32),
                client: Version::from_word(b),
                limit: c,
                used: d,
            })),
            words.prop_map(|(a, _, c, d, e, g)| Message::Offer(Offer {
                layout_version: a,
                total_bytes: c,
                client_to_server_bytes: d,
                server_to_client_bytes: e,
                max_message: g,
            })),
            step_error().prop_map(Message::NoOffer),
            step_error().prop_map(Message::Decline),
            prop_oneof![
                Just(Message::Upgrade),
                Just(Message::Commit),
                Just(Message::Ready),
                Just(Message::Bye)
            ],
        ]
    }

    proptest! {
        #[test]
        fn every_message_survives_encoding(message in message(), attempt in any::<u64>()) {
            prop_assert_eq!(Message::decode(&message.encode(attempt)), Ok((message, attempt)));
        }

        #[test]
        fn any_256_bytes_are_a_message_or_an_error(
            body in prop::collection::vec(any::<u8>(), HANDSHAKE_BYTES),
            message in message(),
            flips in prop::collection::vec((0..HANDSHAKE_BYTES, any::<u8>()), 0..4),
        ) {
            let mut bytes = [0; HANDSHAKE_BYTES];
            bytes.copy_from_slice(&body);
            let _ = Message::decode(&bytes);
            let mut bytes = message.encode(1);
            for (at, value) in flips {
                bytes[at] = value;
            }
            if let Ok((decoded, attempt)) = Message::decode(&bytes) {
                // What was understood means the same when said again, even if unnamed bytes differ.
                prop_assert_eq!(Message::decode(&decoded.encode(attempt)).map(|m| m.1), Ok(attempt));
                let _ = format!("{decoded:?}");
            }
        }
    }

    #[test]
    fn another_major_version_is_named_whatever_else_it_sent() {
        let theirs = Version { major: 7, minor: 3 };
        let mut bytes = Message::Upgrade.encode(1);
        bytes[20..24].copy_from_slice(&theirs.to_word().to_le_bytes());
        assert_eq!(
            Message::decode(&bytes),
            Err(MessageError::Version { theirs })
        );
        bytes[4] = 99;
        assert_eq!(
            Message::decode(&bytes),
            Err(MessageError::Version { theirs })
        );
        assert_eq!(
            MessageError::Version { theirs }.to_string(),
            "protocol version 7.3, ours is 1.0"
        );
    }

    #[test]
    fn a_newer_minor_version_is_understood() {
        let mut bytes = Message::Ready.encode(4);
        bytes[20] = 9;
        assert_eq!(Message::decode(&bytes), Ok((Message::Ready, 4)));
    }

    #[test]
    fn a_refusal_is_understood_across_major_versions() {
        let refused = Refused {
            reason: Reject::Version as u32,
            server: Version { major: 2, minor: 1 },
            client: Version::OURS,
            limit: 0,
            used: 0,
        };
        let (got, _) = Message::decode(&Message::Refused(refused).encode(0)).unwrap();
        assert_eq!(got, Message::Refused(refused));
        assert_eq!(refused.to_string(), "it speaks version 2.1, we 1.0");
    }

    #[test]
    fn names_are_cut_at_a_character_and_never_break_the_message() {
        assert_eq!(Name::new("exchange").to_string(), "exchange");
        let long = "ä".repeat(40);
        assert_eq!(Name::new(&long).to_string(), "ä".repeat(31));
        assert_eq!(
            Name([0xff; 64]).to_string().chars().next(),
            Some('\u{fffd}')
        );
        assert_eq!(Name::new("a\0b").to_string(), "a");
    }
}
