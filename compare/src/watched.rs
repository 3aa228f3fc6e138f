//! What it costs to be watched by shmtop: the same processes work on, while shmtop is stopped and let go on in turn. Runs with and without it are
//! no measure: sixteen processes differ from one start to the next by ten times what is looked for. So do the pairs of one start from those of
//! another, which is why each start is one value, the median of its pairs, and the interval is over starts.

use std::io::{self, Error, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use transport::stats::{PageReader, Role, Snapshot, registry};

use crate::clock::{monotonic_ns, sleep_until};
use crate::conductor::{self, Meanwhile};
use crate::probe::{Regime, line_samples, may_probe_during};
use crate::statistics::{Estimate, Spread};
use crate::subject;
use crate::terminal::OnTerminal;
use crate::workload::Workload;

/// Pairs that the same processes work through, and those of them that must have met one regime for the start to count.
const PAIRS_PER_START: usize = 5;
const FEWEST_PAIRS: usize = 3;
/// shmtop has found everything by then, and goes on at its usual pace.
const SHMTOP_SETTLES: Duration = Duration::from_millis(1500);
/// Per cent: what the transport may lose of its throughput, and what shmtop may use of a CPU.
const PROMISED_LOSS: f64 = 0.5;
const PROMISED_SHARE: f64 = 1.0;
/// Not counted after shmtop was stopped or let go on.
const SETTLES: Duration = Duration::from_millis(250);

/// How to compare.
#[derive(clap::Args)]
pub(crate) struct WatchedOptions {
    /// A release build of shmtop.
    #[arg(long, default_value = "../target/release/shmtop")]
    shmtop: PathBuf,
    /// Processes started anew so often; each start is of five pairs.
    #[arg(long, default_value_t = 12)]
    starts: usize,
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
    /// The pairs that count, of each start.
    starts: Vec<Vec<Pair>>,
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
        sleep_until(monotonic_ns() + SHMTOP_SETTLES.as_nanos() as u64);
        let mut pairs = Vec::new();
        for n in 0..PAIRS_PER_START {
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
                pairs.push(pair);
            } else {
                self.left_out += 1;
            }
        }
        self.running = None;
        self.starts.push(pairs);
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
    if !may_probe_during() {
        return Err(Error::other(
            "the regime can't be told while requests are counted: this user may not run threads before all others (CAP_SYS_NICE)",
        ));
    }
    let exe = std::env::current_exe()?;
    let mut watcher = Watcher {
        options,
        running: None,
        page: Snapshot::default(),
        cpus,
        starts: Vec::new(),
        left_out: 0,
    };
    // A little more than the pairs take.
    let pairs_s = 2.0 * (options.seconds + SETTLES.as_secs_f64()) * PAIRS_PER_START as f64;
    let work = workload.work(pairs_s * 1.02 + SHMTOP_SETTLES.as_secs_f64() + 0.5, 1);
    for _ in 0..options.starts {
        conductor::run(&exe, &subject::OURS, work, cpus, &mut watcher)?;
    }
    Ok(report(
        workload,
        options.seconds,
        &watcher.starts,
        watcher.left_out,
    ))
}

/// The median over the pairs of each start that counts.
fn by_start(starts: &[Vec<Pair>], of: fn(&Pair) -> f64) -> impl Iterator<Item = f64> + Clone {
    starts
        .iter()
        .filter(|pairs| pairs.len() >= FEWEST_PAIRS)
        .filter_map(move |pairs| Spread::of(pairs.iter().map(of)).map(|spread| spread.median))
}

fn report(workload: &Workload, seconds: f64, starts: &[Vec<Pair>], left_out: usize) -> String {
    let rate = |of: fn(&Pair) -> f64| {
        Spread::of(by_start(starts, of)).map_or_else(
            || "–".into(),
            |s| format!("{:.0} ({:.0}–{:.0})", s.median, s.least, s.most),
        )
    };
    let promise = |of: fn(&Pair) -> f64, ceiling: f64| {
        Estimate::of(by_start(starts, of)).map_or_else(
            || format!("– | ≤ {ceiling} % | too few"),
            |e| format!("{e} | ≤ {ceiling} % | {}", e.verdict(ceiling)),
        )
    };
    // A share has no sign.
    let share = promise(|pair| pair.watched.shmtop_cpus * 100.0, PROMISED_SHARE).replace('+', "");
    let of_regime = |regime| {
        let pairs = starts.iter().flatten();
        pairs.filter(|pair| pair.plain.regime == regime).count()
    };
    format!(
        "### shmtop watching at 10 Hz: {}\n\n| | requests/s |\n|---|--:|\n| not watched | {} |\n| watched | {} |\n\n\
         | of {} starts | measured | promised | |\n|---|--:|--:|---|\n| throughput lost | {} |\n| a CPU, used by shmtop | {} |\n\n\
         The sixteen processes were started {} times, and each time worked through {PAIRS_PER_START} pairs of {seconds} s each, shmtop stopped \
         and let go on in turn beside them; a start is the median of its pairs. Pairs that count: {} near, {} far. Left out: {left_out} pairs during which \
         the regime changed or could not be told, and starts with fewer than {FEWEST_PAIRS} left.\n",
        workload.title,
        rate(|pair| pair.plain.requests_per_s),
        rate(|pair| pair.watched.requests_per_s),
        by_start(starts, Pair::lost).count(),
        promise(Pair::lost, PROMISED_LOSS),
        share,
        starts.len(),
        of_regime(Regime::Near),
        of_regime(Regime::Far),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(lost_per_cent: f64) -> Pair {
        let stretch = |requests_per_s, shmtop_cpus| Stretch {
            requests_per_s,
            shmtop_cpus,
            regime: Regime::Near,
        };
        Pair {
            plain: stretch(1000.0, 0.0),
            watched: stretch(1000.0 - 10.0 * lost_per_cent, 0.008),
        }
    }

    /// Pairs of one start resemble each other: twenty of them are not twenty values.
    #[test]
    fn many_pairs_of_few_starts_are_no_verdict() {
        let start = |lost: f64, pairs: usize| (0..pairs).map(|_| pair(lost)).collect::<Vec<_>>();
        let report = |starts: &[Vec<Pair>]| report(&crate::workload::ALL[0], 1.0, starts, 0);
        let few: Vec<_> = [0.1, 0.2, 3.0].map(|lost| start(lost, 20)).into();
        let text = report(&few);
        assert!(text.contains("| throughput lost | **+0.20 %** (no interval: fewer than six) | ≤ 0.5 % | too few |"), "{text}");
        let mut enough: Vec<_> = [0.1, 0.2, 0.1, 0.2, 0.3, 0.3]
            .map(|lost| start(lost, 5))
            .into();
        // What is left of this one says nothing.
        enough.push(start(9.0, 2));
        let text = report(&enough);
        assert!(text.contains("| of 6 starts |"), "{text}");
        assert!(
            text.contains("(95 % interval +0.10 to +0.30) | ≤ 0.5 % | holds |"),
            "{text}"
        );
        assert!(text.contains("| a CPU, used by shmtop | **0.80 %** (95 % interval 0.80 to 0.80) | ≤ 1 % | holds |"), "{text}");
    }
}
