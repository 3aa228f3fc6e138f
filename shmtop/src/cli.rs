//! The command line: what can be typed, and what it means after file and environment had their say.
//!
//! Precedence: flag, `SHMTOP_…` in the environment, configuration file, default. `commands` carries it out.

mod uses;

pub(crate) use uses::formats;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

/// Shows processes that talk through shared memory, live, and says what is wrong with them, why, and what to type.
///
/// Without a command it opens the dashboard; with -f, or if stdout is not a terminal, it prints one snapshot.
///
/// Each flag that several commands have has a variable in the environment, as it says; SHMTOP_PID=1,2 is two. What is typed comes first, then the variable, then the
/// configuration file. With a command stand the flags that it reads; the others do nothing there, and -n, -f, --filter and --sort are refused.
///
/// Exit codes: 0 fine, 1 findings at warn or above or a failed assertion, 2 usage, or a file, an address or a device that can't be used
/// (a damaged recording, an address in use, a full disk), 3 no endpoint, 4 permission, 5 incompatible page, 6 peer died while watched:
/// what was watched has ended, or the other end of it has without closing the connection (killed, or an exit that drops nothing).
#[derive(Debug, Parser)]
#[command(name = "shmtop", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do; without one the dashboard.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) flags: Flags,
}

impl Cli {
    /// Reads arguments, the program's name first.
    pub(crate) fn read(
        args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, Misread> {
        let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
        let typed = match Self::hears(|_| false).try_get_matches_from(&args) {
            Ok(typed) => typed,
            // Help names all variables, those that are set as well.
            Err(e) if !e.use_stderr() => Self::listed().try_get_matches_from(&args)?,
            Err(e) => return Err(e.into()),
        };
        let mut reads = uses::reads(typed.subcommand_name()).to_vec();
        // Without a command it is one snapshot: the number is that of the commands that print or record several.
        reads.retain(|id| typed.subcommand_name().is_some() || *id != "count");
        let heard = |arg: &Arg| reads.contains(&arg.get_id().as_str()) && is_set(arg);
        let matches = match Self::hears(heard).try_get_matches_from(&args) {
            Ok(matches) => matches,
            Err(error) => {
                let command = Self::command();
                let mut heard = command.get_arguments().filter(|arg| heard(arg));
                let alone = |arg: &&Arg| {
                    let hears = Self::hears(|other| other.get_id() == arg.get_id());
                    hears.try_get_matches_from(&args).is_err()
                };
                let variable = heard.find(alone).and_then(Arg::get_env);
                let variable = variable.map(|n| n.to_string_lossy().into_owned());
                return Err(Misread { error, variable });
            }
        };
        let mut cli = Self::from_arg_matches(&matches)?;
        cli.flags.typed = Typed::of(&matches);
        Ok(cli)
    }

    /// What is typed alone, whatever the environment wishes.
    #[cfg(test)]
    pub(crate) fn typed(args: &[&str]) -> Flags {
        let args = ["shmtop"].iter().chain(args);
        let matches = Self::hears(|_| false).get_matches_from(args);
        Self::from_arg_matches(&matches).expect("flags").flags
    }

    /// The command line as help and completions show it: with each command the flags that it reads.
    pub(crate) fn listed() -> clap::Command {
        uses::listed(Self::command())
    }

    /// The command line that hears the variables of these flags.
    fn hears(heard: impl Fn(&Arg) -> bool) -> clap::Command {
        Self::command().mut_args(|arg| if heard(&arg) { arg } else { arg.env(None) })
    }
}

/// Whether the flag's variable wishes for something. One that is set to nothing does not, as with NO_COLOR: that is how compose files pass
/// on what may be unset.
fn is_set(arg: &Arg) -> bool {
    let value = arg.get_env().and_then(std::env::var_os);
    value.is_some_and(|v| !v.is_empty())
}

/// Why a command line can't be read.
#[derive(Debug)]
pub(crate) struct Misread {
    pub(crate) error: clap::Error,
    /// The variable of the environment that has the mistake, if none was typed.
    pub(crate) variable: Option<String>,
}

impl From<clap::Error> for Misread {
    fn from(error: clap::Error) -> Self {
        Self {
            error,
            variable: None,
        }
    }
}

/// Which flags were typed, and are not only wished for in the environment or the file: a command that has no use for one refuses it
/// instead of doing something else.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Typed {
    pub(crate) format: bool,
    pub(crate) filter: bool,
    pub(crate) sort: bool,
    pub(crate) count: bool,
    pub(crate) delay: bool,
}

impl Typed {
    fn of(matches: &ArgMatches) -> Self {
        let typed = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        Self {
            format: typed("format"),
            filter: typed("filter"),
            sort: typed("sort"),
            count: typed("count"),
            delay: typed("delay"),
        }
    }
}

/// Flags of every command.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// Only this process; may be repeated. What is at the other ends of its connections is looked at, too, and not listed
    #[arg(
        short,
        long = "pid",
        global = true,
        env = "SHMTOP_PID",
        value_name = "PID",
        value_delimiter = ','
    )]
    pub(crate) pids: Vec<u32>,
    /// Only endpoints whose name contains this
    #[arg(long, global = true, env = "SHMTOP_NAME", value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// Only clients that match all words: number, peer, transport, state, verdict (dashboard, snapshot, replay)
    #[arg(long, global = true, env = "SHMTOP_FILTER", value_name = "WORDS")]
    pub(crate) filter: Option<String>,
    /// Order of the clients: client, peer, via, requests, bytes, ring, reply-ring, hits, wait, p50, p99, p99.9, bound (dashboard, snapshot, replay)
    #[arg(long, global = true, env = "SHMTOP_SORT", value_name = "KEY", value_parser = sort_key)]
    pub(crate) sort: Option<crate::model::listing::SortKey>,
    /// Time between two looks, with a unit: 500ms, 1s; for hints at most 10s
    #[arg(short, long, global = true, env = "SHMTOP_DELAY", value_name = "TIME", value_parser = duration)]
    pub(crate) delay: Option<Duration>,
    /// Number of samples to print or record; of several, JSON is a document per line (snapshot, record)
    #[arg(short = 'n', long = "count", global = true, env = "SHMTOP_COUNT", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Output format; without a command it prints one snapshot, and then it has to be typed: the dashboard has no format, and what is not a terminal gets one table
    #[arg(
        short,
        long,
        global = true,
        env = "SHMTOP_FORMAT",
        value_name = "FORMAT"
    )]
    pub(crate) format: Option<Format>,
    /// No colours (so does NO_COLOR)
    #[arg(long, global = true, env = "SHMTOP_NO_COLOR", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) no_color: bool,
    /// Plain ASCII instead of bars and symbols
    #[arg(long, global = true, env = "SHMTOP_ASCII", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) ascii: bool,
    /// Colours: dark, light, contrast, mono
    #[arg(long, global = true, env = "SHMTOP_THEME", value_name = "NAME", value_parser = theme)]
    pub(crate) theme: Option<crate::ui::ThemeName>,
    #[arg(skip)]
    pub(crate) typed: Typed,
}

/// Formats of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people (doctor: text).
    #[value(alias = "text")]
    Table,
    /// JSON, schema 1.
    Json,
    /// Comma-separated, one line per client.
    Csv,
    /// The Prometheus text format, which promtool and node_exporter's textfile collector read.
    Prom,
    /// OpenMetrics 1.0.
    Openmetrics,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What is running: endpoints, pids, roles, clients, transport
    Ps,
    /// One sample over an interval (-d, default 1s)
    Snapshot,
    /// Hints and limits; says what it could not check
    Doctor {
        /// How long to watch
        #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "6s")]
        period: Duration,
    },
    /// Watches and compares figures, for CI: check --for 10s --assert 'p99_us<5 && stalls==0'
    #[command(after_help = check_help())]
    Check {
        /// How long to watch
        #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "10s")]
        period: Duration,
        /// What must hold over the whole time; may be repeated
        #[arg(long = "assert", value_name = "EXPR", required = true)]
        asserts: Vec<String>,
    },
    /// Explains a hint
    Explain {
        /// Its id, e.g. fd-headroom; without one all ids are listed
        #[arg(value_name = "HINT-ID")]
        id: Option<String>,
    },
    /// Records samples into a file until Ctrl-C, --for or -n
    ///
    /// There is a sample every 500ms unless -d says otherwise. One takes some 250 KB beside 16 client processes: 30 MB a minute.
    Record {
        /// The file; must not exist
        file: PathBuf,
        /// How long
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        period: Option<Duration>,
    },
    /// Shows a recording: the dashboard on a terminal; elsewhere, or with -f, the findings as they came and went
    Replay {
        /// The recording
        file: PathBuf,
        /// Print what doctor would have said this long after the recording began
        #[arg(long, value_name = "TIME", value_parser = moment)]
        at: Option<Duration>,
    },
    /// Compares two recordings: findings that came or went, then figure by figure
    ///
    /// Each recording is cut into up to 16 parts, and how much a figure differs from part to part is its noise. Better or worse is what
    /// exceeds three standard errors of both; of a percentile also the 6.25 % that a histogram bucket is wide; of counted events, which
    /// are compared per time, what chance explains, and where one has none each is news. Different findings are compared as they are: that
    /// the longer recording has more of them says nothing.
    Diff {
        /// Before
        a: PathBuf,
        /// After
        b: PathBuf,
    },
    /// Serves OpenMetrics over HTTP for Prometheus
    Export {
        /// Address and port, e.g. 127.0.0.1:9752
        #[arg(long, value_name = "ADDR", value_parser = address)]
        listen: std::net::SocketAddr,
    },
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Prints the manual page
    Man,
    /// Prints the configuration in force, as a file with comments
    Config,
}

fn check_help() -> String {
    let mut out = String::from("Figures:\n");
    for f in crate::check::FIGURES {
        out += &format!("  {:<16} {}\n", f.name, f.help);
    }
    out + "\nOperators: < <= > >= == !=, + - * /, ! && ||, parentheses. A figure that can't be had fails the assertion and says why."
}

fn address(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse()
        .map_err(|_| "give an address and a port, e.g. 127.0.0.1:9752 or [::1]:9752".to_owned())
}

fn sort_key(text: &str) -> Result<crate::model::listing::SortKey, String> {
    crate::model::listing::SortKey::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = crate::model::listing::SortKey::ALL
            .iter()
            .map(|k| k.name())
            .collect();
        format!("no such column; choose one of {}", names.join(", "))
    })
}

fn theme(text: &str) -> Result<crate::ui::ThemeName, String> {
    crate::ui::ThemeName::from_name(text).ok_or_else(|| {
        let names: Vec<&str> = crate::ui::ThemeName::ALL.iter().map(|k| k.name()).collect();
        format!("no such theme; choose one of {}", names.join(", "))
    })
}

/// A time with its unit: `500ms`, `1s`, `1.5s`, `2m`; 1 ms to 1 day.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let seconds = seconds(text)?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err("must be between 1ms and 24h".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A moment of a recording, as the time since it began; it may be as long as a disk is large.
fn moment(text: &str) -> Result<Duration, String> {
    let wrong = |_| "must be between 0s and the length of the recording".to_owned();
    Duration::try_from_secs_f64(seconds(text)?).map_err(wrong)
}

fn seconds(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .ok_or_else(|| format!("give a unit: {text}s or {text}ms"))?;
    let (number, unit) = text.split_at(split);
    let value: f64 = number
        .parse()
        .map_err(|_| "a time is a number and a unit, e.g. 500ms, 1s, 2m".to_owned())?;
    let seconds = value
        * match unit.trim() {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            other => return Err(format!("unknown unit {other:?}; use us, ms, s, m or h")),
        };
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_moment_of_a_recording_may_be_its_first_and_days_later() {
        assert_eq!(moment("0s"), Ok(Duration::ZERO));
        assert_eq!(moment("30h"), Ok(Duration::from_secs(108_000)));
        for bad in ["0", "-1s", "NaNs", "1e99h"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_needs_a_unit() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(duration("5").unwrap_err().contains("5s"));
        for bad in ["", "s", "-1s", "1e99s", "1 parsec", "0s", "NaNs", "..s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
