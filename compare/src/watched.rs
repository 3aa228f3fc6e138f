//! What it costs to be watched by shmtop: the same processes work on, while shmtop is stopped and let go on in turn. Runs with and without it are
//! no measure: sixteen processes differ from one start to the next by ten times what is looked for.

use std::io::{self, Error, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use transport::stats::{PageReader, Role, Snapshot, registry};

use crate::clock::{monotonic_ns, sleep_until};
use crate::conductor::{self, Meanwhile};
use crate::probe::{Regime, line_samples};
use crate::results::{Spread, median_with_interval};
use crate::subject;
use crate::terminal::OnTerminal;
use crate::workload::Workload;

/// Pairs that the same processes work through.
const PAIRS_PER_RUN: usize = 20;
/// Not counted after shmtop was stopped or let go on.
const SETTLES: Duration = Duration::from_millis(250);

/// How to compare.
#[derive(clap::Args)]
pub(crate) struct WatchedOptions {
    /// A release build of shmtop.
    #[arg(long, default_value = "target/release/shmtop")]
    shmtop: PathBuf,
    /// Processes started anew so often; each run is of 20 pairs.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds counted per half of a pair: whole ones, since shmtop looks at more than the pages once a second.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Puts the result between its markers in this file.
    #[arg(long)]
    pub(crate) write: Option<PathBuf>,
}

/// One stretch of time.
#[derive(Clone, Copy)]
struct Stretch {
    requests_per_s: f64,
    /// CPU time of shmtop for each second.
    shmtop_cpus: f64,
    regime: Regime,
}

struct Pair {
    plain: Stretch,
    watched: Stretch,
}

impl Pair {
    /// Per cent of its throughput that the transport loses.
    fn lost(&self) -> f64 {
        (1.0 - self.watched.requests_per_s / self.plain.requests_per_s) * 100.0
    }
}

/// shmtop at 10 Hz on a terminal beside a run.
struct Watcher<'a> {
    options: &'a WatchedOptions,
    running: Option<(OnTerminal, PageReader)>,
    page: Snapshot,
    cpus: Option<(usize, usize)>,
    pairs: Vec<Pair>,
    left_out: usize,
}

impl Meanwhile for Watcher<'_> {
    fn start(&mut self, dir: &Path) -> io::Result<()> {
        let mut command = Command::new(&self.options.shmtop);
        command.args(["-d", "100ms"]).env("SHMTOP_RUNTIME_DIR", dir);
        self.running = Some((OnTerminal::start(command)?, servers_page(dir)?));
        Ok(())
    }

    fn counting(&mut self, end_ns: u64) -> io::Result<()> {
        for n in 0..PAIRS_PER_RUN {
            let watched_first = n % 2 == 1;
            let first = self.stretch(watched_first)?;
            let second = self.stretch(!watched_first)?;
            let (plain, watched) = if watched_first {
                (second, first)
            } else {
                (first, second)
            };
            let pair = Pair { plain, watched };
            let known = !matches!(plain.regime, Regime::Mixed | Regime::Unknown);
            let met_one_regime = plain.regime == watched.regime && known;
            // Progress is for those who watch.
            let _ = writeln!(
                io::stderr(),
                "{:<8} {:<8}  {:>9.0}/s  {:>9.0}/s  {:+.2} %  {:.2} % of a CPU",
                plain.regime.name(),
                watched.regime.name(),
                plain.requests_per_s,
                watched.requests_per_s,
                pair.lost(),
                watched.shmtop_cpus * 100.0,
            );
            if met_one_regime {
                self.pairs.push(pair);
            } else {
                self.left_out += 1;
            }
        }
        self.running = None;
        if monotonic_ns() > end_ns {
            return Err(Error::other("the clients ended before the last pair did"));
        }
        Ok(())
    }
}

impl Watcher<'_> {
    /// What is done in one stretch of time, watched or not.
    fn stretch(&mut self, watched: bool) -> io::Result<Stretch> {
        let Some((shmtop, reader)) = &mut self.running else {
            return Err(Error::other("nothing was started"));
        };
        let mut now = |shmtop: &mut OnTerminal| -> io::Result<(u64, u64, u64)> {
            reader.snapshot_into(&mut self.page).map_err(Error::other)?;
            let requests = self.page.slots.iter().map(|slot| slot.req.requests).sum();
            Ok((monotonic_ns(), requests, shmtop.cpu_ns()?))
        };
        shmtop.hold(!watched)?;
        sleep_until(monotonic_ns() + SETTLES.as_nanos() as u64);
        let (from_ns, requests, cpu_ns) = now(shmtop)?;
        let end_ns = from_ns + (self.options.seconds * 1e9) as u64;
        let lines_ns = line_samples(self.cpus, end_ns);
        sleep_until(end_ns);
        let (to_ns, requests_after, cpu_after_ns) = now(shmtop)?;
        let ns = (to_ns - from_ns) as f64;
        Ok(Stretch {
            requests_per_s: (requests_after - requests) as f64 * 1e9 / ns,
            shmtop_cpus: (cpu_after_ns - cpu_ns) as f64 / ns,
            regime: Regime::of(&lines_ns),
        })
    }
}

/// The page of the one server in a run's directory.
fn servers_page(dir: &Path) -> io::Result<PageReader> {
    for found in registry::discover(dir)? {
        let reader = PageReader::open(&found.link).map_err(Error::other)?;
        if reader.snapshot().map_err(Error::other)?.role == Role::Server {
            return Ok(reader);
        }
    }
    Err(Error::other("the server has no page"))
}

/// Watched by `shmtop` at 10 Hz against not watched.
pub(crate) fn watched(
    options: &WatchedOptions,
    workload: &Workload,
    cpus: Option<(usize, usize)>,
) -> io::Result<String> {
    let exe = std::env::current_exe()?;
    let mut watcher = Watcher {
        options,
        running: None,
        page: Snapshot::default(),
        cpus,
        pairs: Vec::new(),
        left_out: 0,
    };
    // A little more than the pairs take.
    let pairs_s = 2.0 * (options.seconds + SETTLES.as_secs_f64()) * PAIRS_PER_RUN as f64;
    let work = workload.work(pairs_s * 1.02 + 0.5, 1);
    for _ in 0..options.runs {
        conductor::run(&exe, &subject::OURS, work, cpus, &mut watcher)?;
    }
    Ok(report(workload, &watcher))
}

fn report(workload: &Workload, watcher: &Watcher<'_>) -> String {
    let Watcher { options, pairs, .. } = watcher;
    let rate = |of: fn(&Pair) -> Stretch| {
        let spread = Spread::of(pairs.iter().map(|pair| of(pair).requests_per_s));
        spread.map_or_else(
            || "–".into(),
            |s| format!("{:.0} ({:.0}–{:.0})", s.median, s.least, s.most),
        )
    };
    let share = Spread::of(pairs.iter().map(|pair| pair.watched.shmtop_cpus * 100.0));
    format!(
        "### shmtop watching at 10 Hz: {}\n\n| | requests/s |\n|---|--:|\n| not watched | {} |\n| watched | {} |\n\n\
         Over {} pairs of {} s each, shmtop stopped and let go on in turn beside the same processes ({} starts of them): throughput lost {}. Left out: \
         {} during which the regime changed or could not be told.\n\n\
         shmtop used {} of a CPU.\n",
        workload.title,
        rate(|pair| pair.plain),
        rate(|pair| pair.watched),
        pairs.len(),
        options.seconds,
        options.runs,
        median_with_interval(pairs.iter().map(Pair::lost).collect())
            .unwrap_or_else(|| "unknown".into()),
        watcher.left_out,
        share.map_or_else(
            || "an unknown share".into(),
            |s| format!("{:.2} % ({:.2}–{:.2})", s.median, s.least, s.most)
        ),
    )
}
