//! Which of the flags of every command a command reads.
//!
//! The others are left out of its help, and a variable of theirs is not heard: a mistake in it is none of the command's business. To type
//! one is no mistake (an alias types some for every command), unless it looks as if it changed what is printed: see `commands`.

use clap::builder::PossibleValuesParser;
use clap::{Arg, Command, ValueEnum};

use super::Format;

/// The ids of the flags that the command of this name reads, no name for the dashboard.
pub(crate) fn reads(command: Option<&str>) -> &'static [&'static str] {
    match command {
        None => &[
            "pids", "name", "filter", "sort", "delay", "count", "format", "no_color", "ascii",
            "theme",
        ],
        Some("snapshot") => &[
            "pids", "name", "filter", "sort", "delay", "count", "format", "ascii",
        ],
        Some("ps") => &["pids", "name", "format", "ascii"],
        Some("doctor" | "check") => &["pids", "name", "delay", "format", "ascii"],
        Some("record") => &["pids", "name", "delay", "count"],
        Some("replay") => &[
            "pids", "name", "filter", "sort", "delay", "format", "no_color", "ascii", "theme",
        ],
        Some("diff") => &["pids", "name", "format", "ascii"],
        Some("export") => &["pids", "name", "delay"],
        Some("config") => &["filter", "sort", "delay", "no_color", "ascii", "theme"],
        // explain, completions, man, help.
        Some(_) => &[],
    }
}

/// The formats that the command of this name has, no name for what is printed without one.
pub(crate) fn formats(command: Option<&str>) -> &'static [Format] {
    match command {
        None | Some("snapshot") => Format::value_variants(),
        Some("ps" | "doctor" | "replay") => &[Format::Table, Format::Json],
        Some("check" | "diff") => &[Format::Table],
        Some(_) => &[],
    }
}

/// What `--format` is said to take. The others are hidden, not unknown: it is the command that refuses them, and not before its help was asked for.
fn named(formats: &[Format]) -> PossibleValuesParser {
    let all = Format::value_variants().iter();
    let named = all.filter_map(|f| Some(f.to_possible_value()?.hide(!formats.contains(f))));
    PossibleValuesParser::new(named)
}

/// The command line, with a help for each command that lists what it reads.
pub(super) fn listed(mut all: Command) -> Command {
    // What is global reaches the commands only here.
    all.build();
    let names = all.get_subcommands().map(|c| c.get_name().to_owned());
    for name in names.collect::<Vec<_>>() {
        let reads = reads(Some(&name));
        let is_read = |arg: &Arg| reads.contains(&arg.get_id().as_str());
        all = all.mut_subcommand(&name, |c| {
            c.mut_args(|arg| match arg.is_global_set() && !is_read(&arg) {
                true => arg.hide(true),
                false if arg.get_id() == "format" => arg.value_parser(named(formats(Some(&name)))),
                false => arg,
            })
        });
    }
    all
}
