//! Carries out what the command line asks for; the only place with exit codes.
//!
//! Every command is a short function from settings to [`Outcome`]. What they share stands in [`watch`] (looking at the world for a
//! while) and [`settings`] (flags, environment, file).

mod export;
mod http;
mod play;
mod privileges;
mod record;
mod replay;
mod settings;
mod watch;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::check::{Expr, Watch};
use crate::cli::{Cli, Command, Format};
use crate::model::{Model, Severity};
use crate::reading::{Why, WhyKind};
use crate::report::Dialect;
use crate::sample::Discovery;
use crate::{hint, report};
use settings::Settings;

/// How a command ends, when it does not end well. The text is one sentence for stderr.
#[derive(Debug)]
pub(crate) enum Failure {
    /// 1: findings, or an assertion failed; what there is to say was said.
    Findings,
    /// 2: the command line makes no sense.
    Usage(String),
    /// 3: nothing to look at.
    NoEndpoint(String),
    /// 4: not allowed to look.
    Permission(String),
    /// 5: a page of another layout.
    Incompatible(String),
    /// 6: what was watched ended.
    Died(String),
    /// The dashboard was ended by a signal: its own code.
    Code(u8),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Findings => 1,
            Self::Usage(_) => 2,
            Self::NoEndpoint(_) => 3,
            Self::Permission(_) => 4,
            Self::Incompatible(_) => 5,
            Self::Died(_) => 6,
            Self::Code(code) => *code,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            // The reader of our output has seen enough.
            io::ErrorKind::BrokenPipe => Self::Code(0),
            io::ErrorKind::PermissionDenied => Self::Permission(e.to_string()),
            _ => Self::Usage(e.to_string()),
        }
    }
}

/// How a command ends.
pub(crate) type Outcome = Result<(), Failure>;

/// The whole program: arguments (the program's name first) to exit code.
pub(crate) fn main(
    args: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // A closed pipe is nobody's mistake.
            let _ = match e.use_stderr() {
                true => writeln!(io::stderr(), "shmtop: {}", sentence(&e.to_string())),
                false => e.print(),
            };
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match &failure {
                Failure::Findings | Failure::Code(_) => {}
                Failure::Usage(text)
                | Failure::NoEndpoint(text)
                | Failure::Permission(text)
                | Failure::Incompatible(text)
                | Failure::Died(text) => {
                    let _ = writeln!(io::stderr(), "shmtop: {text}");
                }
            }
            ExitCode::from(failure.code())
        }
    }
}

/// clap's paragraphs as one sentence: what is wrong, and its tip if there is one.
fn sentence(text: &str) -> String {
    let mut paragraphs = text.split("\n\n");
    let words = |p: &str| p.split_whitespace().collect::<Vec<_>>().join(" ");
    let wrong = words(paragraphs.next().unwrap_or(""));
    let wrong = wrong.strip_prefix("error: ").unwrap_or(&wrong);
    let tip = paragraphs.map(words).find(|p| p.starts_with("tip: "));
    match tip.as_deref().and_then(|t| t.strip_prefix("tip: ")) {
        Some(tip) => format!("{wrong}; {tip}"),
        None => format!("{wrong}; see --help"),
    }
}

fn dispatch(cli: Cli) -> Outcome {
    let settings = Settings::new(cli.flags)?;
    match cli.command {
        None => dashboard(&settings),
        Some(Command::Ps) => ps(&settings),
        Some(Command::Snapshot) => snapshot(&settings),
        Some(Command::Doctor { period }) => doctor(&settings, period),
        Some(Command::Check { period, asserts }) => check(&settings, period, &asserts),
        Some(Command::Explain { id }) => explain(id.as_deref()),
        Some(Command::Record { file, period }) => record::record(&settings, &file, period),
        Some(Command::Replay { file, at }) => replay::replay(&settings, &file, at),
        Some(Command::Diff { a, b }) => replay::diff(&settings, &a, &b),
        Some(Command::Export { listen }) => export::serve(&settings, listen),
        Some(Command::Completions { shell }) => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "shmtop", &mut out);
            io::stdout().write_all(&out).map_err(Failure::from)
        }
        Some(Command::Man) => {
            let mut out = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut out)?;
            io::stdout().write_all(&out).map_err(Failure::from)
        }
        Some(Command::Config) => say(&settings.to_file()),
    }
}

/// Prints to stdout.
pub(crate) fn say(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// The format asked for, if the command has it.
fn format(settings: &Settings, allowed: &[Format]) -> Result<Format, Failure> {
    let wanted = settings.format.unwrap_or(Format::Table);
    if allowed.contains(&wanted) {
        return Ok(wanted);
    }
    Err(Failure::Usage(
        format!("this command has no format {wanted:?}").to_lowercase(),
    ))
}

fn dashboard(settings: &Settings) -> Outcome {
    if !io::stdout().is_terminal() {
        let mut watch = watch::Look::new(settings);
        watch.step();
        watch.wait(settings.delay_or(1.0));
        watch.step();
        watch.endpoints()?;
        let note = "not a terminal: one table (see shmtop snapshot)\n";
        return say(&format!(
            "{note}{}",
            report::table(&watch.model, &settings.state)
        ));
    }
    play::live(settings, Box::new(world(settings)))
}

/// The world to look at; from here on with no more privileges than looking takes.
fn world(settings: &Settings) -> crate::source::World {
    privileges::shed();
    crate::source::World::new(settings.world())
}

fn ps(settings: &Settings) -> Outcome {
    let format = format(settings, &[Format::Table, Format::Json])?;
    let mut watch = watch::Look::new(settings);
    watch.step();
    let found = watch.endpoints();
    match format {
        Format::Json => say(&pretty(&report::ps_json(&watch.model)))?,
        _ if watch.model.endpoints.is_empty() && watch.model.unreadable.is_empty() => {}
        _ => {
            let unseen = unseen(&watch.sample().discovery);
            let unseen = unseen.map_or(String::new(), |text| text + "\n");
            say(&(report::ps(&watch.model) + &unseen))?;
        }
    }
    found
}

fn snapshot(settings: &Settings) -> Outcome {
    let format = format(
        settings,
        &[
            Format::Table,
            Format::Json,
            Format::Csv,
            Format::Prom,
            Format::Openmetrics,
        ],
    )?;
    let mut watch = watch::Look::new(settings);
    watch.step();
    for i in 0..settings.count.unwrap_or(1) {
        let before = watch.model.endpoints.len();
        watch.wait(settings.delay_or(1.0));
        watch.step();
        if before > 0 {
            watch.still_there()?;
        }
        watch.endpoints()?;
        let model = &watch.model;
        match format {
            Format::Table => {
                let gap = if i > 0 { "\n" } else { "" };
                let table = match report::table(model, &settings.state) {
                    empty if empty.is_empty() => {
                        format!("no client matches {:?}\n", settings.state.filter)
                    }
                    table => table,
                };
                say(&format!("{gap}{table}"))?;
            }
            Format::Json => say(&pretty(&report::snapshot_json(model)))?,
            Format::Csv => {
                let text = report::csv(model, &settings.state);
                // One heading for the whole file.
                let body = if i > 0 {
                    text.split_once("\r\n").map_or("", |(_, b)| b)
                } else {
                    &text
                };
                say(body)?;
            }
            Format::Prom => say(&report::metrics(model, watch.sample(), Dialect::Text))?,
            Format::Openmetrics => {
                say(&report::metrics(
                    model,
                    watch.sample(),
                    Dialect::OpenMetrics,
                ))?;
            }
        }
    }
    Ok(())
}

fn doctor(settings: &Settings, period: std::time::Duration) -> Outcome {
    let format = format(settings, &[Format::Table, Format::Json])?;
    let mut watch = watch::Look::new(settings);
    watch.run(period, |_, _| Ok(()))?;
    let died = watch.still_there();
    if died.is_ok() {
        watch.endpoints()?;
    }
    let model = &watch.model;
    match format {
        Format::Json => say(&pretty(&report::doctor_json(model)))?,
        // Of what has ended nobody can say that nothing is wrong.
        _ if died.is_err() && model.findings.is_empty() => {}
        _ => say(&report::doctor_text(model, settings.state.ascii))?,
    }
    died?;
    verdict(model)
}

/// 1 if anything is at warn or above.
fn verdict(model: &Model) -> Outcome {
    if model.worst() >= Some(Severity::Warn) {
        return Err(Failure::Findings);
    }
    Ok(())
}

/// Every hint that spoke at any time of a watch, a line each, the gravest first.
fn hints_that_spoke(samples: u64, summary: &crate::check::Summary) -> String {
    let mut seen: Vec<_> = summary.findings().iter().collect();
    seen.sort_by_key(|(_, s)| std::cmp::Reverse(s.severity));
    let mut out = format!("{samples} samples, {} hints spoke\n", seen.len());
    for (id, s) in seen {
        out += &format!("  {} {id}: {}\n", s.severity.name(), s.says);
    }
    out
}

fn check(settings: &Settings, period: std::time::Duration, asserts: &[String]) -> Outcome {
    let mut exprs = Vec::new();
    for text in asserts {
        exprs.push(Expr::parse(text).map_err(|e| Failure::Usage(format!("--assert: {e}")))?);
    }
    let mut watch = watch::Look::new(settings);
    let mut figures = Watch::default();
    watch.run(period, |sample, model| {
        figures.look(sample, model);
        Ok(())
    })?;
    watch.still_there()?;
    watch.endpoints()?;
    let summary = figures.summary(|m| settings.select(m));
    let mut failed = false;
    let of_hints = ["crits", "warns", "infos"];
    let asks = |e: &Expr| e.figures().iter().any(|f| of_hints.contains(f));
    for (expr, text) in exprs.iter().zip(asserts) {
        let holds = expr.holds(&|name| summary.get(name));
        let shown: Vec<String> = expr
            .figures()
            .into_iter()
            .map(|name| match summary.get(name) {
                Ok(v) => format!("{name} = {v:.3}"),
                Err(why) => format!("{name} = unknown: {why}"),
            })
            .collect();
        let word = match holds {
            Ok(true) => "holds",
            Ok(false) => "fails",
            Err(_) => "unknown",
        };
        failed |= holds != Ok(true);
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        say(&format!("{word}: {clean}   ({})\n", shown.join(", ")))?;
    }
    if exprs.iter().any(asks) {
        say(&hints_that_spoke(figures.samples(), &summary))?;
    }
    if failed {
        Err(Failure::Findings)
    } else {
        Ok(())
    }
}

fn explain(id: Option<&str>) -> Outcome {
    let Some(id) = id else {
        let list: String = hint::rules()
            .map(|r| format!("{:<20} {:<5} {}\n", r.id, r.severity.name(), r.title))
            .collect();
        return say(&list);
    };
    match hint::explain(id) {
        Some(text) => say(&text),
        None => {
            let hint = match crate::text::nearest(hint::rules().map(|r| r.id), id) {
                Some(near) => format!("did you mean {near}?"),
                None => "`shmtop explain` lists all".to_owned(),
            };
            Err(Failure::Usage(format!(
                "there is no hint {:?}; {hint}",
                crate::text::clean(id)
            )))
        }
    }
}

/// Why there is nothing to show, by what was found instead and by how far the search saw.
pub(crate) fn nothing(model: &Model, discovery: &Discovery, settings: &Settings) -> Failure {
    const ALLOWED: &str = "run shmtop as its owner, or as root (sudo shmtop)";
    if let Some(u) = model.unreadable.iter().find(|u| u.version.is_some()) {
        return Failure::Incompatible(format!("{}: {}", u.name, u.why));
    }
    let denied = |why: &Why| why.kind == WhyKind::NoPermission;
    if let Some(u) = model.unreadable.iter().find(|u| denied(&u.why)) {
        return Failure::Permission(format!("{}: {}; {ALLOWED}", u.name, u.why));
    }
    if let Some(why) = discovery.registry_links.why().filter(|why| denied(why)) {
        return Failure::Permission(format!("{why}; {ALLOWED}"));
    }
    if settings.selects() {
        return Failure::NoEndpoint(
            "no endpoint matches; `shmtop ps` lists what is running".into(),
        );
    }
    let unseen = unseen(discovery).map_or(String::new(), |unseen| format!("; {unseen}"));
    Failure::NoEndpoint(format!(
        "no process with a stats page found (looked in {} and in /proc{unseen}); start one, e.g. cargo run --release --bin demo",
        transport::stats::registry::default_dir().display()
    ))
}

/// What the search could not look into.
fn unseen(discovery: &Discovery) -> Option<String> {
    let denied = discovery.scan.known().map_or(0, |scan| scan.denied);
    let processes = if denied == 1 { "process" } else { "processes" };
    match nix::unistd::geteuid().is_root() {
        _ if denied == 0 => None,
        true => Some(format!("{denied} {processes} could not be searched")),
        false => Some(format!(
            "{denied} {processes} of other users could not be searched, which sudo shmtop could"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Unreadable;

    #[test]
    fn why_there_is_nothing_to_show_decides_the_exit_code() {
        let flags = crate::cli::Cli::parse_from(["shmtop"]).flags;
        let settings = Settings::new(flags).unwrap();
        let code = |why: Why, version| {
            let mut model = Model::empty();
            model.unreadable.push(Unreadable {
                pid: Some(7),
                name: "7-x".into(),
                why,
                version,
            });
            nothing(&model, &Discovery::default(), &settings).code()
        };
        assert_eq!(code(Why::not_there("layout 2.0"), Some((2, 0))), 5);
        assert_eq!(code(Why::no_permission("EACCES"), None), 4);
        assert_eq!(code(Why::not_there("it ended"), None), 3);
        let empty = Model::empty();
        let mut discovery = Discovery::default();
        assert_eq!(nothing(&empty, &discovery, &settings).code(), 3);
        discovery.registry_links = crate::sample::Fact::Unknown(Why::no_permission("EACCES"));
        assert_eq!(nothing(&empty, &discovery, &settings).code(), 4);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::from(gone).code(), 0);
    }
}
