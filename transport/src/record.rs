//! Books what rings and waits report into a slot of the stats page. Rarer events are booked where they happen.
//!
//! What every message does stores as little as possible, see [`crate::stats::schema`]; the rest is out of its way.

use std::sync::atomic::Ordering::Relaxed;

use crate::ring::consumer::{Consumer, Released};
use crate::ring::plan::{self, STREAM_FROM_BYTES};
use crate::ring::producer::{Looked, Producer};
use crate::ring::storage::Mapped;
use crate::stats::recorder::{bump, raise, set};
use crate::stats::schema::{RECORD_HEADER_BYTES, TxWords};
use crate::stats::slot::SlotWriter;
use crate::wait::policy::Waiter;
use crate::wait::{Rung, Waited};

// Readers make sizes in the ring out of it.
const _: () = assert!(RECORD_HEADER_BYTES == plan::HEADER_BYTES);

/// Bytes of a record after its payload.
#[inline(always)]
fn slack(payload: usize) -> u64 {
    (payload.wrapping_neg() & 7) as u64
}

/// A message was committed.
#[inline(always)]
pub(crate) fn sent(slot: &SlotWriter, producer: &mut Producer<Mapped>, payload: usize) {
    let sent = slot.sent();
    if producer.has_looked() {
        looked(slot, producer);
    } else {
        bump(&sent.tx_straight, 1);
    }
    bump(&sent.tx_ring_bytes, payload as u64);
    if slack(payload) > 0 {
        bump(&sent.tx_slack_bytes, slack(payload));
    }
    raise(&sent.tx_peak_bytes, payload as u64);
}

/// The rare half: the consumer's index was loaded.
#[cold]
fn looked(slot: &SlotWriter, producer: &mut Producer<Mapped>) {
    let Some(Looked { padding, occupancy }) = producer.take_look() else {
        return;
    };
    bump(&slot.sent().tx_looked, 1);
    let tx = slot.tx();
    bump(&tx.tx_index_loads, 1);
    set(&tx.tx_occupancy_bytes, occupancy);
    raise(&tx.tx_high_water_bytes, occupancy);
    set(&tx.tx_touched_bytes, producer.touched());
    set(&tx.tx_window_bytes, producer.window());
    if padding > 0 {
        bump(&tx.tx_wraps, 1);
        bump(&tx.tx_padding_bytes, padding);
    }
}

/// A message found no room.
#[cold]
pub(crate) fn full(tx: &TxWords, occupancy: u64) {
    bump(&tx.tx_full, 1);
    bump(&tx.tx_index_loads, 1);
    set(&tx.tx_occupancy_bytes, occupancy);
    raise(&tx.tx_high_water_bytes, occupancy);
}

/// What a message from the ring was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A request, or the reply to a request in flight.
    Live,
    /// A reply that nobody waited for.
    Void,
}

/// A message was found in the ring.
#[inline(always)]
pub(crate) fn taken(slot: &SlotWriter, consumer: &mut Consumer<Mapped>, what: Taken) {
    if consumer.has_loaded() || what == Taken::Void {
        taken_otherwise(slot, consumer, what);
    } else {
        bump(&slot.taken().rx_straight, 1);
    }
}

/// The rare half: the producer's index was loaded before, or the message is no good.
#[cold]
fn taken_otherwise(slot: &SlotWriter, consumer: &mut Consumer<Mapped>, what: Taken) {
    let (words, loaded) = (slot.taken(), consumer.take_loads());
    let word = match (what, loaded.is_some()) {
        (Taken::Live, true) => &words.rx_looked,
        (Taken::Live, false) => &words.rx_straight,
        (Taken::Void, true) => &words.rx_void_looked,
        (Taken::Void, false) => &words.rx_void_straight,
    };
    bump(word, 1);
    if let Some(loads) = loaded {
        set(&slot.rx().rx_index_loads, loads);
    }
}

/// Requests that a server's thread has taken from the ring of a connection.
pub(crate) fn requests_from_ring(slot: &SlotWriter) -> u64 {
    let taken = slot.taken();
    // Relaxed: counts that publish nothing else.
    taken.rx_straight.load(Relaxed) + taken.rx_looked.load(Relaxed)
}

/// Replies that a server's thread has put into the ring of a connection.
pub(crate) fn replies_to_ring(slot: &SlotWriter) -> u64 {
    let sent = slot.sent();
    // Relaxed: as above.
    sent.tx_straight.load(Relaxed) + sent.tx_looked.load(Relaxed)
}

/// Its record was given back.
#[inline(always)]
pub(crate) fn released(
    slot: &SlotWriter,
    consumer: &Consumer<Mapped>,
    released: Released,
    payload: usize,
) {
    let taken = slot.taken();
    bump(&taken.rx_ring_bytes, payload as u64);
    if slack(payload) > 0 {
        bump(&taken.rx_slack_bytes, slack(payload));
    }
    raise(&taken.rx_peak_bytes, payload as u64);
    if released.padding > 0 {
        bump(&slot.rx().rx_padding_bytes, released.padding);
    }
    if payload >= STREAM_FROM_BYTES {
        set(&slot.rx().rx_follow_loads, consumer.follow_loads());
    }
}

/// A wait is over.
#[inline(always)]
pub(crate) fn waited(slot: &SlotWriter, waiter: &Waiter, w: &Waited, found: bool) {
    let wait = slot.wait();
    bump(&wait.waits, 1);
    bump(&wait.spins, w.spins);
    bump(&wait.spin_ns, w.spin_ns);
    match w.rung {
        Rung::Spin if found => bump(&wait.ended_spin, 1),
        Rung::Yield if found => bump(&wait.ended_yield, 1),
        Rung::Sleep if found => bump(&wait.ended_sleep, 1),
        _ => bump(&wait.timed_out, 1),
    }
    if w.yields + w.sleeps > 0 {
        set(&wait.crowded, u64::from(waiter.crowded()));
        set(&wait.spin_budget_ns, waiter.budget_ns());
        set(&wait.asked_sleep_ns, waiter.asked_sleep_ns());
        bump(&wait.yields, w.yields);
        bump(&wait.sleeps, w.sleeps);
        bump(&wait.yield_ns, w.yield_ns);
        bump(&wait.sleep_ns, w.sleep_ns);
        if let Some(each) = w.sleep_ns.checked_div(w.sleeps) {
            slot.park().record(each, w.sleeps);
        }
    }
}

#[cfg(all(test, not(transport_no_stats)))]
mod tests;
