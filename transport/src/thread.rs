//! Starts the threads of a server: one that could not be had is an error, and each has the signal mask that its work calls for.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};

use crate::mem::headroom;

/// What the program's code panicked with has a destructor of the program's, which may panic in turn. Of that panic nothing is dropped any more.
#[cold]
pub(crate) fn forget_panic(panic: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
}

/// What std gives a thread. Where RUST_MIN_STACK says more, [`start`] may find room where there is none.
const STACK_BYTES: usize = 2 << 20;

/// What a fault of the thread's own raises: blocked, it would end the process without the program's handler being asked.
const OF_FAULTS: [Signal; 6] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// The signals that a thread blocks; what it starts, threads and processes, begins with the same.
#[derive(Clone, Copy)]
pub(crate) struct Blocked(SigSet);

impl Blocked {
    /// Those that the calling thread blocks: for threads that run the program's code, which then finds what it would find on one of its own.
    ///
    /// # Errors
    /// None that the kernel knows of.
    pub(crate) fn as_here() -> io::Result<Self> {
        Ok(Self(SigSet::thread_get_mask()?))
    }

    /// All but those of faults: for threads that run none of the program's code, and would run its signal handlers for nothing.
    pub(crate) fn all() -> Self {
        let mut all = SigSet::all();
        OF_FAULTS.into_iter().for_each(|signal| all.remove(signal));
        Self(all)
    }
}

/// Runs `body` on a new thread, with these signals blocked.
///
/// # Errors
/// No thread could be had, or no memory for it. That is looked for here, since std asks for more when the thread runs, and ends the process if it
/// gets none.
pub(crate) fn start(
    name: String,
    blocked: Blocked,
    body: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    if !headroom::has_room_for(STACK_BYTES) {
        return Err(Errno::ENOMEM.into());
    }
    Builder::new().name(name).spawn(move || {
        // A mask that was had, or made here, is valid. Who starts a thread may have another one: the control thread, a handler.
        let _ = blocked.0.thread_set_mask();
        body();
    })
}
