//! Comparisons of the transport with itself: recording in against out, and watched against not. In pairs, A B B A …, because what
//! is looked for is a hundredth, and the machine drifts by more than that.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::conductor::{self, Meanwhile, Outcome, Work};
use crate::probe::Regime;
use crate::results::{Figures, Spread};
use crate::subject::{self, Subject};
use crate::terminal::OnTerminal;
use crate::workload::Workload;

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
fn one(
    exe: &Path,
    work: Work,
    cpus: Option<(usize, usize)>,
    meanwhile: &mut dyn Meanwhile,
) -> io::Result<(Regime, Outcome)> {
    let subject: &dyn Subject = &subject::OURS;
    let outcome = conductor::run(exe, subject, work, cpus, meanwhile)?;
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
    Some((changed.p50_ns? as f64 / plain.p50_ns? as f64 - 1.0) * 100.0)
}

/// The median of the pairs' differences, and the interval that holds it with 95 % certainty.
fn difference(pairs: &[Pair], of: fn(&Figures, &Figures) -> Option<f64>) -> String {
    let mut values: Vec<f64> = pairs
        .iter()
        .filter_map(|pair| of(&pair.plain, &pair.changed))
        .collect();
    values.sort_by(f64::total_cmp);
    let Some(spread) = Spread::of(values.iter().copied()) else {
        return "unknown: no pair met the same regime twice, undisturbed".into();
    };
    // Order statistics: n/2 ± 0.98 √n bound the median with 95 % certainty, whatever the distribution.
    let (n, last) = (values.len() as f64, values.len() - 1);
    let reach = 0.98 * n.sqrt();
    let low = values[((n / 2.0 - reach).floor().max(0.0) as usize).min(last)];
    let high = values[((n / 2.0 + reach).ceil() as usize).min(last)];
    format!(
        "**{:+.2} %** (95 % interval {low:+.2} to {high:+.2})",
        spread.median
    )
}

fn report(pairs: &[Pair], what: [&str; 2]) -> String {
    let median = |figures: &dyn Fn(&Pair) -> Option<f64>| {
        let spread = Spread::of(pairs.iter().filter_map(figures));
        spread.map_or_else(|| "–".into(), |s| format!("{:.0}", s.median))
    };
    let rows = [
        (
            what[0],
            median(&|p| Some(p.plain.requests_per_s)),
            median(&|p| Some(p.plain.p50_ns? as f64)),
        ),
        (
            what[1],
            median(&|p| Some(p.changed.requests_per_s)),
            median(&|p| Some(p.changed.p50_ns? as f64)),
        ),
    ];
    let mut text = String::from("| | requests/s | p50 ns |\n|---|--:|--:|\n");
    for (what, rate, p50) in rows {
        text += &format!("| {what} | {rate} | {p50} |\n");
    }
    text += &format!(
        "\nOver {} pairs: throughput lost {}; median round trip longer by {}.\n",
        pairs.len(),
        difference(pairs, throughput_lost),
        difference(pairs, p50_added),
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
        let (regime, outcome) = one(exe, work, cpus, &mut ())?;
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

/// Runs for what shmtop itself uses, and seconds of each: it looks at everything once a second, so a part of one tells little.
const OWN_COST_RUNS: usize = 3;
const OWN_COST_SECONDS: f64 = 8.0;

/// shmtop at 10 Hz on a terminal, while clients work.
struct Watcher {
    shmtop: PathBuf,
    running: Option<(OnTerminal, u64, Instant)>,
    /// Share of a CPU it used while counting, one per run.
    shares: Vec<f64>,
}

impl Meanwhile for Watcher {
    fn start(&mut self, dir: &Path) -> io::Result<()> {
        let mut command = Command::new(&self.shmtop);
        command.args(["-d", "100ms"]).env("SHMTOP_RUNTIME_DIR", dir);
        self.running = Some((OnTerminal::start(command)?, 0, Instant::now()));
        Ok(())
    }

    fn counting_begins(&mut self) -> io::Result<()> {
        if let Some((shmtop, cpu, since)) = &mut self.running {
            (*cpu, *since) = (shmtop.cpu_ns()?, Instant::now());
        }
        Ok(())
    }

    fn counting_ends(&mut self) -> io::Result<()> {
        if let Some((mut shmtop, cpu, since)) = self.running.take() {
            let used = Duration::from_nanos(shmtop.cpu_ns()? - cpu);
            self.shares
                .push(used.as_secs_f64() / since.elapsed().as_secs_f64());
        }
        Ok(())
    }
}

/// Watched by `shmtop` at 10 Hz against not watched.
pub(crate) fn watched(
    shmtop: &Path,
    workload: &Workload,
    options: &PairOptions,
    cpus: Option<(usize, usize)>,
) -> io::Result<String> {
    let exe = std::env::current_exe()?;
    let mut watcher = Watcher {
        shmtop: shmtop.into(),
        running: None,
        shares: Vec::new(),
    };
    let work = workload.work(options.seconds, options.depth);
    let pairs = pairs(
        options,
        || one(&exe, work, cpus, &mut ()),
        || one(&exe, work, cpus, &mut watcher),
    )?;
    watcher.shares.clear();
    for _ in 0..OWN_COST_RUNS {
        let work = workload.work(OWN_COST_SECONDS, options.depth);
        one(&exe, work, cpus, &mut watcher)?;
    }
    let share = Spread::of(watcher.shares.iter().copied());
    Ok(format!(
        "### shmtop watching at 10 Hz: {}\n\n{}\nshmtop used {} of a CPU ({OWN_COST_RUNS} runs of {OWN_COST_SECONDS} s).\n",
        workload.title,
        report(&pairs, ["not watched", "watched"]),
        share.map_or_else(
            || "an unknown share".into(),
            |s| format!(
                "{:.2} % ({:.2}–{:.2})",
                s.median * 100.0,
                s.least * 100.0,
                s.most * 100.0
            )
        )
    ))
}
