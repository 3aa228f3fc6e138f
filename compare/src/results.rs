//! Runs as figures, and those of several runs within one regime.

use serde::Serialize;

use crate::clock;
use crate::conductor::Outcome;
use crate::histogram::Sparse;
use crate::probe::{Probed, Regime};
use crate::statistics::Spread;

/// CPUs that others may keep busy during a run: above, it says more about them.
const QUIET_CPUS: f64 = 0.1;

/// Undisturbed runs in one regime that a subject should have: fewer are no verdict, and no table.
pub(crate) const ENOUGH: usize = 3;

/// One run. A line of `--json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) workload: &'static str,
    pub(crate) subject: &'static str,
    /// A line's round trips, and whether they were passed during the run or around it.
    pub(crate) lines_ns: Vec<f64>,
    pub(crate) probed: Option<Probed>,
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
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) requests_per_s: f64,
    /// Round trips in ns. `None` if fewer than ten requests lie beyond.
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) p999_ns: Option<f64>,
    /// `None` if there was none.
    pub(crate) max_ns: Option<u64>,
    /// All of them.
    #[serde(skip)]
    pub(crate) round_trips: Sparse,
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

    /// A percentile of the round trips in ns; `None` of too few.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        self.round_trips.quantile(share, clock::step_ns())
    }

    pub(crate) fn of(outcome: &Outcome) -> Self {
        let total: u64 = outcome.requests.iter().sum();
        let (least, most) = (outcome.requests.iter().min(), outcome.requests.iter().max());
        let mut figures = Self {
            requests_per_s: total as f64 / outcome.seconds,
            max_ns: outcome.round_trips.max(),
            round_trips: outcome.round_trips.clone(),
            fairness: least
                .zip(most)
                .filter(|(_, most)| outcome.requests.len() > 1 && **most > 0)
                .map(|(&least, &most)| least as f64 / most as f64),
            cpu_ns_per_request: (total > 0).then(|| outcome.cpu_ns as f64 / total as f64),
            cpus: outcome.cpu_ns as f64 / 1e9 / outcome.seconds,
            foreign_cpus: outcome.foreign_cpus,
            ..Self::default()
        };
        figures.p50_ns = figures.percentile(0.5);
        figures.p99_ns = figures.percentile(0.99);
        figures.p999_ns = figures.percentile(0.999);
        figures
    }
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

    /// Runs that nobody disturbed.
    pub(crate) fn quiet(&self) -> usize {
        if self.disturbed {
            0
        } else {
            self.figures.len()
        }
    }

    /// Over all runs that have the figure.
    pub(crate) fn spread(&self, figure: impl Fn(&Figures) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.figures.iter().filter_map(|figures| figure(figures)))
    }

    /// A percentile of the round trips in ns: the median of the runs' if each has enough requests for it, else that of all their requests
    /// together, if those are enough.
    pub(crate) fn percentile(&self, share: f64) -> Option<f64> {
        let each: Option<Vec<f64>> = self
            .figures
            .iter()
            .map(|figures| figures.percentile(share))
            .collect();
        match each {
            Some(each) => Spread::of(each).map(|spread| spread.median),
            None => Sparse::sum(self.figures.iter().map(|figures| &figures.round_trips))
                .quantile(share, clock::step_ns()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::histogram::Histogram;

    /// A near run of the workload `w` by the subject `s`.
    pub(crate) fn run(requests_per_s: f64, foreign: f64) -> Run {
        Run {
            round: 1,
            workload: "w",
            subject: "s",
            lines_ns: vec![65.0],
            probed: Some(Probed::During),
            regime: Regime::Near,
            figures: Some(Figures {
                requests_per_s,
                foreign_cpus: Some(foreign),
                ..Figures::default()
            }),
            failed: None,
        }
    }

    #[test]
    fn a_disturbed_run_counts_only_if_there_is_no_other() {
        let runs = [run(5.0, 1.0), run(9.0, 0.0), run(7.0, 0.0)];
        let group = Group::of(&runs, "w", "s", Regime::Near);
        let rate = group.spread(|f| Some(f.requests_per_s)).map(|s| s.median);
        assert_eq!(
            (group.figures.len(), group.quiet(), rate),
            (2, 2, Some(8.0))
        );
        let group = Group::of(&runs[..1], "w", "s", Regime::Near);
        assert_eq!((group.figures.len(), group.quiet()), (1, 0));
        assert!(Group::of(&runs, "w", "s", Regime::Far).figures.is_empty());
    }

    #[test]
    fn runs_of_few_requests_have_their_percentiles_together_or_not_at_all() {
        let some = |from: u64, count: u64| {
            let mut histogram = Histogram::new();
            (from..from + count).for_each(|ns| histogram.record(ns));
            Figures {
                round_trips: histogram.sparse(),
                ..Figures::default()
            }
        };
        let of = |figures: &[Figures]| {
            Group {
                figures: figures.iter().collect(),
                disturbed: false,
            }
            .percentile(0.99)
        };
        // Sixteen idle clients, four requests each: three runs are too few for a 99th percentile, as one is.
        assert_eq!(of(&[some(0, 64), some(0, 64), some(0, 64)]), None);
        // Two of 600 are enough together: the twelve above are the second run's.
        let together = of(&[some(0, 600), some(100_000, 600)]).expect("enough");
        assert!((100_585.0..100_595.0).contains(&together), "{together}");
        // Two of 2,000 are enough each: the median, not the twentieth above all.
        let each = of(&[some(0, 2000), some(10_000, 2000)]).expect("enough");
        assert!((6_975.0..6_990.0).contains(&each), "{each}");
        assert_eq!(of(&[]), None);
    }
}
