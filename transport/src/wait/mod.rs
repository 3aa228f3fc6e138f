//! Waiting: how long to spin, when to yield, when to sleep, and how to be woken.
//!
//! [`policy`] decides and counts; [`futex`] is the system call. What a thread changes about itself where CPUs are short is [`crowd`]: its [`slice`],
//! what a yield costs and how soon who was woken may run; its CPU, [`migration`]; and [`pace`] tells whether it sleeps between its waits. What is waited for comes in as
//! a [`Look`]. Nothing here knows rings or statistics: a wait returns what it did, and callers record it.

mod crowd;
pub(crate) mod futex;
pub(crate) mod migration;
mod pace;
pub(crate) mod policy;
pub(crate) mod slice;
mod turn;

use std::time::Duration;

use crate::clock::Ticks;

/// Something that can be waited for.
pub(crate) trait Look {
    /// What is found.
    type Found;

    /// Looks once. Called in a tight loop: a load or two. (For members of a group that are on the socket a system call each time, and for room a
    /// reservation that is given back.)
    fn look(&mut self) -> Option<Self::Found>;

    /// Announces, fences, looks again and sleeps until woken, for at most `limit`. May return early at any time.
    fn park(&mut self, limit: Duration);

    /// Is there still somebody to wait for? `Some` ends the wait. Called after 50 ms of waiting and then as often, on every rung, but not while parked:
    /// of a wait so each 150 ms at least. Waits that were in vain count for those after them, however short each was. A [`policy::Waiter::rest`] parks for
    /// all of its limit, and may call it only then.
    fn tend(&mut self) -> Option<Self::Found>;

    /// The CPU that whoever is waited for would rather have for itself. Advice, from a peer: any number.
    fn is_to_leave(&self) -> Option<usize> {
        None
    }
}

/// How a wait ended, by the rung it had reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Rung {
    /// Spinning.
    #[default]
    Spin,
    /// In `sched_yield`.
    Yield,
    /// Asleep or parked.
    Sleep,
}

/// What a wait did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waited {
    /// Spin iterations.
    pub(crate) spins: u64,
    /// sched_yield calls.
    pub(crate) yields: u64,
    /// Sleeps and parks.
    pub(crate) sleeps: u64,
    /// Nanoseconds spinning; short waits are estimated from the iterations, since a clock would cost more than they last.
    pub(crate) spin_ns: u64,
    /// Nanoseconds in sched_yield.
    pub(crate) yield_ns: u64,
    /// Nanoseconds asleep.
    pub(crate) sleep_ns: u64,
    /// Rung reached.
    pub(crate) rung: Rung,
}

impl Waited {
    /// Yields once, for whoever was woken to run if it is on this CPU. How long that takes says nothing about a crowd.
    pub(crate) fn hand_over(&mut self) {
        let before = Ticks::now();
        std::thread::yield_now();
        self.yields += 1;
        self.yield_ns += Ticks::now().ns_since(before);
    }
}
