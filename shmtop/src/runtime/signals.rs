//! Signals as bytes on a socket, so that the runtime can wait for them together with keys and samples.
//!
//! One thread for the life of the process takes SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT and SIGWINCH. While
//! a [`Signals`] exists it hands them over; while none exists each does what it would do by default, so a process that
//! shows the dashboard for a while (the demo) keeps its manners. If the runtime doesn't react to a deadly signal
//! within [`PATIENCE`] (it may be stuck writing to a terminal that takes nothing), the thread restores the terminal
//! and ends the process itself.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::low_level::emulate_default_handler;

use super::terminal::restore_in_time;

/// How long a deadly signal waits for the runtime to leave.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

const WATCHED: [i32; 7] = [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT, SIGWINCH];

/// What a signal asks of the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// End, by this signal.
    End(i32),
    /// Stop (SIGTSTP).
    Stop,
    /// We were continued: the terminal may have been somebody else's meanwhile.
    Continued,
    /// The window changed.
    Resize,
}

/// Where the thread delivers, while somebody listens.
struct Desk {
    listener: Mutex<Option<UnixStream>>,
    left: Condvar,
}

static DESK: OnceLock<Desk> = OnceLock::new();

fn lock(desk: &Desk) -> MutexGuard<'_, Option<UnixStream>> {
    // The guarded value is a handle that is whole at any moment.
    desk.listener.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The listening end. One at a time; a second one takes over from the first.
#[derive(Debug)]
pub(super) struct Signals {
    stream: UnixStream,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the handlers, the socket or the thread can't be made.
    pub(super) fn listen() -> io::Result<Self> {
        let (stream, far) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        if DESK.get().is_none() {
            let mut signals = signal_hook::iterator::Signals::new(WATCHED)?;
            DESK.get_or_init(|| Desk {
                listener: Mutex::new(None),
                left: Condvar::new(),
            });
            std::thread::Builder::new()
                .name("signals".to_owned())
                .spawn(move || {
                    if let Some(desk) = DESK.get() {
                        signals.forever().for_each(|signal| deliver(desk, signal));
                    }
                })?;
        }
        if let Some(desk) = DESK.get() {
            *lock(desk) = Some(far);
        }
        Ok(Self { stream })
    }

    /// What to poll for reading.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The next signal, if one came.
    pub(super) fn take(&mut self) -> Option<Signal> {
        let mut byte = [0u8];
        match self.stream.read(&mut byte) {
            Ok(1) => Some(match i32::from(byte[0]) {
                SIGTSTP => Signal::Stop,
                SIGCONT => Signal::Continued,
                SIGWINCH => Signal::Resize,
                deadly => Signal::End(deadly),
            }),
            _ => None,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if let Some(desk) = DESK.get() {
            *lock(desk) = None;
            desk.left.notify_all();
        }
    }
}

/// Runs in the thread: hands a signal over, or lets it do what it does by default.
fn deliver(desk: &Desk, signal: i32) {
    let mut listener = lock(desk);
    let Some(stream) = listener.as_mut() else {
        drop(listener);
        by_default(signal);
        return;
    };
    let Ok(byte) = u8::try_from(signal) else {
        return;
    };
    // A full socket means that hundreds of signals wait unread: the runtime is stuck, and what matters is below.
    let sent = stream.write(&[byte]);
    if matches!(signal, SIGTSTP | SIGCONT | SIGWINCH) {
        drop((sent, listener));
        return;
    }
    let (listener, waited) = desk
        .left
        .wait_timeout_while(listener, PATIENCE, |l| l.is_some())
        .unwrap_or_else(PoisonError::into_inner);
    drop(listener);
    if waited.timed_out() {
        restore_in_time();
        by_default(signal);
    }
}

fn by_default(signal: i32) {
    // Fails only for signals that have no default action to emulate; there is nothing to do for them.
    if emulate_default_handler(signal).is_err() {
        std::process::exit(128 + signal);
    }
}
