//! What is remembered of endpoints and connections from one sample to the next: histories, since when a state lasts, and latencies
//! of the last windows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use transport::stats::Histogram;

use super::builder::KEPT_WINDOWS;
use super::measure::percentiles;
use super::{Bound, Client, ClientState, Endpoint, Percentiles};
use crate::history::{History, Point};
use crate::reading::Reading;
use crate::sample::EARLY_NS;

/// What latencies of late are over, unless an interval is longer, ns.
pub(crate) const RECENT_NS: u64 = 10_000_000_000;

/// What is remembered of one endpoint.
#[derive(Default)]
pub(super) struct Past {
    pub(super) totals: History,
    /// By slot and connection.
    pub(super) clients: HashMap<(u32, u64), Remembered>,
    pub(super) seen_ns: u64,
}

/// What is remembered of one connection.
pub(super) struct Remembered {
    pub(super) history: History,
    pub(super) state: ClientState,
    pub(super) state_since_ns: u64,
    bound: Bound,
    bound_since_ns: u64,
    /// Round trips up to each of the last windows.
    pub(super) rtt: Windows,
    pub(super) handler: Windows,
    pub(super) seen_ns: u64,
}

/// A histogram at the ends of the last windows, oldest first, and what they say together.
#[derive(Default)]
pub(super) struct Windows {
    pub(super) kept: VecDeque<(u64, Arc<Histogram>)>,
    recent: Option<Percentiles>,
}

impl Windows {
    pub(super) fn keep(&mut self, at_ns: u64, h: &Histogram) {
        let last = self.kept.back().map(|(_, last)| last);
        let h = match last {
            Some(last) if **last == *h => Arc::clone(last),
            _ => Arc::new(h.clone()),
        };
        self.kept.push_back((at_ns, h));
        // As many as reach ten seconds back, which are fewer where windows are longer.
        let is_enough = |second: &(u64, _)| at_ns.saturating_sub(second.0) + EARLY_NS >= RECENT_NS;
        while self.kept.len() > KEPT_WINDOWS || self.kept.len() > 2 && is_enough(&self.kept[1]) {
            self.kept.pop_front();
        }
        self.recent = recent(&self.kept);
    }
}

impl Remembered {
    pub(super) fn new(client: &Client, at_ns: u64) -> Self {
        Self {
            history: History::default(),
            state: client.state,
            state_since_ns: at_ns,
            bound: client.verdict.bound,
            bound_since_ns: at_ns,
            rtt: Windows::default(),
            handler: Windows::default(),
            seen_ns: at_ns,
        }
    }

    /// Dates the state, and what bounds. In another state the same bound has another reason: a client that offers little, and is
    /// then stopped, is bound by its producer before and after.
    fn note(&mut self, state: ClientState, bound: Bound, at_ns: u64) {
        let other = self.state != state;
        if other {
            self.state = state;
            self.state_since_ns = at_ns;
        }
        if other || self.bound != bound {
            self.bound = bound;
            self.bound_since_ns = at_ns;
        }
    }

    pub(super) fn update(&mut self, client: &mut Client, at_ns: u64) {
        self.seen_ns = at_ns;
        self.note(client.state, client.verdict.bound, at_ns);
        client.state_for_ns = at_ns.saturating_sub(self.state_since_ns);
        // Writing would copy a verdict that the models before share.
        if client.verdict.since_ns != self.bound_since_ns {
            client.verdict.since_ns = self.bound_since_ns;
        }
        for (shown, windows) in [
            (&mut client.rtt, &self.rtt),
            (&mut client.handler, &self.handler),
        ] {
            shown.recent = match &windows.recent {
                Some(recent) => Ok(*recent),
                None => shown.interval.clone(),
            };
        }
        if client.shown_at_server {
            // Its past stands there.
            return;
        }
        let f = |r: &Reading<f64>| r.as_ref().ok().map(|v| *v as f32);
        let u = |r: &Reading<u64>| r.as_ref().ok().map(|v| *v as f32);
        self.history.push(Point {
            at_ns,
            requests_per_s: f(&client.requests_per_s),
            bytes_per_s: f(&client.bytes_per_s),
            request_ring_bytes: u(&client.request_ring().occupancy_bytes),
            reply_ring_bytes: u(&client.reply_ring().occupancy_bytes),
            hit_ratio: f(&client.request_ring().cached_index_hit_ratio),
        });
    }
}

/// The sums of an endpoint, to be remembered.
pub(super) fn sums(endpoint: &Endpoint, at_ns: u64) -> Point {
    let f = |r: &Reading<f64>| r.as_ref().ok().map(|v| *v as f32);
    Point {
        at_ns,
        requests_per_s: f(&endpoint.totals.requests_per_s),
        bytes_per_s: f(&endpoint.totals.bytes_per_s),
        ..Point::default()
    }
}

/// Percentiles of the windows that are kept; `None` while there are fewer than two of them or nothing was timed.
fn recent(kept: &VecDeque<(u64, Arc<Histogram>)>) -> Option<Percentiles> {
    let (old, new) = (kept.front()?, kept.back()?);
    if old.0 == new.0 {
        return None;
    }
    percentiles(&new.1.since(&old.1)?, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_dated_from_the_state_that_it_explains() {
        let mut past = Remembered {
            history: History::default(),
            state: ClientState::Active,
            state_since_ns: 1,
            bound: Bound::Producer,
            bound_since_ns: 1,
            rtt: Windows::default(),
            handler: Windows::default(),
            seen_ns: 1,
        };
        past.note(ClientState::Active, Bound::Producer, 2);
        assert_eq!((past.state_since_ns, past.bound_since_ns), (1, 1));
        past.note(ClientState::Stopped, Bound::Producer, 3);
        assert_eq!((past.state_since_ns, past.bound_since_ns), (3, 3));
        past.note(ClientState::Stopped, Bound::Consumer, 4);
        assert_eq!((past.state_since_ns, past.bound_since_ns), (3, 4));
    }

    #[test]
    fn of_late_is_ten_seconds_however_long_a_window_is() {
        for window_s in [1, 3, 10] {
            let mut windows = Windows::default();
            for n in 0..=60 / window_s {
                windows.keep(n * window_s * 1_000_000_000, &Histogram::default());
            }
            let (first, last) = (windows.kept[0].0, windows.kept[windows.kept.len() - 1].0);
            let covered_s = (last - first) / 1_000_000_000;
            assert!(
                (10..10 + window_s).contains(&covered_s),
                "{covered_s} s of {window_s}"
            );
        }
    }
}
