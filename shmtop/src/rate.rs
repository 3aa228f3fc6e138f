//! The one helper for rates and shares: differences of counters that survive restarts, resets and suspends.
//!
//! Called by the model builder. A difference that is negative, or a time that exceeds the wall time it happened in, is
//! dropped with the reason: a wrong number would look like a measurement. Who is compared with whom (same process, same
//! connection) is the caller's business.

use crate::reading::{Reading, Why};

/// A time may exceed the wall time by this share: counters and clock are not read in the same instant.
const SLACK_RATIO: f64 = 0.05;
/// And by this much, for short intervals.
const SLACK_NS: u64 = 20_000_000;

/// The time between two looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    ns: u64,
}

impl Span {
    /// From one moment of CLOCK_MONOTONIC to a later one.
    ///
    /// # Errors
    /// [`Why::gap`] when no time passed or it ran backwards (another boot, a spliced recording).
    pub fn between(before_ns: u64, after_ns: u64) -> Reading<Self> {
        match after_ns.checked_sub(before_ns) {
            Some(ns) if ns > 0 => Ok(Self { ns }),
            _ => Err(Why::gap("no time passed between two samples")),
        }
    }

    /// Its length in ns; never 0.
    pub fn ns(self) -> u64 {
        self.ns
    }

    /// Its length in seconds.
    pub fn seconds(self) -> f64 {
        self.ns as f64 / 1e9
    }

    /// Growth of a counter per second.
    ///
    /// # Errors
    /// [`Why::gap`] when it went backwards.
    pub fn per_second(self, before: u64, after: u64) -> Reading<f64> {
        Ok(delta(before, after)? as f64 / self.seconds())
    }

    /// Growth of a time as a share of this span (0..=1).
    ///
    /// # Errors
    /// [`Why::gap`] when it went backwards or exceeds the wall time.
    pub fn share(self, before_ns: u64, after_ns: u64) -> Reading<f64> {
        let grown = self.cpu_share(before_ns, after_ns, 1)?;
        Ok(grown.min(1.0))
    }

    /// Growth of a time that `threads` threads may add to at once, as a number of whole CPUs.
    ///
    /// # Errors
    /// [`Why::gap`] when it went backwards or exceeds `threads` × the wall time.
    pub fn cpu_share(self, before_ns: u64, after_ns: u64, threads: u64) -> Reading<f64> {
        let grown = delta(before_ns, after_ns)?;
        let most = ((self.ns as f64 * (1.0 + SLACK_RATIO)) as u64).saturating_add(SLACK_NS);
        if grown > most.saturating_mul(threads.max(1)) {
            return Err(Why::gap("a time grew by more than the time that passed"));
        }
        Ok(grown as f64 / self.ns as f64)
    }
}

/// Growth of a counter.
///
/// # Errors
/// [`Why::gap`] when it went backwards: a restart or a reset.
pub fn delta(before: u64, after: u64) -> Reading<u64> {
    after
        .checked_sub(before)
        .ok_or_else(|| Why::gap("a counter went backwards: restart or reset"))
}

/// `part / whole` as a share (0..=1).
///
/// # Errors
/// [`Why::not_yet`] with `nothing` when `whole` is 0.
pub fn ratio(part: u64, whole: u64, nothing: &'static str) -> Reading<f64> {
    if whole == 0 {
        return Err(Why::not_yet(nothing));
    }
    Ok((part as f64 / whole as f64).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::WhyKind;
    use proptest::prelude::*;

    #[test]
    fn a_counter_that_went_backwards_is_a_gap_and_no_rate() {
        let span = Span::between(0, 1_000_000_000).unwrap();
        assert_eq!(span.per_second(10, 4).unwrap_err().kind, WhyKind::Gap);
        assert_eq!(span.per_second(10, 12).unwrap(), 2.0);
    }

    #[test]
    fn a_time_beyond_the_wall_is_a_gap() {
        let span = Span::between(5, 1_000_000_005).unwrap();
        assert_eq!(span.share(0, 4_000_000_000).unwrap_err().kind, WhyKind::Gap);
        assert_eq!(span.share(0, 1_010_000_000).unwrap(), 1.0);
        assert_eq!(span.cpu_share(0, 2_000_000_000, 2).unwrap(), 2.0);
    }

    #[test]
    fn no_time_is_no_span() {
        assert!(Span::between(7, 7).is_err());
        assert!(Span::between(7, 6).is_err());
    }

    proptest! {
        #[test]
        fn whatever_comes_in_a_share_lies_between_0_and_1(a: u64, b: u64, t0: u64, t1: u64) {
            if let Ok(share) = Span::between(t0, t1).and_then(|s| s.share(a, b)) {
                prop_assert!((0.0..=1.0).contains(&share));
            }
        }

        #[test]
        fn whatever_comes_in_a_rate_is_finite_and_not_negative(a: u64, b: u64, t0: u64, t1: u64) {
            if let Ok(rate) = Span::between(t0, t1).and_then(|s| s.per_second(a, b)) {
                prop_assert!(rate.is_finite() && rate >= 0.0);
            }
        }
    }
}
