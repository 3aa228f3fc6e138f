//! Comparisons of the transport with itself: recording in against out, and watched against not. In pairs, A B B A …, because what
//! is looked for is a hundredth, and the machine drifts by more than that.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::conductor::{Meanwhile, Outcome};
use crate::probe::Regime;
use crate::results::{Figures, Spread};
use crate::rounds::probed;
use crate::subject::{self, Subject};
use crate::terminal::OnTerminal;
use crate::workload::Workload;

/// How to pair.
#[derive(clap::Args)]
pub(crate) struct PairOptions {
    /// Pairs of runs.
    #[arg(long, default_value_t = 20)]
    pairs: usize,
    /// Seconds counted per run.
    #[arg(long, default_value_t = 0.5)]
    seconds: f64,
    /// Requests in flight per connection where they are pipelined.
    #[arg(long, default_value_t = 8)]
    depth: usize,
}

/// The two runs of a pair.
struct Pair {
    plain: Figures,
    changed: Figures,
}

/// One run, and the regime it was in.
fn one(
    exe: &Path,
    workload: &Workload,
    options: &PairOptions,
    cpus: Option<(usize, usize)>,
    meanwhile: &mut dyn Meanwhile,
) -> io::Result<(Regime, Outcome)> {
    let subject: &dyn Subject = &subject::OURS;
    let work = workload.work(options.seconds, options.depth);
    let (before, after, outcome) = probed(exe, subject, work, cpus, meanwhile);
    Ok((Regime::of(before, after), outcome?))
}

/// Runs all pairs; only those whose two runs met the same regime count.
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
        let (a_figures, b_figures) = (Figures::of(&a.1), Figures::of(&b.1));
        // Progress is for those who watch.
        let _ = writeln!(
            io::stderr(),
            "pair {:>2}  {:<7} {:>12.0}/s  {:>12.0}/s  {:+.2} %{}",
            n + 1,
            a.0.name(),
            a_figures.requests_per_s,
            b_figures.requests_per_s,
            loss(&a_figures, &b_figures) * 100.0,
            if same {
                ""
            } else {
                "  (regimes differ: left out)"
            }
        );
        if same {
            kept.push(Pair {
                plain: a_figures,
                changed: b_figures,
            });
        }
    }
    Ok(kept)
}

/// Share of the plain run's throughput that the changed one lost.
fn loss(plain: &Figures, changed: &Figures) -> f64 {
    1.0 - changed.requests_per_s / plain.requests_per_s
}

/// The two medians, and the median of the pairs' losses with the interval that holds it with 95 % certainty.
fn report(pairs: &[Pair], what: [&str; 2]) -> String {
    let rate = |of: fn(&Pair) -> &Figures| {
        Spread::of(pairs.iter().map(|pair| of(pair).requests_per_s)).map_or(0.0, |s| s.median)
    };
    let p50 = |of: fn(&Pair) -> &Figures| {
        Spread::of(
            pairs
                .iter()
                .filter_map(|pair| Some(of(pair).p50_ns? as f64)),
        )
        .map_or(0.0, |s| s.median)
    };
    let mut losses: Vec<f64> = pairs
        .iter()
        .map(|pair| loss(&pair.plain, &pair.changed) * 100.0)
        .collect();
    losses.sort_by(f64::total_cmp);
    let Some(spread) = Spread::of(losses.iter().copied()) else {
        return "no pair met the same regime twice".into();
    };
    // Order statistics around the median: n/2 ± 0.98 √n bound it with 95 % certainty, whatever the distribution.
    let n = losses.len() as f64;
    let reach = 0.98 * n.sqrt();
    let low = losses[((n / 2.0 - reach).floor().max(0.0)) as usize];
    let high = losses[((n / 2.0 + reach).ceil() as usize).min(losses.len() - 1)];
    let others = Spread::of(
        pairs
            .iter()
            .flat_map(|p| [p.plain.foreign_cpus, p.changed.foreign_cpus])
            .flatten(),
    );
    format!(
        "| | requests/s | p50 ns |\n|---|--:|--:|\n| {} | {:.0} | {:.0} |\n| {} | {:.0} | {:.0} |\n\n\
         Throughput lost, median of {} pairs: **{:+.2} %** (95 % interval {low:+.2} to {high:+.2}); others kept {:.2} CPUs busy.\n",
        what[0],
        rate(|p| &p.plain),
        p50(|p| &p.plain),
        what[1],
        rate(|p| &p.changed),
        p50(|p| &p.changed),
        losses.len(),
        spread.median,
        others.map_or(0.0, |s| s.median),
    )
}

/// Recording in (this binary) against out (`without`).
pub(crate) fn recording(
    without: &Path,
    workload: &Workload,
    options: &PairOptions,
    cpus: Option<(usize, usize)>,
) -> io::Result<String> {
    let with = std::env::current_exe()?;
    let checked = |exe: &Path, records: bool| {
        let (regime, outcome) = one(exe, workload, options, cpus, &mut ())?;
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
    let pairs = pairs(
        options,
        || one(&exe, workload, options, cpus, &mut ()),
        || one(&exe, workload, options, cpus, &mut watcher),
    )?;
    let share = Spread::of(watcher.shares.iter().copied());
    Ok(format!(
        "### shmtop watching at 10 Hz: {}\n\n{}\nshmtop used {} of a CPU.\n",
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
