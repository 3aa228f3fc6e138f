//! The manual page: one for all commands. What `clap_mangen` prints by itself points at a page per command, and there are none.

use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::cli::Cli;

/// The page, as roff.
pub(super) fn page() -> io::Result<String> {
    let mut all = Cli::command();
    all.build();
    let man = Man::new(all.clone());
    let mut roff = Vec::new();
    man.render_title(&mut roff)?;
    man.render_name_section(&mut roff)?;
    man.render_synopsis_section(&mut roff)?;
    man.render_description_section(&mut roff)?;
    man.render_options_section(&mut roff)?;
    roff.extend(b".SH COMMANDS\n");
    for command in all.get_subcommands().filter(|c| c.get_name() != "help") {
        section(command, &mut roff)?;
    }
    man.render_version_section(&mut roff)?;
    String::from_utf8(roff).map_err(io::Error::other)
}

/// A command and its own options: those of all commands stand above.
fn section(command: &Command, roff: &mut Vec<u8>) -> io::Result<()> {
    let own = command.clone().mut_args(|arg| {
        let everywhere = arg.is_global_set() || arg.get_id() == "help";
        arg.hide(everywhere)
    });
    let (help, title) = (own.get_after_help().is_some(), own.get_name().to_owned());
    let man = Man::new(own);
    let mut text = Vec::new();
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    man.render_options_section(&mut text)?;
    if help {
        man.render_extra_section(&mut text)?;
    }
    // Sections of a page become parts of one; what each begins with, quotes for old formatters, stands at the top.
    for line in String::from_utf8_lossy(&text).lines() {
        let line = match line {
            ".SH SYNOPSIS" => &format!(".SS {title}"),
            ".SH DESCRIPTION" | ".SH EXTRA" => ".PP",
            ".SH OPTIONS" => continue,
            prologue if prologue.starts_with(".ie ") || prologue.starts_with(".el ") => continue,
            other => other,
        };
        roff.extend(line.bytes().chain([b'\n']));
    }
    Ok(())
}
