//! A wait under way: its time, by rungs, its end, and when it looks whether there is somebody to wait for.

use std::time::Duration;

use super::super::{Look, Rung, Waited};
use crate::clock::Ticks;

/// So long is waited before a [`Look::tend`], and between two of them.
pub(super) const TEND_AFTER_NS: u64 = 50_000_000;

pub(super) struct Progress {
    pub(super) waited: Waited,
    pub(super) start: Ticks,
    pub(super) now: Ticks,
    /// Since when earlier waits were in vain.
    in_vain: Option<Ticks>,
    /// The last tend in this one.
    tended: Option<Ticks>,
    next_tend_ns: u64,
    deadline_ns: u64,
}

impl Progress {
    /// A wait that begins now, after others that were `in_vain` since then: all together have [`TEND_AFTER_NS`], and what the caller did in between.
    pub(super) fn begin(waited: Waited, limit: Duration, in_vain: Option<Ticks>) -> Self {
        let now = Ticks::now();
        let before = in_vain.map_or(0, |since| now.waited_since(since));
        Self {
            waited,
            start: now,
            now,
            in_vain,
            tended: None,
            next_tend_ns: TEND_AFTER_NS.saturating_sub(before),
            deadline_ns: u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn elapsed(&self) -> u64 {
        self.now.waited_since(self.start)
    }

    pub(super) fn over(&self) -> bool {
        self.elapsed() >= self.deadline_ns
    }

    /// What is left until the deadline.
    pub(super) fn left(&self) -> Duration {
        Duration::from_nanos(self.deadline_ns.saturating_sub(self.elapsed()))
    }

    /// Books the time since the last call to a rung.
    pub(super) fn account(&mut self, rung: Rung) {
        let now = Ticks::now();
        let ns = now.ns_since(self.now);
        self.now = now;
        match rung {
            Rung::Spin => self.waited.spin_ns += ns,
            Rung::Yield => self.waited.yield_ns += ns,
            Rung::Sleep => self.waited.sleep_ns += ns,
        }
        self.waited.rung = rung;
    }

    /// [`Look::tend`], if it is time.
    pub(super) fn tend<L: Look>(&mut self, what: &mut L) -> Option<L::Found> {
        if self.elapsed() < self.next_tend_ns {
            return None;
        }
        self.next_tend_ns = self.elapsed().saturating_add(TEND_AFTER_NS);
        self.tended = Some(self.now);
        what.tend()
    }

    /// What the next wait is to begin with. Something found is no reason to forget that others were in vain: who waits for many has it from one of
    /// them, and another may be dead.
    pub(super) fn in_vain(&self, found: bool) -> Option<Ticks> {
        match self.tended {
            Some(_) if found => None,
            None if found => self.in_vain,
            tended => tended.or(self.in_vain).or(Some(self.start)),
        }
    }
}
