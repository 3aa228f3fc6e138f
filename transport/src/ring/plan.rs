//! Pure arithmetic of the ring: offsets, sizes, the commit word. No memory, no atomics; used by both roles.

use crate::limits;

/// Bytes before a record's payload: commit word and id.
pub(crate) const HEADER_BYTES: u64 = 16;
/// Bytes of the zero word behind the last record (invariant I1).
pub(crate) const TERMINATOR_BYTES: u64 = 8;
/// Flag: the record is published in pieces (invariant I5).
pub(crate) const STREAMED: u8 = 1;
/// Records at least this long are published in pieces: below two pieces there is nothing to overlap.
pub(crate) const STREAM_FROM_BYTES: usize = 8 * 1024;
/// Bytes per piece: the reader's copy then overlaps the writer's. At 20,000 B with a line round trip of 290 ns, whole records
/// gave 140–149 k/s, pieces of 8 KiB 156 k, of 4 KiB 159–163 k, of 2 KiB 152–159 k; pieces of 1 KB lose what they gain.
pub(crate) const PIECE_BYTES: usize = 4 * 1024;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Skip to the start of the ring.
    Padding = 1,
    /// A request.
    Request = 2,
    /// A reply.
    Reply = 3,
    /// A reply whose payload is an error text.
    Error = 4,
}

/// A commit word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Payload bytes.
    pub(crate) length: u32,
    /// What it is.
    pub(crate) kind: Kind,
    /// Published in pieces.
    pub(crate) streamed: bool,
}

impl Commit {
    /// The word; never 0.
    pub(crate) const fn encode(self) -> u64 {
        self.length as u64
            | (self.kind as u64) << 32
            | if self.streamed {
                (STREAMED as u64) << 40
            } else {
                0
            }
    }

    /// Takes a word apart; `Err` with the kind found if it is none of ours or has unknown bits.
    pub(crate) const fn decode(word: u64) -> Result<Self, u32> {
        let high = (word >> 32) as u32;
        let kind = match high & 0xff {
            1 => Kind::Padding,
            2 => Kind::Request,
            3 => Kind::Reply,
            4 => Kind::Error,
            _ => return Err(high),
        };
        let flags = high >> 8;
        if flags & !(STREAMED as u32) != 0 {
            return Err(high);
        }
        Ok(Self {
            length: word as u32,
            kind,
            streamed: flags != 0,
        })
    }
}

/// Ring bytes of a record with this payload: header and payload, rounded up to 8.
#[inline(always)]
pub(crate) const fn record_bytes(payload: usize) -> u64 {
    HEADER_BYTES + ((payload as u64 + 7) & !7)
}

/// A ring's fixed numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    capacity: u64,
    max_payload: u64,
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index of the record.
    pub(crate) at: u64,
    /// Bytes skipped before it by a padding record; 0 = none.
    pub(crate) padding: u64,
}

impl Plan {
    /// # Panics
    /// Unless `capacity` is a power of two of at least 256 and `max_payload` fits it: both were checked with the configuration
    /// or the handshake.
    pub(crate) fn new(capacity: usize, max_payload: usize) -> Self {
        assert!(
            capacity.is_power_of_two() && capacity >= 256,
            "capacity {capacity}"
        );
        assert!(
            max_payload <= limits::max_payload(capacity),
            "payload {max_payload} in {capacity}"
        );
        Self {
            capacity: capacity as u64,
            max_payload: max_payload as u64,
        }
    }

    /// Bytes of the ring.
    #[inline(always)]
    pub(crate) const fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Largest payload in bytes.
    #[inline(always)]
    pub(crate) const fn max_payload(&self) -> usize {
        self.max_payload as usize
    }

    /// Byte offset of an index. Always below the capacity, whatever the index.
    #[inline(always)]
    pub(crate) const fn offset(&self, index: u64) -> usize {
        (index & (self.capacity - 1)) as usize
    }

    /// Bytes from an index to the end of the ring: 8 ..= capacity for indices that are multiples of 8.
    #[inline(always)]
    pub(crate) const fn left_from(&self, index: u64) -> u64 {
        self.capacity - (index & (self.capacity - 1))
    }

    /// Whether `record` bytes at `at` and the word behind them are free, given the consumer's `head`.
    #[inline(always)]
    pub(crate) const fn has_room(&self, at: u64, record: u64, head: u64) -> bool {
        at.wrapping_add(record + TERMINATOR_BYTES)
            .wrapping_sub(head)
            <= self.capacity
    }

    /// Where a record goes that starts at `tail` at the earliest. `wrap_from` is the offset from which the producer would
    /// rather start over than walk on. `None`: no room as far as `head` tells.
    #[inline(always)]
    pub(crate) fn place(&self, tail: u64, head: u64, record: u64, wrap_from: u64) -> Option<Place> {
        let to_end = self.left_from(tail);
        let here = record <= to_end;
        if here && self.capacity - to_end < wrap_from {
            return self.has_room(tail, record, head).then_some(Place {
                at: tail,
                padding: 0,
            });
        }
        let start = tail.wrapping_add(to_end);
        // A record at the very start of the ring has nothing to skip: `tail` is there already.
        if to_end < self.capacity && self.has_room(start, record, head) {
            return Some(Place {
                at: start,
                padding: to_end,
            });
        }
        (here && self.has_room(tail, record, head)).then_some(Place {
            at: tail,
            padding: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::max_payload;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_commit_word_reads_back_and_is_never_zero(length: u32, k in 1u8..=4, streamed: bool) {
            let kind = [Kind::Padding, Kind::Request, Kind::Reply, Kind::Error][usize::from(k - 1)];
            let c = Commit { length, kind, streamed };
            prop_assert_ne!(c.encode(), 0);
            prop_assert_eq!(Commit::decode(c.encode()), Ok(c));
        }

        #[test]
        fn a_place_never_spans_the_end_nor_reaches_unread_bytes(
            shift in 8u32..16, head8 in any::<u64>(), used8 in any::<u64>(), payload in 0usize..40_000, wrap_from in any::<u64>(),
        ) {
            let capacity = 1u64 << shift;
            let plan = Plan::new(capacity as usize, max_payload(capacity as usize));
            let payload = payload % (plan.max_payload() + 1);
            let head = head8 & !7;
            let tail = head.wrapping_add((used8 % (capacity - 7)) & !7);
            let record = record_bytes(payload);
            if let Some(p) = plan.place(tail, head, record, wrap_from) {
                prop_assert_eq!(p.at, tail.wrapping_add(p.padding));
                prop_assert!(plan.offset(p.at) as u64 + record <= capacity);
                prop_assert!(p.at.wrapping_add(record + TERMINATOR_BYTES).wrapping_sub(head) <= capacity);
                prop_assert!(p.padding == 0 || plan.offset(p.at) == 0);
            }
        }

        #[test]
        fn an_empty_ring_takes_the_largest_message_at_every_offset(shift in 8u32..16, index8 in any::<u64>(), wrap_from in any::<u64>()) {
            let capacity = 1usize << shift;
            let plan = Plan::new(capacity, max_payload(capacity));
            let at = index8 & !7;
            prop_assert!(plan.place(at, at, record_bytes(plan.max_payload()), wrap_from).is_some());
        }
    }
}
