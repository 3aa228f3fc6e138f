//! Room for one record: written piece by piece, extended where it is, and committed, or dropped as if it had never been.

use super::Producer;
use crate::ring::plan::{Commit, HEADER_BYTES, Kind, PIECE_BYTES, TERMINATOR_BYTES, record_bytes};
use crate::ring::storage::{Storage, Word};

/// Room for one record. Nothing is visible to the consumer until [`Slot::commit`]; dropping it sends nothing.
pub(crate) struct Slot<'a, S: Storage> {
    pub(super) producer: &'a mut Producer<S>,
    pub(super) at: u64,
    pub(super) padding: u64,
    /// Payload bytes that fit at this place for sure.
    pub(super) room: usize,
    pub(super) looked: bool,
    pub(super) written: usize,
}

/// A [`Slot`] laid aside: the same room, without the borrow. Good for nothing once anything else was reserved.
#[derive(Debug)]
pub(crate) struct Place {
    pub(super) at: u64,
    pub(super) padding: u64,
    pub(super) room: usize,
    pub(super) looked: bool,
    pub(super) written: usize,
}

impl Place {
    /// Bytes written so far.
    pub(crate) fn written(&self) -> usize {
        self.written
    }
}

impl<S: Storage> Slot<'_, S> {
    /// Lays it aside, see [`Producer::resume`].
    #[inline]
    pub(crate) fn lay_aside(self) -> Place {
        Place {
            at: self.at,
            padding: self.padding,
            room: self.room,
            looked: self.looked,
            written: self.written,
        }
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Payload bytes that fit without another look.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.room
    }

    /// Forgets what was written.
    pub(crate) fn clear(&mut self) {
        self.written = 0;
    }

    /// Appends bytes; false, and nothing is written, if there is no room for them even by extending the record where it is.
    #[inline]
    #[must_use]
    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.room - self.written && !self.extend(bytes.len()) {
            return false;
        }
        self.put(bytes);
        true
    }

    /// Appends bytes for which there is room.
    #[inline(always)]
    pub(super) fn put(&mut self, bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.room - self.written);
        let offset = self.producer.plan.offset(self.at) + HEADER_BYTES as usize + self.written;
        self.written += bytes.len();
        #[cfg(feature = "fault-points")]
        let (offset, bytes) = {
            let half = bytes.len() / 16 * 8;
            self.producer.storage.write(offset, &bytes[..half]);
            fault_point!(MidWrite);
            (offset + half, &bytes[half..])
        };
        self.producer.storage.write(offset, bytes);
    }

    /// Whether a payload of `length` bytes fits, if need be by extending the record where it is; it is large enough then.
    pub(crate) fn fits(&mut self, length: usize) -> bool {
        length <= self.room || self.extend(length - self.written)
    }

    /// Makes room for `more` bytes where the record is: on the cached index, and if that says no, by a fresh look. The cached one is up to a lap
    /// old, and then says so of a ring that is empty.
    #[cold]
    fn extend(&mut self, more: usize) -> bool {
        let p = &mut *self.producer;
        let Some(payload) = self
            .written
            .checked_add(more)
            .filter(|n| *n <= p.plan.max_payload())
        else {
            return false;
        };
        let record = record_bytes(payload);
        if record > p.plan.left_from(self.at) {
            return false;
        }
        if !p.plan.has_room(self.at, record, p.cached_head) {
            self.looked = true;
            // An index that makes no sense is no room. Who reserves next says so.
            if p.refresh().is_err() || !p.plan.has_room(self.at, record, p.cached_head) {
                return false;
            }
        }
        // Twice the room, if that is free too: who writes on in small pieces is here once per doubling, and not for each of them.
        let twice = (2 * self.room).min(p.plan.max_payload());
        let fits = |payload| {
            let record = record_bytes(payload);
            record <= p.plan.left_from(self.at) && p.plan.has_room(self.at, record, p.cached_head)
        };
        self.room = if twice > payload && fits(twice) {
            twice
        } else {
            payload
        };
        true
    }

    /// Copies what was written so far into `into`. The consumer may have scribbled on it; it is only fit to be sent to the
    /// same consumer.
    pub(crate) fn read_back(&self, into: &mut Vec<u8>) {
        into.resize(self.written, 0);
        let offset = self.producer.plan.offset(self.at) + HEADER_BYTES as usize;
        self.producer.storage.read(offset, into);
    }

    /// Writes id and terminator: all of the record but its commit word.
    #[inline(always)]
    fn prepare(&self, id: u64, record: u64) {
        let p = &*self.producer;
        p.storage.set_word(p.plan.offset(self.at) + 8, id);
        // I1: the place of the next record reads as "nothing here yet" before this one becomes visible.
        p.storage
            .set_word(p.plan.offset(self.at.wrapping_add(record)), 0);
    }

    /// Makes the commit word visible, and the padding in front of it after it, so that both appear at once.
    #[inline(always)]
    fn publish(&mut self, commit: Commit) {
        fault_point!(Prepared);
        let p = &mut *self.producer;
        // Release, partner: the Acquire in `Consumer::peek` (I2).
        p.storage
            .commit_release(p.plan.offset(self.at), commit.encode());
        fault_point!(Committed);
        if self.padding > 0 {
            let skip = Commit {
                length: 0,
                kind: Kind::Padding,
                streamed: false,
            };
            // Release, partner: the same Acquire; the consumer that sees the padding sees the record behind it.
            p.storage
                .commit_release(p.plan.offset(p.tail), skip.encode());
            p.last_padding = (p.tail, self.padding);
            p.padded = p.padded.wrapping_add(self.padding);
        }
    }

    /// Advances our index past the record.
    #[inline(always)]
    fn finish(&mut self, record: u64) {
        let p = &mut *self.producer;
        p.tail = self.at.wrapping_add(record);
        let end = p.plan.offset(self.at) as u64 + record;
        let touched = (end + TERMINATOR_BYTES).min(p.plan.capacity());
        // Here and elsewhere on the way of a message, what would change nothing is not stored: the store buffer is full of
        // stores to lines that the other side has, and each keeps the next message waiting.
        if touched > p.touched {
            p.touched = touched;
        }
        if record > p.largest {
            p.largest = record;
        }
        p.storage
            .store(Word::Produced, p.tail.wrapping_sub(p.padded));
        fault_point!(BeforeTail);
        // Release, partner: the Acquire loads of `tail` in `Consumer::cross_check` (I4) and `Consumer::valid_from` (I5).
        p.storage.store_release(Word::Tail, p.tail);
        fault_point!(AfterTail);
        if self.looked {
            p.look = Some(self.padding);
        }
    }

    /// Makes the record visible to the consumer. The slot is good for nothing after it.
    #[inline]
    pub(crate) fn commit(&mut self, kind: Kind, id: u64) {
        debug_assert_eq!(self.at.wrapping_sub(self.padding), self.producer.tail);
        let record = record_bytes(self.written);
        self.prepare(id, record);
        // The length fits: `room` is at most the largest payload, which is below half of a ring of at most 1 GiB.
        self.publish(Commit {
            length: self.written as u32,
            kind,
            streamed: false,
        });
        self.finish(record);
    }

    /// Copies `payload` in and publishes it piece by piece. Nothing can fail or panic between the first piece and the last, so
    /// only the death of this process leaves half a record, and then the connection ends. The slot is good for nothing after it.
    pub(crate) fn stream(&mut self, kind: Kind, id: u64, payload: &[u8]) {
        self.stream_by::<PIECE_BYTES>(kind, id, payload);
    }

    /// The same, in pieces of any size: those of the loom models are of a word.
    #[inline(always)]
    pub(in crate::ring) fn stream_by<const PIECE: usize>(
        &mut self,
        kind: Kind,
        id: u64,
        payload: &[u8],
    ) {
        debug_assert_eq!(self.at.wrapping_sub(self.padding), self.producer.tail);
        let record = record_bytes(payload.len());
        self.prepare(id, record);
        let mut pieces = payload.chunks(PIECE);
        if let Some(first) = pieces.next() {
            self.put(first);
        }
        let valid = |slot: &Self| {
            slot.at
                .wrapping_add(HEADER_BYTES)
                .wrapping_add(slot.written as u64)
        };
        // Commit word first, then tail (I4). Release as in `finish`.
        self.publish(Commit {
            length: payload.len() as u32,
            kind,
            streamed: true,
        });
        self.producer.storage.store_release(Word::Tail, valid(self));
        for piece in pieces {
            fault_point!(Piece);
            self.put(piece);
            self.producer.storage.store_release(Word::Tail, valid(self));
        }
        self.finish(record);
    }
}
