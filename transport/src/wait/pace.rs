//! Whether a thread sends one request after the other, or sleeps in between.
//!
//! Wall time can't tell: a busy client that is interrupted between two requests is away for as long as one that thinks. The kernel
//! counts how often a thread slept of its own accord; what we did not do, its owner did.

use nix::sys::resource::{UsageWho, getrusage};

use super::slice::is_filtered;

/// Waits between two looks at the kernel's count. A look costs some 0.4 µs, a wait in a crowd 3 and more.
const WAITS_PER_LOOK: u64 = 64;
/// Who slept between two waits more than once in so many thinks.
const WAITS_PER_SLEEP: u64 = 4;

/// See the module. Of one waiter's waits; those of a thread it moved away from spoil one look.
#[derive(Debug)]
pub(super) struct Pace {
    waits: u64,
    /// Times we slept in these waits.
    our_sleeps: u64,
    /// The kernel's count at the last look; `None` before the first, and where it is not told.
    switches: Option<u64>,
    busy: bool,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self {
            // The first wait looks, and so do others no more often where nothing is told than where it is: asking costs a system call either way.
            waits: WAITS_PER_LOOK - 1,
            our_sleeps: 0,
            switches: None,
            busy: false,
        }
    }

    /// A wait is over in which we slept so many times; `switches` is the kernel's count.
    #[inline]
    pub(super) fn has_waited(&mut self, sleeps: u64, switches: impl FnOnce() -> Option<u64>) {
        self.waits += 1;
        self.our_sleeps += sleeps;
        if self.waits >= WAITS_PER_LOOK {
            self.look(switches());
        }
    }

    /// Does something of ours that may put the thread to sleep: that is none of its owner's pauses.
    #[cold]
    pub(super) fn not_counting(&mut self, what: impl FnOnce(), switches: impl Fn() -> Option<u64>) {
        let before = switches();
        what();
        if let (Some(before), Some(after)) = (before, switches()) {
            self.our_sleeps += after.saturating_sub(before);
        }
    }

    #[cold]
    fn look(&mut self, switches: Option<u64>) {
        if let (Some(before), Some(now)) = (self.switches, switches) {
            let others = now.saturating_sub(before).saturating_sub(self.our_sleeps);
            self.busy = others * WAITS_PER_SLEEP < self.waits;
        }
        (self.waits, self.our_sleeps, self.switches) = (0, 0, switches);
    }

    /// As of the last look.
    pub(super) fn is_busy(&self) -> bool {
        self.busy
    }
}

/// How often the calling thread has slept so far: yields and interruptions don't count. `None` also under a seccomp filter, which may kill for this call;
/// who is busy changes nothing there.
pub(super) fn voluntary_switches() -> Option<u64> {
    if is_filtered() {
        return None;
    }
    let usage = getrusage(UsageWho::RUSAGE_THREAD).ok()?;
    u64::try_from(usage.voluntary_context_switches()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// What a pace says after two looks' worth of waits with so many sleeps by us and by the thread's owner in each.
    fn busy(ours: u64, others: u64) -> bool {
        let mut pace = Pace::new();
        let mut switches = 7;
        for _ in 0..=2 * WAITS_PER_LOOK {
            switches += ours + others;
            pace.has_waited(ours, || Some(switches));
        }
        pace.is_busy()
    }

    #[test]
    fn who_sleeps_between_its_waits_thinks_and_who_sleeps_in_them_is_busy() {
        assert!(busy(0, 0));
        assert!(busy(3, 0));
        assert!(!busy(0, 1));
        assert!(!busy(3, 1));
    }

    #[test]
    fn sleeps_of_ours_between_two_waits_are_no_pauses_and_hide_none() {
        let switches = std::cell::Cell::new(0);
        let sleep = || switches.set(switches.get() + 1);
        let mut pace = Pace::new();
        let mut busy = |pauses: bool| {
            for _ in 0..=2 * WAITS_PER_LOOK {
                pace.not_counting(|| (0..3).for_each(|_| sleep()), || Some(switches.get()));
                if pauses {
                    sleep();
                }
                pace.has_waited(0, || Some(switches.get()));
            }
            pace.is_busy()
        };
        assert!(busy(false));
        assert!(!busy(true));
    }

    #[test]
    fn a_thread_that_begins_to_think_is_known_for_it_a_look_later_and_one_that_can_not_be_known_is_not_busy()
     {
        let mut pace = Pace::new();
        for _ in 0..=WAITS_PER_LOOK {
            pace.has_waited(0, || Some(1));
        }
        assert!(pace.is_busy());
        for n in 1..=WAITS_PER_LOOK {
            pace.has_waited(0, || Some(1 + n));
        }
        assert!(!pace.is_busy());
        let mut pace = Pace::new();
        for _ in 0..=2 * WAITS_PER_LOOK {
            pace.has_waited(0, || None);
        }
        assert!(!pace.is_busy());
    }

    #[test]
    fn who_can_not_be_known_is_asked_about_no_more_often_than_others() {
        let asked = |answer: Option<u64>| {
            let times = std::cell::Cell::new(0);
            let mut pace = Pace::new();
            for _ in 0..=4 * WAITS_PER_LOOK {
                pace.has_waited(0, || {
                    times.set(times.get() + 1);
                    answer
                });
            }
            times.get()
        };
        assert_eq!((asked(Some(1)), asked(None)), (5, 5));
    }

    #[test]
    fn the_kernel_counts_sleeps_and_no_yields() {
        let before = voluntary_switches().expect("a count");
        for _ in 0..100 {
            std::thread::yield_now();
        }
        let yielded = voluntary_switches().expect("a count");
        for _ in 0..50 {
            std::thread::sleep(Duration::from_micros(50));
        }
        let slept = voluntary_switches().expect("a count");
        // Not one that is over before the thread, interrupted, has come to it.
        assert!(slept - yielded >= 40, "{slept} after {yielded}");
        // A page fault may sleep, too.
        assert!(yielded - before < 50, "{yielded} after {before}");
    }

    /// Kills the process for asking: if this fails, it takes all other tests with it.
    #[test]
    fn a_thread_whose_system_calls_are_filtered_is_not_asked_about() {
        let under_a_filter = || {
            super::super::slice::kill_for(libc::SYS_getrusage);
            voluntary_switches()
        };
        let thread = std::thread::spawn(under_a_filter);
        assert_eq!(thread.join().expect("no panic"), None);
    }
}
