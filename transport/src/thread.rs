//! Starts the threads of a server: one that could not be had is an error, and the program's signals are not theirs.

use std::io;
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};

use crate::mem::headroom;

/// What std gives a thread. Where RUST_MIN_STACK says more, [`start`] may find room where there is none.
const STACK_BYTES: usize = 2 << 20;

/// What a fault of the thread's own raises: blocked, it would end the process without the program's handler being asked.
const OF_ITS_OWN: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// Runs `body` on a new thread, in which all signals are blocked but those of faults: the kernel hands a signal of the process to any thread that
/// takes it, and a program's handler must find its own threads, and not one of ours in the middle of a request.
///
/// # Errors
/// No thread could be had, or no memory for it. That is looked for here, since std asks for more when the thread runs, and ends the process if it
/// gets none.
pub(crate) fn start(
    name: String,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    if !headroom::has_room_for(STACK_BYTES) {
        return Err(Errno::ENOMEM.into());
    }
    let mut blocked = SigSet::all();
    OF_ITS_OWN
        .into_iter()
        .for_each(|signal| blocked.remove(signal));
    // Before there is a thread, which begins with what the one that starts it has.
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = Builder::new().name(name).spawn(body);
    // What was valid is valid still.
    let _ = before.thread_set_mask();
    started
}
