//! Time: the cycle counter for round trips, CLOCK_MONOTONIC for what several processes agree on.
//!
//! Every role calibrates the counter against CLOCK_MONOTONIC for itself, between its start and the moment it is told when to begin.

use std::time::Duration;

/// CLOCK_MONOTONIC in ns.
pub(crate) fn monotonic_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a live timespec that the call fills in; CLOCK_MONOTONIC always exists, so it can't fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The cycle counter: some 10 ns, against 25 ns of a system clock.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    // SAFETY: every x86-64 has the instruction; it touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Where there is no counter that user code may read: the system clock.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    monotonic_ns()
}

/// The same moment on both clocks.
#[derive(Clone, Copy)]
struct Moment {
    ticks: u64,
    ns: u64,
}

impl Moment {
    /// The best of a few tries: a preemption between the two reads would set them apart.
    fn now() -> Self {
        (0..5)
            .map(|_| {
                let (before, ns, after) = (ticks(), monotonic_ns(), ticks());
                (
                    after - before,
                    Self {
                        ticks: before + (after - before) / 2,
                        ns,
                    },
                )
            })
            .min_by_key(|(width, _)| *width)
            .map(|(_, moment)| moment)
            .expect("five tries")
    }
}

/// A calibration under way.
pub(crate) struct Calibration(Moment);

impl Calibration {
    /// Begins; the longer until [`Self::end`], the better.
    pub(crate) fn begin() -> Self {
        Self(Moment::now())
    }

    /// Ends it, after at least 20 ms.
    pub(crate) fn end(&self) -> Clock {
        let least = self.0.ns + 20_000_000;
        sleep_until(least);
        let now = Moment::now();
        Clock {
            anchor: now,
            ticks_per_ns: (now.ticks - self.0.ticks) as f64 / (now.ns - self.0.ns) as f64,
        }
    }
}

/// Converts between the two clocks.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    anchor: Moment,
    ticks_per_ns: f64,
}

impl Clock {
    /// The counter's value at a moment of CLOCK_MONOTONIC.
    pub(crate) fn at(&self, ns: u64) -> u64 {
        let distance = (ns as f64 - self.anchor.ns as f64) * self.ticks_per_ns;
        (self.anchor.ticks as f64 + distance) as u64
    }

    /// A duration in ns.
    #[inline(always)]
    pub(crate) fn ns(&self, ticks: u64) -> u64 {
        (ticks as f64 / self.ticks_per_ns) as u64
    }
}

/// Sleeps until a moment of CLOCK_MONOTONIC; not at all if it has passed.
pub(crate) fn sleep_until(ns: u64) {
    std::thread::sleep(until(ns));
}

/// How long until then.
pub(crate) fn until(ns: u64) -> Duration {
    Duration::from_nanos(ns.saturating_sub(monotonic_ns()))
}
