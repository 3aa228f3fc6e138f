//! shmtop's parts as a library; the binary is a thin shell around it.
//!
//! Data flows one way: `source` (pages, /proc, perf, limits) → `sample` → `model` → `hint` → `judge` → `report` | `view`.
#![cfg(target_os = "linux")]
#![cfg_attr(
    not(feature = "program"),
    allow(
        dead_code,
        unused_imports,
        reason = "much is there for the command line and the dashboard"
    )
)]

pub mod check;
#[cfg(feature = "program")]
mod cli;
#[cfg(feature = "program")]
mod commands;
pub mod hint;
pub mod history;
pub mod judge;
pub mod model;
pub mod rate;
pub mod reading;
pub mod recording;
pub mod report;
#[cfg(feature = "program")]
pub mod runtime;
pub mod sample;
pub mod source;
pub mod text;
#[cfg(feature = "program")]
pub mod ui;
#[cfg(feature = "program")]
pub mod view;

pub use reading::{Reading, Why, WhyKind};

/// The whole program: arguments (the program's name first) to exit code, as the binary does it. Prints, reads the world,
/// takes over the terminal for the dashboard and gives it back.
#[cfg(feature = "program")]
pub fn run(
    args: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
) -> std::process::ExitCode {
    commands::main(args)
}
