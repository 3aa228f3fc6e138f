//! Whether CPUs are short, and what a waiting thread changes about itself while they are.
//!
//! A `sched_yield` with nobody else on the core returns within a microsecond (0.2–0.5 µs measured); when it hands the core over, it comes back
//! after 2.8 µs at best. Slow yields raise a score, quick ones lower it.
//!
//! A yield gives the rest of a time slice away, so who is busy in a crowd has a short one ([`super::slice`]). And if the server would
//! rather have its CPU for itself, it leaves that one ([`super::migration`]). Who thinks between two waits ([`super::pace`]) does neither: a poller
//! that is woken could not interrupt it otherwise, and would answer all who ask meanwhile in one bunch.

use super::Waited;
use super::migration::Migration;
use super::pace::{self, Pace};
use super::slice::ShortSlice;
use crate::clock::Ticks;

/// A yield that takes longer has let somebody else run.
const SLOW_YIELD_NS: u64 = 1_300;
/// Score from which the CPUs count as crowded, what a slow yield adds, and the most it can be.
const CROWDED: u32 = 32;
const SLOW_YIELD_SCORE: u32 = 16;
const MAX_SCORE: u32 = 128;

/// What one waiter knows of the crowd it is in, and has done because of it.
#[derive(Debug)]
pub(super) struct Crowd {
    score: u32,
    /// Held while busy in a crowd.
    slice: Option<ShortSlice>,
    pace: Pace,
    migration: Migration,
}

impl Crowd {
    pub(super) const fn new() -> Self {
        Self {
            score: 0,
            slice: None,
            pace: Pace::new(),
            migration: Migration::new(),
        }
    }

    /// True while the CPUs are taken to be oversubscribed.
    #[inline(always)]
    pub(super) const fn is_here(&self) -> bool {
        self.score >= CROWDED
    }

    /// A yield took so long.
    pub(super) fn has_yielded(&mut self, ns: u64) {
        self.score = if ns > SLOW_YIELD_NS {
            (self.score + SLOW_YIELD_SCORE).min(MAX_SCORE)
        } else {
            self.score.saturating_sub(1)
        };
    }

    /// After a wait: a short slice while busy in a crowd, the thread's own again once nothing is left of either; and off the CPU that the other
    /// side wants for itself.
    pub(super) fn fit_thread(&mut self, waited: &Waited, to_leave: Option<usize>, now: Ticks) {
        if self.is_here() {
            self.pace
                .has_waited(waited.sleeps, pace::voluntary_switches);
        }
        if self.score == 0 || !self.pace.is_busy() {
            self.slice = None;
        } else if self.is_here() {
            let held = self.slice.as_ref();
            if !held.is_some_and(ShortSlice::is_of_this_thread) {
                self.slice = ShortSlice::hold();
            }
            if let Some(cpu) = to_leave
                && self.migration.is_due(cpu, now)
            {
                let migrates = || self.migration.leave(cpu, now);
                self.pace.not_counting(migrates, pace::voluntary_switches);
            }
        }
    }
}

#[cfg(test)]
impl Crowd {
    /// As after many slow yields.
    pub(super) const fn of_many() -> Self {
        let mut crowd = Self::new();
        crowd.score = MAX_SCORE;
        crowd
    }

    /// The same, and as a thread that is busy in it.
    pub(super) fn of_many_and_busy() -> Self {
        let mut crowd = Self::of_many();
        for _ in 0..200 {
            crowd.fit_thread(&Waited::default(), None, Ticks::now());
        }
        crowd
    }

    /// Whether it was ever tried to leave a CPU.
    pub(super) const fn has_moved(&self) -> bool {
        self.migration.has_moved()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// So many waits that each find a crowd, with a pause of the thread's own after each.
    fn waits_in_a_crowd(crowd: &mut Crowd, pause: Option<Duration>, to_leave: Option<usize>) {
        for _ in 0..200 {
            crowd.score = MAX_SCORE;
            crowd.fit_thread(&Waited::default(), to_leave, Ticks::now());
            pause.into_iter().for_each(std::thread::sleep);
        }
    }

    const SLEEP: Option<Duration> = Some(Duration::from_micros(1));

    #[test]
    fn yields_that_let_others_run_make_a_crowd_and_many_quick_ones_end_it() {
        let mut crowd = Crowd::new();
        crowd.has_yielded(SLOW_YIELD_NS + 1);
        assert!(!crowd.is_here(), "once is an accident");
        crowd.has_yielded(SLOW_YIELD_NS + 1);
        assert!(crowd.is_here());
        for _ in 0..1000 {
            crowd.has_yielded(SLOW_YIELD_NS + 1);
        }
        let mut quick = 0;
        while crowd.is_here() {
            crowd.has_yielded(SLOW_YIELD_NS);
            quick += 1;
        }
        assert_eq!(quick, MAX_SCORE - CROWDED + 1);
    }

    #[test]
    fn who_is_busy_in_a_crowd_has_a_short_slice_and_who_thinks_in_between_or_is_alone_its_own() {
        let mut crowd = Crowd::new();
        waits_in_a_crowd(&mut crowd, None, None);
        assert!(crowd.slice.is_some());
        waits_in_a_crowd(&mut crowd, SLEEP, None);
        assert!(crowd.slice.is_none(), "thinks");
        waits_in_a_crowd(&mut crowd, None, None);
        assert!(crowd.slice.is_some());
        crowd.score = 0;
        crowd.fit_thread(&Waited::default(), None, Ticks::now());
        assert!(crowd.slice.is_none(), "alone");
    }

    #[test]
    fn the_short_slice_is_that_of_the_thread_that_waits_now() {
        let mut crowd = Crowd::new();
        waits_in_a_crowd(&mut crowd, None, None);
        std::thread::spawn(move || {
            waits_in_a_crowd(&mut crowd, None, None);
            assert!(crowd.slice.is_some_and(|slice| slice.is_of_this_thread()));
        })
        .join()
        .expect("the other thread");
    }

    #[test]
    fn only_who_is_busy_in_a_crowd_leaves_the_servers_cpu() {
        /// Whether a thread was told to leave the CPU it is on, waiting so.
        fn moves(waits: impl FnOnce(&mut Crowd, usize) + Send + 'static) -> bool {
            let waits = || {
                let mut crowd = Crowd::new();
                // Stays where it is, so that the CPU to leave is the one it is on.
                let cpu = super::super::migration::keep_to_one_cpu();
                waits(&mut crowd, cpu);
                crowd.has_moved()
            };
            std::thread::spawn(waits).join().expect("no panic")
        }
        assert!(moves(|crowd, cpu| waits_in_a_crowd(crowd, None, Some(cpu))));
        assert!(!moves(|crowd, cpu| waits_in_a_crowd(
            crowd,
            SLEEP,
            Some(cpu)
        )));
        assert!(!moves(|crowd, _| waits_in_a_crowd(crowd, None, None)));
        assert!(!moves(|crowd, cpu| {
            for _ in 0..200 {
                crowd.fit_thread(&Waited::default(), Some(cpu), Ticks::now());
            }
        }));
    }
}
