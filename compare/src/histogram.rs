//! Round trips in log-linear buckets, 512 to the octave: no wider than 0.2 %, since a hundredth is what some comparisons look for. The clock
//! may be coarser, and percentiles take its step into account.

use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 9;
const SUB: u64 = 1 << SUB_BITS;

/// Records that must lie beyond a percentile for it to be given.
const BEYOND: f64 = 10.0;

/// A histogram of ns, to record in.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    max: u64,
}

/// What was recorded, as it crosses process borders and is kept: the non-empty buckets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sparse {
    max: u64,
    buckets: Vec<(usize, u64)>,
}

fn bucket_of(ns: u64) -> usize {
    if ns < SUB {
        return ns as usize;
    }
    let shift = 63 - ns.leading_zeros() - SUB_BITS;
    ((u64::from(shift) + 1) * SUB + (ns >> shift) - SUB) as usize
}

/// The middle of a bucket, and its width.
fn value_of(bucket: usize) -> (f64, f64) {
    let bucket = bucket as u64;
    if bucket < SUB {
        return (bucket as f64, 1.0);
    }
    let shift = bucket / SUB - 1;
    let (least, width) = ((SUB + bucket % SUB) << shift, 1u64 << shift);
    (least as f64 + (width - 1) as f64 / 2.0, width as f64)
}

impl Histogram {
    /// An empty one, with room for everything: recording allocates nothing.
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; bucket_of(u64::MAX) + 1],
            max: 0,
        }
    }

    /// Records a duration.
    #[inline]
    pub(crate) fn record(&mut self, ns: u64) {
        self.buckets[bucket_of(ns)] += 1;
        self.max = self.max.max(ns);
    }

    /// Adds another's records.
    fn add(&mut self, other: &Sparse) {
        for &(bucket, n) in &other.buckets {
            if let Some(slot) = self.buckets.get_mut(bucket) {
                *slot += n;
            }
        }
        self.max = self.max.max(other.max);
    }

    /// The non-empty buckets.
    pub(crate) fn sparse(&self) -> Sparse {
        Sparse {
            max: self.max,
            buckets: (0..)
                .zip(&self.buckets)
                .filter(|(_, n)| **n > 0)
                .map(|(bucket, n)| (bucket, *n))
                .collect(),
        }
    }
}

impl Sparse {
    /// All of these together.
    pub(crate) fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Histogram::new();
        for one in all {
            sum.add(one);
        }
        sum.sparse()
    }

    fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }

    /// The value below which `share` of the records lie, in ns, of a clock that moves on by `step_ns` at a time; `None` if fewer than ten
    /// records lie beyond it: then it is the say of one or two.
    pub(crate) fn quantile(&self, share: f64, step_ns: f64) -> Option<f64> {
        let count = self.count() as f64;
        // A share like 0.99 is a little less than it says, or more.
        (count * (1.0 - share) > BEYOND - 1e-6).then(|| self.value_at(share, step_ns))?
    }

    /// As [`Self::quantile`], of however few; `None` of none.
    fn value_at(&self, share: f64, step_ns: f64) -> Option<f64> {
        let rank = self.count() as f64 * share;
        let mut seen = 0.0;
        for &(bucket, n) in &self.buckets {
            let n = n as f64;
            if seen + n >= rank {
                let (middle, width) = value_of(bucket);
                // What was read as one value lay anywhere within a step of the clock around it: the rank says where.
                let place = (rank - seen) / n - 0.5;
                return Some((middle + place * width.max(step_ns)).min(self.max as f64));
            }
            seen += n;
        }
        None
    }

    /// The largest; `None` if there are none.
    pub(crate) fn max(&self) -> Option<u64> {
        (!self.buckets.is_empty()).then_some(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(list: impl IntoIterator<Item = u64>) -> Sparse {
        let mut histogram = Histogram::new();
        list.into_iter().for_each(|ns| histogram.record(ns));
        histogram.sparse()
    }

    #[test]
    fn percentiles_are_within_a_500th_of_the_sorted_list() {
        let mut list: Vec<u64> = (0..10_000u64).map(|i| i * i * 37 % 9_999_991).collect();
        let histogram = recorded(list.iter().copied());
        list.sort_unstable();
        for share in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = list[((10_000.0 * share) as usize).saturating_sub(1)] as f64;
            let found = histogram.value_at(share, 0.0).expect("records");
            assert!(
                (found - exact).abs() <= exact * 0.002 + 0.5,
                "{share}: {found} for {exact}"
            );
        }
    }

    #[test]
    fn a_percentile_needs_ten_records_beyond_it() {
        let p99 = |count: u64| recorded(1..=count).quantile(0.99, 0.0);
        // Of 64 values the 99th percentile would be the largest.
        assert_eq!((p99(64), p99(999), p99(0)), (None, None, None));
        assert!(p99(1000).is_some_and(|ns| (985.0..=995.0).contains(&ns)));
        assert_eq!(recorded(1..=19).quantile(0.5, 0.0), None);
        assert!(recorded(1..=20).quantile(0.5, 0.0).is_some());
        let (some, more) = (recorded(1..=600), recorded(601..=1200));
        assert_eq!(some.quantile(0.99, 0.0), None);
        let together = Sparse::sum([&some, &more]);
        assert_eq!((together.count(), together.max()), (1200, Some(1200)));
        assert!(together.quantile(0.99, 0.0).is_some());
    }

    /// Durations spread evenly over 240 to 270 ns, by a clock that moves on by 10 ns at a time: what is read is 240, 250, 260 or 270.
    #[test]
    fn a_median_between_two_steps_of_the_clock_is_found_within_a_nanosecond() {
        for shift in 0..10u64 {
            // Each duration is met in each phase of the clock.
            let durations =
                (0..=30).flat_map(|d| (0..10).map(move |phase| (240 + shift + d, phase)));
            let read =
                durations.map(|(duration, phase)| (phase + duration) / 10 * 10 - phase / 10 * 10);
            let found = recorded(read).quantile(0.5, 10.0).expect("records");
            let exact = (255 + shift) as f64;
            assert!((found - exact).abs() <= 1.0, "{found} for {exact}");
        }
    }

    #[test]
    fn a_histogram_survives_the_pipe() {
        let sparse = recorded([0, 1, 511, 512, 1_000_003, u64::MAX]);
        let text = serde_json::to_string(&sparse).expect("plain data");
        let back: Sparse = serde_json::from_str(&text).expect("what was written");
        assert_eq!((back.count(), back.max()), (6, Some(u64::MAX)));
        assert_eq!(back, sparse);
    }
}
