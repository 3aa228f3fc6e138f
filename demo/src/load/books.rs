//! One client's accounts and its schedule: what is sent when, and what came back.
//!
//! Kept by [`super::lane`], apart from the connection, so that a reply can be booked where it lies.

use std::time::{Duration, Instant};

use transport::error::RequestError;

use super::{Account, Pace, Plan, Progress};
use crate::latency::Latencies;
use crate::protocol::Script;

/// A lane's accounts and its schedule.
pub(crate) struct Books<'a> {
    pub(crate) plan: &'a Plan,
    script: Script,
    latencies: Latencies,
    progress: &'a Progress,
    account: Account,
    /// Number of the next request.
    sequence: u64,
    /// When the next request is due; `None` = as soon as there is room.
    due: Option<Instant>,
    /// Start of an open loop's schedule.
    origin: Option<Instant>,
    /// Nothing more is sent.
    closed: bool,
}

impl<'a> Books<'a> {
    pub(super) fn new(plan: &'a Plan, client: usize, progress: &'a Progress) -> Self {
        // Unique among the clients of this host: the pid, and the number within the process.
        let identity = u64::from(std::process::id()) << 32 | client as u64;
        Self {
            plan,
            script: Script::new(plan.mode, identity, plan.size, plan.thorough),
            latencies: Latencies::new(),
            progress,
            account: Account {
                client,
                ..Account::default()
            },
            sequence: 0,
            due: None,
            origin: None,
            closed: false,
        }
    }

    /// Sets the schedule: clients of an open loop are spread evenly over its interval.
    pub(crate) fn start(&mut self, at: Instant) {
        if let Pace::Open { interval_ns } = self.plan.pace {
            let share = self.account.client as f64 / self.plan.clients as f64;
            let origin = at + Duration::from_nanos((interval_ns * share) as u64);
            self.origin = Some(origin);
            self.due = Some(origin);
        }
    }

    #[inline]
    pub(crate) fn may_send(&self) -> bool {
        !self.closed && self.plan.requests.is_none_or(|all| self.sequence < all)
    }

    /// Nothing more is sent.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// The exchange is gone for good.
    pub(crate) fn give_up(&mut self) {
        self.closed = true;
        self.account.gave_up = true;
    }

    /// Number of the next request.
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.sequence
    }

    /// When the next request is due; `None` = as soon as there is room.
    #[inline]
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The request with this number.
    #[inline]
    pub(crate) fn request(&mut self, sequence: u64) -> &[u8] {
        self.script.request(sequence)
    }

    /// Moves on to the next request; returns the number of this one.
    #[inline]
    pub(crate) fn sent(&mut self) -> u64 {
        let sequence = self.sequence;
        self.sequence += 1;
        if let (Pace::Open { interval_ns }, Some(origin)) = (self.plan.pace, self.origin) {
            // From the origin each time, so that rounding does not add up.
            let after = Duration::from_nanos((interval_ns * self.sequence as f64) as u64);
            self.due = Some(origin + after);
        }
        sequence
    }

    /// Accounts for a reply.
    #[inline]
    pub(crate) fn reply(&mut self, sequence: u64, latency: Duration, reply: &[u8]) {
        self.latencies.record(latency.as_nanos() as u64);
        self.account.requests += 1;
        self.progress.store(self.account.requests);
        if let Err(wrong) = self.script.check(sequence, reply) {
            self.wrong(&wrong.to_string());
        }
    }

    #[cold]
    pub(super) fn wrong(&mut self, what: &str) {
        self.account.corrupt += 1;
        self.account
            .first_fault
            .get_or_insert_with(|| format!("wrong reply: {what}"));
    }

    /// Accounts for `requests` that failed.
    #[cold]
    pub(crate) fn fault(&mut self, requests: u64, error: &RequestError) {
        self.account.errors += requests;
        self.account
            .first_fault
            .get_or_insert_with(|| error.to_string());
    }

    /// All requests in flight have been answered: a closed loop with a pause takes it now.
    pub(super) fn window_done(&mut self, now: Instant) {
        if let Pace::Closed { think } = self.plan.pace
            && self.pauses()
        {
            self.due = Some(now + think);
        }
    }

    /// A closed loop with a pause.
    pub(super) fn pauses(&self) -> bool {
        matches!(self.plan.pace, Pace::Closed { think } if !think.is_zero())
    }

    /// The results.
    pub(crate) fn account(mut self) -> Account {
        self.account.rtt = self.latencies.histogram();
        self.account
    }
}
