//! The dashboard's only loop, where clock, terminal, signals, samples and model meet.
//!
//! Called by the command line and by the demo. One `poll` waits for keys, signals, models and the next refresh;
//! everything else is pure (`ui`, `view`) or in a leaf (`terminal` with `output`, `signals`, `tty`, the sampler thread).

mod feed;
mod output;
mod pace;
mod signals;
pub mod terminal;
mod tty;
mod turn;
mod utc_offset;

use std::io;
use std::time::{Duration, Instant};

pub use feed::SampleSource;
pub use tty::no_screen;

use crate::model::Choice;
use crate::ui::State;
use tty::Tty;
use turn::Runtime;

/// Refresh interval unless another is asked for.
pub const DEFAULT_INTERVAL: Duration = Duration::from_millis(100);

/// How to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between refreshes; at least 50 ms.
    pub interval: Duration,
    /// Whose endpoints to show. Rules look at all that the source has.
    pub choice: Choice,
    /// What to show first: view, filter, order, theme.
    pub state: State,
    /// Leave by itself after this time.
    pub duration: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: DEFAULT_INTERVAL,
            choice: Choice::default(),
            state: State::default(),
            duration: None,
        }
    }
}

/// How it ended; the terminal is as it was before in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The user left.
    Quit,
    /// The time was over.
    Elapsed,
    /// A signal asked for it.
    Signal(i32),
    /// The terminal went away.
    TerminalLost,
}

impl Ending {
    /// The exit code a shell expects.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Quit | Self::Elapsed => 0,
            Self::Signal(signal) => 128u8.saturating_add(u8::try_from(signal).unwrap_or(127)),
            Self::TerminalLost => 129,
        }
    }
}

/// Shows the dashboard until the user leaves, a signal comes or the terminal goes.
///
/// # Errors
/// When stdin or stdout is no terminal, or a thread or socket can't be made.
pub fn run(source: Box<dyn SampleSource>, settings: Settings) -> io::Result<Ending> {
    let tty = Tty::open()?;
    let duration = settings.duration;
    let mut runtime = Runtime::start(source, settings)?;
    let until = duration.map(|d| Instant::now() + d);
    let ending = runtime.turn(&tty, until);
    match ending {
        // Writing to a terminal that is gone: the same as hearing that it went.
        Err(e) if lost(&e) => Ok(Ending::TerminalLost),
        other => other,
    }
}

fn lost(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EPIPE | libc::ENXIO | libc::ENODEV)
    )
}
