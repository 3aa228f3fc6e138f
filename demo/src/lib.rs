//! The demo workload: an exchange, its traders, and both together under the dashboard.
//!
//! The programs in `src/bin` are the functions of these modules with the command line as their argument, so that each can
//! also be run as a child of another: a directory with one executable is enough.
//!
//! ```text
//!  demo ──▶ exchange, trader (child processes), shmtop (the library)
//!  trader ──▶ load ──▶ protocol        exchange ──▶ protocol
//!  soak ──▶ a server and clients that are stopped, killed and started again, in one program
//! ```

pub mod demo;
pub mod exchange;
pub mod soak;
pub mod trader;

mod children;
mod cpu;
mod failure;
mod latency;
mod load;
mod options;
mod orders;
mod pin;
mod protocol;
mod report;
mod signals;
mod units;

use std::io::Write;
use std::process::ExitCode;

/// Ends a program: its exit code, or a failure's with its sentence on stderr.
fn exit(program: &str, result: Result<u8, failure::Failure>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            note(format_args!("{program}: {}", failure.sentence));
            ExitCode::from(failure.code)
        }
    }
}

/// A line on stderr. Not `eprintln!`, which panics when whoever reads it has gone; there is nobody to tell then.
fn note(line: std::fmt::Arguments<'_>) {
    _ = writeln!(std::io::stderr(), "{line}");
}

/// Text on a stream, at once: false if nobody reads any more.
fn print(out: &mut impl Write, text: &str) -> Result<bool, failure::Failure> {
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match printed {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(failure::Failure::io("printing", &e)),
    }
}
