//! What is shown of a client, where that is not a value of the last look: numbers that can be read, and percentiles that mean something.
//!
//! Screens, tables and the order of their rows go by these, so that rows are sorted by what stands in them. JSON, CSV and metrics have
//! the interval's own values, and so their order; JSON and metrics with the count beside.

use super::{Client, Percentiles, RttView, Totals};
use crate::history::{History, Point};
use crate::reading::{Reading, Why};

/// A percentile that is shown, or the largest value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// Median.
    P50,
    /// 99 %.
    P99,
    /// 99.9 %.
    P999,
    /// Largest: of the time that the others are of, which is up to ten seconds.
    Max,
}

impl Quantile {
    /// Its value, ns.
    pub fn of(self, percentiles: &Percentiles) -> u64 {
        match self {
            Self::P50 => percentiles.p50,
            Self::P99 => percentiles.p99,
            Self::P999 => percentiles.p999,
            Self::Max => percentiles.max,
        }
    }

    /// Whether there are enough values for it: ten beyond it.
    pub fn is_carried_by(self, percentiles: &Percentiles) -> bool {
        percentiles.count
            >= match self {
                Self::P50 => 20,
                Self::P99 => 1_000,
                Self::P999 => 10_000,
                Self::Max => 1,
            }
    }
}

impl RttView {
    /// Out of what a percentile is shown: the last interval if it carries it, else the last ten seconds.
    ///
    /// # Errors
    /// Why there is neither.
    pub fn shown(&self, quantile: Quantile) -> Result<&Percentiles, &Why> {
        match (&self.interval, &self.recent) {
            (Ok(interval), _) if quantile != Quantile::Max && quantile.is_carried_by(interval) => {
                Ok(interval)
            }
            (_, Ok(recent)) => Ok(recent),
            (Ok(interval), Err(_)) => Ok(interval),
            (Err(why), Err(_)) => Err(why),
        }
    }
}

impl Client {
    /// Requests per second as shown live: the mean of the last second, as a number that changes ten times a second can't be read.
    ///
    /// # Errors
    /// Why there is none now.
    pub fn steady_requests_per_s(&self) -> Result<f64, &Why> {
        let now = &self.requests_per_s;
        steady(now, &self.history, |p| p.requests_per_s)
    }

    /// Payload bytes per second, both directions, likewise.
    ///
    /// # Errors
    /// Why there are none now.
    pub fn steady_bytes_per_s(&self) -> Result<f64, &Why> {
        steady(&self.bytes_per_s, &self.history, |p| p.bytes_per_s)
    }
}

impl Totals {
    /// Requests per second of all its clients, as [`Client::steady_requests_per_s`].
    ///
    /// # Errors
    /// Why there is none now.
    pub fn steady_requests_per_s(&self) -> Result<f64, &Why> {
        let now = &self.requests_per_s;
        steady(now, &self.history, |p| p.requests_per_s)
    }

    /// Payload bytes per second, both directions, likewise.
    ///
    /// # Errors
    /// Why there are none now.
    pub fn steady_bytes_per_s(&self) -> Result<f64, &Why> {
        steady(&self.bytes_per_s, &self.history, |p| p.bytes_per_s)
    }
}

fn steady<'a>(
    now: &'a Reading<f64>,
    history: &History,
    pick: fn(&Point) -> Option<f32>,
) -> Result<f64, &'a Why> {
    let now = *now.as_ref()?;
    Ok(history.last_second(pick).unwrap_or(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timed(count: u64, ns: u64) -> Reading<Percentiles> {
        Ok(Percentiles {
            p50: ns,
            p90: ns + 1,
            p99: ns + 2,
            p999: ns + 3,
            max: ns + 4,
            count,
        })
    }

    #[test]
    fn a_percentile_is_the_intervals_where_ten_values_lie_beyond_it_and_that_of_ten_seconds_elsewhere()
     {
        let all = [Quantile::P50, Quantile::P99, Quantile::P999, Quantile::Max];
        for (count, of_interval) in [(19, 0), (20, 1), (1_000, 2), (9_999, 2), (10_000, 3)] {
            let view = RttView {
                interval: timed(count, 100),
                recent: timed(10 * count, 500),
                since_start: timed(0, 0),
            };
            for (i, quantile) in all.into_iter().enumerate() {
                let shown = quantile.of(view.shown(quantile).unwrap());
                assert_eq!(shown < 500, i < of_interval, "{quantile:?} of {count}");
            }
        }
        let none: Reading<Percentiles> = Err(Why::not_yet("nothing was timed"));
        let view = RttView {
            interval: timed(1, 100),
            recent: none.clone(),
            since_start: none,
        };
        assert_eq!(
            view.shown(Quantile::P999).unwrap().p999,
            103,
            "better than nothing"
        );
    }
}
