//! The trader's command line, and the plan it means.

use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::failure::Failure;
use crate::load::{Pace, Plan};
use crate::options::CommonOptions;
use crate::protocol::{HEADER, Mode};
use crate::units::{parse_bytes, parse_duration};

/// How long a run lasts when neither time nor number of requests is given.
const DEFAULT_DURATION: Duration = Duration::from_secs(10);

/// Puts load on the exchange and verifies what comes back.
#[derive(Parser)]
#[command(name = "trader", version)]
pub(super) struct Options {
    /// Clients, each with a connection of its own
    #[arg(default_value = "1", value_parser = parse_clients)]
    clients: u32,
    /// ping: small round trips; bytes: the payload comes back; batch: orders, each acknowledged
    #[arg(value_enum, default_value = "ping")]
    mode: Mode,
    /// Bytes per message, request and reply alike, 32 at least [default: ping 64, bytes 20000, batch 2080 = 64 orders]
    #[arg(value_parser = parse_bytes)]
    size: Option<usize>,
    #[command(flatten)]
    pub(super) common: CommonOptions,
    /// End after this time, or `forever` [default: 10s, or when --requests are done]
    #[arg(long, value_name = "TIME", value_parser = parse_length)]
    duration: Option<Length>,
    /// End each client after so many requests
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Requests in flight per client
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=transport::MAX_IN_FLIGHT as i64))]
    depth: u32,
    /// Open loop: so many requests per second by all clients together. Latency counts from when a request was
    /// due, so a stall shows in every request it delays (no coordinated omission)
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Pause after each reply; with --depth, after each window of replies
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with = "rate")]
    think: Option<Duration>,
    /// One JSON object on stdout at the end; all else goes to stderr
    #[arg(long)]
    pub(super) json: bool,
    /// Each client is a process
    #[arg(long, conflicts_with = "threads")]
    pub(super) processes: bool,
    /// Threads that share the clients [default: one each]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    threads: Option<u32>,
    /// How replies are verified
    #[arg(long, value_enum, default_value = "sample")]
    verify: Verify,
    /// When the exchange dies, try so long to get back to it; 0s gives up at once
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "5s")]
    reconnect: Duration,
    /// Number of this worker of a trader with --processes
    #[arg(long, value_name = "I", hide = true, requires = "parent")]
    pub(super) worker: Option<usize>,
}

/// How much of a reply is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verify {
    /// Length, header and a stamp every 256 bytes of all replies; every byte of replies up to 1 KiB and of one in 16
    Sample,
    /// Every byte of every reply
    Full,
}

/// `--duration`.
#[derive(Clone, Copy, Debug)]
enum Length {
    Forever,
    For(Duration),
}

fn parse_clients(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|n| (1..=10_000).contains(n))
        .ok_or_else(|| "the number of clients comes first, 1 to 10000, as in 16 bytes 20000".into())
}

fn parse_length(text: &str) -> Result<Length, String> {
    match text {
        "forever" => Ok(Length::Forever),
        time => parse_duration(time).map(Length::For),
    }
}

impl Options {
    /// What to do, or why this can't be meant.
    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        let config = self.common.config("trader")?;
        let size = self.size.unwrap_or_else(|| self.mode.default_size());
        let largest = config.max_message_bytes;
        if largest < HEADER {
            return Err(Failure::usage(format!(
                "--max-message must be {HEADER} bytes or more (what makes a reply verifiable takes so many), not {largest}"
            )));
        }
        if !(HEADER..=largest).contains(&size) {
            return Err(Failure::usage(format!(
                "size must be {HEADER} (what makes a reply verifiable) to {largest} bytes (--max-message), not {size}"
            )));
        }
        let pace = match self.rate {
            None => Pace::Closed {
                think: self.think.unwrap_or_default(),
            },
            Some(rate) if rate.is_finite() && rate > 0.0 => Pace::Open {
                interval_ns: 1e9 * f64::from(self.clients) / rate,
            },
            Some(rate) => {
                return Err(Failure::usage(format!(
                    "--rate must be above zero, not {rate}"
                )));
            }
        };
        let clients = self.clients as usize;
        Ok(Plan {
            socket: self.common.socket(),
            config,
            clients,
            mode: self.mode,
            size,
            depth: self.depth as usize,
            pace,
            requests: self.requests,
            thorough: self.verify == Verify::Full,
            reconnect: self.reconnect,
            threads: self.threads.map_or(clients, |t| t as usize),
            pin: self.common.pin.clone(),
        })
    }

    /// How long to run; `None` = until the requests are done or somebody says stop.
    pub(super) fn duration(&self, plan: &Plan) -> Option<Duration> {
        match self.duration {
            Some(Length::Forever) => None,
            Some(Length::For(duration)) => Some(duration),
            None => plan.requests.is_none().then_some(DEFAULT_DURATION),
        }
    }
}
