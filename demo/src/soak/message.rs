//! Messages of which every byte is known to both ends.
//!
//! ```text
//! request  0 u32 client   4 u32 reply's bytes   8 u64 session   16 u64 number   24 u64 own bytes   32 … words
//! reply    0 u64 number   8 u64 own bytes      16 … words
//! ```
//! Word `i` is `base + i × odd`, with a base that differs between clients, sessions, numbers and directions. The last
//! word may be cut. Nothing is a message of another request, shifted or torn, by accident.

use crate::protocol::{GOLDEN, mix};

/// Bytes before the words.
pub(super) const REQUEST_HEAD: usize = 32;
pub(super) const REPLY_HEAD: usize = 16;

/// Which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) client: u32,
    /// Drawn anew for each connection.
    pub(super) session: u64,
    /// From 1, by one, within a session.
    pub(super) number: u64,
    /// Bytes of its reply.
    pub(super) reply: u32,
}

impl Request {
    fn base(&self) -> u64 {
        mix(self.session ^ u64::from(self.client) << 32 ^ self.number.wrapping_mul(GOLDEN))
    }

    /// Makes `buffer` this request, of `length` bytes, at least [`REQUEST_HEAD`].
    pub(super) fn write(&self, length: usize, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.extend_from_slice(&self.client.to_le_bytes());
        buffer.extend_from_slice(&self.reply.to_le_bytes());
        buffer.extend_from_slice(&self.session.to_le_bytes());
        buffer.extend_from_slice(&self.number.to_le_bytes());
        buffer.extend_from_slice(&(length as u64).to_le_bytes());
        fill(self.base(), length - REQUEST_HEAD, buffer);
    }

    /// The request that these bytes are; `None` if any of them is wrong.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (head, words) = bytes.split_at_checked(REQUEST_HEAD)?;
        let u32_at = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_le_bytes(head.get(at..at + 8)?.try_into().ok()?));
        let request = Self {
            client: u32_at(0)?,
            reply: u32_at(4)?,
            session: u64_at(8)?,
            number: u64_at(16)?,
        };
        (u64_at(24)? == bytes.len() as u64 && is_filled(request.base(), words)).then_some(request)
    }

    /// Makes `buffer` the reply to this request.
    pub(super) fn answer(&self, buffer: &mut Vec<u8>) {
        let length = (self.reply as usize).max(REPLY_HEAD);
        buffer.clear();
        buffer.extend_from_slice(&self.number.to_le_bytes());
        buffer.extend_from_slice(&(length as u64).to_le_bytes());
        fill(!self.base(), length - REPLY_HEAD, buffer);
    }

    /// Whether these bytes are the reply to this request, to the last one.
    pub(super) fn is_answered_by(&self, bytes: &[u8]) -> bool {
        let length = (self.reply as usize).max(REPLY_HEAD);
        bytes.len() == length
            && bytes[..8] == self.number.to_le_bytes()
            && bytes[8..REPLY_HEAD] == (length as u64).to_le_bytes()
            && is_filled(!self.base(), &bytes[REPLY_HEAD..])
    }
}

fn fill(base: u64, bytes: usize, buffer: &mut Vec<u8>) {
    let end = buffer.len() + bytes;
    let mut word = base;
    while buffer.len() + 8 <= end {
        buffer.extend_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(GOLDEN);
    }
    let rest = end - buffer.len();
    buffer.extend_from_slice(&word.to_le_bytes()[..rest]);
}

fn is_filled(base: u64, bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut word = base;
    // Without an early end: nearly always all is well, and this way it is fast.
    let mut wrong = 0;
    for found in words {
        wrong |= u64::from_le_bytes(*found) ^ word;
        word = word.wrapping_add(GOLDEN);
    }
    wrong == 0 && *rest == word.to_le_bytes()[..rest.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Request = Request {
        client: 3,
        session: 77,
        number: 5,
        reply: 100,
    };

    #[test]
    fn every_wrong_byte_is_found() {
        let mut bytes = Vec::new();
        for length in REQUEST_HEAD..200 {
            ONE.write(length, &mut bytes);
            assert_eq!(Request::read(&bytes), Some(ONE));
            assert_eq!(Request::read(&bytes[..length - 1]), None);
            // The two halves of the head that say who it is change the words that are expected.
            for at in (8..length).chain(0..4).filter(|_| length > REQUEST_HEAD) {
                bytes[at] ^= 1;
                assert_eq!(Request::read(&bytes), None, "byte {at} of {length}");
                bytes[at] ^= 1;
            }
        }
        let mut reply = Vec::new();
        ONE.answer(&mut reply);
        assert!(ONE.is_answered_by(&reply));
        for other in [
            Request { number: 6, ..ONE },
            Request { session: 78, ..ONE },
            Request { client: 4, ..ONE },
        ] {
            assert!(!other.is_answered_by(&reply), "{other:?}");
        }
        for at in 0..reply.len() {
            reply[at] ^= 0x80;
            assert!(!ONE.is_answered_by(&reply), "byte {at}");
            reply[at] ^= 0x80;
        }
    }
}
