//! Which flags are refused. One that a command does not read does nothing there, and that is no mistake: an alias types `-d` for all of them.
//! But whoever types a number or a format expects other output than there would be.
//!
//! What stands in the environment or the configuration file is a wish for whoever can use it. `--filter` and `--sort` have a rule of
//! their own ([`super::settings`]), as have the formats of a command that has some.

use super::Failure;
use crate::cli::{Command, Typed};
use crate::runtime;

const COUNT: &str = "-n is for snapshot and record";
const FORMAT: &str = "this command has no formats";

/// Fails if a number or a format was typed that `command` would ignore.
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
    for (is_useless, why) in [
        (typed.count && !counts, COUNT),
        (typed.format && !has_formats, FORMAT),
    ] {
        if is_useless {
            return Err(Failure::Usage(why.to_owned()));
        }
    }
    Ok(())
}
