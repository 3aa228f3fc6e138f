//! What several values say together: a median with its spread, or with the interval that holds it.

use std::fmt;

/// A median with its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// Of some values; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self::of_sorted(&values)
    }

    fn of_sorted(values: &[f64]) -> Option<Self> {
        let (&least, &most) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

/// A median of independent values in per cent, and the interval that holds what they scatter around with 95 % certainty.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    /// `None` of fewer than six values: no interval of so few is that certain.
    pub(crate) interval: Option<(f64, f64)>,
    /// How many values.
    pub(crate) count: usize,
}

impl Estimate {
    /// Of some values, each of a process start of its own; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: Spread::of_sorted(&values)?.median,
            interval: ranks_around_the_median(values.len())
                .map(|(low, high)| (values[low], values[high])),
            count: values.len(),
        })
    }

    /// Whether it is at most `ceiling`, as far as that can be said.
    pub(crate) fn verdict(&self, ceiling: f64) -> &'static str {
        match self.interval {
            None => "too few",
            Some((_, high)) if high <= ceiling => "holds",
            Some((low, _)) if low > ceiling => "**missed**",
            Some(_) => "open: the interval is on both sides",
        }
    }
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "**{:+.2} %** ", self.median)?;
        match self.interval {
            Some((low, high)) => write!(f, "(95 % interval {low:+.2} to {high:+.2})"),
            None => write!(f, "(no interval: fewer than six)"),
        }
    }
}

/// The places, from 0, of the two of `count` sorted values between which the median of what they are drawn from lies with at least 95 %
/// certainty, whatever the distribution. `None` below six: even between the least and the most it lies with less.
fn ranks_around_the_median(count: usize) -> Option<(usize, usize)> {
    // The chance that exactly `outside` values lie below the median, which halves the distribution, and that at most so many do. The former as
    // its logarithm: of more than a thousand values, the first is below what a number can hold.
    let (mut ln_exactly, mut at_most, mut outside) = (count as f64 * 0.5f64.ln(), 0.0, 0);
    while outside < count / 2 && at_most + ln_exactly.exp() <= 0.025 {
        at_most += ln_exactly.exp();
        outside += 1;
        ln_exactly += ((count - outside + 1) as f64 / outside as f64).ln();
    }
    (outside > 0).then(|| (outside - 1, count - outside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]);
        assert_eq!(
            spread,
            Some(Spread {
                median: 2.5,
                least: 1.0,
                most: 4.0
            })
        );
        assert_eq!(Spread::of([]), None);
    }

    /// The published table of the sign test's intervals: 6 values need all, 8 too, 9 leave one out on each side, 12 two, 25 seven.
    #[test]
    fn an_interval_of_95_per_cent_needs_six_values_and_is_symmetric() {
        let ranks = [1, 2, 5, 6, 8, 9, 12, 25].map(ranks_around_the_median);
        let expected = [
            None,
            None,
            None,
            Some((0, 5)),
            Some((0, 7)),
            Some((1, 7)),
            Some((2, 9)),
            Some((7, 17)),
        ];
        assert_eq!(ranks, expected);
        // For many, half of them ± 0.98 times the root.
        assert_eq!(ranks_around_the_median(900), Some((420, 479)));
        assert_eq!(ranks_around_the_median(10_000), Some((4901, 5098)));
    }

    #[test]
    fn five_values_are_no_verdict_and_an_interval_across_the_bound_is_none_either() {
        let of = |values: &[f64]| Estimate::of(values.iter().copied()).expect("values");
        let five = of(&[0.1; 5]);
        assert_eq!((five.verdict(0.5), five.interval), ("too few", None));
        assert!(five.to_string().contains("no interval"));
        assert_eq!(of(&[0.1, 0.2, 0.3, 0.1, 0.2, 0.5]).verdict(0.5), "holds");
        assert_eq!(of(&[0.6; 6]).verdict(0.5), "**missed**");
        let both = of(&[0.1, 0.2, 0.3, 0.1, 0.2, 0.6]);
        assert!(both.verdict(0.5).starts_with("open"));
        assert_eq!(
            both.to_string(),
            "**+0.20 %** (95 % interval +0.10 to +0.60)"
        );
        assert_eq!(Estimate::of([]), None);
    }
}
