//! What the transport promises, beside what was measured: the figures of one regime, the medians of the tables.
//!
//! The absolute figures were set on an AMD EPYC machine with a cache-line round trip of 80 ns; on another, the ratios say more.

use std::fmt::Write;

use crate::probe::Regime;
use crate::results::{Figures, Group, Run, Spread};

/// One condition.
struct Check {
    what: &'static str,
    measured: Option<f64>,
    /// At least this, or at most.
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(floor) => measured >= floor,
            Self::AtMost(ceiling) => measured <= ceiling,
        }
    }
}

use Bound::{AtLeast, AtMost};

/// Medians of one regime.
struct Medians<'a> {
    runs: &'a [Run],
    regime: Regime,
}

impl Medians<'_> {
    fn of(
        &self,
        workload: &str,
        subject: &str,
        figure: impl Fn(&Figures) -> Option<f64>,
    ) -> Option<f64> {
        Group::of(self.runs, workload, subject, self.regime)
            .spread(figure)
            .map(|spread| spread.median)
    }

    fn ours(&self, workload: &str, figure: impl Fn(&Figures) -> Option<f64>) -> Option<f64> {
        self.of(workload, "transport", figure)
    }

    /// Our throughput for each of theirs.
    fn times(&self, workload: &str, subject: &str) -> Option<f64> {
        ratio(self.ours(workload, rate), self.of(workload, subject, rate))
    }

    fn line(&self, workload: &str) -> Option<f64> {
        let of_workload = |run: &&Run| run.workload == workload && run.regime == self.regime;
        let lines = self.runs.iter().filter(of_workload);
        Spread::of(lines.flat_map(|run| run.lines_ns.iter().copied())).map(|spread| spread.median)
    }
}

fn ratio(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.zip(other)
        .filter(|(_, other)| *other > 0.0)
        .map(|(one, other)| one / other)
}

fn rate(figures: &Figures) -> Option<f64> {
    Some(figures.requests_per_s)
}
fn thousands(figures: &Figures) -> Option<f64> {
    Some(figures.requests_per_s / 1e3)
}
fn p50(figures: &Figures) -> Option<f64> {
    figures.p50_ns.map(|ns| ns as f64 / 1e3)
}
fn p99(figures: &Figures) -> Option<f64> {
    figures.p99_ns.map(|ns| ns as f64 / 1e3)
}
fn p999(figures: &Figures) -> Option<f64> {
    figures.p999_ns.map(|ns| ns as f64 / 1e3)
}
fn fairness(figures: &Figures) -> Option<f64> {
    figures.fairness
}
fn cpu(figures: &Figures) -> Option<f64> {
    figures.cpu_ns_per_request
}

fn checks(m: &Medians<'_>) -> Vec<(&'static str, Vec<Check>)> {
    let check = |what, measured, bound| Check {
        what,
        measured,
        bound,
    };
    let old = "old-design";
    let best_shmipc = ["64-16p", "64-16t"]
        .into_iter()
        .flat_map(|workload| {
            ["shmipc", "shmipc-default"].map(|subject| m.of(workload, subject, rate))
        })
        .flatten()
        .max_by(f64::total_cmp);
    let lines = ratio(m.ours("64-1", p50).map(|us| us * 1e3), m.line("64-1"));
    vec![
        (
            "64 B, 1 client",
            vec![
                check("p50, µs", m.ours("64-1", p50), AtMost(0.30)),
                check("p50, line round trips", lines, AtMost(4.0)),
                check(
                    "× iceoryx2 request-response",
                    m.times("64-1", "iceoryx2"),
                    AtLeast(3.0),
                ),
            ],
        ),
        (
            "20,000 B, 1 client",
            vec![
                check("k/s", m.ours("20000-1", thousands), AtLeast(380.0)),
                check(
                    "× iceoryx2 request-response",
                    m.times("20000-1", "iceoryx2"),
                    AtLeast(2.3),
                ),
                check(
                    "× rtrb in one process",
                    m.times("20000-1", "rtrb"),
                    AtLeast(1.2),
                ),
            ],
        ),
        (
            "20,000 B, 16 processes",
            vec![
                check("k/s", m.ours("20000-16p", thousands), AtLeast(340.0)),
                check("p99, µs", m.ours("20000-16p", p99), AtMost(130.0)),
                check("fairness", m.ours("20000-16p", fairness), AtLeast(0.7)),
                check("× shmipc", m.times("20000-16p", "shmipc"), AtLeast(2.8)),
            ],
        ),
        (
            "20,000 B, 16 threads",
            vec![
                check("k/s", m.ours("20000-16t", thousands), AtLeast(420.0)),
                check("× shmipc", m.times("20000-16t", "shmipc"), AtLeast(1.2)),
            ],
        ),
        (
            "64 B, 16 processes",
            vec![
                check("k/s", m.ours("64-16p", thousands), AtLeast(850.0)),
                check("fairness", m.ours("64-16p", fairness), AtLeast(0.9)),
                check("p99.9, µs", m.ours("64-16p", p999), AtMost(100.0)),
                check(
                    "× shmipc's best",
                    ratio(m.ours("64-16p", rate), best_shmipc),
                    AtLeast(1.7),
                ),
            ],
        ),
        (
            "64 B, 16 connections of one thread",
            vec![check("k/s", m.ours("64-16c", thousands), AtLeast(10_000.0))],
        ),
        (
            "64 B, 1 to 1,000 connections of one thread",
            vec![
                check(
                    "CPU per request, 100 × 1",
                    ratio(m.ours("64-100c", cpu), m.ours("64-1c", cpu)),
                    AtMost(1.5),
                ),
                check(
                    "CPU per request, 1,000 × 1",
                    ratio(m.ours("64-1000c", cpu), m.ours("64-1c", cpu)),
                    AtMost(1.5),
                ),
            ],
        ),
        (
            "16 processes that think, 64 B",
            ["think-1ms", "think-50us"]
                .into_iter()
                .zip(["p50, 1 ms, × std sockets", "p50, 50 µs, × std sockets"])
                .map(|(workload, what)| {
                    let theirs = m.of(workload, "unix", p50);
                    check(what, ratio(m.ours(workload, p50), theirs), AtMost(1.0))
                })
                .collect(),
        ),
        (
            "16 idle clients",
            vec![
                check("CPUs", m.ours("idle", |f| Some(f.cpus)), AtMost(0.01)),
                check(
                    "first request, × a futex round trip",
                    ratio(m.ours("idle", p50), m.of("idle", "futex", p50)),
                    AtMost(1.2),
                ),
            ],
        ),
        (
            "against the old design, 20,000 B, 16 processes",
            vec![
                check("× throughput", m.times("20000-16p", old), AtLeast(5.0)),
                check(
                    "× better p99",
                    ratio(m.of("20000-16p", old, p99), m.ours("20000-16p", p99)),
                    AtLeast(10.0),
                ),
                check(
                    "CPU per request, share of the old",
                    ratio(m.ours("20000-16p", cpu), m.of("20000-16p", old, cpu)),
                    AtMost(0.4),
                ),
            ],
        ),
    ]
}

/// The table; empty if nothing was measured that is promised.
pub(crate) fn markdown(runs: &[Run]) -> String {
    let mut text = String::new();
    for regime in [Regime::Near, Regime::Far, Regime::Siblings] {
        let rows = checks(&Medians { runs, regime });
        let measured = |row: &(_, Vec<Check>)| row.1.iter().any(|check| check.measured.is_some());
        if !rows.iter().any(measured) {
            continue;
        }
        let _ = writeln!(
            text,
            "### Promised and measured, {} regime\n\n| | figure | promised | measured | |\n|---|---|--:|--:|---|",
            regime.name()
        );
        for (title, checks) in rows.iter().filter(|row| measured(row)) {
            for (n, check) in checks.iter().enumerate() {
                let title = if n == 0 { title } else { "" };
                let promised = match check.bound {
                    AtLeast(floor) => format!("≥ {floor}"),
                    AtMost(ceiling) => format!("≤ {ceiling}"),
                };
                let (value, verdict) = match check.measured {
                    Some(v) if check.bound.holds(v) => (digits(v), "holds"),
                    Some(v) => (digits(v), "**missed**"),
                    None => ("–".into(), "not measured"),
                };
                let _ = writeln!(
                    text,
                    "| {title} | {} | {promised} | {value} | {verdict} |",
                    check.what
                );
            }
        }
        text.push('\n');
    }
    text
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 1.0 => format!("{v:.2}"),
        v => format!("{v:.4}"),
    }
}
