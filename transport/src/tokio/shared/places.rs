//! Places that calls have while they wait: in the line for room, for a reply, and for the end.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use super::{Answer, Shared, State};
use crate::error::RequestError;

/// A place in the line of those who wait for room; left when dropped, and the next one called.
pub(in crate::tokio) struct Place<'a> {
    pub(super) shared: &'a Shared,
    pub(super) ticket: u64,
}

/// A request that was sent. Dropped before its answer, it is given up.
pub(in crate::tokio) struct Waiting<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: u64,
    /// Among the waiters.
    pub(super) place: usize,
    pub(super) over: bool,
}

/// One who waits for the end; no longer when dropped.
pub(super) struct Watch<'a> {
    pub(super) shared: &'a Shared,
    pub(super) ticket: u64,
}

impl Watch<'_> {
    /// Completes when the connection is over, and in a fork.
    pub(super) async fn ended(&self) {
        poll_fn(|cx| match self.shared.state() {
            Some(mut state) if state.lost.is_none() => {
                let State {
                    watchers, later, ..
                } = &mut *state;
                watchers.wake_by(self.ticket, later, cx);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some(mut state) = self.shared.state() {
            let State {
                watchers, later, ..
            } = &mut *state;
            watchers.leave(self.ticket, later);
        }
    }
}

impl Place<'_> {
    /// Completes when room may have appeared since the last time, and it is this one's turn.
    pub(in crate::tokio) async fn called(&self) {
        poll_fn(|cx| match self.shared.state() {
            Some(mut state) => {
                let State { line, later, .. } = &mut *state;
                line.poll(self.ticket, later, cx)
            }
            None => Poll::Ready(()),
        })
        .await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(mut state) = self.shared.state() {
            let State { line, later, .. } = &mut *state;
            line.leave(self.ticket, later);
        }
    }
}

impl Waiting<'_> {
    /// The answer, once. May be dropped and called again until it has come.
    pub(in crate::tokio) async fn reply(&mut self) -> Answer {
        let answer = poll_fn(|cx| match self.shared.state() {
            Some(mut state) => {
                let State { waiters, later, .. } = &mut *state;
                waiters.poll(self.place, later, cx)
            }
            None => Poll::Ready(Err(RequestError::Forked)),
        })
        .await;
        self.over = true;
        answer
    }

    /// The time is over: gives the request up, unless the answer came at this very moment.
    pub(in crate::tokio) fn timed_out(mut self, timeout: Duration) -> Answer {
        let mut state = self.shared.state().ok_or(RequestError::Forked)?;
        if let Some(answer) = state.waiters.take(self.place) {
            self.over = true;
            return answer;
        }
        state.synapse.book_timeout();
        drop(state);
        Err(RequestError::Timeout { timeout })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.shared.abandon(self.id, self.place);
        }
    }
}
