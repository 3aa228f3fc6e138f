//! The shmtop command.

use std::process::ExitCode;

use shmtop::runtime::{Settings, run};
use shmtop::source::{Options, World};

fn main() -> ExitCode {
    match run(
        Box::new(World::new(Options::default())),
        Settings::default(),
    ) {
        Ok(ending) => ExitCode::from(ending.exit_code()),
        Err(error) => {
            eprintln!("shmtop: {error}");
            ExitCode::FAILURE
        }
    }
}
