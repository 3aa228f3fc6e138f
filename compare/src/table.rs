//! The table as Markdown: one per workload and regime, since figures of different regimes say nothing about each other.

use std::fmt::Write;

use crate::probe::Regime;
use crate::results::{Group, Run, Spread};
use crate::subject::Subject;
use crate::workload::Workload;

/// The subject that others are related to.
const REFERENCE: &str = "transport";

/// Everything measured.
pub(crate) fn markdown(runs: &[Run], workloads: &[Workload], subjects: &[&dyn Subject]) -> String {
    let mut text = String::new();
    for workload in workloads {
        let _ = writeln!(text, "### {}\n", workload.title);
        let of_workload = || runs.iter().filter(|run| run.workload == workload.id);
        for regime in [Regime::Near, Regime::Far, Regime::Siblings, Regime::Unknown] {
            if of_workload().any(|run| run.regime == regime && run.figures.is_some()) {
                table(&mut text, runs, workload, subjects, regime);
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
            ": line round trip {:.0} ns ({:.0}–{:.0})",
            line.median, line.least, line.most
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
        "| | CPUs when idle | first request after idle p50 | p99 | max | against transport, p50 | runs |\n|---|--:|--:|--:|--:|--:|--:|\n"
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

fn busy_row(group: &Group<'_>, reference: &Group<'_>, size: usize) -> String {
    let rate = |group: &Group<'_>| group.spread(|f| Some(f.requests_per_s));
    let us = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1000.0);
    [
        rate(group).map_or_else(none, |s| {
            format!("{} ({}–{})", short(s.median), short(s.least), short(s.most))
        }),
        rate(group).map_or_else(none, |s| {
            format!("{:.2}", s.median * 2.0 * size as f64 / 1e9)
        }),
        cell(group.spread(|f| us(f.p50_ns))),
        cell(group.spread(|f| us(f.p99_ns))),
        cell(group.spread(|f| us(f.p999_ns))),
        group
            .spread(|f| us(f.max_ns))
            .map_or_else(none, |s| digits(s.most)),
        group
            .spread(|f| f.fairness)
            .map_or_else(none, |s| format!("{:.2}", s.median)),
        cell(group.spread(|f| f.cpu_ns_per_request.map(|ns| ns / 1000.0))),
        related(rate(group), rate(reference)),
    ]
    .join(" | ")
}

fn thinking_row(group: &Group<'_>, reference: &Group<'_>) -> String {
    let us = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1000.0);
    let p50 = |group: &Group<'_>| group.spread(|f| us(f.p50_ns));
    [
        p50(group).map_or_else(none, |s| {
            format!(
                "{} ({}–{})",
                digits(s.median),
                digits(s.least),
                digits(s.most)
            )
        }),
        cell(group.spread(|f| us(f.p99_ns))),
        cell(group.spread(|f| us(f.p999_ns))),
        group
            .spread(|f| us(f.max_ns))
            .map_or_else(none, |s| digits(s.most)),
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
    let us = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1000.0);
    let p50 = |group: &Group<'_>| group.spread(|f| us(f.p50_ns));
    [
        group.spread(|f| Some(f.cpus)).map_or_else(none, |s| {
            format!("{:.4} ({:.4}–{:.4})", s.median, s.least, s.most)
        }),
        p50(group).map_or_else(none, |s| {
            format!(
                "{} µs ({}–{})",
                digits(s.median),
                digits(s.least),
                digits(s.most)
            )
        }),
        group
            .spread(|f| us(f.p99_ns))
            .map_or_else(none, |s| format!("{} µs", digits(s.median))),
        group
            .spread(|f| us(f.max_ns))
            .map_or_else(none, |s| format!("{} µs", digits(s.most))),
        related(p50(group), p50(reference)),
    ]
    .join(" | ")
}

fn none() -> String {
    "–".into()
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
        v => format!("{v:.2}"),
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
