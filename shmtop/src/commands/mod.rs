//! Carries out what the command line asks for; the only place with exit codes.
//!
//! Every command is a short function from settings to [`Outcome`]. What they share stands in [`watch`] (looking at the world for a
//! while) and [`settings`] (flags, environment, file).

mod check;
mod descriptors;
mod export;
mod failure;
mod heap;
mod http;
mod man;
mod nothing;
mod play;
mod privileges;
mod record;
mod replay;
mod settings;
mod thin;
mod uses;
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::ValueEnum;

use crate::cli::{Cli, Command, Format, Misread, formats};
use crate::model::listing::{keep_matching, sort};
use crate::model::{Model, Severity};
use crate::report::Dialect;
use crate::runtime;
use crate::{hint, report};
pub(crate) use failure::{Failure, Outcome};
use nothing::unseen;
use settings::Settings;

/// The whole program: arguments (the program's name first) to exit code.
pub(crate) fn main(
    args: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> ExitCode {
    let cli = match Cli::read(args) {
        Ok(cli) => cli,
        Err(Misread { error: e, variable }) => {
            let variable = variable.map_or(String::new(), |name| name + ": ");
            // A closed pipe is nobody's mistake.
            let _ = match e.use_stderr() {
                true => writeln!(
                    io::stderr(),
                    "shmtop: {variable}{}",
                    sentence(&e.to_string())
                ),
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
                    // Nobody is left to be told that stderr is closed; the exit code says it.
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
    uses::check(cli.flags.typed, cli.command.as_ref())?;
    // Asked for with `?` by those who need them: beside a configuration file that can't be read the rest is still told.
    let settings = Settings::new(cli.flags);
    let of_hints = Settings::for_hints;
    match cli.command {
        None => dashboard(&settings.and_then(of_hints)?),
        Some(Command::Ps) => ps(&settings?),
        Some(Command::Snapshot) => snapshot(&settings?),
        Some(Command::Doctor { period }) => doctor(&settings.and_then(of_hints)?, period),
        Some(Command::Check { period, asserts }) => {
            check::check(&settings.and_then(of_hints)?, period, &asserts)
        }
        Some(Command::Explain { id }) => explain(id.as_deref()),
        Some(Command::Record { file, period }) => {
            record::record(&settings.and_then(of_hints)?, &file, period)
        }
        Some(Command::Replay { file, at }) => replay::replay(&settings?, &file, at),
        Some(Command::Diff { a, b }) => replay::diff(&settings?, &a, &b),
        Some(Command::Export { listen }) => export::serve(&settings.and_then(of_hints)?, listen),
        Some(Command::Completions { shell }) => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::listed(), "shmtop", &mut out);
            io::stdout().write_all(&out).map_err(Failure::from)
        }
        Some(Command::Man) => say(&man::page()?),
        Some(Command::Config) => say(&settings?.to_file()),
    }
}

/// Prints to stdout.
pub(crate) fn say(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// A text for people, without the symbols that a terminal may not have if that was asked for.
fn plain(settings: &Settings, text: String) -> String {
    match settings.state.ascii {
        true => crate::view::ascii::folded(&text),
        false => text,
    }
}

/// Prints as [`say`] does, for a command whose exit code is a verdict: that its reader has left (`| head -1`) is no reason to end
/// without one. Whether the reader is still there.
fn is_heard(text: &str) -> Result<bool, Failure> {
    match say(text) {
        Err(Failure::Code(0)) => Ok(false),
        other => other.map(|()| true),
    }
}

/// The same, for what is said once.
fn say_before_verdict(text: &str) -> Outcome {
    is_heard(text).map(|_| ())
}

fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// The format asked for, if the command of this name has it. One that is only in the environment counts where there is such a thing.
fn format(settings: &Settings, command: &str) -> Result<Format, Failure> {
    let wanted = settings.format.unwrap_or(Format::Table);
    if formats(Some(command)).contains(&wanted) {
        return Ok(wanted);
    }
    if !settings.typed.format {
        return Ok(Format::Table);
    }
    // Every format has a name on the command line.
    let wanted = wanted.to_possible_value();
    let name = wanted.as_ref().map_or("", |v| v.get_name());
    Err(Failure::Usage(format!("this command has no format {name}")))
}

fn dashboard(settings: &Settings) -> Outcome {
    if settings.typed.format {
        return snapshot(settings);
    }
    if let Some(why) = runtime::no_screen() {
        // Whatever the environment wishes of commands that have a format.
        snapshot_in(settings, Format::Table)?;
        // On stderr, and whether anybody reads it or not: stdout is the document's.
        let printed = match settings.count {
            None | Some(1) => "one snapshot".to_owned(),
            Some(several) => format!("{several} snapshots"),
        };
        let note = format!("{why}: printed {printed} (see `shmtop snapshot --help`)");
        let _ = writeln!(io::stderr(), "shmtop: {note}");
        return Ok(());
    }
    heap::suit_a_dashboard();
    prepare();
    let options = crate::source::Options {
        hurry: true,
        ..settings.world()
    };
    play::live(settings, Box::new(crate::source::World::new(options)))
}

/// From here on it has no more privileges than looking takes, and room for what it keeps open.
fn prepare() {
    privileges::shed();
    // Not worth a word: what there is no room for is told where it is missing.
    let _ = descriptors::raise_limit();
}

/// The world to look at.
fn world(settings: &Settings) -> crate::source::World {
    prepare();
    crate::source::World::new(settings.world())
}

fn ps(settings: &Settings) -> Outcome {
    let format = format(settings, "ps")?;
    let mut watch = watch::Look::new(settings);
    watch.step();
    let found = watch.endpoints();
    match format {
        Format::Json => say_before_verdict(&pretty(&report::ps_json(&watch.model)))?,
        _ if watch.model.endpoints.is_empty() && watch.model.unreadable.is_empty() => {}
        _ => {
            let unseen = unseen(&watch.sample().discovery);
            let unseen = unseen.map_or(String::new(), |text| text + "\n");
            say_before_verdict(&plain(settings, report::ps(&watch.model) + &unseen))?;
        }
    }
    found
}

fn snapshot(settings: &Settings) -> Outcome {
    snapshot_in(settings, format(settings, "snapshot")?)
}

fn snapshot_in(settings: &Settings, format: Format) -> Outcome {
    let of_metrics = matches!(format, Format::Prom | Format::Openmetrics);
    let count = match settings.count {
        Some(count) if settings.typed.count || !of_metrics => count,
        _ => 1,
    };
    if of_metrics && count > 1 {
        let text = "-n: a file of metrics holds one sample; `shmtop export` serves the newest";
        return Err(Failure::Usage(text.to_owned()));
    }
    let mut watch = watch::Look::new(settings);
    watch.step();
    let mut died = Ok(());
    let json = |model: &Model| match report::snapshot_json(model) {
        one if count == 1 => pretty(&one),
        of_many => format!("{of_many}\n"),
    };
    for i in 0..count {
        watch.wait(settings.delay_or(1.0));
        watch.step();
        watch.still_there()?;
        let found = watch.endpoints();
        // Of what is there the rest is told; and a document is one also of nothing: whoever reads it may look at the code later.
        if found.is_err() && watch.model.endpoints.is_empty() && format != Format::Json {
            return found;
        }
        // Before the filter: it takes endpoints out that are there.
        died = watch.nobody_died();
        if !matches!(format, Format::Table | Format::Csv) {
            // Those two filter for themselves: they sort as well.
            keep_matching(&mut watch.model, &settings.state.filter);
            sort(&mut watch.model, settings.state.listing());
        }
        let model = &watch.model;
        let text = match format {
            Format::Table => {
                let gap = if i > 0 { "\n" } else { "" };
                let filter = &settings.state.filter;
                let table = match report::table(model, settings.state.listing()) {
                    empty if empty.is_empty() && filter.is_empty() => {
                        "no client has a connection\n".into()
                    }
                    empty if empty.is_empty() => format!("no client matches {filter:?}\n"),
                    table => table,
                };
                plain(settings, format!("{gap}{table}"))
            }
            Format::Json => json(model),
            Format::Csv => {
                let text = report::csv(model, settings.state.listing());
                // One heading for the whole file.
                match text.split_once("\r\n") {
                    Some((_, body)) if i > 0 => body.to_owned(),
                    _ => text,
                }
            }
            Format::Prom => report::metrics(model, watch.sample(), Dialect::Text),
            Format::Openmetrics => report::metrics(model, watch.sample(), Dialect::OpenMetrics),
        };
        let is_heard = is_heard(&text)?;
        found?;
        if !is_heard {
            break;
        }
    }
    died
}

fn doctor(settings: &Settings, period: std::time::Duration) -> Outcome {
    let format = format(settings, "doctor")?;
    let mut watch = watch::Look::new(settings);
    watch.run(period, |_, _| Ok(()))?;
    let died = watch.nobody_died();
    let found = match died {
        Ok(()) => watch.endpoints(),
        Err(_) => Ok(()),
    };
    let model = &watch.model;
    match format {
        _ if found.is_err() && model.endpoints.is_empty() && format != Format::Json => {}
        Format::Json => say_before_verdict(&pretty(&report::doctor_json(model)))?,
        // Of what has ended nobody can say that nothing is wrong.
        _ if died.is_err() && model.findings.is_empty() => {}
        _ => say_before_verdict(&plain(
            settings,
            report::doctor_text(model, "use a longer --for"),
        ))?,
    }
    died.and(found)?;
    verdict(model)
}

/// 1 if anything is at warn or above.
fn verdict(model: &Model) -> Outcome {
    if model.worst() >= Some(Severity::Warn) {
        return Err(Failure::Findings);
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Finding, Subject};

    #[test]
    fn doctors_verdict_is_1_at_warn_or_above_and_fine_below() {
        let code = |severities: &[Severity]| {
            let mut model = Model::empty();
            let found = severities.iter();
            let found = found.map(|s| Finding::bare("some-hint", *s, Subject::default()));
            model.findings = found.collect::<Vec<_>>().into();
            verdict(&model).map_or_else(|failure| failure.code(), |()| 0)
        };
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[Severity::Info]), 0);
        assert_eq!(code(&[Severity::Warn]), 1);
        assert_eq!(code(&[Severity::Crit]), 1);
        assert_eq!(code(&[Severity::Info, Severity::Warn, Severity::Info]), 1);
    }
}
