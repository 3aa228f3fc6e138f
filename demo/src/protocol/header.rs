//! The 32 bytes before a body: made, and checked when read. The picture stands in [`super`].

use super::{HEADER, Wrong, mix};

/// Bit in `kind` that makes a reply.
pub(super) const REPLY: u32 = 1 << 31;
/// The protocol's mark, version 1.
const MAGIC: u32 = u32::from_le_bytes(*b"dem1");

/// The words of a header.
#[derive(Clone, Copy)]
pub(super) struct Header {
    pub(super) kind: u32,
    pub(super) client: u64,
    pub(super) sequence: u64,
    pub(super) size: u32,
}

impl Header {
    fn seal(self) -> u32 {
        let words = self.client ^ self.sequence.rotate_left(17);
        mix(words ^ (u64::from(self.kind) << 32 | u64::from(self.size))) as u32
    }

    pub(super) fn bytes(self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[4..8].copy_from_slice(&self.kind.to_le_bytes());
        b[8..16].copy_from_slice(&self.client.to_le_bytes());
        b[16..24].copy_from_slice(&self.sequence.to_le_bytes());
        b[24..28].copy_from_slice(&self.size.to_le_bytes());
        b[28..32].copy_from_slice(&self.seal().to_le_bytes());
        b
    }

    /// Reads and checks; the message must be as long as its header says.
    pub(super) fn of(message: &[u8]) -> Result<Self, Wrong> {
        let Some(head) = message.first_chunk::<HEADER>() else {
            return Err(Wrong::Length {
                found: message.len(),
                expected: HEADER,
            });
        };
        let header = Self {
            kind: word32(head, 4),
            client: word64(head, 8),
            sequence: word64(head, 16),
            size: word32(head, 24),
        };
        if word32(head, 0) != MAGIC || word32(head, 28) != header.seal() {
            return Err(Wrong::Header);
        }
        if header.size as usize != message.len() {
            return Err(Wrong::Length {
                found: message.len(),
                expected: header.size as usize,
            });
        }
        Ok(header)
    }
}

/// Little-endian word of 4 bytes at `at`, which the caller knows to be inside.
fn word32(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Little-endian word of 8 bytes at `at`, which the caller knows to be inside.
pub(crate) fn word64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
