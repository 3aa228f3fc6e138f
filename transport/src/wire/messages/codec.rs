//! Fixed fields to bytes and back. The offsets are those of the table in [`super`].

use super::{Hello, Message, MessageError, Name, Offer, Refused, Version, Welcome};
use crate::config::TransportChoice;
use crate::error::Step;
use crate::mem::StepError;
use crate::wire::frame::{FrameError, HANDSHAKE_BYTES, HEADER_BYTES, Header, Kind};

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

/// Numbers of the transports in a HELLO.
pub(super) const TRANSPORTS: [(TransportChoice, u32); 3] = [
    (TransportChoice::Auto, 1),
    (TransportChoice::Shm, 2),
    (TransportChoice::Socket, 3),
];

impl Version {
    /// What the sender of a message speaks. Means something if the magic is right.
    pub(crate) fn of_message(bytes: &[u8; HANDSHAKE_BYTES]) -> Self {
        Self::from_word(Fields(*bytes).u32(20))
    }
}

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
        let version = Version::of_message(bytes);
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
