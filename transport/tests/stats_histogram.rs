//! Percentiles are right to 1/16, and differences and sums of histograms are those of the values themselves.

use std::collections::BTreeMap;

use proptest::prelude::*;
use transport::stats::Histogram;
use transport::stats::histogram::{BUCKETS, bucket_of, lower_bound};

fn of(values: &[u64]) -> Histogram {
    let mut buckets = BTreeMap::new();
    for value in values {
        *buckets.entry(bucket_of(*value) as u16).or_insert(0) += 1;
    }
    Histogram {
        sum_ns: values.iter().sum(),
        max_ns: values.iter().copied().max().unwrap_or(0),
        buckets: buckets.into_iter().collect(),
    }
}

/// Values spread over all magnitudes up to the last bucket's.
fn value() -> impl Strategy<Value = u64> {
    (0u32..37, any::<u64>()).prop_map(|(bits, value)| value & ((1 << bits) - 1))
}

fn values() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(value(), 0..300)
}

proptest! {
    #[test]
    fn a_quantile_is_within_a_sixteenth_of_the_truth(mut values in prop::collection::vec(value(), 1..300), q in 0.0f64..=1.0) {
        let histogram = of(&values);
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        let truth = values[rank - 1];
        let got = histogram.quantile(q).unwrap();
        prop_assert!(got.abs_diff(truth) * 16 <= truth, "{} for {} at {}", got, truth, q);
        prop_assert!(got <= *values.last().unwrap());
    }

    #[test]
    fn every_value_lies_in_its_bucket(value: u64) {
        let index = bucket_of(value);
        prop_assert!(index < BUCKETS && lower_bound(index) <= value);
        prop_assert!(index == BUCKETS - 1 || value < lower_bound(index + 1));
    }

    #[test]
    fn since_is_what_came_later(early in values(), late in values()) {
        let all = of(&[early.clone(), late.clone()].concat());
        let difference = all.since(&of(&early)).unwrap();
        let mut model = of(&late);
        model.max_ns = all.max_ns;
        prop_assert_eq!(difference, model);
    }

    #[test]
    fn since_notices_a_restart(mut early in values(), late in values()) {
        early.push(1 << 36);
        prop_assume!(!late.iter().any(|v| *v >= 1 << 36));
        prop_assert_eq!(of(&late).since(&of(&early)), None);
    }

    #[test]
    fn merging_is_recording_all(a in values(), b in values()) {
        let mut merged = of(&a);
        merged.merge(&of(&b));
        prop_assert_eq!(merged, of(&[a, b].concat()));
    }
}

#[test]
fn buckets_are_adjacent_and_at_most_a_sixteenth_wide() {
    for index in 0..BUCKETS - 1 {
        let (low, next) = (lower_bound(index), lower_bound(index + 1));
        assert_eq!((bucket_of(low), bucket_of(next - 1)), (index, index));
        assert!(low < 16 || (next - low) * 16 <= low);
    }
}

#[test]
fn an_empty_histogram_has_no_quantile() {
    let none = Histogram::default();
    assert_eq!(
        (none.quantile(0.5), none.mean(), none.count()),
        (None, None, 0)
    );
}

#[test]
fn beyond_the_last_bucket_the_maximum_answers() {
    let minutes = 600_000_000_000;
    assert_eq!(of(&[5, minutes]).quantile(1.0), Some(minutes));
}
