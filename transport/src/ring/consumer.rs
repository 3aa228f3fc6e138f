//! The consuming role: look, copy out, release. Says what happened; records and waits for nothing.
//!
//! The producer is not trusted: whatever stands in the ring, calls here return a checked record, "nothing yet" or a typed
//! [`Poison`]; they never read outside the ring, never loop without bound and never panic.

use super::plan::{Commit, HEADER_BYTES, Kind, Plan, record_bytes};
use super::storage::{Bell, Flag, Storage, Word};
use crate::error::Poison;

/// Looks at `tail` that a streamed record costs at first before the reader turns to other work: each with a pause, 35 to 60 µs together.
const STREAM_PATIENCE: usize = 1000;
/// Bytes that earn one more look. A piece takes its producer some tens of looks, and earns as many; one that lets `tail` creep earns
/// nothing, or it could hold the reader, and with it every other connection of a poller, for seconds per record.
const BYTES_PER_LOOK: usize = 64;

/// Consumes records. Exactly one exists per ring; it is `Send`, and every call takes `&mut self`.
pub(crate) struct Consumer<S> {
    storage: S,
    plan: Plan,
    /// Private copy of our index (I6).
    head: u64,
    /// What `head` has passed that was no record: padding, and where it started.
    padded: u64,
    /// Padding skipped since the last record was released.
    skipped: u64,
    /// Ring bytes of the last record released, its padding included.
    last_span: u64,
    /// Loads of the producer's index so far to learn whether something is there: a pointer-cache miss each.
    index_loads: u64,
    /// Some of them were not told yet.
    has_loaded: bool,
    /// Loads of the producer's index while following large records piece by piece (I5): how they work, not misses.
    follow_loads: u64,
    /// The record at `head` was found half published: not ready until `tail` has reached this index.
    half: Option<u64>,
}

/// A committed record, checked, not yet copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// What it is; never padding.
    pub(crate) kind: Kind,
    /// Its id, as the peer wrote it.
    pub(crate) id: u64,
    /// Payload bytes; at most the plan's largest payload.
    pub(crate) length: usize,
    streamed: bool,
}

impl Record {
    /// Whether it may be published in pieces, so that more of it may come.
    #[inline(always)]
    pub(crate) fn is_streamed(&self) -> bool {
        self.streamed
    }
}

/// What a release did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Released {
    /// Ring bytes of the record, padding not counted.
    pub(crate) record: u64,
    /// Padding skipped before it.
    pub(crate) padding: u64,
}

impl<S: Storage> Consumer<S> {
    /// The consumer of a fresh (all-zero) ring.
    pub(crate) fn new(storage: S, plan: Plan) -> Self {
        Self::starting_at(storage, plan, 0)
    }

    /// The same with both indices at `index` (a multiple of 8), to test the index wrap.
    pub(crate) fn starting_at(storage: S, plan: Plan, index: u64) -> Self {
        Self {
            storage,
            plan,
            head: index,
            padded: index,
            skipped: 0,
            last_span: 0,
            index_loads: 0,
            has_loaded: false,
            follow_loads: 0,
            half: None,
        }
    }

    /// The storage, for the futex words.
    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    /// End of the last released record.
    pub(crate) fn index(&self) -> u64 {
        self.head
    }

    /// Whether [`Self::take_loads`] has something to tell.
    #[inline(always)]
    pub(crate) fn has_loaded(&self) -> bool {
        self.has_loaded
    }

    /// Loads of the producer's index since the start, if there were any since this was told last.
    pub(crate) fn take_loads(&mut self) -> Option<u64> {
        std::mem::take(&mut self.has_loaded).then_some(self.index_loads)
    }

    /// Loads of the producer's index while following large records, since the start.
    pub(crate) fn follow_loads(&self) -> u64 {
        self.follow_loads
    }

    /// Whether something is there to be read, without taking it apart. The cheapest look: one load of a line the producer writes once.
    #[inline(always)]
    pub(crate) fn is_ready(&self) -> bool {
        // Acquire is not needed to decide; `peek` loads the word again with Acquire before anything is read.
        match self.half {
            None => self.storage.word(self.plan.offset(self.head)) != 0,
            Some(end) => self.storage.load(Word::Tail).wrapping_sub(end) <= self.plan.capacity(),
        }
    }

    /// The next record, if it is there. Looking twice gives the same one until it is released.
    #[inline]
    pub(crate) fn peek(&mut self) -> Result<Option<Record>, Poison> {
        // A padding record leads to the start of the ring, and a second one there is nonsense: two looks are enough.
        for _ in 0..2 {
            let offset = self.plan.offset(self.head);
            // Acquire, partner: the Release of the commit word in `Slot::publish` (I2).
            let word = self.storage.commit_acquire(offset);
            if word == 0 {
                // A record that was half published can't be unwritten: waiting for its rest would find its end reached, and no record,
                // for ever.
                if self.half.is_none() {
                    return Ok(None);
                }
                self.half = None;
                return Err(self.impossible(self.storage.load(Word::Tail)));
            }
            let commit = Commit::decode(word).map_err(|kind| Poison::RecordKind {
                kind,
                index: self.head,
            })?;
            if commit.kind != Kind::Padding {
                let length = commit.length as usize;
                if length > self.plan.max_payload()
                    || record_bytes(length) > self.plan.left_from(self.head)
                {
                    return Err(Poison::RecordLength {
                        length: length as u64,
                        index: self.head,
                    });
                }
                let id = self.storage.word(offset + 8);
                fault_point!(Peeked);
                return Ok(Some(Record {
                    kind: commit.kind,
                    id,
                    length,
                    streamed: commit.streamed,
                }));
            }
            let to_end = self.plan.left_from(self.head);
            if to_end == self.plan.capacity() {
                break;
            }
            // No longer the record that was half published, if one was.
            self.half = None;
            self.head = self.head.wrapping_add(to_end);
            self.skipped = self.skipped.wrapping_add(to_end);
            self.padded = self.padded.wrapping_add(to_end);
        }
        Err(Poison::RecordKind {
            kind: Kind::Padding as u32,
            index: self.head,
        })
    }

    /// Copies the payload of the record that [`Self::peek`] has just returned into the front of `into`. `Ok(false)`: it is being
    /// published in pieces and the producer has stopped half way; nothing is lost, look again later.
    ///
    /// # Panics
    /// If `into` is shorter than the record.
    #[inline]
    pub(crate) fn read(&mut self, record: &Record, into: &mut [u8]) -> Result<bool, Poison> {
        let offset = self.plan.offset(self.head) + HEADER_BYTES as usize;
        let into = &mut into[..record.length];
        if record.streamed {
            return self.read_streamed::<STREAM_PATIENCE>(offset, into);
        }
        // A peer may turn a half published record into a whole one; the next one must not be judged by its end.
        if self.half.is_some() {
            self.half = None;
        }
        self.copy_out(offset, into);
        Ok(true)
    }

    #[inline(always)]
    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        #[cfg(feature = "fault-points")]
        let (offset, into) = {
            let half = into.len() / 16 * 8;
            self.storage.read(offset, &mut into[..half]);
            fault_point!(MidRead);
            (offset + half, &mut into[half..])
        };
        self.storage.read(offset, into);
    }

    /// The loom models have less patience than [`STREAM_PATIENCE`]: each look is a branch there.
    #[inline(always)]
    pub(super) fn read_streamed<const PATIENCE: usize>(
        &mut self,
        offset: usize,
        into: &mut [u8],
    ) -> Result<bool, Poison> {
        self.follow::<PATIENCE>(into.len(), |this, from, to| {
            this.copy_out(offset + from, &mut into[from..to]);
        })
    }

    /// Whether all of the record that [`Self::peek`] has just returned is there, to be read where it lies. `Ok(false)` as in
    /// [`Self::read`].
    pub(crate) fn is_whole(&mut self, record: &Record) -> Result<bool, Poison> {
        if record.streamed {
            return self.follow::<STREAM_PATIENCE>(record.length, |_, _, _| {});
        }
        self.half = None;
        Ok(true)
    }

    /// The same for a record that is to be discarded: one look, where [`Self::is_whole`] may take 1000 and more of a peer that lets `tail` creep.
    pub(crate) fn is_there(&mut self, record: &Record) -> Result<bool, Poison> {
        if record.streamed {
            let base = self.head.wrapping_add(HEADER_BYTES);
            let length = record.length as u64;
            if self.valid_from(base)? < length {
                self.half = Some(base.wrapping_add(length));
                return Ok(false);
            }
        }
        self.half = None;
        Ok(true)
    }

    /// Follows `tail` through a record of `length` bytes, and gives each part that has become valid to `take`.
    #[inline(always)]
    fn follow<const PATIENCE: usize>(
        &mut self,
        length: usize,
        mut take: impl FnMut(&Self, usize, usize),
    ) -> Result<bool, Poison> {
        let base = self.head.wrapping_add(HEADER_BYTES);
        if self.half.is_some() && !self.is_ready() {
            return Ok(false);
        }
        let (mut done, mut looks) = (0usize, PATIENCE);
        while done < length {
            if looks == 0 {
                self.half = Some(base.wrapping_add(length as u64));
                return Ok(false);
            }
            looks -= 1;
            let valid = self.valid_from(base)?;
            let valid = (valid as usize).min(length);
            if valid <= done {
                std::hint::spin_loop();
                continue;
            }
            looks = (looks + (valid - done) / BYTES_PER_LOOK).min(2 * PATIENCE);
            take(self, done, valid);
            done = valid;
        }
        self.half = None;
        Ok(true)
    }

    /// How many bytes from `base` on, the payload of the record at `head`, have been published; more once others follow it.
    #[inline(always)]
    fn valid_from(&mut self, base: u64) -> Result<u64, Poison> {
        self.follow_loads += 1;
        // Acquire, partner: the Release stores of `tail` in `Slot::stream` and `Slot::finish` (I5).
        let tail = self.storage.load_acquire(Word::Tail);
        let valid = tail.wrapping_sub(base);
        if valid <= self.plan.capacity() {
            return Ok(valid);
        }
        // Before the first piece `tail` still stands where the last record ended: before this header and the padding.
        if base.wrapping_sub(tail) > HEADER_BYTES.wrapping_add(self.skipped) {
            return Err(self.impossible(tail));
        }
        Ok(0)
    }

    /// Gives the record that [`Self::peek`] returned back to the producer.
    #[inline]
    pub(crate) fn release(&mut self, record: &Record) -> Released {
        let bytes = record_bytes(record.length);
        self.head = self.head.wrapping_add(bytes);
        self.storage
            .store(Word::Consumed, self.head.wrapping_sub(self.padded));
        fault_point!(BeforeRelease);
        // Release, partner: the Acquire in `Producer::refresh` (I3): our reads of these bytes are done.
        self.storage.store_release(Word::Head, self.head);
        fault_point!(AfterRelease);
        let padding = self.skipped;
        if padding > 0 {
            self.skipped = 0;
        }
        let span = bytes.wrapping_add(padding);
        if self.last_span != span {
            self.last_span = span;
        }
        Released {
            record: bytes,
            padding,
        }
    }

    /// Checks the producer's index against the commit words, on slow paths (before sleeping): a hole punched into the ring, or a
    /// scribbled index, is then an error and not a record that never comes (I4).
    pub(crate) fn cross_check(&mut self) -> Result<(), Poison> {
        self.index_loads += 1;
        self.has_loaded = true;
        // Acquire, partner: the Release of `tail` in `Slot::finish`: if it is ahead, the commit word at our head is visible.
        let tail = self.storage.load_acquire(Word::Tail);
        let ahead = tail.wrapping_sub(self.head);
        // `tail` is stored after the commit word, so it may lag behind what we have already taken: by the last record, whose
        // predecessor's `tail` its commit word made visible, and by padding skipped since.
        let behind = self.head.wrapping_sub(tail);
        if behind <= self.last_span.wrapping_add(self.skipped) {
            return Ok(());
        }
        if ahead > self.plan.capacity() {
            return Err(self.impossible(tail));
        }
        if self.storage.commit_acquire(self.plan.offset(self.head)) == 0 {
            return Err(self.impossible(tail));
        }
        Ok(())
    }

    /// Where the payload of the record lies that [`Self::peek`] has just returned.
    pub(crate) fn payload_offset(&self) -> usize {
        self.plan.offset(self.head) + HEADER_BYTES as usize
    }

    fn impossible(&self, tail: u64) -> Poison {
        Poison::Index {
            found: tail,
            last: self.head,
            ours: self.head,
            capacity: self.plan.capacity(),
        }
    }

    /// Announces that the consumer is about to sleep; look again, then sleep until `bell` rings.
    pub(crate) fn announce(&self, bell: Bell) {
        self.announce_unfenced(bell);
        // SeqCst fence, partner: the one in `Producer::must_wake`.
        self.storage.fence();
    }

    /// The same without the fence: who sleeps on many rings issues one behind all of these, and before it looks at any again.
    #[inline]
    pub(crate) fn announce_unfenced(&self, bell: Bell) {
        self.storage.set_flag(Flag::Empty, bell as u32);
    }

    /// Takes the announcement back.
    pub(crate) fn retract(&self) {
        self.storage.set_flag(Flag::Empty, 0);
    }

    /// The same, and whether it was still there: then nothing will ring for it. Of a producer that takes it at the same time, either it or we find it.
    pub(crate) fn withdraw(&self) -> bool {
        self.storage.swap_flag(Flag::Empty, 0) != 0
    }

    /// Whether the producer says that it sleeps for room: a hint, without a fence; then [`Self::must_wake_fenced`] is worth its price.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.storage.flag(Flag::Full) != 0
    }

    /// After releasing: whether the producer sleeps for room and the caller must wake it (futex on [`Flag::Full`]).
    ///
    /// The caller has fenced in between: every end of a connection has a producer too, whose
    /// [`super::producer::Producer::must_wake`] does it for both. Partner: the fence in `Producer::announce`, or behind all of
    /// a poller's (`park_on`).
    #[inline(always)]
    pub(crate) fn must_wake_fenced(&self) -> bool {
        self.storage.take_bell(Flag::Full).is_some()
    }
}
