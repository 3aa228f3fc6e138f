//! Round trips in log-linear buckets, 512 to the octave: percentiles within 0.1 %, since a hundredth is what some comparisons look for.

use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 9;
const SUB: u64 = 1 << SUB_BITS;

/// A histogram of ns. Crosses process borders as the list of its non-empty buckets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Sparse", into = "Sparse")]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

#[derive(Serialize, Deserialize)]
struct Sparse {
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

/// The middle of a bucket.
fn value_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < SUB {
        return bucket;
    }
    let shift = bucket / SUB - 1;
    ((SUB + bucket % SUB) << shift) + (1 << shift) / 2
}

impl Histogram {
    /// An empty one, with room for everything: recording allocates nothing.
    pub(crate) fn new() -> Self {
        Self {
            buckets: vec![0; bucket_of(u64::MAX) + 1],
            count: 0,
            max: 0,
        }
    }

    /// Records a duration.
    #[inline]
    pub(crate) fn record(&mut self, ns: u64) {
        self.buckets[bucket_of(ns)] += 1;
        self.count += 1;
        self.max = self.max.max(ns);
    }

    /// Adds another's records.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            *self = Self::new();
        }
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The value below which `share` of the records lie; `None` if there are none.
    pub(crate) fn quantile(&self, share: f64) -> Option<u64> {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Some(value_of(bucket).min(self.max));
            }
        }
        None
    }

    /// The largest; `None` if there are none.
    pub(crate) fn max(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max)
    }
}

impl From<Sparse> for Histogram {
    fn from(sparse: Sparse) -> Self {
        let mut new = Self::new();
        for (bucket, n) in sparse.buckets {
            if let Some(slot) = new.buckets.get_mut(bucket) {
                *slot += n;
                new.count += n;
            }
        }
        new.max = sparse.max;
        new
    }
}

impl From<Histogram> for Sparse {
    fn from(full: Histogram) -> Self {
        Self {
            max: full.max,
            buckets: full
                .buckets
                .into_iter()
                .enumerate()
                .filter(|(_, n)| *n > 0)
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_500th_of_the_sorted_list() {
        let mut list: Vec<u64> = (0..10_000u64).map(|i| i * i * 37 % 9_999_991).collect();
        let mut histogram = Histogram::new();
        list.iter().for_each(|&ns| histogram.record(ns));
        list.sort_unstable();
        for share in [0.01, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = list[((10_000.0 * share) as usize).saturating_sub(1)] as f64;
            let found = histogram.quantile(share).expect("records") as f64;
            assert!(
                (found - exact).abs() <= exact * 0.002 + 0.5,
                "{share}: {found} for {exact}"
            );
        }
    }

    #[test]
    fn a_histogram_survives_the_pipe() {
        let mut histogram = Histogram::new();
        for ns in [0, 1, 511, 512, 1_000_003, u64::MAX] {
            histogram.record(ns);
        }
        let text = serde_json::to_string(&histogram).expect("plain data");
        let back: Histogram = serde_json::from_str(&text).expect("what was written");
        assert_eq!(
            (back.buckets, back.count, back.max),
            (histogram.buckets, histogram.count, histogram.max)
        );
    }
}
