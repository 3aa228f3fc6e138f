//! Recording in against out: runs of two binaries. In pairs, A B B A …, because what is looked for is a hundredth, and the machine
//! drifts by more than that.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::conductor::{self, Outcome, Work};
use crate::probe::Regime;
use crate::results::Figures;
use crate::statistics::{Estimate, Spread};
use crate::subject::{self, Subject};
use crate::workload::Workload;

/// What recording may cost of the throughput, in per cent.
const PROMISED: f64 = 1.0;

/// How to pair.
#[derive(clap::Args)]
pub(crate) struct PairOptions {
    /// Pairs of runs.
    #[arg(long, default_value_t = 40)]
    pairs: usize,
    /// Seconds counted per run.
    #[arg(long, default_value_t = 0.3)]
    seconds: f64,
    /// Requests in flight per connection where they are pipelined.
    #[arg(long, default_value_t = 8)]
    depth: usize,
    /// Puts the result between its markers in this file.
    #[arg(long)]
    pub(crate) write: Option<PathBuf>,
}

/// The two runs of a pair.
struct Pair {
    plain: Figures,
    changed: Figures,
}

/// One run, and the regime it was in.
fn one(exe: &Path, work: Work, cpus: Option<(usize, usize)>) -> io::Result<(Regime, Outcome)> {
    let subject: &dyn Subject = &subject::OURS;
    let outcome = conductor::run(exe, subject, work, cpus, &mut ())?;
    Ok((outcome.regime(), outcome))
}

/// Runs all pairs; only those whose two runs met the same regime, undisturbed, count.
fn pairs(
    options: &PairOptions,
    mut plain: impl FnMut() -> io::Result<(Regime, Outcome)>,
    mut changed: impl FnMut() -> io::Result<(Regime, Outcome)>,
) -> io::Result<Vec<Pair>> {
    let mut kept = Vec::new();
    for n in 0..options.pairs {
        let (a, b) = if n % 2 == 0 {
            let a = plain()?;
            (a, changed()?)
        } else {
            let b = changed()?;
            (plain()?, b)
        };
        let same = a.0 == b.0 && a.0 != Regime::Mixed;
        let (plain, changed) = (Figures::of(&a.1), Figures::of(&b.1));
        let verdict = match (same, plain.is_quiet() && changed.is_quiet()) {
            (false, _) => "  left out: the regimes differ",
            (true, false) => "  left out: others kept the CPUs busy",
            (true, true) => "",
        };
        // Progress is for those who watch.
        let _ = writeln!(
            io::stderr(),
            "pair {:>2}  {:<7} {:>12.0}/s  {:>12.0}/s  {:+.2} %{verdict}",
            n + 1,
            a.0.name(),
            plain.requests_per_s,
            changed.requests_per_s,
            throughput_lost(&plain, &changed).unwrap_or(0.0),
        );
        if verdict.is_empty() {
            kept.push(Pair { plain, changed });
        }
    }
    Ok(kept)
}

/// Per cent of the plain run's throughput that the changed one lost.
fn throughput_lost(plain: &Figures, changed: &Figures) -> Option<f64> {
    (plain.requests_per_s > 0.0)
        .then(|| (1.0 - changed.requests_per_s / plain.requests_per_s) * 100.0)
}

/// Per cent by which the changed run's median round trip is longer.
fn p50_added(plain: &Figures, changed: &Figures) -> Option<f64> {
    Some((changed.p50_ns? / plain.p50_ns? - 1.0) * 100.0)
}

/// What the pairs differ by.
fn difference(pairs: &[Pair], of: fn(&Figures, &Figures) -> Option<f64>) -> Option<Estimate> {
    Estimate::of(
        pairs
            .iter()
            .filter_map(|pair| of(&pair.plain, &pair.changed)),
    )
}

fn report(pairs: &[Pair], what: [&str; 2]) -> String {
    let median = |digits: usize, figures: &dyn Fn(&Pair) -> Option<f64>| {
        let spread = Spread::of(pairs.iter().filter_map(figures));
        spread.map_or_else(|| "–".into(), |s| format!("{:.*}", digits, s.median))
    };
    let rows = [
        (
            what[0],
            median(0, &|p| Some(p.plain.requests_per_s)),
            median(1, &|p| p.plain.p50_ns),
        ),
        (
            what[1],
            median(0, &|p| Some(p.changed.requests_per_s)),
            median(1, &|p| p.changed.p50_ns),
        ),
    ];
    let mut text = String::from("| | requests/s | p50 ns |\n|---|--:|--:|\n");
    for (what, rate, p50) in rows {
        text += &format!("| {what} | {rate} | {p50} |\n");
    }
    let unknown = || String::from("unknown: no pair met the same regime twice, undisturbed");
    let (lost, longer) = (
        difference(pairs, throughput_lost),
        difference(pairs, p50_added),
    );
    text += &format!(
        "\n| of {} pairs | measured | promised | |\n|---|--:|--:|---|\n",
        pairs.len()
    );
    text += &format!(
        "| throughput lost | {} | ≤ {PROMISED} % | {} |\n",
        lost.map_or_else(unknown, |lost| lost.to_string()),
        lost.map_or("too few", |lost| lost.verdict(PROMISED)),
    );
    text += &format!(
        "| median round trip longer | {} | – | |\n",
        longer.map_or_else(unknown, |longer| longer.to_string()),
    );
    text
}

/// Recording in (this binary) against out (`without`).
pub(crate) fn recording(
    without: &Path,
    workload: &Workload,
    options: &PairOptions,
    cpus: Option<(usize, usize)>,
) -> io::Result<String> {
    let with = std::env::current_exe()?;
    let work = workload.work(options.seconds, options.depth);
    let checked = |exe: &Path, records: bool| {
        let (regime, outcome) = one(exe, work, cpus)?;
        if outcome.records != records {
            let is = if outcome.records {
                "records"
            } else {
                "does not record"
            };
            return Err(io::Error::other(format!("{} {is}", exe.display())));
        }
        Ok((regime, outcome))
    };
    let pairs = pairs(options, || checked(without, false), || checked(&with, true))?;
    Ok(format!(
        "### Recording in against out: {}\n\n{}",
        workload.title,
        report(&pairs, ["recording compiled out", "recording"])
    ))
}
