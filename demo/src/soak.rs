//! The soak: hours of mixed messages between real processes that are killed, stopped and starved meanwhile, every byte checked.
//!
//! `soak --for 1h` starts a server and clients (this program again), injects faults (`faults`) and reports what was lost,
//! duplicated, corrupted or leaked. All of that must be 0: the exit code says whether it was.
//!
//! ```text
//!  soak ──▶ faults ──▶ process: soak --role server, soak --role client × N ──▶ message
//! ```
//! A message is *lost* if its connection lives and it is not answered, or if the server sees a gap; what was in flight when a
//! process was killed has an *unknown* outcome, is reported as that by the transport, and counted apart.

mod client;
mod dice;
mod faults;
mod message;
mod process;
mod server;
mod tally;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::failure::Failure;
use crate::options::parse;
use crate::units::{parse_duration, show_count};
use tally::Tally;

/// Checks every message while processes are killed, stopped and starved.
#[derive(Parser)]
#[command(name = "soak", version)]
struct Options {
    /// How long
    #[arg(long = "for", value_name = "TIME", default_value = "1m", value_parser = parse_duration)]
    time: Duration,
    /// Or until so many messages have been answered, whichever is later
    #[arg(long, value_name = "N", default_value_t = 0)]
    messages: u64,
    /// Client processes
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=200))]
    clients: u32,
    /// Pause between faults, on average
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = parse_duration)]
    pause: Duration,
    /// Which faults come when; the same number, the same order
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One JSON object at the end
    #[arg(long)]
    json: bool,
    /// What this process is: set by the soak itself
    #[arg(long, hide = true)]
    role: Option<Role>,
    /// Where server and clients meet: set by the soak itself
    #[arg(long, hide = true)]
    dir: Option<PathBuf>,
    /// Number of the client: set by the soak itself
    #[arg(long, hide = true, default_value_t = 0)]
    number: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Server,
    Client,
}

/// Runs the soak with a command line (its first word is the program's name).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    crate::exit("soak", run(&args))
}

fn run(args: &[OsString]) -> Result<u8, Failure> {
    let Some(options) = parse::<Options>(args)? else {
        return Ok(0);
    };
    match (options.role, &options.dir) {
        (Some(Role::Server), Some(dir)) => return server::run(dir).map(|()| 0),
        (Some(Role::Client), Some(dir)) => {
            return client::run(dir, options.number, options.seed).map(|()| 0);
        }
        _ => {}
    }
    let outcome = faults::run(&options)?;
    report(&options, &outcome);
    Ok(u8::from(!outcome.is_clean()))
}

/// What a soak found.
#[derive(Debug, Default)]
struct Outcome {
    /// What clients and servers counted.
    tally: Tally,
    seconds: f64,
    /// Faults injected, by name.
    faults: Vec<(&'static str, u64)>,
    /// Descriptors and ring mappings that the servers held when nobody was there.
    leaked_fds: u64,
    leaked_rings: u64,
    /// Memory that servers or clients had grown by, beyond [`faults::GROWTH_BYTES`].
    leaked_bytes: u64,
    /// Processes that ended without having been killed.
    crashes: u64,
}

impl Outcome {
    fn is_clean(&self) -> bool {
        let t = &self.tally;
        let bad = t.lost + t.duplicated + t.corrupted + t.leaked_fds;
        bad + self.leaked_fds + self.leaked_rings + self.leaked_bytes + self.crashes == 0
    }
}

fn report(options: &Options, o: &Outcome) {
    let t = &o.tally;
    if options.json {
        let faults: serde_json::Map<_, _> = o
            .faults
            .iter()
            .map(|(name, n)| ((*name).to_owned(), (*n).into()))
            .collect();
        println!(
            "{}",
            serde_json::json!({
                "schema": 1, "seconds": o.seconds, "messages": t.messages, "bytes": t.bytes, "sessions": t.sessions,
                "faults": faults, "unknown": t.unknown, "cancelled": t.cancelled, "refused_size": t.refused,
                "lost": t.lost, "duplicated": t.duplicated, "corrupted": t.corrupted,
                "leaked_fds": t.leaked_fds + o.leaked_fds, "leaked_rings": o.leaked_rings, "leaked_bytes": o.leaked_bytes,
                "crashes": o.crashes,
            })
        );
        return;
    }
    let injected: u64 = o.faults.iter().map(|(_, n)| n).sum();
    let by_name: Vec<String> = o
        .faults
        .iter()
        .map(|(name, n)| format!("{n} {name}"))
        .collect();
    println!(
        "soak: {} messages ({:.1} GiB) in {:.0} s over {} connections",
        show_count(t.messages),
        t.bytes as f64 / (1u64 << 30) as f64,
        o.seconds,
        show_count(t.sessions)
    );
    println!(
        "faults injected: {} ({})",
        show_count(injected),
        by_name.join(", ")
    );
    println!(
        "outcome unknown, as reported to the caller: {}; cancelled: {}; refused for their size: {}",
        show_count(t.unknown),
        show_count(t.cancelled),
        show_count(t.refused)
    );
    println!(
        "lost: {}  duplicated: {}  corrupted: {}  leaked fds: {}  leaked rings: {}  leaked memory: {} bytes  crashes: {}",
        t.lost,
        t.duplicated,
        t.corrupted,
        t.leaked_fds + o.leaked_fds,
        o.leaked_rings,
        o.leaked_bytes,
        o.crashes
    );
}
