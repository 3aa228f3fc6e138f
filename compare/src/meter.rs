//! Stamps requests, checks replies, times round trips, knows when it is over: the same instructions for every subject.
//!
//! A round trip is measured from one reply to the next, so stamping and checking are in it: one look at the clock per request, and no
//! stall between two requests goes unseen. Each reply is compared with its request byte by byte.

use std::io;

use crate::clock::{Clock, ticks};
use crate::histogram::Histogram;
use crate::job::{ClientReport, Plan};

/// The payload of one client: a pattern with the client's number and a running number at both ends.
pub(crate) struct Payload {
    bytes: Vec<u8>,
    client: u64,
}

impl Payload {
    /// For one client.
    ///
    /// # Panics
    /// If `size` has no room for the stamps.
    pub(crate) fn new(size: usize, client: usize) -> Self {
        assert!(size >= 32, "no room for the stamps");
        let client = client as u64;
        let bytes = (0..size as u64)
            .map(|i| (i * 31 + client * 7 + (i >> 8)) as u8)
            .collect();
        Self { bytes, client }
    }

    /// The payload of request `number`.
    #[inline]
    pub(crate) fn stamped(&mut self, number: u64) -> &[u8] {
        let end = self.bytes.len() - 8;
        self.bytes[..8].copy_from_slice(&number.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&self.client.to_le_bytes());
        self.bytes[end..].copy_from_slice(&(!number).to_le_bytes());
        &self.bytes
    }

    /// The payload as stamped last.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a wrong reply becomes; the run is void then.
#[cold]
pub(crate) fn corrupt(expected: &[u8], found: &[u8]) -> io::Error {
    let at = expected.iter().zip(found).position(|(a, b)| a != b);
    io::Error::other(format!(
        "corrupt reply: {} bytes for {}, first difference at {at:?}",
        found.len(),
        expected.len()
    ))
}

/// Counts and times one client.
pub(crate) struct Meter {
    clock: Clock,
    begin: u64,
    end: u64,
    last: u64,
    requests: u64,
    round_trips: Histogram,
}

impl Meter {
    /// Starts the watch.
    pub(crate) fn new(clock: Clock, plan: Plan) -> Self {
        Self {
            clock,
            begin: clock.at(plan.begin_ns),
            end: clock.at(plan.end_ns),
            last: ticks(),
            requests: 0,
            round_trips: Histogram::new(),
        }
    }

    /// A reply came and was checked. False: the time is over.
    #[inline]
    pub(crate) fn lap(&mut self) -> bool {
        let now = ticks();
        let took = now - std::mem::replace(&mut self.last, now);
        self.account(now, took)
    }

    /// As [`Self::lap`], for a reply found at `now` to a request sent at `sent`.
    #[inline]
    pub(crate) fn account_since(&mut self, sent: u64, now: u64) -> bool {
        self.account(now, now.saturating_sub(sent))
    }

    #[inline]
    fn account(&mut self, now: u64, took: u64) -> bool {
        if now >= self.begin {
            // The one under way at the end is recorded too: else a client that starved would look quick.
            self.round_trips.record(self.clock.ns(took));
            if now >= self.end {
                return false;
            }
            self.requests += 1;
        }
        true
    }

    /// Requests counted so far.
    #[inline]
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// True once the time is over.
    #[inline]
    pub(crate) fn over(&self, now: u64) -> bool {
        now >= self.end
    }

    /// The result.
    pub(crate) fn report(self) -> ClientReport {
        ClientReport {
            requests: self.requests,
            round_trips: self.round_trips.sparse(),
        }
    }
}
