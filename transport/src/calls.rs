//! Requests in flight on one connection: ids, which of them were given up, and when the timed ones began.
//!
//! A fixed table, so that submitting allocates nothing. Ids count up from 1 and are never used twice on a connection; the table
//! holds the newest [`MAX_IN_FLIGHT`] of them.

use crate::clock::Ticks;

/// Requests in flight at most, per connection.
pub const MAX_IN_FLIGHT: usize = 4096;

/// Replies to no request that are borne by callers who have no clock to end a flood of them.
const MAX_UNKNOWN: u64 = 256;

/// Names a request on its connection, in the order of submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

impl RequestId {
    /// The number: 1 for the first request of a connection, then counting up.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// A request that is timed: when it began, and how many it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    pub(crate) begun: Ticks,
    pub(crate) weight: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// 0 = free.
    id: u64,
    /// Given up: its reply will be discarded.
    abandoned: bool,
    timed: Option<Timed>,
}

/// What a reply's id turned out to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answered {
    /// A request in flight; now it is not any more.
    Live(Option<Timed>),
    /// One that was given up.
    Late,
    /// No request of this connection, or one that was answered before.
    Unknown,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Calls {
    entries: Box<[Entry]>,
    next: u64,
    live: usize,
    abandoned: usize,
    /// Replies to no request since the last one to a request in flight.
    unknown: u64,
}

impl Calls {
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![Entry::default(); MAX_IN_FLIGHT].into_boxed_slice(),
            next: 1,
            live: 0,
            abandoned: 0,
            unknown: 0,
        }
    }

    fn slot(&mut self, id: u64) -> &mut Entry {
        &mut self.entries[(id as usize) & (MAX_IN_FLIGHT - 1)]
    }

    /// The id the next request gets, or `None` while its place in the table is taken.
    pub(crate) fn next_id(&mut self) -> Option<u64> {
        let next = self.next;
        (self.slot(next).id == 0).then_some(next)
    }

    /// Enters the request that [`Self::next_id`] named.
    pub(crate) fn open(&mut self, id: u64, timed: Option<Timed>) {
        debug_assert_eq!(id, self.next);
        *self.slot(id) = Entry {
            id,
            abandoned: false,
            timed,
        };
        self.next += 1;
        self.live += 1;
    }

    /// Strikes out the request with this id: its reply is there.
    pub(crate) fn answer(&mut self, id: u64) -> Answered {
        let entry = self.slot(id);
        if id == 0 || entry.id != id {
            self.unknown += 1;
            return Answered::Unknown;
        }
        let Entry {
            abandoned, timed, ..
        } = std::mem::take(entry);
        if abandoned {
            self.abandoned -= 1;
            return Answered::Late;
        }
        self.live -= 1;
        self.unknown = 0;
        Answered::Live(timed)
    }

    /// Gives a request up. Its id stays taken until its reply comes.
    pub(crate) fn abandon(&mut self, id: u64) {
        let entry = self.slot(id);
        if id != 0 && entry.id == id && !entry.abandoned {
            entry.abandoned = true;
            self.live -= 1;
            self.abandoned += 1;
        }
    }

    /// Gives all up; returns how many.
    pub(crate) fn abandon_all(&mut self) -> usize {
        let live = self.live;
        for entry in &mut self.entries {
            if entry.id != 0 && !entry.abandoned {
                entry.abandoned = true;
                self.abandoned += 1;
            }
        }
        self.live = 0;
        live
    }

    /// Whether somebody still waits for the reply with this id.
    pub(crate) fn is_live(&self, id: u64) -> bool {
        let entry = &self.entries[(id as usize) & (MAX_IN_FLIGHT - 1)];
        id != 0 && entry.id == id && !entry.abandoned
    }

    /// Requests whose reply has not come, whether somebody waits for it or not.
    #[cfg(feature = "tokio")]
    pub(crate) fn unanswered(&self) -> usize {
        self.live + self.abandoned
    }

    /// True once more replies in a row came to no request than any honest server sends, which is none. (A reply in place that its
    /// caller forgot is met again as one.)
    pub(crate) fn is_flooded(&self) -> bool {
        self.unknown > MAX_UNKNOWN
    }

    /// Requests that wait for a reply.
    pub(crate) fn live(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_after_its_request_was_given_up_is_late_and_then_unknown() {
        let mut calls = Calls::new();
        let id = calls.next_id().expect("free");
        calls.open(id, None);
        calls.abandon(id);
        assert_eq!(calls.live(), 0);
        assert!(matches!(calls.answer(id), Answered::Late));
        assert!(matches!(calls.answer(id), Answered::Unknown));
    }

    #[test]
    fn an_id_is_not_used_again_before_its_late_reply_came() {
        let mut calls = Calls::new();
        let first = calls.next_id().expect("free");
        calls.open(first, None);
        calls.abandon(first);
        for _ in 1..MAX_IN_FLIGHT {
            let id = calls.next_id().expect("free");
            calls.open(id, None);
            assert!(matches!(calls.answer(id), Answered::Live(None)));
        }
        assert_eq!(calls.next_id(), None, "its place is held by the first");
        calls.answer(first);
        assert_eq!(calls.next_id(), Some(first + MAX_IN_FLIGHT as u64));
    }

    #[test]
    fn an_id_out_of_thin_air_is_unknown() {
        let mut calls = Calls::new();
        for id in [0, 1, 77, u64::MAX] {
            assert!(matches!(calls.answer(id), Answered::Unknown));
        }
    }
}
