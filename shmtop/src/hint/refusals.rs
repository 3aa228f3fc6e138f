//! Messages that were too large, of the last minute: the page counts them since the connection was opened.

use std::collections::{HashMap, VecDeque};

use transport::stats::Role;

use crate::model::join::is_connection;
use crate::sample::Sample;

const MINUTE_NS: u64 = 60_000_000_000;

/// What one side of a connection refused to send.
#[derive(Default)]
struct Side {
    /// How many when the minute began.
    before: u64,
    /// (CLOCK_MONOTONIC ns, how many then) whenever it had grown; empty for those that never refuse.
    grown: VecDeque<(u64, u64)>,
    /// The last sample that had it.
    seen_ns: u64,
}

/// Of every connection and side, how many messages were refused within a minute.
#[derive(Default)]
pub(super) struct Refusals(HashMap<(u64, bool), Side>);

impl Refusals {
    /// Takes in a sample; once more is no harm. What a connection younger than a minute refused before we looked counts as well.
    pub(super) fn note(&mut self, sample: &Sample) {
        let now_ns = sample.time.monotonic_ns;
        let pages = sample.pages.iter().filter_map(|p| p.snapshot());
        for (role, slot) in pages.flat_map(|p| p.slots.iter().map(|s| (p.role, s))) {
            if !is_connection(slot) {
                continue;
            }
            let total = slot.tx.tx_rejected_size;
            let young = now_ns.saturating_sub(slot.info.opened_ns) <= MINUTE_NS;
            let side = self
                .0
                .entry((slot.info.connection_id, role == Role::Server))
                .or_insert_with(|| Side {
                    before: if young { 0 } else { total },
                    ..Side::default()
                });
            side.seen_ns = now_ns;
            let last = side.grown.back().map_or(side.before, |(_, n)| *n);
            if total < last {
                // Another connection of the same number, or a page that lies.
                (side.before, side.grown) = (total, VecDeque::new());
            } else if total > last {
                side.grown.push_back((now_ns, total));
            }
            while let Some((at, n)) = side.grown.front()
                && now_ns.saturating_sub(*at) > MINUTE_NS
            {
                side.before = *n;
                side.grown.pop_front();
            }
        }
        self.0.retain(|_, side| side.seen_ns == now_ns);
    }

    /// Messages that this side of a connection refused to send within the last minute.
    pub(super) fn of(&self, connection_id: u64, sender: Role) -> u64 {
        let side = self.0.get(&(connection_id, sender == Role::Server));
        side.and_then(|s| Some(s.grown.back()?.1.saturating_sub(s.before)))
            .unwrap_or(0)
    }
}
