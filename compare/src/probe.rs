//! How far apart the two cores are: a cache line's round trip between them, which the host of a virtual machine changes within seconds.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::clock::monotonic_ns;
use crate::system;

/// Round trips per batch, and batches.
const TRIPS: u64 = 2000;
const BATCHES: usize = 15;
/// Below this the two are hyperthreads of one core: 16 ns measured, and everything is some four times as quick as between cores.
const SIBLINGS_NS: f64 = 45.0;
/// Below this the cores are near each other.
const NEAR_NS: f64 = 150.0;

/// How a run stood to the host, by the probes around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Regime {
    /// Both probes below 45 ns: hyperthreads of one core.
    Siblings,
    /// Both below 150 ns.
    Near,
    /// Both above.
    Far,
    /// It changed in between.
    Mixed,
    /// Fewer than two CPUs.
    Unknown,
}

impl Regime {
    /// Of a run between two probes.
    pub(crate) fn of(before: Option<f64>, after: Option<f64>) -> Self {
        let one = |ns: f64| match ns {
            ns if ns < SIBLINGS_NS => Self::Siblings,
            ns if ns < NEAR_NS => Self::Near,
            _ => Self::Far,
        };
        match (before.map(one), after.map(one)) {
            (Some(a), Some(b)) if a == b => a,
            (Some(_), Some(_)) => Self::Mixed,
            _ => Self::Unknown,
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
