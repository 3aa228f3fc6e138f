//! Ways in which a program is told to end: signals, and the death of the program that started it.
//!
//! Both call back from a thread of their own; the program then ends in good order. One that hangs meanwhile is cut
//! off after [`GRACE`], or by a second signal.

use std::io::BufRead;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getppid};

use crate::failure::{FAULT, Failure};

/// How long an orderly end may take. Longer than the transport's request timeout of 5 s.
const GRACE: Duration = Duration::from_secs(7);
/// Signals that come sooner after the first belong to it: the kernel tells of a parent's death once for each of its
/// threads that its children were handed to meanwhile.
const REPEATED: Duration = Duration::from_millis(300);
/// How long an orphan's may.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// Calls `end` on SIGINT, SIGTERM and SIGHUP. To be called before other threads are started: they inherit the mask.
pub(crate) fn on_signal(end: impl Fn() + Send + 'static) -> Result<(), Failure> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    signals
        .thread_block()
        .map_err(|e| Failure::io("blocking signals", &e.into()))?;
    start("signals", move || {
        // sigwait only fails for a set with invalid signals in it.
        while signals.wait().is_err() {}
        end();
        cut_off_after(GRACE, i32::from(FAULT));
        let first = Instant::now();
        loop {
            let again = signals.wait().unwrap_or(Signal::SIGTERM);
            if first.elapsed() > REPEATED {
                std::process::exit(128 + again as i32);
            }
        }
    })
}

/// Ties this process to the one that started it: when `parent` dies, the kernel sends SIGTERM and the pipe on
/// stdin ends. Lines that come before go to `line`.
pub(crate) fn tie_to(
    parent: i32,
    mut line: impl FnMut(&str) + Send + 'static,
    end: impl Fn() + Send + 'static,
) -> Result<(), Failure> {
    set_pdeathsig(Signal::SIGTERM).map_err(|e| Failure::io("PR_SET_PDEATHSIG", &e.into()))?;
    if getppid() != Pid::from_raw(parent) {
        return Err(Failure::new(
            FAULT,
            "the program that started this one has died",
        ));
    }
    start("parent", move || {
        for text in std::io::stdin().lock().lines() {
            let Ok(text) = text else { break };
            line(&text);
        }
        end();
        // As if by a second signal: a parent that is still there has asked for it, and for a fault it is not to be taken.
        cut_off_after(ORPHAN_GRACE, 128 + Signal::SIGTERM as i32);
    })
}

fn cut_off_after(grace: Duration, code: i32) {
    let cut_off = move || -> () {
        std::thread::sleep(grace);
        std::process::exit(code);
    };
    if start("cut-off", cut_off).is_err() {
        // No thread to be had (ulimit -u): then this one does nothing else.
        cut_off();
    }
}

/// Starts a named thread that nobody joins.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|e| Failure::io("starting a thread", &e))
}
