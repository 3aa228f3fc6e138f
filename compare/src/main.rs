//! `compare`: this transport beside its peers, on the same work, in the same minute.
//!
//! The program starts itself again for every server and client (`role-server`, `role-clients`). [`rounds`] is the order of things,
//! [`conductor`] one run, [`subject`] who is compared, [`subject::drive`] the loops that are the same for all.

mod clock;
mod conductor;
mod document;
mod gate;
mod histogram;
mod job;
mod meter;
mod paired;
mod place;
mod players;
mod probe;
mod promises;
mod results;
mod role;
mod rounds;
mod statistics;
mod subject;
mod system;
mod table;
mod terminal;
mod watched;
mod workload;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use job::Job;
use paired::PairOptions;
use rounds::{Ended, Schedule};
use subject::{Listed, Subject};
use watched::WatchedOptions;
use workload::Workload;

/// Compares the transport with its peers: interleaved runs, verified payloads, medians with spread.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    table: TableOptions,
}

#[derive(clap::Args)]
struct TableOptions {
    /// How often everything is run.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// Seconds counted per run, after half a second of warm-up.
    #[arg(long, default_value_t = 0.35)]
    seconds: f64,
    /// Only these, by id; also those left out by default. See `compare list`.
    #[arg(long, value_delimiter = ',')]
    subjects: Vec<String>,
    /// Only these, by id; also those left out by default.
    #[arg(long, value_delimiter = ',')]
    workloads: Vec<String>,
    /// Requests in flight per connection where they are pipelined.
    #[arg(long, default_value_t = 8)]
    depth: usize,
    /// No run begins that would probably end after so many minutes.
    #[arg(long, default_value_t = 12.0)]
    minutes: f64,
    /// One round of 0.2 s each: does it all work?
    #[arg(long)]
    quick: bool,
    /// Puts the tables between the markers of this file.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Every run as a line of JSON; `-` is standard output.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Lists subjects and workloads.
    List,
    /// What recording statistics costs: this binary against one built without. See compare/recording.
    Recording {
        /// The binary built with `--cfg transport_no_stats`.
        #[arg(long)]
        without: PathBuf,
        #[arg(long, default_value = "64-1")]
        workload: String,
        #[command(flatten)]
        pairs: PairOptions,
    },
    /// What it costs to be watched by shmtop at 10 Hz, and what that costs itself.
    Watched {
        #[arg(long, default_value = "64-16p")]
        workload: String,
        #[command(flatten)]
        options: WatchedOptions,
    },
    #[command(hide = true)]
    RoleServer { job: String },
    #[command(hide = true)]
    RoleClients { job: String },
}

fn main() -> ExitCode {
    let options = Options::parse();
    if !matches!(
        options.command,
        Some(Command::RoleServer { .. } | Command::RoleClients { .. })
    ) {
        place::sweep();
    }
    let result = match options.command {
        None => compare(&options.table),
        Some(Command::List) => list(),
        Some(Command::Recording {
            without,
            workload,
            pairs,
        }) => chosen_workload(&workload).and_then(|w| {
            warn_if_probed_around();
            publish(
                "recording",
                pairs.write.as_deref(),
                &paired::recording(&without, &w, &pairs, cpus())?,
            )
        }),
        Some(Command::Watched { workload, options }) => chosen_workload(&workload).and_then(|w| {
            let text = watched::watched(&options, &w, cpus())?;
            publish("watched", options.write.as_deref(), &text)
        }),
        Some(Command::RoleServer { job }) => role(&job, role::server),
        Some(Command::RoleClients { job }) => role(&job, role::clients),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn role(job: &str, act: impl Fn(&Job) -> io::Result<()>) -> io::Result<()> {
    act(&serde_json::from_str(job).map_err(io::Error::other)?)
}

fn list() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "subjects:")?;
    for subject in subject::ALL {
        let mark = if subject.listed() == Listed::OnRequest {
            " (on request)"
        } else {
            ""
        };
        writeln!(out, "  {:<20} {}{mark}", subject.id(), subject.title())?;
    }
    writeln!(out, "workloads:")?;
    for workload in workload::ALL {
        let mark = if workload.listed { "" } else { " (on request)" };
        writeln!(out, "  {:<20} {}{mark}", workload.id, workload.title)?;
    }
    Ok(())
}

/// The first two CPUs this process may use.
fn cpus() -> Option<(usize, usize)> {
    match system::allowed_cpus()[..] {
        [one, other, ..] => Some((one, other)),
        _ => None,
    }
}

fn chosen_subjects(ids: &[String]) -> io::Result<Vec<&'static dyn Subject>> {
    if ids.is_empty() {
        return Ok(subject::ALL
            .iter()
            .copied()
            .filter(|s| s.listed() == Listed::Always)
            .collect());
    }
    ids.iter()
        .map(|id| {
            subject::named(id).ok_or_else(|| io::Error::other(format!("no subject is called {id}")))
        })
        .collect()
}

fn chosen_workloads(ids: &[String]) -> io::Result<Vec<Workload>> {
    if ids.is_empty() {
        return Ok(workload::ALL.iter().copied().filter(|w| w.listed).collect());
    }
    ids.iter().map(|id| chosen_workload(id)).collect()
}

fn chosen_workload(id: &str) -> io::Result<Workload> {
    let found = workload::ALL.iter().copied().find(|w| w.id == id);
    found.ok_or_else(|| io::Error::other(format!("no workload is called {id}")))
}

/// Prints what the pairs said, and writes it where that was asked for.
fn publish(part: &str, write: Option<&Path>, text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())?;
    write.map_or(Ok(()), |path| document::replace(path, part, text))
}

/// What there was no time for, for the settings' line; nothing if all was run.
fn what_is_missing(ended: Ended, minutes: f64) -> String {
    let missing = match ended {
        Ended::Complete => return String::new(),
        Ended::InRound(round) => format!("the budget of {minutes} minutes ended in round {round}"),
        Ended::InRepeats => format!(
            "all rounds were run, but the budget of {minutes} minutes ended while runs that were left out were repeated"
        ),
    };
    // For those who watch.
    let _ = writeln!(io::stderr(), "compare: {missing}");
    format!("; {missing}")
}

/// Says so if nobody probes the cores while requests are counted.
fn warn_if_probed_around() {
    if !probe::may_probe_during() {
        eprintln!(
            "compare: this user may not run threads before all others (CAP_SYS_NICE), so the regime is probed before and after each run instead \
             of during it, and can be another than the run's; the tables say so"
        );
    }
}

fn compare(options: &TableOptions) -> io::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("compare: a debug build; its figures mean nothing");
    }
    let (rounds, seconds) = if options.quick {
        (1, 0.2)
    } else {
        (options.rounds, options.seconds)
    };
    if !(0.05..=3600.0).contains(&seconds)
        || options.depth == 0
        || !(0.0..=1e6).contains(&options.minutes)
    {
        return Err(io::Error::other(
            "seconds must be 0.05 to 3600, the depth at least 1, minutes not negative",
        ));
    }
    warn_if_probed_around();
    let exe = std::env::current_exe()?;
    let schedule = Schedule {
        exe: &exe,
        subjects: chosen_subjects(&options.subjects)?,
        workloads: chosen_workloads(&options.workloads)?,
        rounds,
        seconds,
        depth: options.depth,
        budget: Duration::from_secs_f64(options.minutes * 60.0),
        cpus: cpus(),
    };
    let mut json: Option<Box<dyn Write>> = match &options.json {
        Some(path) if path.as_os_str() == "-" => Some(Box::new(io::stdout())),
        Some(path) => Some(Box::new(std::fs::File::create(path)?)),
        None => None,
    };
    let mut written = Ok(());
    let (runs, ended) = schedule.run(|run| {
        rounds::narrate(run);
        if let (Some(json), Ok(())) = (&mut json, &written) {
            written = serde_json::to_writer(&mut *json, run)
                .map_err(io::Error::other)
                .and_then(|()| writeln!(json));
        }
    });
    written?;
    let tables = promises::markdown(&runs)
        + &table::markdown(&runs, &schedule.workloads, &schedule.subjects, rounds);
    let settings = format!(
        "{rounds} rounds of {seconds} s each, {} in flight per connection where pipelined{}",
        options.depth,
        what_is_missing(ended, options.minutes)
    );
    let section = document::section(&tables, &schedule.subjects, &settings);
    match &options.write {
        Some(path) => document::replace(path, "tables", &section)?,
        None if options
            .json
            .as_deref()
            .is_some_and(|path| path.as_os_str() == "-") => {}
        None => io::stdout().write_all(section.as_bytes())?,
    }
    match runs.iter().filter(|run| run.failed.is_some()).count() {
        0 => Ok(()),
        failed => Err(io::Error::other(format!("{failed} run(s) failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_ended_early_is_told() {
        assert_eq!(what_is_missing(Ended::Complete, 12.0), "");
        let told = what_is_missing(Ended::InRound(3), 12.0);
        assert_eq!(told, "; the budget of 12 minutes ended in round 3");
        assert!(what_is_missing(Ended::InRepeats, 12.0).contains("all rounds were run"));
    }
}
