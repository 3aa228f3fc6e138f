//! Framing on the socket: a 24-byte header, then the payload.
//!
//! ```text
//!  0  u32  magic    "SHM1"
//!  4  u32  kind     Kind
//!  8  u64  id       request id; upgrade attempt in handshake messages
//! 16  u32  length   of the payload that follows
//! 20  u32  aux      protocol version (major << 16 | minor) in handshake messages, else 0
//! ```
//! Little-endian. [`Header`] is one header; [`Decoder`] cuts a byte stream into frames over one buffer that is
//! allocated once: a length that a peer wrote is compared with a limit, never allocated from. The sending side is
//! [`Header::encode`] and the payload where it lies, both into one [`super::edge::send_until`]. Handshake
//! messages are frames too, of [`HANDSHAKE_BYTES`]; their payload is [`super::messages`]' affair.

use crate::error::MAX_ERROR_BYTES;
use crate::mem::buffer::Buffer;

/// First word of every frame, "SHM1" as bytes.
pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"SHM1");
/// Bytes of a header.
pub(crate) const HEADER_BYTES: usize = 24;
/// Bytes of every handshake message, header included.
pub(crate) const HANDSHAKE_BYTES: usize = 256;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub(crate) enum Kind {
    /// Client: who I am and what I want.
    Hello = 1,
    /// Server: admitted; the connection is on the socket.
    Welcome = 2,
    /// Server: not admitted, and why. It closes after this.
    Refused = 3,
    /// Client: shared memory, please.
    Upgrade = 4,
    /// Server: here it is, one descriptor comes with this.
    Offer = 5,
    /// Server: it can't be had, and why. Both stay on the socket.
    NoOffer = 6,
    /// Client: mapped. Whatever comes next comes through the ring, or not at all.
    Commit = 7,
    /// Client: could not use it, and why. Both stay on the socket.
    Decline = 8,
    /// Server: switched.
    Ready = 9,
    /// Either: I am closing, on purpose.
    Bye = 10,
    /// Client: a request.
    Request = 16,
    /// Server: its reply.
    Reply = 17,
    /// Server: an error instead of a reply; the payload is its text.
    ErrorReply = 18,
}

impl Kind {
    pub(crate) const fn from_number(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Refused,
            4 => Self::Upgrade,
            5 => Self::Offer,
            6 => Self::NoOffer,
            7 => Self::Commit,
            8 => Self::Decline,
            9 => Self::Ready,
            10 => Self::Bye,
            16 => Self::Request,
            17 => Self::Reply,
            18 => Self::ErrorReply,
            _ => return None,
        })
    }

    /// True for the kinds whose frames are exactly [`HANDSHAKE_BYTES`].
    pub(crate) const fn is_handshake(self) -> bool {
        (self as u32) < Self::Request as u32
    }
}

/// A frame that no honest peer of this version sends. The stream can't be followed any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Not our protocol, or out of step.
    #[error("magic {found:#010x}, not {MAGIC:#010x}")]
    Magic {
        /// The word in its place.
        found: u32,
    },
    /// Unknown kind.
    #[error("unknown kind {found}")]
    Kind {
        /// Its number.
        found: u32,
    },
    /// A length that this kind can't have.
    #[error("{kind:?} of {found} bytes, limit {limit}")]
    Length {
        /// Of which kind.
        kind: Kind,
        /// The length written.
        found: u32,
        /// The largest (for handshake messages: the only) length.
        limit: u32,
    },
}

impl FrameError {
    /// In words, for [`crate::error::Lost::BadFrame`].
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Magic { .. } => "wrong magic",
            Self::Kind { .. } => "unknown kind",
            Self::Length { .. } => "impossible length",
        }
    }
}

/// One header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) length: u32,
    pub(crate) aux: u32,
}

impl Header {
    /// The bytes to send before the payload.
    pub(crate) fn encode(self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[4..8].copy_from_slice(&(self.kind as u32).to_le_bytes());
        b[8..16].copy_from_slice(&self.id.to_le_bytes());
        b[16..20].copy_from_slice(&self.length.to_le_bytes());
        b[20..24].copy_from_slice(&self.aux.to_le_bytes());
        b
    }

    /// Reads a header. `max_message` bounds requests and replies; the other kinds have bounds of their own.
    pub(crate) fn decode(b: &[u8; HEADER_BYTES], max_message: u32) -> Result<Self, FrameError> {
        let u32_at = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let found = u32_at(0);
        if found != MAGIC {
            return Err(FrameError::Magic { found });
        }
        let found = u32_at(4);
        let kind = Kind::from_number(found).ok_or(FrameError::Kind { found })?;
        let found = u32_at(16);
        let (limit, possible) = match kind {
            Kind::Request | Kind::Reply => (max_message, found <= max_message),
            Kind::ErrorReply => (MAX_ERROR_BYTES as u32, found <= MAX_ERROR_BYTES as u32),
            _ => {
                let only = (HANDSHAKE_BYTES - HEADER_BYTES) as u32;
                (only, found == only)
            }
        };
        if !possible {
            return Err(FrameError::Length { kind, found, limit });
        }
        Ok(Self {
            kind,
            id: u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32,
            length: found,
            aux: u32_at(20),
        })
    }
}

/// One whole frame in a decoder's buffer, valid until the decoder is asked for the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) header: Header,
    /// Header and payload.
    pub(crate) bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The whole frame as a handshake message; `None` if it is another kind.
    pub(crate) fn handshake(&self) -> Option<&'a [u8; HANDSHAKE_BYTES]> {
        self.bytes
            .try_into()
            .ok()
            .filter(|_| self.header.kind.is_handshake())
    }
}

/// Cuts a stream into frames. Put bytes into [`Self::space`], say how many with [`Self::filled`], take frames
/// with [`Self::next`] until it has none, and so on. After an error every later call repeats it.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Allocated once, in `new`.
    buffer: Buffer,
    /// Unread bytes are `buffer[start..end]`.
    start: usize,
    end: usize,
    max_message: u32,
    /// Where the payload of the last frame stands.
    last: std::ops::Range<usize>,
}

/// Room beyond the largest frame, so that small ones arrive many at a time.
const SLACK_BYTES: usize = 16 * 1024;

impl Decoder {
    /// For frames of at most `max_message` payload bytes; `None` without memory for one.
    pub(crate) fn new(max_message: u32) -> Option<Self> {
        let largest = HEADER_BYTES + (max_message as usize).max(MAX_ERROR_BYTES);
        Some(Self {
            buffer: Buffer::zeroed(largest + SLACK_BYTES)?,
            start: 0,
            end: 0,
            max_message,
            last: 0..0,
        })
    }

    /// Where the next bytes go. Never empty once [`Self::next`] has said that no whole frame is there.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.buffer.len() - self.start < self.wanted() {
            // The frame at `start` would not fit before the end. What moves is less than that frame, and no
            // other move comes before it was taken: on average a byte moves less than once.
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// `n` more bytes are in [`Self::space`]. More than it has room for is taken as full.
    pub(crate) fn filled(&mut self, n: usize) {
        self.end = self.end.saturating_add(n).min(self.buffer.len());
    }

    /// Bytes received that no frame was made of yet.
    pub(crate) fn pending(&self) -> usize {
        self.end - self.start
    }

    /// Those bytes.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Whether [`Self::next`] would give a frame or an error.
    pub(crate) fn is_ready(&self) -> bool {
        self.pending() >= self.wanted()
    }

    /// The next whole frame, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let Some(header) = self.header()? else {
            return Ok(None);
        };
        let whole = HEADER_BYTES + header.length as usize;
        if self.pending() < whole {
            return Ok(None);
        }
        let from = self.start;
        self.start += whole;
        self.last = from + HEADER_BYTES..from + whole;
        Ok(Some(Frame {
            header,
            bytes: &self.buffer[from..from + whole],
        }))
    }

    /// The payload of the frame that [`Self::next`] gave last; until [`Self::space`] is called.
    pub(crate) fn last_payload(&self) -> &[u8] {
        &self.buffer[self.last.clone()]
    }

    /// The header at `start`, once it is there whole.
    fn header(&self) -> Result<Option<Header>, FrameError> {
        match self.buffer[self.start..self.end].first_chunk() {
            Some(bytes) => Header::decode(bytes, self.max_message).map(Some),
            None => Ok(None),
        }
    }

    /// Bytes that the frame at `start` takes, as far as is known.
    fn wanted(&self) -> usize {
        match self.header() {
            Ok(Some(header)) => HEADER_BYTES + header.length as usize,
            _ => HEADER_BYTES,
        }
    }
}

#[cfg(test)]
mod tests;
