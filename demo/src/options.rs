//! The options that exchange and trader share, and how a command line that can't be meant is reported.
//!
//! Becomes a [`transport::Config`]; what belongs to one program only stands in that program's file.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use transport::stats::registry::default_dir;
use transport::{Config, TransportChoice, WaitPolicy};

use crate::failure::Failure;
use crate::pin::Pin;
use crate::units::{parse_bytes, parse_duration};

/// Options of both programs.
#[derive(Args, Clone, Debug)]
pub(crate) struct CommonOptions {
    /// The exchange's socket [default: exchange.sock in the user's runtime directory]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How to wait when nothing is there [default: adaptive]
    #[arg(long, value_enum)]
    wait: Option<WaitName>,
    /// Wait on a ladder: spin N times first …
    #[arg(long, value_name = "N")]
    spin: Option<u32>,
    /// … then call sched_yield N times …
    #[arg(long = "yield", value_name = "N")]
    yields: Option<u32>,
    /// … then sleep so long, and again from the start. What is not given is as in `document`: 100, 900, 1us
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    sleep: Option<Duration>,
    /// Ring per direction; the smaller of the two sides' counts
    #[arg(long, value_name = "SIZE", default_value = "32MiB", value_parser = parse_bytes)]
    ring_size: usize,
    /// Largest message; the smaller of the two sides' counts [default: 2MiB, or what half the ring holds]
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    max_message: Option<usize>,
    /// Keep to certain CPUs: the exchange to one, the traders to those that share a cache with it, or to those listed
    #[arg(long, value_name = "CPUS", num_args = 0..=1, require_equals = true, default_missing_value = "auto", default_value = "off", hide_default_value = true)]
    pub(crate) pin: Pin,
    /// Rings in huge pages: reserved ones if some are free, else transparent ones, else small ones
    #[arg(long)]
    huge_pages: bool,
    /// Which way bytes may travel
    #[arg(long, value_enum, default_value = "auto")]
    transport: Via,
    /// Name shown by viewers [default: the program's]
    #[arg(long)]
    name: Option<String>,
    /// End with this process, whose pipe is our stdin: set by the program that starts this one
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitName {
    /// Spins a little where CPUs are free, yields and parks where they are not
    Adaptive,
    /// Never gives the CPU up
    Spin,
    /// A few yields, then sleeps until woken
    Park,
    /// A fixed ladder: 100 spins, 900 yields, sleep 1 µs
    Document,
    /// The ladder of --spin, --yield, --sleep
    Ladder,
}

impl WaitName {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Spin => "spin",
            Self::Park => "park",
            Self::Document => "document",
            Self::Ladder => "ladder",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Via {
    /// Shared memory, else the socket
    Auto,
    /// Shared memory or nothing
    Shm,
    /// The socket
    Socket,
}

/// The transport's own default for the largest message.
const MAX_MESSAGE: usize = 2 << 20;

impl CommonOptions {
    /// The configuration that these options ask for, checked.
    pub(crate) fn config(&self, name: &str) -> Result<Config, Failure> {
        let config = Config {
            name: self.name.clone().unwrap_or_else(|| name.to_owned()),
            ring_bytes: self.ring_size,
            max_message_bytes: self
                .max_message
                .unwrap_or_else(|| MAX_MESSAGE.min((self.ring_size / 2).saturating_sub(64))),
            wait: self.wait_policy()?,
            huge_pages: self.huge_pages,
            transport: match self.transport {
                Via::Auto => TransportChoice::Auto,
                Via::Shm => TransportChoice::Shm,
                Via::Socket => TransportChoice::Socket,
            },
            ..Config::default()
        };
        config.check().map_err(|e| Failure::usage(e.to_string()))?;
        Ok(config)
    }

    fn wait_policy(&self) -> Result<WaitPolicy, Failure> {
        let rungs = self.spin.is_some() || self.yields.is_some() || self.sleep.is_some();
        match self.wait {
            Some(WaitName::Ladder) => Ok(self.ladder()),
            None if rungs => Ok(self.ladder()),
            Some(other) if rungs => Err(Failure::usage(format!(
                "--spin, --yield and --sleep make a ladder and don't go with --wait {}",
                other.name()
            ))),
            None | Some(WaitName::Adaptive) => Ok(WaitPolicy::Adaptive),
            Some(WaitName::Spin) => Ok(WaitPolicy::Spin),
            Some(WaitName::Park) => Ok(WaitPolicy::Park),
            Some(WaitName::Document) => Ok(WaitPolicy::DOCUMENT),
        }
    }

    fn ladder(&self) -> WaitPolicy {
        WaitPolicy::Ladder {
            spins: self.spin.unwrap_or(100),
            yields: self.yields.unwrap_or(900),
            sleep: self.sleep.unwrap_or(Duration::from_micros(1)),
        }
    }

    /// The socket to use.
    pub(crate) fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| default_dir().join("exchange.sock"))
    }
}

/// Parses a command line. `Ok(None)`: help or version was asked for and printed.
pub(crate) fn parse<T: Parser>(args: &[OsString]) -> Result<Option<T>, Failure> {
    use clap::error::ErrorKind;
    match T::try_parse_from(args) {
        Ok(options) => Ok(Some(options)),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            e.print().map_err(|e| Failure::io("printing", &e))?;
            Ok(None)
        }
        Err(e) => Err(Failure::usage(sentence(&e))),
    }
}

/// The first paragraph of clap's message as one line; the usage that follows it is what `--help` is for.
fn sentence(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let first = text.split("\n\n").next().unwrap_or_default();
    let line = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    format!("{line} (see --help)")
}
