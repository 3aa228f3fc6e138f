//! What the transport promises, beside what was measured: the figures of one regime, the medians of the tables.
//!
//! Who else is compared with: the variant of a library that does best at that work, named in the row, unless the promise names one; then the
//! best one's row follows, with nothing promised. A verdict needs undisturbed runs of both, [`ENOUGH`] at least. Absolute figures were set on
//! an AMD EPYC machine whose cache lines took 80 ns there and back: elsewhere than near they are neither kept nor missed.

mod list;

use std::fmt::Write;

use crate::probe::Regime;
use crate::results::{ENOUGH, Figures, Group, Run};
use crate::statistics::Spread;

/// One condition.
struct Check {
    what: String,
    measured: Option<Measured>,
    bound: Bound,
    /// A ratio says something in any regime.
    relative: bool,
}

/// Some figure, and the undisturbed runs that it is of; of two figures, the fewer.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    value: f64,
    runs: usize,
}

impl Measured {
    fn per(self, other: Self) -> Option<Self> {
        (other.value > 0.0).then(|| Self {
            value: self.value / other.value,
            runs: self.runs.min(other.runs),
        })
    }
}

/// The first for each of the second.
fn ratio(one: Option<Measured>, other: Option<Measured>) -> Option<Measured> {
    one?.per(other?)
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// Shown, not promised.
    None,
}

impl Bound {
    fn verdict(self, measured: Option<Measured>) -> &'static str {
        let holds = |value| match self {
            Self::AtLeast(floor) => value >= floor,
            Self::AtMost(ceiling) => value <= ceiling,
            Self::None => true,
        };
        match (self, measured) {
            (_, None) => "not measured",
            (Self::None, _) => "",
            (_, Some(measured)) if measured.runs < ENOUGH => "too few runs",
            (_, Some(measured)) if holds(measured.value) => "holds",
            _ => "**missed**",
        }
    }
}

/// A figure of the runs of one subject, or none.
type Figure = fn(&Group<'_>) -> Option<f64>;

/// One library's variants: the subjects, and what they are called where the library is known.
type Family = &'static [(&'static str, &'static str)];

/// Medians of one regime.
struct Medians<'a> {
    runs: &'a [Run],
    regime: Regime,
}

impl Medians<'_> {
    fn of(&self, workload: &str, subject: &str, figure: Figure) -> Option<Measured> {
        let group = Group::of(self.runs, workload, subject, self.regime);
        let value = figure(&group).filter(|_| group.quiet() > 0)?;
        Some(Measured {
            value,
            runs: group.quiet(),
        })
    }

    fn ours(&self, workload: &str, figure: Figure) -> Option<Measured> {
        self.of(workload, "transport", figure)
    }

    /// Our throughput for each of theirs.
    fn times(&self, workload: &str, subject: &str) -> Option<Measured> {
        ratio(self.ours(workload, rate), self.of(workload, subject, rate))
    }

    /// The highest throughput of any of the family at any of these kinds of work (id, and what it is called); and its name.
    fn best(&self, work: &[(&str, &str)], family: Family) -> Option<(Measured, String)> {
        let all = work.iter().flat_map(|(workload, at)| {
            family.iter().filter_map(move |(subject, name)| {
                Some((self.of(workload, subject, rate)?, format!("{name}{at}")))
            })
        });
        all.max_by(|one, other| one.0.value.total_cmp(&other.0.value))
    }

    /// A line's round trip in ns.
    fn line(&self, workload: &str) -> Option<Measured> {
        let of_workload =
            |run: &&Run| run.workload == workload && run.regime == self.regime && run.is_quiet();
        let lines = self.runs.iter().filter(of_workload);
        let spread = Spread::of(lines.clone().flat_map(|run| run.lines_ns.iter().copied()))?;
        Some(Measured {
            value: spread.median,
            runs: lines.count(),
        })
    }
}

fn median(group: &Group<'_>, figure: fn(&Figures) -> Option<f64>) -> Option<f64> {
    group.spread(figure).map(|spread| spread.median)
}

fn rate(group: &Group<'_>) -> Option<f64> {
    median(group, |f| Some(f.requests_per_s))
}
fn thousands(group: &Group<'_>) -> Option<f64> {
    rate(group).map(|rate| rate / 1e3)
}
fn p50(group: &Group<'_>) -> Option<f64> {
    group.percentile(0.5).map(|ns| ns / 1e3)
}
fn p99(group: &Group<'_>) -> Option<f64> {
    group.percentile(0.99).map(|ns| ns / 1e3)
}
fn p999(group: &Group<'_>) -> Option<f64> {
    group.percentile(0.999).map(|ns| ns / 1e3)
}
fn fairness(group: &Group<'_>) -> Option<f64> {
    median(group, |f| f.fairness)
}
fn cpu(group: &Group<'_>) -> Option<f64> {
    median(group, |f| f.cpu_ns_per_request)
}
fn cpus(group: &Group<'_>) -> Option<f64> {
    median(group, |f| Some(f.cpus))
}

/// The table; empty if nothing was measured that is promised.
pub(crate) fn markdown(runs: &[Run]) -> String {
    let mut text = String::new();
    for regime in [Regime::Near, Regime::Far, Regime::Siblings] {
        let near = regime == Regime::Near;
        let mut rows = list::checks(&Medians { runs, regime });
        for (_, checks) in &mut rows {
            checks.retain(|check| near || check.relative);
        }
        let measured = |row: &(_, Vec<Check>)| row.1.iter().any(|check| check.measured.is_some());
        let told = |check: &Check| check.measured.is_some_and(|m| m.runs >= ENOUGH);
        // Single runs of a regime that came by say nothing about it.
        if !rows.iter().any(|row| {
            row.1
                .iter()
                .any(|c| near && c.measured.is_some() || told(c))
        }) {
            continue;
        }
        let _ = writeln!(
            text,
            "### Promised and measured, {} regime{}\n\n| | figure | promised | measured | runs | |\n|---|---|--:|--:|--:|---|",
            regime.name(),
            if near { "" } else { ": ratios" },
        );
        for (title, checks) in rows.iter().filter(|row| measured(row)) {
            for (n, check) in checks.iter().enumerate() {
                let title = if n == 0 { title } else { "" };
                let _ = writeln!(text, "| {title} | {} |", row(check));
            }
        }
        text.push('\n');
    }
    text
}

fn row(check: &Check) -> String {
    let promised = match check.bound {
        Bound::AtLeast(floor) => format!("≥ {floor}"),
        Bound::AtMost(ceiling) => format!("≤ {ceiling}"),
        Bound::None => "–".into(),
    };
    let (value, runs) = check.measured.map_or_else(
        || ("–".into(), "–".into()),
        |measured| (digits(measured.value), measured.runs.to_string()),
    );
    format!(
        "{} | {promised} | {value} | {runs} | {}",
        check.what,
        check.bound.verdict(check.measured)
    )
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::run;

    fn runs(workload: &'static str, subject: &'static str, rates: &[f64]) -> Vec<Run> {
        let run = |&rate: &f64| Run {
            workload,
            subject,
            ..run(rate, 0.0)
        };
        rates.iter().map(run).collect()
    }

    fn line<'a>(text: &'a str, what: &str) -> &'a str {
        let found = text.lines().find(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("no row {what} in:\n{text}"))
    }

    #[test]
    fn a_verdict_needs_three_runs_that_nobody_disturbed() {
        let mut all = runs("20000-1", "transport", &[390e3, 391e3, 392e3]);
        assert!(line(&markdown(&all), "k/s").ends_with("| ≥ 380 | 391 | 3 | holds |"));
        all.pop();
        assert!(line(&markdown(&all), "k/s").ends_with("| 2 | too few runs |"));
        for run in &mut all {
            run.figures.as_mut().expect("figures").foreign_cpus = Some(0.5);
        }
        assert_eq!(markdown(&all), "");
    }

    #[test]
    fn a_ratio_has_as_many_runs_as_the_fewer_of_the_two_and_names_the_best_variant() {
        let mut all = runs("20000-1", "transport", &[300e3; 4]);
        all.extend(runs("20000-1", "iceoryx2", &[100e3; 4]));
        all.extend(runs("20000-1", "iceoryx2-pubsub", &[150e3; 3]));
        let text = markdown(&all);
        let best = line(&text, "iceoryx2");
        assert!(
            best.contains("publish-subscribe") && best.contains("| 2.00 | 3 | **missed** |"),
            "{best}"
        );
    }

    #[test]
    fn what_the_promise_names_is_compared_with_and_the_best_is_shown_beside_it() {
        let mut all = runs("64-1", "transport", &[3e6; 3]);
        all.extend(runs("64-1", "iceoryx2", &[1e6; 3]));
        all.extend(runs("64-1", "iceoryx2-pubsub", &[1.2e6; 3]));
        let text = markdown(&all);
        assert!(line(&text, "× iceoryx2 request-response").ends_with("| ≥ 3 | 3.00 | 3 | holds |"));
        assert!(line(&text, "× iceoryx2's best").ends_with("| – | 2.50 | 3 |  |"));
    }

    #[test]
    fn elsewhere_than_near_only_ratios_are_promised() {
        let mut all = runs("20000-16t", "transport", &[410e3; 3]);
        all.extend(runs("20000-16t", "shmipc", &[200e3; 3]));
        all.iter_mut().for_each(|run| run.regime = Regime::Far);
        let text = markdown(&all);
        assert!(
            text.contains("far regime") && !text.contains("k/s"),
            "{text}"
        );
        assert!(line(&text, "shmipc").ends_with("| ≥ 1.2 | 2.05 | 3 | holds |"));
        // Single runs make no table of their own.
        assert_eq!(markdown(&all[2..4]), "");
    }
}
