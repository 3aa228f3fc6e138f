//! Descriptors that the server takes for a moment: the rings' memfd until the client has mapped it, files of /proc it looks at.
//!
//! A client with a socket is to be served even where the table is full. So whoever finds no descriptor while others have one on loan waits
//! until one comes back, and a connection that waits to be accepted goes first: without a descriptor it is refused, whereas a client
//! without rings is served over the socket. Nobody waits longer than [`PATIENCE`].

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Shared;
use crate::mem::StepError;
use crate::wire::edge::Deadline;

/// How long one waits for another's descriptor. A client maps its rings within a millisecond or so; one that does not
/// is not to keep others from the socket.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Default)]
struct State {
    lent: usize,
    /// Counts what came back, so that nobody sleeps through it.
    returned: u64,
    /// accept found no descriptor.
    accept_waits: bool,
}

/// Where a descriptor may come from that accept did not find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One came back since accept looked: ask again.
    Back,
    /// Some are on loan. One that comes back will wake the control thread, and until [`Descriptors::accept_goes_on`] nobody else takes it.
    OnLoan,
    /// All are held for longer.
    Nowhere,
}

/// Who has a descriptor on loan, and who waits for one.
#[derive(Default)]
pub(super) struct Descriptors {
    state: Mutex<State>,
    changed: Condvar,
}

impl Descriptors {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many came back so far: for [`Self::accept_waits`], to be asked before accept.
    pub(super) fn returned(&self) -> u64 {
        self.lock().returned
    }

    /// accept found no descriptor, after so many had come back.
    pub(super) fn accept_waits(&self, returned: u64) -> Wanted {
        let mut state = self.lock();
        if state.returned != returned {
            return Wanted::Back;
        }
        state.accept_waits = state.lent > 0;
        if state.accept_waits {
            Wanted::OnLoan
        } else {
            Wanted::Nowhere
        }
    }

    pub(super) fn accept_goes_on(&self) {
        self.lock().accept_waits = false;
        self.changed.notify_all();
    }
}

/// A descriptor on loan, or a few.
pub(super) struct Loan<'a>(&'a Shared);

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut state = self.0.descriptors.lock();
        state.lent -= 1;
        state.returned += 1;
        let accept_waits = state.accept_waits;
        drop(state);
        self.0.descriptors.changed.notify_all();
        if accept_waits {
            self.0.nudge();
        }
    }
}

/// Takes what needs a descriptor, again when one has come back if there was none. The loan is to be kept for as long as the descriptor.
///
/// # Errors
/// That of `take`.
pub(super) fn lend<T>(
    shared: &Arc<Shared>,
    mut take: impl FnMut() -> Result<T, StepError>,
) -> Result<(T, Loan<'_>), StepError> {
    let all = &shared.descriptors;
    let patience = Deadline::after(PATIENCE);
    let wait = |state, worth: &dyn Fn(&State) -> bool| {
        let waited = all
            .changed
            .wait_timeout_while(state, patience.left(), |s| worth(s));
        waited.unwrap_or_else(PoisonError::into_inner).0
    };
    loop {
        let mut state = wait(all.lock(), &|s| s.accept_waits);
        let seen = state.returned;
        // Counted before it is there: who finds none in the meantime then waits for this one.
        state.lent += 1;
        drop(state);
        let none_left = match take() {
            Ok(taken) => return Ok((taken, Loan(shared))),
            Err(e) => e,
        };
        let mut state = all.lock();
        state.lent -= 1;
        let worth = matches!(none_left.errno, libc::EMFILE | libc::ENFILE);
        if worth && state.returned == seen {
            // Others who wait for this one that never was.
            all.changed.notify_all();
            state = wait(state, &|s| s.returned == seen && s.lent > 0);
        }
        let again = worth && state.returned != seen && !patience.passed();
        let accept_waits = state.accept_waits;
        drop(state);
        all.changed.notify_all();
        if accept_waits {
            shared.nudge();
        }
        if !again {
            return Err(none_left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_came_back_after_accept_looked_is_asked_for_again() {
        let all = Descriptors::default();
        let before = all.returned();
        assert_eq!(all.accept_waits(before), Wanted::Nowhere);
        all.lock().lent = 1;
        assert_eq!(all.accept_waits(before), Wanted::OnLoan);
        // The loan ends between accept's look and the question.
        {
            let mut state = all.lock();
            (state.lent, state.returned) = (0, 1);
        }
        assert_eq!(all.accept_waits(before), Wanted::Back);
        assert_eq!(all.accept_waits(all.returned()), Wanted::Nowhere);
    }
}
