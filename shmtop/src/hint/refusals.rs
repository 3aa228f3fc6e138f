//! Messages that were too large, or nearly, of the last minute: the page counts them since the connection was opened.

use std::collections::{HashMap, VecDeque};

use transport::stats::{Role, Slot};

use crate::model::join::is_connection;
use crate::sample::Sample;

/// Whether a message of this size is near a limit.
pub(super) fn is_near(bytes: u64, max: u64) -> bool {
    bytes as f64 > NEAR * max as f64
}

/// Share of the limit above which a message is near it.
pub(super) const NEAR: f64 = 0.8;

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

/// The largest message of one side of a connection, once it is near the limit.
#[derive(Default)]
struct Largest {
    bytes: u64,
    /// When it was last seen to grow (CLOCK_MONOTONIC ns); 0 if it never was.
    grew_ns: u64,
    /// The last sample that had it.
    seen_ns: u64,
}

/// Of every connection and side, how many messages were refused within a minute, and whether they have grown.
#[derive(Default)]
pub(super) struct Refusals {
    sides: HashMap<(u64, bool), Side>,
    /// Of few.
    near: HashMap<(u64, bool), Largest>,
}

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
            let key = (slot.info.connection_id, role == Role::Server);
            // Its page was found, or could be read again, only now: when that was has no bearing on what its messages did before.
            let is_new = !self.sides.contains_key(&key);
            self.note_largest(slot, role, now_ns, is_new && !young);
            let side = self.sides.entry(key).or_insert_with(|| Side {
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
        self.sides.retain(|_, side| side.seen_ns == now_ns);
        self.near.retain(|_, largest| largest.seen_ns == now_ns);
    }

    /// What one end says of both directions. Of a connection that was there `before` we looked, nobody knows when it had grown so far.
    fn note_largest(&mut self, slot: &Slot, role: Role, now_ns: u64, before: bool) {
        let is_server = role == Role::Server;
        let both = [
            (slot.tx.tx_largest_bytes, is_server),
            (slot.rx.rx_largest_bytes, !is_server),
        ];
        for (bytes, sender) in both {
            if !is_near(bytes, slot.info.max_message) {
                continue;
            }
            let key = (slot.info.connection_id, sender);
            let largest = self.near.entry(key).or_insert_with(|| Largest {
                bytes: if before { bytes } else { 0 },
                ..Largest::default()
            });
            largest.seen_ns = now_ns;
            if bytes > largest.bytes {
                (largest.bytes, largest.grew_ns) = (bytes, now_ns);
            }
        }
    }

    /// Whether messages of this sender came near the limit, or nearer, within the last minute.
    pub(super) fn has_grown(&self, connection_id: u64, sender: Role) -> bool {
        let largest = self.near.get(&(connection_id, sender == Role::Server));
        largest.is_some_and(|l| l.grew_ns != 0 && l.seen_ns.saturating_sub(l.grew_ns) <= MINUTE_NS)
    }

    /// Whether the page of this side, which counts what it refused, was seen just now.
    pub(super) fn knows(&self, connection_id: u64, sender: Role) -> bool {
        self.sides
            .contains_key(&(connection_id, sender == Role::Server))
    }

    /// Messages that this side of a connection refused to send within the last minute.
    pub(super) fn of(&self, connection_id: u64, sender: Role) -> u64 {
        let side = self.sides.get(&(connection_id, sender == Role::Server));
        side.and_then(|s| Some(s.grown.back()?.1.saturating_sub(s.before)))
            .unwrap_or(0)
    }
}
