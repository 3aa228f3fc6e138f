//! Times those requests of a connection that are drawn for it, and books what they took.
//!
//! All of it stands out of line: what one request in 256 needs must not take registers and instruction cache from the others. Inline it
//! cost 0.8 % of a 64 B round trip, however seldom it ran.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::calls::Timed;
use crate::clock::Ticks;
use crate::stats::recorder::{bump, set};
use crate::stats::sampler::Sampler;
use crate::stats::slot::SlotWriter;

/// How far apart the counts of two threads are at least: one gets there in a year, at 20,000 a second.
const OF_ANOTHER_THREAD: u64 = 1 << 40;

thread_local! {
    /// Requests timed on this thread, of all its connections. Each thread begins somewhere else.
    static POINTS: Cell<u64> = {
        static THREADS: AtomicU64 = AtomicU64::new(0);
        Cell::new(THREADS.fetch_add(1, Ordering::Relaxed).wrapping_mul(2 * OF_ANOTHER_THREAD))
    };
}

/// One side's choice of requests, and when it last timed one.
#[derive(Debug)]
pub(crate) struct Timing {
    sampler: Sampler,
    /// The timed request that was begun last. Kept here, so that whether there is one is all that is carried past what comes between:
    /// three words on the stack, for one request in hundreds, were 1 % of a pipelined message.
    begun: Timed,
    /// `None` before the first: a connection that is asked at once would begin with strides of two.
    last: Option<Ticks>,
    /// [`POINTS`] then.
    last_points: u64,
}

impl Timing {
    /// Starts with every request timed; seeded by the slot, so that no two connections choose alike.
    pub(crate) fn new(slot: &SlotWriter) -> Self {
        Self {
            sampler: Sampler::new(u64::from(slot.index().unwrap_or(0))),
            begun: Timed {
                begun: Ticks::now(),
                weight: 1,
            },
            last: None,
            last_points: POINTS.get(),
        }
    }

    /// Asked once per request, before it is sent: whether it is timed. If so, [`Self::begun`] is its beginning, until the next is asked for.
    #[inline(always)]
    pub(crate) fn begin(&mut self) -> bool {
        let due = self.sampler.due();
        if let Some(weight) = due {
            self.start(weight);
        }
        due.is_some()
    }

    /// The beginning of the request that was last found to be timed.
    pub(crate) fn begun(&self) -> Timed {
        self.begun
    }

    /// As [`Self::begin`], before the handler runs; a stuck one shows by its beginning.
    #[inline(always)]
    pub(crate) fn begin_handler(&mut self, slot: &SlotWriter) -> bool {
        let due = self.sampler.due();
        if let Some(weight) = due {
            self.start_handler(slot, weight);
        }
        due.is_some()
    }

    /// The thread slept: see [`Sampler::paused`].
    #[inline]
    pub(crate) fn paused(&mut self) {
        self.sampler.paused();
    }

    /// Books a round trip: its reply has come.
    #[cold]
    #[inline(never)]
    pub(crate) fn replied(&mut self, slot: &SlotWriter, timed: Timed) {
        let now = Ticks::now();
        slot.rtt().record(now.ns_since(timed.begun), timed.weight);
        if self.sampled(slot, now) {
            // A client that never sleeps says nowhere else whose it is.
            slot.waits_here();
        }
    }

    /// Books the time in the handler, which was timed and has returned, and gives it back in ns.
    #[cold]
    #[inline(never)]
    pub(crate) fn handled(&mut self, slot: &SlotWriter) -> u64 {
        let (now, timed) = (Ticks::now(), self.begun);
        let ns = now.ns_since(timed.begun);
        slot.handler().record(ns, timed.weight);
        bump(&slot.req().handler_ns, ns.saturating_mul(timed.weight));
        set(&slot.req().handler_since_ns, 0);
        self.sampled(slot, now);
        ns
    }

    /// True if the last one was on another thread.
    fn sampled(&mut self, slot: &SlotWriter, now: Ticks) -> bool {
        let points = POINTS.get().wrapping_add(1);
        POINTS.set(points);
        let since = points.wrapping_sub(self.last_points);
        let moved = since >= OF_ANOTHER_THREAD;
        if let Some(last) = self.last {
            // A connection may change threads with each reply, and what another one has counted says nothing.
            let points = if moved { 1 } else { since };
            self.sampler.adapt(now.ns_since(last), points);
        }
        (self.last, self.last_points) = (Some(now), points);
        set(&slot.req().last_progress_ns, now.monotonic_ns());
        set(&slot.req().sample_period, self.sampler.period());
        moved
    }

    #[cold]
    #[inline(never)]
    fn start(&mut self, weight: u64) {
        let begun = Ticks::now();
        self.begun = Timed { begun, weight };
    }

    #[cold]
    #[inline(never)]
    fn start_handler(&mut self, slot: &SlotWriter, weight: u64) {
        self.start(weight);
        set(
            &slot.req().handler_since_ns,
            self.begun.begun.monotonic_ns(),
        );
    }
}

#[cfg(all(test, not(transport_no_stats)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stats::SlotKind;

    #[test]
    fn a_connection_that_is_asked_as_soon_as_it_is_there_has_its_next_request_timed_too() {
        let slot = SlotWriter::private(SlotKind::Connection);
        let mut timing = Timing::new(&slot);
        assert!(timing.begin_handler(&slot));
        timing.handled(&slot);
        assert_eq!(timing.sampler.period(), 1);
    }

    #[test]
    fn a_slow_connection_that_changes_threads_all_the_time_has_every_request_timed() {
        let slot = SlotWriter::private(SlotKind::Connection);
        let mut timing = Timing::new(&slot);
        for n in 1..10 {
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    POINTS.set(POINTS.get() + n * 100_000);
                    std::thread::sleep(Duration::from_millis(1));
                    assert!(timing.begin());
                    let begun = timing.begun();
                    timing.replied(&slot, begun);
                });
            });
        }
    }
}
