//! Runs as figures, and what several of them say together: medians with their spread, within one regime.

use serde::Serialize;

use crate::conductor::Outcome;
use crate::probe::Regime;

/// CPUs that others may keep busy during a run: above, it says more about them.
const QUIET_CPUS: f64 = 0.1;

/// One run. A line of `--json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) workload: &'static str,
    pub(crate) subject: &'static str,
    /// A line's round trips during the run, or around it.
    pub(crate) lines_ns: Vec<f64>,
    pub(crate) regime: Regime,
    pub(crate) figures: Option<Figures>,
    /// Why there are none.
    pub(crate) failed: Option<String>,
}

impl Run {
    /// True if it measured something, and nobody disturbed it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.figures.as_ref().is_some_and(Figures::is_quiet)
    }
}

/// What a run measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests_per_s: f64,
    /// Round trips in ns. `None` if there was none.
    pub(crate) p50_ns: Option<u64>,
    pub(crate) p99_ns: Option<u64>,
    pub(crate) p999_ns: Option<u64>,
    pub(crate) max_ns: Option<u64>,
    /// Requests of the slowest client for each of the fastest; `None` for a single client.
    pub(crate) fairness: Option<f64>,
    /// CPU time of server and clients per request; `None` without requests.
    pub(crate) cpu_ns_per_request: Option<f64>,
    /// CPUs that server and clients kept busy.
    pub(crate) cpus: f64,
    /// CPUs that others, or the host, took meanwhile.
    pub(crate) foreign_cpus: Option<f64>,
}

impl Figures {
    /// True if others kept out of the run's way, as far as is known.
    pub(crate) fn is_quiet(&self) -> bool {
        self.foreign_cpus.is_none_or(|cpus| cpus <= QUIET_CPUS)
    }

    pub(crate) fn of(outcome: &Outcome) -> Self {
        let total: u64 = outcome.requests.iter().sum();
        let (least, most) = (outcome.requests.iter().min(), outcome.requests.iter().max());
        let trips = &outcome.round_trips;
        Self {
            requests_per_s: total as f64 / outcome.seconds,
            p50_ns: trips.quantile(0.5),
            p99_ns: trips.quantile(0.99),
            p999_ns: trips.quantile(0.999),
            max_ns: trips.max(),
            fairness: least
                .zip(most)
                .filter(|(_, most)| outcome.requests.len() > 1 && **most > 0)
                .map(|(&least, &most)| least as f64 / most as f64),
            cpu_ns_per_request: (total > 0).then(|| outcome.cpu_ns as f64 / total as f64),
            cpus: outcome.cpu_ns as f64 / 1e9 / outcome.seconds,
            foreign_cpus: outcome.foreign_cpus,
        }
    }
}

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

/// The median of differences in per cent, and the interval that holds it with 95 % certainty; `None` of none.
pub(crate) fn median_with_interval(mut values: Vec<f64>) -> Option<String> {
    values.sort_by(f64::total_cmp);
    let spread = Spread::of(values.iter().copied())?;
    // Order statistics: n/2 ± 0.98 √n bound the median with 95 % certainty, whatever the distribution.
    let (n, last) = (values.len() as f64, values.len() - 1);
    let reach = 0.98 * n.sqrt();
    let low = values[((n / 2.0 - reach).floor().max(0.0) as usize).min(last)];
    let high = values[((n / 2.0 + reach).ceil() as usize).min(last)];
    Some(format!(
        "**{:+.2} %** (95 % interval {low:+.2} to {high:+.2})",
        spread.median
    ))
}

/// The figures of one subject's runs of one workload in one regime: of those that nobody disturbed, if there are any.
pub(crate) struct Group<'a> {
    pub(crate) figures: Vec<&'a Figures>,
    /// All of them were disturbed.
    pub(crate) disturbed: bool,
}

impl<'a> Group<'a> {
    pub(crate) fn of(runs: &'a [Run], workload: &str, subject: &str, regime: Regime) -> Self {
        let of_group =
            |run: &&Run| run.workload == workload && run.subject == subject && run.regime == regime;
        let collect = |quiet: bool| -> Vec<_> {
            runs.iter()
                .filter(of_group)
                .filter(|run| !quiet || run.is_quiet())
                .filter_map(|run| run.figures.as_ref())
                .collect()
        };
        let quiet = collect(true);
        if quiet.is_empty() {
            let figures = collect(false);
            return Self {
                disturbed: !figures.is_empty(),
                figures,
            };
        }
        Self {
            figures: quiet,
            disturbed: false,
        }
    }

    /// Over all runs that have the figure.
    pub(crate) fn spread(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.figures.iter().filter_map(|figures| figure(figures)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disturbed_run_counts_only_if_there_is_no_other() {
        let run = |rate: f64, foreign: f64| Run {
            round: 1,
            workload: "w",
            subject: "s",
            lines_ns: Vec::new(),
            regime: Regime::Near,
            figures: Some(Figures {
                requests_per_s: rate,
                p50_ns: None,
                p99_ns: None,
                p999_ns: None,
                max_ns: None,
                fairness: None,
                cpu_ns_per_request: None,
                cpus: 0.0,
                foreign_cpus: Some(foreign),
            }),
            failed: None,
        };
        let runs = [run(5.0, 1.0), run(9.0, 0.0), run(7.0, 0.0)];
        let group = Group::of(&runs, "w", "s", Regime::Near);
        let rate = group.spread(|f| Some(f.requests_per_s)).map(|s| s.median);
        assert_eq!(
            (group.figures.len(), group.disturbed, rate),
            (2, false, Some(8.0))
        );
        let group = Group::of(&runs[..1], "w", "s", Regime::Near);
        assert_eq!((group.figures.len(), group.disturbed), (1, true));
        assert!(Group::of(&runs, "w", "s", Regime::Far).figures.is_empty());
    }

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
}
