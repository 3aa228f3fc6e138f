//! The mutex while somebody has it, and whom they tell once they have not.

use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::MutexGuard;

use super::super::waiters::Due;
use super::{Shared, State};
use crate::thread::forget_panic;

/// Wakers called between two times that the mutex is taken.
const BATCH: usize = 16;

/// The state, exclusively. When it is let go, whoever was told something meanwhile is woken: with the mutex free, because a waker may run its task then and
/// there, and the task asks for the mutex.
pub(super) struct Held<'a> {
    shared: &'a Shared,
    /// `None` once it was let go.
    state: Option<MutexGuard<'a, State>>,
}

impl<'a> Held<'a> {
    pub(super) fn new(shared: &'a Shared, state: MutexGuard<'a, State>) -> Self {
        Self {
            shared,
            state: Some(state),
        }
    }
}

impl Deref for Held<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        self.state.as_ref().expect("held until dropped")
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("held until dropped")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(state) = self.state.take() else {
            return;
        };
        // No more than there are now: who is woken may leave others behind, and sees to them.
        let due = state.later.len();
        if due > 0 {
            self.shared.settle(state, due);
        } else {
            drop(state);
        }
    }
}

/// Calls wakers, and goes on behind one that panics, which the panic hook has reported: it must not keep those behind it asleep, nor end who happens to
/// call it. That may be the driver, and nobody would take its place.
fn to_the_end(mut call: impl FnMut()) {
    // AssertUnwindSafe: what is called is out of the queue by then, and the mutex is free.
    while let Err(panic) = catch_unwind(AssertUnwindSafe(&mut call)) {
        forget_panic(panic);
    }
}

impl Shared {
    /// Lets the mutex go, and does what is due.
    fn settle(&self, state: MutexGuard<'_, State>, due: usize) {
        let (mut state, mut left) = (state, due);
        let mut batch = [const { None }; BATCH];
        loop {
            let n = left.min(BATCH);
            batch[..n].fill_with(|| state.later.pop());
            drop(state);
            let mut due = batch[..n].iter_mut().flat_map(Option::take);
            to_the_end(|| due.by_ref().for_each(Due::settle));
            left -= n;
            if left == 0 {
                return;
            }
            state = self.lock();
        }
    }
}
