//! The producing role: reserve room, and hand it out as a [`Slot`] to write and commit. Says what happened; records and waits for nothing.

mod slot;

pub(crate) use slot::{Place, Slot};

use super::plan::{self, Kind, Plan, STREAM_FROM_BYTES, record_bytes};
use super::storage::{Bell, Flag, Storage, Word};
use crate::error::Poison;

/// The window that nobody has advised otherwise, and the largest that is advised (why: `ACTIVE_BYTES` in `membrane/house`).
pub(crate) const DEFAULT_WINDOW_BYTES: u64 = 2 << 20;
/// The window of a ring's first lap: two records of 8 KiB. Each lap doubles it, up to the advice; a backlog or larger records make the lap itself longer
/// ([`Producer::place_looking`]). The memory of a lap is new to both sides, and every 4 KiB of it a page fault for each: 1,000 connections that began with
/// 2 MiB each were at it for ten seconds.
pub(crate) const FIRST_WINDOW_BYTES: u64 = 16 << 10;

/// A lap has room for at least so many of the largest record so far, if the advice allows.
const RECORDS_PER_LAP: u64 = 8;
/// A lap has room for at least so many of the largest record so far, whatever was advised.
const FEWEST_PER_LAP: u64 = 4;

/// Produces records. Exactly one exists per ring; it is `Send`, and every call takes `&mut self`.
pub(crate) struct Producer<S> {
    storage: S,
    plan: Plan,
    /// Private copy of our index (I6): what stands in shared memory is only ever written.
    tail: u64,
    /// The consumer's index as last seen; never ahead of the real one, so room computed from it is room.
    cached_head: u64,
    /// What `tail` has passed that is no record: padding, and where it started.
    padded: u64,
    /// The last padding record: where it starts, and how long it is.
    last_padding: (u64, u64),
    /// From which offset to start over while the consumer keeps up. Grows past `window` with the backlog.
    wrap_from: u64,
    /// Where this lap would rather end.
    window: u64,
    /// How far into the ring was ever written.
    touched: u64,
    /// Ring bytes of the largest record so far.
    largest: u64,
    /// The consumer's index had to be loaded for a record that was committed: the padding before it. Kept here until
    /// [`Self::take_look`], and not returned: a result that is written to memory field by field and read as a whole cost
    /// a tenth of a pipelined message.
    look: Option<u64>,
}

/// What was seen for a record for which the consumer's index had to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Looked {
    /// Bytes skipped before it; 0 = none.
    pub(crate) padding: u64,
    /// The occupancy then found, padding not counted, the record included.
    pub(crate) occupancy: u64,
}

/// Why a reservation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// No room, by a fresh look at the consumer's index.
    Full {
        /// Bytes in the ring, padding not counted.
        occupancy: u64,
    },
    /// The consumer's index makes no sense.
    Poisoned(Poison),
}

impl<S: Storage> Producer<S> {
    /// The producer of a fresh (all-zero) ring.
    pub(crate) fn new(storage: S, plan: Plan) -> Self {
        Self::starting_at(storage, plan, 0)
    }

    /// The same with both indices at `index` (a multiple of 8), to test the index wrap.
    pub(crate) fn starting_at(storage: S, plan: Plan, index: u64) -> Self {
        let mut new = Self {
            storage,
            plan,
            tail: index,
            cached_head: index,
            padded: index,
            last_padding: (index, 0),
            wrap_from: 0,
            window: 0,
            touched: 0,
            largest: 0,
            look: None,
        };
        new.adopt_window();
        new
    }

    /// The ring's numbers.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The storage, for the futex words.
    pub(crate) fn storage(&self) -> &S {
        &self.storage
    }

    /// End of the last committed record.
    #[cfg(test)]
    pub(crate) fn index(&self) -> u64 {
        self.tail
    }

    /// Whether [`Self::take_look`] has something to tell.
    #[inline(always)]
    pub(crate) fn has_looked(&self) -> bool {
        self.look.is_some()
    }

    /// What was seen for the last record, if the consumer's index had to be loaded for it. Told once, right after its commit.
    pub(crate) fn take_look(&mut self) -> Option<Looked> {
        self.look.take().map(|padding| Looked {
            padding,
            occupancy: self.occupancy(),
        })
    }

    /// How far into the ring's memory was ever written, in bytes.
    pub(crate) fn touched(&self) -> u64 {
        self.touched
    }

    /// The window in force, in bytes.
    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    /// Loads and checks the consumer's index.
    fn refresh(&mut self) -> Result<(), Poison> {
        // Acquire pairs with the Release store of `head` in `Consumer::release` (I3): what the consumer has read is read.
        let found = self.storage.load_acquire(Word::Head);
        let moved = found.wrapping_sub(self.cached_head);
        // Monotonic, and not ahead of what we produced: else the peer wrote nonsense.
        if moved > self.tail.wrapping_sub(self.cached_head) || !found.is_multiple_of(8) {
            return Err(Poison::Index {
                found,
                last: self.cached_head,
                ours: self.tail,
                capacity: self.plan.capacity(),
            });
        }
        self.cached_head = found;
        Ok(())
    }

    /// Bytes between the cached head and our tail, padding not counted.
    fn occupancy(&self) -> u64 {
        let used = self.tail.wrapping_sub(self.cached_head);
        let (at, length) = self.last_padding;
        // Between head and tail (at most a capacity apart) lies at most one wrap, so one padding record.
        let ahead = at.wrapping_add(length).wrapping_sub(self.cached_head);
        if length > 0 && ahead.wrapping_sub(1) < used {
            used.saturating_sub(length)
        } else {
            used
        }
    }

    fn advice(&self) -> u64 {
        match self.storage.load(Word::Window) {
            0 => DEFAULT_WINDOW_BYTES,
            bytes => bytes,
        }
    }

    /// Takes a step towards the window that the server advises; once per lap, so it costs nothing. Any value is safe: it only
    /// decides between places that are both free.
    fn adopt_window(&mut self) {
        let next = (2 * self.window).max(FIRST_WINDOW_BYTES);
        self.window = next.min(self.advice()).min(self.plan.capacity());
        self.wrap_from = self.window;
    }

    /// Room for a payload of up to `room` bytes, on the cached index if possible.
    ///
    /// # Panics
    /// If `room` is above the largest payload: the caller checks it before and reports sizes to its user.
    #[inline]
    pub(crate) fn reserve(&mut self, room: usize) -> Result<Slot<'_, S>, NoSlot> {
        assert!(room <= self.plan.max_payload());
        // Single words meet here, and not two slots: those would meet in memory, written field by field and read as a whole.
        let (at, padding, looked) = match self.straight_on(record_bytes(room)) {
            Some(at) => (at, 0, false),
            None => {
                let found = self.place_looking(room)?;
                (found.at, found.padding, true)
            }
        };
        Ok(Slot {
            at,
            padding,
            room,
            looked,
            written: 0,
            producer: self,
        })
    }

    /// The common case: the record fits at `tail`, before the point of starting over, on the cached index.
    #[inline(always)]
    fn straight_on(&self, record: u64) -> Option<u64> {
        let to_end = self.plan.left_from(self.tail);
        let ok = record <= to_end
            && self.plan.capacity() - to_end < self.wrap_from
            && self.plan.has_room(self.tail, record, self.cached_head);
        ok.then_some(self.tail)
    }

    /// The slow half of the reservations: with a fresh look at the consumer's index.
    #[cold]
    #[inline(never)]
    fn place_looking(&mut self, room: usize) -> Result<plan::Place, NoSlot> {
        self.refresh().map_err(NoSlot::Poisoned)?;
        // Until the consumer has passed a padding record, only what lies in front of it is free. So start over early only
        // while the consumer keeps up: three quarters of this lap are free then, however the next messages come. So a lap is four
        // times the backlog, where that is more than the window.
        let behind = self.tail.wrapping_sub(self.cached_head);
        let lap = self.plan.offset(self.tail) as u64;
        // And it has had room for some records of any size seen: else a few large ones in flight would find a ring full that is nearly empty.
        let largest = self.largest.max(record_bytes(room));
        let advice = self.advice().max(FEWEST_PER_LAP * largest);
        let is_long = lap >= advice.min(RECORDS_PER_LAP * largest);
        let wrap_from = if behind <= lap / 4 && is_long {
            self.wrap_from
        } else {
            u64::MAX
        };
        match self
            .plan
            .place(self.tail, self.cached_head, record_bytes(room), wrap_from)
        {
            Some(place) => {
                if place.padding > 0 {
                    self.adopt_window();
                } else if lap >= self.wrap_from {
                    // The consumer is too far behind to start over: walk on, and look again a quarter lap later.
                    self.wrap_from = lap + lap / 4 + record_bytes(room);
                }
                Ok(place)
            }
            None => Err(NoSlot::Full {
                occupancy: self.occupancy(),
            }),
        }
    }

    /// Takes up a slot that was laid aside; nothing was reserved since.
    #[inline]
    pub(crate) fn resume(&mut self, place: &Place) -> Slot<'_, S> {
        let Place {
            at,
            padding,
            room,
            looked,
            written,
        } = *place;
        // Nothing was committed since, at least: then what lies at `at` would be the consumer's.
        assert!(at.wrapping_sub(padding) == self.tail);
        Slot {
            at,
            padding,
            room,
            looked,
            written,
            producer: self,
        }
    }

    /// Sends a copy of `payload`. Large ones are published in pieces (I5).
    ///
    /// # Errors
    /// As [`Self::reserve`]; nothing was sent then.
    #[inline]
    pub(crate) fn push(&mut self, kind: Kind, id: u64, payload: &[u8]) -> Result<(), NoSlot> {
        let mut slot = self.reserve(payload.len())?;
        fault_point!(Reserved);
        if payload.len() < STREAM_FROM_BYTES {
            slot.put(payload);
            slot.commit(kind, id);
        } else {
            slot.stream(kind, id, payload);
        }
        Ok(())
    }

    /// After publishing: whether the consumer sleeps, and how the caller must wake it (on [`Flag::Empty`]).
    /// Once per sleep at most.
    #[inline(always)]
    pub(crate) fn must_wake(&self) -> Option<Bell> {
        // SeqCst fence, partner: the one in `Consumer::announce`, or behind all of a poller's (`park_on`). Either our commit precedes its second look, or its
        // announcement precedes our load; both missing each other is what the two fences exclude.
        self.storage.fence();
        self.storage.take_bell(Flag::Empty)
    }

    /// Whether the consumer has said that it sleeps, as far as can be seen without a fence: `false` promises nothing.
    #[inline(always)]
    pub(crate) fn is_announced(&self) -> bool {
        self.storage.flag(Flag::Empty) != 0
    }

    /// Announces that the producer is about to sleep until there is room; look again, then sleep on [`Flag::Full`].
    pub(crate) fn announce(&self) {
        self.announce_unfenced();
        // SeqCst fence, partner: the one before `Consumer::must_wake_fenced`.
        self.storage.fence();
    }

    /// The same without the fence, as [`super::consumer::Consumer::announce_unfenced`].
    #[inline]
    pub(crate) fn announce_unfenced(&self) {
        self.storage.set_flag(Flag::Full, 1);
    }

    /// Takes the announcement back.
    pub(crate) fn retract(&self) {
        self.storage.set_flag(Flag::Full, 0);
    }
}
