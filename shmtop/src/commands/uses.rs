//! Which flags are refused. One that a command does not read does nothing there, and that is no mistake: an alias types `-d` for all of them.
//! But whoever types a number, a format, a filter or an order expects other output than there would be.
//!
//! What stands in the environment or the configuration file is a wish for whoever can use it. The formats of a command that has some have
//! a rule of their own ([`super::format`]).

use super::{Failure, replay};
use crate::cli::{Command, Typed};
use crate::runtime;

const COUNT: &str = "-n is for snapshot and record";
const FORMAT: &str = "this command has no formats";
const SORT: &str = "--sort is for lists of clients (dashboard, snapshot, replay on a terminal)";
const FILTER: &str = "--filter is for lists of clients (dashboard, snapshot, replay on a terminal); here -p and --name choose";

/// Fails if something was typed that `command` would ignore.
pub(super) fn check(typed: Typed, command: Option<&Command>) -> Result<(), Failure> {
    let counts = match command {
        // Without a screen it prints a snapshot.
        None => typed.format || runtime::no_screen().is_some(),
        Some(command) => matches!(command, Command::Snapshot | Command::Record { .. }),
    };
    let has_formats = !matches!(
        command,
        Some(
            Command::Record { .. }
                | Command::Export { .. }
                | Command::Config
                | Command::Explain { .. }
                | Command::Completions { .. }
                | Command::Man
        )
    );
    let lists_clients = match command {
        None | Some(Command::Snapshot | Command::Config) => true,
        Some(Command::Replay { at, .. }) => replay::is_shown(typed, *at),
        Some(_) => false,
    };
    for (is_useless, why) in [
        (typed.count && !counts, COUNT),
        (typed.format && !has_formats, FORMAT),
        (typed.filter && !lists_clients, FILTER),
        (typed.sort && !lists_clients, SORT),
    ] {
        if is_useless {
            return Err(Failure::Usage(why.to_owned()));
        }
    }
    Ok(())
}
