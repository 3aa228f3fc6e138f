//! A recorder that takes every latency of a run: the buckets of [`transport::stats::Histogram`], owned by one thread.
//!
//! One add per request and no allocation after the start. Percentiles are therefore good to 6.25 %.

use transport::stats::Histogram;
use transport::stats::histogram::{BUCKETS, bucket_of};

/// Latencies recorded so far.
pub(crate) struct Latencies {
    counts: Box<[u64]>,
    sum_ns: u64,
    max_ns: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            counts: vec![0; BUCKETS].into_boxed_slice(),
            sum_ns: 0,
            max_ns: 0,
        }
    }

    #[inline]
    pub(crate) fn record(&mut self, ns: u64) {
        self.counts[bucket_of(ns)] += 1;
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    pub(crate) fn histogram(&self) -> Histogram {
        Histogram {
            sum_ns: self.sum_ns,
            max_ns: self.max_ns,
            buckets: self
                .counts
                .iter()
                .enumerate()
                .filter(|(_, n)| **n > 0)
                .map(|(index, n)| (index as u16, *n))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recorded_value_counts_and_the_largest_is_exact() {
        let mut latencies = Latencies::new();
        for ns in [0, 15, 16, 1_000, 1_234_567, u64::MAX] {
            latencies.record(ns);
        }
        let all = latencies.histogram();
        assert_eq!(all.count(), 6);
        assert_eq!(all.max_ns, u64::MAX);
        assert_eq!(Latencies::new().histogram().quantile(0.5), None);
    }

    #[test]
    fn a_percentile_is_within_a_sixteenth_of_the_true_value() {
        let mut latencies = Latencies::new();
        for ns in 1..=100_000 {
            latencies.record(ns);
        }
        let all = latencies.histogram();
        for (q, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.999, 99_900.0)] {
            let found = all.quantile(q).expect("not empty") as f64;
            assert!((found / exact - 1.0).abs() <= 0.0625, "{q}: {found}");
        }
    }
}
