//! How far apart the two cores are: a cache line's round trip between them, which the host of a virtual machine changes within seconds.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::clock::{monotonic_ns, sleep_until};
use crate::system;

/// Round trips per batch, and batches.
const TRIPS: u64 = 2000;
const BATCHES: usize = 15;
/// While a run is under way: a sample every 50 ms, the median of some short batches, in the first of which one waits for the other. Some 10 to 30 µs of both CPUs: less than a thousandth.
const SAMPLE_EVERY_NS: u64 = 50_000_000;
const SAMPLE_BATCHES: usize = 5;
const SAMPLE_TRIPS: u64 = 16;
/// A sample that takes longer (0.5 ms) was disturbed, and tells nothing.
const SAMPLE_PATIENCE_NS: u64 = 500_000;
/// Below this the two are hyperthreads of one core: 16 ns measured, and everything is some four times as quick as between cores.
const SIBLINGS_NS: f64 = 45.0;
/// Below this the cores are near each other.
const NEAR_NS: f64 = 150.0;

/// How a run stood to the host, by the probes during it, or around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Regime {
    /// All probes below 45 ns: hyperthreads of one core.
    Siblings,
    /// All below 150 ns.
    Near,
    /// All above.
    Far,
    /// It changed in between.
    Mixed,
    /// Fewer than two CPUs.
    Unknown,
}

/// When the cores were probed. A regime told around a run can be another than the run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Probed {
    /// While requests were counted.
    During,
    /// Once before and once after: of idle clients, who are not to be woken, and where [`may_probe_during`] says no.
    Around,
}

impl Regime {
    /// Of a run with these line round trips.
    pub(crate) fn of(lines_ns: &[f64]) -> Self {
        let one = |&ns: &f64| match ns {
            ns if ns < SIBLINGS_NS => Self::Siblings,
            ns if ns < NEAR_NS => Self::Near,
            _ => Self::Far,
        };
        let mut all = lines_ns.iter().map(one);
        match all.next() {
            None => Self::Unknown,
            Some(first) if all.all(|other| other == first) => first,
            Some(_) => Self::Mixed,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Siblings => "siblings",
            Self::Near => "near",
            Self::Far => "far",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}

#[repr(align(128))]
struct Line(AtomicU64);

/// A line's round trip between two CPUs, in ns. The lower quartile of some batches: whoever else runs only makes it longer.
pub(crate) fn line_round_trip(cpus: Option<(usize, usize)>) -> Option<f64> {
    let (one, other) = cpus?;
    let line = Line(AtomicU64::new(0));
    let total = TRIPS * BATCHES as u64;
    // Even: ours to make odd; odd: theirs.
    let turn = |from: u64| {
        while line.0.load(Ordering::Acquire) != from {
            std::hint::spin_loop();
        }
        line.0.store(from + 1, Ordering::Release);
    };
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let pinned = system::pin(other).is_ok();
            (0..total).for_each(|n| turn(2 * n + 1));
            pinned
        });
        let timing = scope.spawn(|| {
            let pinned = system::pin(one).is_ok();
            let mut batches = Vec::with_capacity(BATCHES);
            let mut n = 0;
            for _ in 0..BATCHES {
                let begin = monotonic_ns();
                for _ in 0..TRIPS {
                    turn(2 * n);
                    n += 1;
                }
                batches.push((monotonic_ns() - begin) as f64 / TRIPS as f64);
            }
            batches.sort_by(f64::total_cmp);
            pinned.then_some(batches[BATCHES / 4])
        });
        let pinned = echo.join().ok()?;
        timing.join().ok()?.filter(|_| pinned)
    })
}

/// Whether [`line_samples`] works for this user.
pub(crate) fn may_probe_during() -> bool {
    // On a thread of its own: the privilege is the thread's.
    std::thread::scope(|scope| scope.spawn(system::go_first).join().unwrap_or(false))
}

/// The same from time to time until then, beside whatever else runs: one that changed and changed back would not show before and after.
/// None where this may not run before all others (CAP_SYS_NICE).
pub(crate) fn line_samples(cpus: Option<(usize, usize)>, until_ns: u64) -> Vec<f64> {
    let Some((one, other)) = cpus else {
        return Vec::new();
    };
    let begin = monotonic_ns() + SAMPLE_EVERY_NS / 2;
    let moments: Vec<(u64, Line)> = (begin..until_ns)
        .step_by(SAMPLE_EVERY_NS as usize)
        .map(|at| (at, Line(AtomicU64::new(0))))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if system::pin(other).is_ok() && system::go_first() {
                for (at, line) in &moments {
                    sleep_until(*at);
                    let total = SAMPLE_BATCHES as u64 * SAMPLE_TRIPS;
                    let _ = trips(line, 1, total, at + SAMPLE_PATIENCE_NS);
                }
            }
        });
        let timing = scope.spawn(|| {
            // Whoever has to wait for its turn spins meanwhile for the other, at the expense of whoever is measured.
            if system::pin(one).is_err() || !system::go_first() {
                return Vec::new();
            }
            let sample = |(at, line): &(u64, Line)| {
                sleep_until(*at);
                let mut batches = [0.0; SAMPLE_BATCHES];
                for (n, batch) in (0..).zip(&mut batches) {
                    let first = 2 * n * SAMPLE_TRIPS;
                    let begin = monotonic_ns();
                    trips(line, first, SAMPLE_TRIPS, at + SAMPLE_PATIENCE_NS)?;
                    *batch = (monotonic_ns() - begin) as f64 / SAMPLE_TRIPS as f64;
                }
                batches.sort_by(f64::total_cmp);
                Some(batches[SAMPLE_BATCHES / 2])
            };
            moments.iter().filter_map(sample).collect()
        });
        // A panic there is a bug in here, and was reported.
        timing.join().unwrap_or_default()
    })
}

/// One side's part of so many round trips, the first of which begins when the line is at `first`; `None` if they take too long.
fn trips(line: &Line, first: u64, count: u64, deadline_ns: u64) -> Option<()> {
    for from in (first..).step_by(2).take(count as usize) {
        let mut looks = 0u32;
        while line.0.load(Ordering::Acquire) != from {
            std::hint::spin_loop();
            looks += 1;
            if looks.is_multiple_of(256) && monotonic_ns() > deadline_ns {
                return None;
            }
        }
        line.0.store(from + 1, Ordering::Release);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_probe_of_another_regime_makes_a_run_mixed() {
        assert_eq!(Regime::of(&[65.0, 61.0, 70.0]), Regime::Near);
        assert_eq!(Regime::of(&[65.0, 310.0, 70.0]), Regime::Mixed);
        assert_eq!(Regime::of(&[310.0, 305.0]), Regime::Far);
        assert_eq!(Regime::of(&[26.0, 27.0]), Regime::Siblings);
        assert_eq!(Regime::of(&[]), Regime::Unknown);
    }
}
