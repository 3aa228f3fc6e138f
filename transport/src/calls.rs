//! Requests in flight on one connection: ids, which of them were given up, and when the timed ones began.
//!
//! A fixed table, so that submitting allocates nothing. Ids count up and are never used twice on a connection; the table
//! holds the newest [`MAX_IN_FLIGHT`] of them.

use crate::clock::Ticks;

/// Requests in flight at most, per connection.
pub const MAX_IN_FLIGHT: usize = 4096;

/// Replies to no request that are borne by callers who have no clock to end a flood of them.
const MAX_UNKNOWN: u64 = 256;

/// Names a request on its connection, in the order of submission. [`Reconnecting`](crate::Reconnecting) goes on counting on each new connection: there,
/// none names two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

impl RequestId {
    /// The number: 1 for the first request of a connection (of the first one, of [`Reconnecting`](crate::Reconnecting)), then counting up.
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

impl Timed {
    fn to_words(self) -> [u64; 2] {
        [self.begun.count(), self.weight]
    }

    fn from_words([begun, weight]: [u64; 2]) -> Self {
        Self {
            begun: Ticks::from_count(begun),
            weight,
        }
    }
}

/// What is known of a place in the table. A byte each, and what is timed apart: a table that is walked through, by a thousand connections,
/// is memory that has to be fetched for every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Place {
    #[default]
    Free,
    Live,
    /// Live, and its beginning stands in `Calls::timed`.
    Timed,
    /// Given up: its reply will be discarded.
    Abandoned,
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
    places: Box<[Place; MAX_IN_FLIGHT]>,
    /// Of places that are [`Place::Timed`]: [`Timed::to_words`]. Zeros until used, which cost no memory.
    timed: Box<[[u64; 2]]>,
    next: u64,
    /// Requests that nobody waits for any more: answered or given up. Those in flight are not counted themselves: two
    /// counts side by side are stored together, and a load of both right after a store of one waits for it.
    done: u64,
    abandoned: usize,
    /// Of `done`: given up.
    given_up: u64,
    /// Replies to no request since the last one to a request in flight.
    unknown: u64,
    /// Since when (monotonic ns, 0 = not yet) the oldest one in flight is waited for, and `done` then.
    waited: (u64, u64),
}

const fn place_of(id: u64) -> usize {
    (id as usize) & (MAX_IN_FLIGHT - 1)
}

impl Calls {
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::starting_at(1)
    }

    /// With `first`, which is not 0, for the first request.
    pub(crate) fn starting_at(first: u64) -> Self {
        Self {
            places: Box::new([Place::Free; MAX_IN_FLIGHT]),
            timed: vec![[0; 2]; MAX_IN_FLIGHT].into_boxed_slice(),
            next: first,
            done: first - 1,
            abandoned: 0,
            given_up: 0,
            unknown: 0,
            waited: (0, 0),
        }
    }

    /// What is known of this request, which is not free: the place of the newest [`MAX_IN_FLIGHT`] ids is nobody else's.
    #[inline(always)]
    fn known(&mut self, id: u64) -> Option<&mut Place> {
        let age = self.next.wrapping_sub(id).wrapping_sub(1);
        let place = &mut self.places[place_of(id)];
        (age < MAX_IN_FLIGHT as u64 && *place != Place::Free).then_some(place)
    }

    /// The id the next request gets, or `None` while its place in the table is taken.
    #[inline(always)]
    pub(crate) fn next_id(&self) -> Option<u64> {
        (self.places[place_of(self.next)] == Place::Free).then_some(self.next)
    }

    /// The id the next request gets once its place is free; never 0.
    #[inline]
    pub(crate) fn upcoming_id(&self) -> u64 {
        self.next
    }

    /// Enters the request that [`Self::next_id`] named.
    #[inline(always)]
    pub(crate) fn open(&mut self, id: u64, timed: Option<Timed>) {
        debug_assert_eq!(id, self.next);
        self.places[place_of(id)] = match timed {
            None => Place::Live,
            Some(timed) => {
                self.timed[place_of(id)] = timed.to_words();
                Place::Timed
            }
        };
        self.next += 1;
    }

    /// Strikes out the request with this id: its reply is there.
    #[inline(always)]
    pub(crate) fn answer(&mut self, id: u64) -> Answered {
        let Some(place) = self.known(id) else {
            self.unknown += 1;
            return Answered::Unknown;
        };
        let timed = match std::mem::take(place) {
            Place::Abandoned => {
                self.abandoned -= 1;
                return Answered::Late;
            }
            Place::Timed => Some(Timed::from_words(self.timed[place_of(id)])),
            Place::Live | Place::Free => None,
        };
        self.done += 1;
        if self.unknown != 0 {
            self.unknown = 0;
        }
        Answered::Live(timed)
    }

    /// Gives a request up. Its id stays taken until its reply comes.
    pub(crate) fn abandon(&mut self, id: u64) {
        if let Some(place) = self.known(id).filter(|place| **place != Place::Abandoned) {
            *place = Place::Abandoned;
            self.done += 1;
            self.abandoned += 1;
            self.given_up += 1;
        }
    }

    /// Gives all up; returns how many.
    pub(crate) fn abandon_all(&mut self) -> usize {
        let live = self.live();
        if live == 0 {
            // Those given up before are marked.
            return 0;
        }
        for place in self
            .places
            .iter_mut()
            .filter(|place| **place != Place::Free)
        {
            *place = Place::Abandoned;
        }
        self.abandoned += live;
        self.done += live as u64;
        self.given_up += live as u64;
        live
    }

    /// Whether somebody still waits for the reply with this id.
    pub(crate) fn is_live(&mut self, id: u64) -> bool {
        self.known(id)
            .is_some_and(|place| *place != Place::Abandoned)
    }

    /// Requests whose reply has not come, whether somebody waits for it or not.
    pub(crate) fn unanswered(&self) -> usize {
        self.live() + self.abandoned
    }

    /// True once more replies in a row came to no request than any honest server sends, which is none. (A reply in place that its
    /// caller forgot is met again as one.)
    pub(crate) fn is_flooded(&self) -> bool {
        self.unknown > MAX_UNKNOWN
    }

    /// Since when the oldest request in flight is waited for, of a wait that begins now. Waits may be cut up, by a limit or by who waits for many: as long as
    /// nothing is answered or given up, all of them are for the same one.
    pub(crate) fn waited_since(&mut self, now_ns: u64) -> u64 {
        if self.live() == 0 {
            return now_ns;
        }
        if self.waited.0 == 0 || self.waited.1 != self.done {
            self.waited = (now_ns, self.done);
        }
        self.waited.0
    }

    /// Requests given up so far, whether their reply came since or not.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Requests that wait for a reply.
    #[inline(always)]
    pub(crate) fn live(&self) -> usize {
        (self.next - 1 - self.done) as usize
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
    fn an_id_that_shares_its_place_with_a_live_one_is_unknown() {
        let mut calls = Calls::new();
        let lap = MAX_IN_FLIGHT as u64;
        for _ in 1..=lap {
            let id = calls.next_id().expect("free");
            calls.open(id, None);
            calls.answer(id);
        }
        let id = calls.next_id().expect("free");
        calls.open(id, None);
        for other in [id - lap, id + lap, id + 1] {
            assert!(!calls.is_live(other));
            calls.abandon(other);
            assert!(matches!(calls.answer(other), Answered::Unknown));
        }
        assert!(matches!(calls.answer(id), Answered::Live(None)));
    }

    #[test]
    fn a_timed_request_gets_its_beginning_and_weight_back_and_an_untimed_one_nobody_elses() {
        let mut calls = Calls::new();
        let begun = Ticks::from_count(77);
        let timed = Some(Timed { begun, weight: 8 });
        for lap in 0..2 {
            for place in 0..MAX_IN_FLIGHT {
                let id = calls.next_id().expect("free");
                calls.open(id, timed.filter(|_| (place + lap).is_multiple_of(2)));
                match calls.answer(id) {
                    Answered::Live(Some(got)) => {
                        assert_eq!((got.begun, got.weight), (begun, 8));
                        assert!((place + lap).is_multiple_of(2));
                    }
                    Answered::Live(None) => assert!(!(place + lap).is_multiple_of(2)),
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn ids_that_go_on_from_an_earlier_connection_count_as_those_from_1_do() {
        let first = 3 * MAX_IN_FLIGHT as u64 - 2;
        let mut calls = Calls::starting_at(first);
        assert_eq!(calls.live(), 0);
        assert!(matches!(calls.answer(first - 1), Answered::Unknown));
        for id in first..first + 5 {
            assert_eq!(calls.next_id(), Some(id));
            calls.open(id, None);
        }
        calls.abandon(first + 1);
        assert_eq!(calls.live(), 4);
        assert!(matches!(calls.answer(first), Answered::Live(None)));
        assert!(matches!(calls.answer(first + 1), Answered::Late));
        assert_eq!((calls.live(), calls.given_up()), (3, 1));
    }

    #[test]
    fn waits_for_the_same_oldest_request_are_one_wait() {
        let mut calls = Calls::new();
        assert_eq!(calls.waited_since(1), 1, "for nothing");
        calls.open(1, None);
        calls.open(2, None);
        assert_eq!(calls.waited_since(10), 10);
        calls.open(3, None);
        assert_eq!(calls.waited_since(20), 10);
        calls.answer(1);
        assert_eq!(calls.waited_since(30), 30);
        calls.abandon(2);
        assert_eq!(calls.waited_since(40), 40);
        assert_eq!(calls.waited_since(50), 40);
        calls.answer(3);
        assert_eq!(calls.waited_since(60), 60, "for nothing");
        calls.open(4, None);
        assert_eq!(calls.waited_since(70), 70);
    }

    #[test]
    fn an_id_out_of_thin_air_is_unknown() {
        let mut calls = Calls::new();
        for id in [0, 1, 77, u64::MAX] {
            assert!(matches!(calls.answer(id), Answered::Unknown));
        }
    }
}
