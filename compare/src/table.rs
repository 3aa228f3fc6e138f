//! The table as Markdown: one per workload and regime, since figures of different regimes say nothing about each other.

use std::fmt::Write;

use crate::probe::{Probed, Regime};
use crate::results::{ENOUGH, Group, Run};
use crate::statistics::Spread;
use crate::subject::Subject;
use crate::workload::Workload;

/// The subject that others are related to.
const REFERENCE: &str = "transport";

/// Everything measured in so many rounds.
pub(crate) fn markdown(
    runs: &[Run],
    workloads: &[Workload],
    subjects: &[&dyn Subject],
    rounds: usize,
) -> String {
    let enough = ENOUGH.min(rounds);
    let mut text = String::new();
    for workload in workloads {
        let _ = writeln!(text, "### {}\n", workload.title);
        let of_workload = || runs.iter().filter(|run| run.workload == workload.id);
        for regime in [Regime::Near, Regime::Far, Regime::Siblings, Regime::Unknown] {
            let count = |subject: &str| {
                let of = |run: &&Run| run.subject == subject && run.regime == regime;
                of_workload()
                    .filter(of)
                    .filter(|run| run.is_quiet())
                    .count()
            };
            let counts = || subjects.iter().map(|subject| count(subject.id()));
            if counts().any(|count| count >= enough) {
                table(&mut text, runs, workload, subjects, regime);
            } else if counts().any(|count| count > 0) {
                let _ = writeln!(
                    text,
                    "Regime **{}**: {} run(s) of {} subject(s), none with {enough}: too few for a table.\n",
                    regime.name(),
                    counts().sum::<usize>(),
                    counts().filter(|&count| count > 0).count(),
                );
            }
        }
        let mixed = of_workload()
            .filter(|run| run.regime == Regime::Mixed)
            .count();
        let disturbed = of_workload()
            .filter(|run| run.regime != Regime::Mixed && run.figures.is_some() && !run.is_quiet())
            .count();
        if mixed + disturbed > 0 {
            let _ = writeln!(
                text,
                "Left out: {mixed} run(s) during which the regime changed, {disturbed} during which others kept more than a tenth of a CPU \
                 busy (⚠: there was no other).\n"
            );
        }
        for run in of_workload() {
            if let Some(why) = &run.failed {
                let _ = writeln!(
                    text,
                    "Failed in round {}: {}: {why}\n",
                    run.round, run.subject
                );
            }
        }
    }
    text
}

fn table(
    text: &mut String,
    runs: &[Run],
    workload: &Workload,
    subjects: &[&dyn Subject],
    regime: Regime,
) {
    let of_regime = || {
        runs.iter()
            .filter(|run| run.workload == workload.id && run.regime == regime)
    };
    let line = Spread::of(of_regime().flat_map(|run| run.lines_ns.iter().copied()));
    let others = Spread::of(of_regime().filter_map(|run| run.figures.as_ref()?.foreign_cpus));
    let _ = write!(text, "Regime **{}**", regime.name());
    if let Some(line) = line {
        let _ = write!(
            text,
            ": line round trip {:.0} ns ({:.0}–{:.0}), probed {}",
            line.median,
            line.least,
            line.most,
            when_probed(of_regime())
        );
    }
    if let Some(others) = others {
        let _ = write!(
            text,
            "; others kept {:.2} CPUs busy (at worst {:.2})",
            others.median, others.most
        );
    }
    text.push_str(".\n\n");
    text.push_str(if workload.is_thinking() {
        "| | p50 µs | p99 µs | p99.9 µs | max µs | against transport, p50 | CPU µs/request | requests/s | fairness | runs |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    } else if workload.is_idle() {
        "| | CPUs when idle | first request after idle: p50 µs | p90 µs | max µs | against transport, p50 | runs |\n|---|--:|--:|--:|--:|--:|--:|\n"
    } else {
        "| | requests/s | GB/s both ways | p50 µs | p99 µs | p99.9 µs | max µs | fairness | CPU µs/request | against transport | runs |\n\
         |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
    });
    let reference = Group::of(runs, workload.id, REFERENCE, regime);
    for subject in subjects.iter().filter(|subject| workload.is_for(**subject)) {
        let group = Group::of(runs, workload.id, subject.id(), regime);
        if group.figures.is_empty() {
            continue;
        }
        let row = if workload.is_thinking() {
            thinking_row(&group, &reference)
        } else if workload.is_idle() {
            idle_row(&group, &reference)
        } else {
            busy_row(&group, &reference, workload.size)
        };
        let _ = writeln!(
            text,
            "| {} | {row} | {}{} |",
            subject.title(),
            group.figures.len(),
            if group.disturbed { " ⚠" } else { "" }
        );
    }
    text.push('\n');
}

/// When the cores were probed in these runs.
fn when_probed<'a>(runs: impl Iterator<Item = &'a Run> + Clone) -> String {
    let count = |when| runs.clone().filter(|run| run.probed == Some(when)).count();
    match (count(Probed::During), count(Probed::Around)) {
        (_, 0) => "during the runs".into(),
        (0, _) => "before and after each run, not during it".into(),
        (during, around) => {
            format!("during {during} of the runs, before and after the other {around}")
        }
    }
}

fn busy_row(group: &Group<'_>, reference: &Group<'_>, size: usize) -> String {
    let rate = |group: &Group<'_>| group.spread(|f| Some(f.requests_per_s));
    [
        rate(group).map_or_else(none, |s| {
            format!("{} ({}–{})", short(s.median), short(s.least), short(s.most))
        }),
        rate(group).map_or_else(none, |s| {
            format!("{:.2}", s.median * 2.0 * size as f64 / 1e9)
        }),
        percentile(group, 0.5),
        percentile(group, 0.99),
        percentile(group, 0.999),
        longest_us(group),
        group
            .spread(|f| f.fairness)
            .map_or_else(none, |s| format!("{:.2}", s.median)),
        cell(group.spread(|f| f.cpu_ns_per_request.map(|ns| ns / 1000.0))),
        related(rate(group), rate(reference)),
    ]
    .join(" | ")
}

fn thinking_row(group: &Group<'_>, reference: &Group<'_>) -> String {
    let p50 = |group: &Group<'_>| group.spread(|f| f.p50_ns.map(|ns| ns / 1e3));
    [
        p50(group).map_or_else(none, |s| {
            format!(
                "{} ({}–{})",
                digits(s.median),
                digits(s.least),
                digits(s.most)
            )
        }),
        percentile(group, 0.99),
        percentile(group, 0.999),
        longest_us(group),
        related(p50(group), p50(reference)),
        cell(group.spread(|f| f.cpu_ns_per_request.map(|ns| ns / 1000.0))),
        group
            .spread(|f| Some(f.requests_per_s))
            .map_or_else(none, |s| short(s.median)),
        group
            .spread(|f| f.fairness)
            .map_or_else(none, |s| format!("{:.2}", s.median)),
    ]
    .join(" | ")
}

fn idle_row(group: &Group<'_>, reference: &Group<'_>) -> String {
    let p50 = |group: &Group<'_>| group.spread(|f| f.p50_ns.map(|ns| ns / 1e3));
    [
        group.spread(|f| Some(f.cpus)).map_or_else(none, |s| {
            format!("{:.4} ({:.4}–{:.4})", s.median, s.least, s.most)
        }),
        p50(group).map_or_else(none, |s| {
            format!(
                "{} ({}–{})",
                digits(s.median),
                digits(s.least),
                digits(s.most)
            )
        }),
        // Sixteen clients ask four times each: of all runs together a ninth decile is known, and no more.
        percentile(group, 0.9),
        longest_us(group),
        related(p50(group), p50(reference)),
    ]
    .join(" | ")
}

fn none() -> String {
    "–".into()
}

/// A percentile in µs, if there are enough requests for it.
fn percentile(group: &Group<'_>, share: f64) -> String {
    group
        .percentile(share)
        .map_or_else(none, |ns| digits(ns / 1e3))
}

/// The longest round trip of all runs.
fn longest_us(group: &Group<'_>) -> String {
    group
        .spread(|f| f.max_ns.map(|ns| ns as f64 / 1e3))
        .map_or_else(none, |s| digits(s.most))
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(none, |s| digits(s.median))
}

fn related(this: Option<Spread>, reference: Option<Spread>) -> String {
    this.zip(reference)
        .filter(|(_, reference)| reference.median > 0.0)
        .map_or_else(none, |(this, reference)| {
            format!("{:.2}×", this.median / reference.median)
        })
}

/// Three digits that mean something.
fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v if !(0.1..1.0).contains(&v) => format!("{v:.2}"),
        v => format!("{v:.3}"),
    }
}

/// 4.13 M, 413 k.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", digits(v / 1e6)),
        v if v >= 1e3 => format!("{} k", digits(v / 1e3)),
        v => digits(v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::tests::run;
    use crate::{subject, workload};

    #[test]
    fn a_regime_has_a_table_once_a_subject_has_three_runs_in_it_and_says_when_it_was_probed() {
        let work = workload::ALL[0];
        let one = |regime, probed| Run {
            workload: work.id,
            subject: REFERENCE,
            regime,
            probed: Some(probed),
            ..run(1000.0, 0.0)
        };
        let mut runs = vec![one(Regime::Near, Probed::During); 3];
        runs.extend(vec![one(Regime::Far, Probed::During); 2]);
        let text = |runs: &[Run]| markdown(runs, &[work], &[&subject::OURS], 4);
        let found = text(&runs);
        assert_eq!(found.matches("| requests/s |").count(), 1, "{found}");
        assert!(
            found.contains(
                "Regime **far**: 2 run(s) of 1 subject(s), none with 3: too few for a table."
            ),
            "{found}"
        );
        assert!(
            found.contains("(65–65), probed during the runs;"),
            "{found}"
        );
        runs[0].probed = Some(Probed::Around);
        assert!(text(&runs).contains("probed during 2 of the runs, before and after the other 1;"));
        for run in &mut runs {
            run.probed = Some(Probed::Around);
        }
        assert!(text(&runs).contains("probed before and after each run, not during it;"));
    }
}
