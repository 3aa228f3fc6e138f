//! One connection and its accounts: sends what the plan says, matches replies to requests, verifies, counts.
//!
//! Driven by [`super::drive`]. A latency is one clock reading after the reply less the moment the request was due:
//! for a closed loop when the reply before it was in hand, for an open one the time on the schedule, however late
//! it was really sent. So a stalled exchange shows in all requests it delayed, not only in those it held.

use std::collections::VecDeque;
use std::time::Instant;

use transport::error::RequestError;
use transport::{RequestId, Synapse};

use super::books::Books;
use super::{Pace, Plan, Progress};

/// A connection and what is known of it.
pub(crate) struct Lane<'a> {
    pub(crate) synapse: Synapse,
    pub(crate) books: Books<'a>,
    flight: VecDeque<Sent>,
}

/// A request in flight.
struct Sent {
    id: RequestId,
    sequence: u64,
    /// When it was sent, or should have been.
    since: Instant,
}

/// What happened to a call that failed.
pub(crate) enum Outcome {
    /// The connection is as good as before.
    Usable,
    /// It is gone.
    Lost {
        /// The transport's words.
        reason: String,
        /// Requests that were in flight.
        unknown: usize,
    },
}

impl<'a> Lane<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        client: usize,
        synapse: Synapse,
        progress: &'a Progress,
    ) -> Self {
        Self {
            synapse,
            books: Books::new(plan, client, progress),
            flight: VecDeque::with_capacity(plan.depth),
        }
    }

    /// Requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    /// When the oldest request in flight was sent.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.flight.front().map(|sent| sent.since)
    }

    /// When this lane wants to send next, if it waits for the clock and not for a reply.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        (self.has_room() && self.books.may_send()).then_some(self.books.due())?
    }

    /// Room in the window. One of a closed loop with a pause is used again only when all of it has been answered.
    fn has_room(&self) -> bool {
        self.flight.len() < self.books.plan.depth
            && (self.flight.is_empty() || !self.books.pauses())
    }

    /// Sends what is due at `now`. True if anything was sent.
    pub(crate) fn send(&mut self, now: Instant) -> Result<bool, RequestError> {
        let mut sent = false;
        if !self.has_room() {
            return Ok(sent);
        }
        while self.flight.len() < self.books.plan.depth && self.books.may_send() {
            let since = match self.books.due() {
                Some(due) if due > now => break,
                Some(due) if matches!(self.books.plan.pace, Pace::Open { .. }) => due,
                _ => now,
            };
            let sequence = self.books.next();
            let id = match self.synapse.submit(self.books.request(sequence)) {
                Ok(id) => id,
                // Not sent: the same one again when replies have made room.
                Err(RequestError::Full { .. }) if !self.flight.is_empty() => break,
                Err(e) => return Err(e),
            };
            self.books.sent();
            self.flight.push_back(Sent {
                id,
                sequence,
                since,
            });
            sent = true;
        }
        Ok(sent)
    }

    /// Takes the replies that are there. True if there were any.
    pub(crate) fn collect(&mut self) -> Result<bool, RequestError> {
        let mut any = false;
        while !self.flight.is_empty() {
            let Some((id, reply)) = self.synapse.try_receive()? else {
                break;
            };
            settle(&mut self.books, &mut self.flight, id, reply);
            any = true;
        }
        Ok(any)
    }

    /// Waits for one reply, as long as the transport's request timeout.
    pub(crate) fn receive(&mut self) -> Result<(), RequestError> {
        let (id, reply) = self.synapse.receive()?;
        settle(&mut self.books, &mut self.flight, id, reply);
        Ok(())
    }

    /// Books a failed call: `fired` requests that it was about, and those that the transport no longer waits for.
    #[cold]
    pub(crate) fn failed(&mut self, error: &RequestError, fired: usize) -> Outcome {
        let waiting = match error {
            RequestError::Full { .. }
            | RequestError::Timeout { .. }
            | RequestError::Remote { .. } => self.synapse.in_flight(),
            _ => 0,
        };
        let forgotten = self.flight.len().saturating_sub(waiting);
        self.flight.drain(..forgotten);
        self.books.fault((forgotten + fired) as u64, error);
        if self.flight.is_empty() {
            self.books.window_done(Instant::now());
        }
        match error {
            RequestError::Full { .. }
            | RequestError::Timeout { .. }
            | RequestError::Remote { .. } => Outcome::Usable,
            RequestError::Disconnected { reason, .. } => Outcome::Lost {
                reason: reason.to_string(),
                unknown: forgotten + fired,
            },
            other => Outcome::Lost {
                reason: other.to_string(),
                unknown: forgotten + fired,
            },
        }
    }
}

/// Matches a reply to its request and accounts for it. One the lane does not wait for is a wrong reply.
fn settle(books: &mut Books<'_>, flight: &mut VecDeque<Sent>, id: RequestId, reply: &[u8]) {
    let now = Instant::now();
    // Replies come in order unless one was lost to a timeout.
    let Some(place) = flight.iter().position(|sent| sent.id == id) else {
        books.wrong("reply to a request that is not in flight");
        return;
    };
    if let Some(sent) = flight.remove(place) {
        books.reply(
            sent.sequence,
            now.saturating_duration_since(sent.since),
            reply,
        );
    }
    if flight.is_empty() {
        books.window_done(now);
    }
}
