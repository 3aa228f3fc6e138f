//! Which flags a command has a use for. One that is typed in vain is refused: the user expects it to do something.
//!
//! What stands in the environment or the configuration file is a wish for whoever can use it. `--filter` and `--sort` have a rule of
//! their own ([`super::settings`]), as have the formats of a command that has some.

use super::Failure;
use crate::cli::{Command, Typed};
use crate::runtime;

const COUNT: &str = "-n is for snapshot and record";
const DELAY: &str = "-d is for what looks at live processes again and again (dashboard, snapshot, doctor, check, record, export)";
const CHOICE: &str = "-p and --name are for what shows processes";
const FORMAT: &str = "this command has no formats";

/// Fails if a flag was typed that `command` would ignore.
pub(super) fn check(typed: Typed, command: Option<&Command>) -> Result<(), Failure> {
    let (mut count, mut delay, mut choice, mut format) = (false, true, true, true);
    match command {
        // Without a screen it prints a snapshot.
        None => count = typed.format || runtime::no_screen().is_some(),
        Some(Command::Snapshot) => count = true,
        Some(Command::Record { .. }) => (count, format) = (true, false),
        Some(Command::Doctor { .. } | Command::Check { .. }) => {}
        Some(Command::Export { .. }) => format = false,
        Some(Command::Ps | Command::Replay { .. } | Command::Diff { .. }) => delay = false,
        Some(Command::Config) => (choice, format) = (false, false),
        Some(Command::Explain { .. } | Command::Completions { .. } | Command::Man) => {
            (delay, choice, format) = (false, false, false);
        }
    }
    for (is_useless, why) in [
        (typed.count && !count, COUNT),
        (typed.delay && !delay, DELAY),
        (typed.choice && !choice, CHOICE),
        (typed.format && !format, FORMAT),
    ] {
        if is_useless {
            return Err(Failure::Usage(why.to_owned()));
        }
    }
    Ok(())
}
