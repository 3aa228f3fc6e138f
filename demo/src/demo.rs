//! The demo: exchange, traders and dashboard with one command, nothing to prepare and nothing left behind.
//!
//! Exchange and traders are this executable again (`cargo run --bin demo` builds no other), told apart by the first
//! argument. However this process ends, they end with it: see `crate::children`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use shmtop::judge::Judge;
use shmtop::model::Model;
use shmtop::model::listing::Listing;
use shmtop::runtime::{self, SampleSource, Settings};
use shmtop::sample::{Glance, Sample};
use shmtop::source::{self, World};

use crate::failure::{FAULT, Failure};
use crate::options::{WaitName, parse};
use crate::protocol::Mode;
use crate::signals;
use crate::units::{parse_bytes, parse_duration};

mod cast;
mod stage;

use stage::Stage;

/// First argument of a child that is the exchange.
const EXCHANGE: &str = "__exchange";
/// First argument of a child that is a trader.
const TRADER: &str = "__trader";
/// How long it runs where there is no terminal to show it on.
const DEFAULT_DURATION: Duration = Duration::from_secs(5);

/// An exchange, its traders and the dashboard.
///
/// In a terminal the dashboard is live until q; elsewhere it runs for --duration and prints one table.
///
/// A process of the demo that ends is named, and in the end the first eight that failed. The live dashboard goes on, and the exit code is that
/// of the way out: 0, or 128 and the signal's number. Without a terminal that is the end, with exit code 1.
#[derive(Parser)]
#[command(name = "demo", version)]
struct Options {
    /// Traders, each a process of its own
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u32).range(1..=512))]
    clients: u32,
    /// What the traders do: a mixture that leaves CPU to spare, or all the same
    #[arg(long, value_enum, default_value = "mixed")]
    mode: Act,
    /// Bytes per message [default: as the trader's]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    size: Option<usize>,
    /// Requests per second of all traders together [default: each pauses 1 ms after a reply]
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// As fast as it goes, without pauses: `bytes 20000` unless --mode says otherwise
    #[arg(long, conflicts_with = "rate")]
    full: bool,
    /// How long to run [default: in a terminal until q, else 5s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// How all of them wait
    #[arg(long, value_enum, default_value = "adaptive")]
    wait: WaitName,
}

/// What the traders do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Act {
    Mixed,
    Ping,
    Bytes,
    Batch,
}

impl Act {
    fn mode(self) -> Option<Mode> {
        match self {
            Self::Mixed => None,
            Self::Ping => Some(Mode::Ping),
            Self::Bytes => Some(Mode::Bytes),
            Self::Batch => Some(Mode::Batch),
        }
    }
}

/// Runs the demo, or the role of a child, with a command line (its first word is the program's name).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut args: Vec<_> = args.into_iter().collect();
    match args.get(1).and_then(|a| a.to_str()) {
        Some(EXCHANGE) => {
            args.remove(1);
            crate::exchange::main(args)
        }
        Some(TRADER) => {
            args.remove(1);
            crate::trader::main(args)
        }
        _ => crate::exit("demo", run(&args)),
    }
}

fn run(args: &[OsString]) -> Result<u8, Failure> {
    let Some(options) = parse::<Options>(args)? else {
        return Ok(0);
    };
    match runtime::no_screen() {
        None => live(&options),
        Some(why) => once(&options, why),
    }
}

/// The dashboard until the user leaves. Signals and the terminal are its business.
fn live(options: &Options) -> Result<u8, Failure> {
    let stage = Arc::new(Mutex::new(Stage::set(options)?));
    let settings = Settings {
        duration: options.duration,
        ..Settings::default()
    };
    let watched = Watched {
        world: world(),
        stage: Arc::clone(&stage),
    };
    let ending = runtime::run(Box::new(watched), settings);
    let mut stage = stage.lock().unwrap_or_else(PoisonError::into_inner);
    tell(&stage.clear());
    let ending = ending.map_err(|e| Failure::io("the dashboard", &e))?;
    Ok(ending.exit_code())
}

/// The world, and whoever of the demo's own processes has ended: the dashboard says so and goes on, as to end one of them is one of the
/// things to try.
struct Watched {
    world: World,
    stage: Arc<Mutex<Stage>>,
}

impl SampleSource for Watched {
    fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        SampleSource::next_sample(&mut self.world)
    }

    fn news(&mut self) -> Option<String> {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let who = stage.newly_ended()?;
        Some(format!("{who}; q ends the demo"))
    }

    fn glance(&mut self, glance: &mut Glance) -> bool {
        SampleSource::glance(&mut self.world, glance)
    }

    fn look_closely(&mut self, pids: &BTreeSet<u32>) {
        SampleSource::look_closely(&mut self.world, pids);
    }
}

/// One table at the end, of the last half second; the hints in it have seen all of them.
fn once(options: &Options, why: &str) -> Result<u8, Failure> {
    const STEP: Duration = Duration::from_millis(500);
    let (end, ended) = channel();
    signals::on_signal(move || _ = end.send(()))?;
    let mut stage = Stage::set(options)?;
    let (mut world, mut models) = (world(), Judge::new());
    let deadline = Instant::now() + options.duration.unwrap_or(DEFAULT_DURATION);
    let shown = loop {
        let model = models.push(world.sample());
        if stage.newly_ended().is_some() {
            break None;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Some(model);
        }
        // Whole steps, and what remains of the first.
        let next = Duration::from_nanos((left.as_nanos() - 1) as u64 % STEP.as_nanos() as u64 + 1);
        if ended.recv_timeout(next) != Err(RecvTimeoutError::Timeout) {
            break Some(models.push(world.sample()));
        }
    };
    let last_words = stage.clear();
    tell(&last_words);
    if let Some(model) = shown {
        print(&model, why)?;
    }
    Ok(if last_words.is_empty() { 0 } else { FAULT })
}

fn tell(last_words: &[String]) {
    for line in last_words {
        crate::note(format_args!("demo: {line}"));
    }
}

/// What is announced in this user's runtime directory: the demo, and what else the user runs there.
fn world() -> World {
    World::new(source::Options {
        scan: false,
        ..source::Options::default()
    })
}

/// The table of `shmtop snapshot`, and below it what was found.
fn print(model: &Model, why: &str) -> Result<(), Failure> {
    let mut text = shmtop::report::table(model, Listing::default());
    for f in &model.findings {
        text.push_str(&shmtop::report::finding_text(f));
    }
    let mut stdout = std::io::stdout();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|e| Failure::io("printing", &e))?;
    crate::note(format_args!(
        "demo: {why}: printed one table (in a terminal the dashboard is live)"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_ended_is_told_once_and_costs_no_sample() {
        let mut watched = Watched {
            world: world(),
            stage: Arc::new(Mutex::new(Stage::of_ended(3))),
        };
        let news = watched.news().expect("all of them have ended");
        assert!(news.starts_with("the exchange (pid "), "{news}");
        assert!(news.ends_with(", and 3 traders; q ends the demo"), "{news}");
        assert!(watched.next_sample().is_ok_and(|sample| sample.is_some()));
        assert_eq!(watched.news(), None);
    }
}
