//! Time: the cycle counter for round trips, CLOCK_MONOTONIC for what several processes agree on.
//!
//! Every role calibrates the counter against CLOCK_MONOTONIC for itself, between its start and the moment it is told when to begin.

use std::collections::BTreeMap;
use std::sync::OnceLock;
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

/// The cycle counter: a look costs some 10 ns, against 25 ns at a system clock. How often it moves on is another matter: [`step_ns`].
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

/// By how many ns the counter of [`ticks`] moves on when it does; measured once, which takes 20 ms.
pub(crate) fn step_ns() -> f64 {
    static STEP: OnceLock<f64> = OnceLock::new();
    *STEP.get_or_init(|| {
        let calibration = Calibration::begin();
        let reading = |n: u64| {
            // Reads that all take equally long would look like a step.
            (0..n % 4).for_each(|n| {
                std::hint::black_box(n);
            });
            ticks()
        };
        let readings: Vec<u64> = (0..10_000).map(reading).collect();
        step_of(&readings) as f64 / calibration.end().ticks_per_ns
    })
}

/// What the differences between successive readings are multiples of; 0 if they are all over the place. The rare ones do not count: a
/// counter that a hypervisor scales is off its grid now and then.
fn step_of(readings: &[u64]) -> u64 {
    let mut counts = BTreeMap::<u64, usize>::new();
    for pair in readings.windows(2).filter(|pair| pair[1] > pair[0]) {
        *counts.entry(pair[1] - pair[0]).or_default() += 1;
    }
    let all: usize = counts.values().sum();
    let common = counts.iter().filter(|(_, count)| **count * 10 >= all);
    common.fold(0, |step, (&difference, _)| {
        let (mut a, mut b) = (step, difference);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    })
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

    /// A duration in ns, to the nearest.
    #[inline(always)]
    pub(crate) fn ns(&self, ticks: u64) -> u64 {
        (ticks as f64 / self.ticks_per_ns + 0.5) as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Readings that lie so far apart, over and over.
    fn readings(differences: &[u64]) -> Vec<u64> {
        let all = differences.iter().cycle().take(differences.len() * 100);
        all.scan(1000, |at, difference| {
            *at += difference;
            Some(*at)
        })
        .collect()
    }

    #[test]
    fn the_step_is_what_the_usual_differences_are_multiples_of() {
        // As read from a counter of 2.6 GHz that moves on every 10 ns, scaled by a hypervisor: one in twenty is off the grid.
        let scaled = [[26; 15].as_slice(), &[52, 0, 52, 1, 25, 52]].concat();
        assert_eq!(step_of(&readings(&scaled)), 26);
        // As from one that moves by two with every cycle of the bus.
        assert_eq!(step_of(&readings(&[18, 20, 20, 22, 24])), 2);
        assert_eq!(step_of(&[5, 5]), 0);
        assert!((0.0..1000.0).contains(&step_ns()));
    }
}
