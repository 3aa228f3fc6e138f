//! Books what rings and waits report into a slot of the stats page. The only place where the two meet.

use crate::ring::plan::STREAM_FROM_BYTES;
use crate::ring::producer::{Looked, Producer};
use crate::ring::storage::Mapped;
use std::sync::atomic::Ordering::Relaxed;

use crate::ring::consumer::{Consumer, Released};
use crate::stats::recorder::{bump, raise, set};
use crate::stats::schema::{RxWords, TxWords};
use crate::stats::slot::SlotWriter;
use crate::wait::policy::Waiter;
use crate::wait::{Rung, Waited};

/// A message was committed.
#[inline(always)]
pub(crate) fn sent(tx: &TxWords, producer: &mut Producer<Mapped>, payload: usize) {
    bump(&tx.tx_messages, 1);
    bump(&tx.tx_bytes, payload as u64);
    set(&tx.tx_record_bytes, producer.produced());
    set(&tx.tx_index, producer.index());
    raise(&tx.tx_largest_bytes, payload as u64);
    if producer.has_looked() {
        looked(tx, producer);
    } else {
        bump(&tx.tx_index_hits, 1);
    }
}

/// The rare half: the consumer's index was loaded.
#[cold]
fn looked(tx: &TxWords, producer: &mut Producer<Mapped>) {
    let Some(Looked { padding, occupancy }) = producer.take_look() else {
        return;
    };
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

/// A message was received and released. `index_loads` is the consumer's running count.
#[inline(always)]
pub(crate) fn received(
    rx: &RxWords,
    consumer: &Consumer<Mapped>,
    released: Released,
    payload: usize,
) {
    bump(&rx.rx_messages, 1);
    bump(&rx.rx_bytes, payload as u64);
    set(&rx.rx_record_bytes, consumer.consumed());
    set(&rx.rx_index, consumer.index());
    raise(&rx.rx_largest_bytes, payload as u64);
    if released.padding > 0 {
        bump(&rx.rx_padding_bytes, released.padding);
    }
    if payload >= STREAM_FROM_BYTES {
        set(&rx.rx_follow_loads, consumer.follow_loads());
    }
    let loads = consumer.index_loads();
    if rx.rx_index_loads.load(Relaxed) == loads {
        bump(&rx.rx_index_hits, 1);
    } else {
        set(&rx.rx_index_loads, loads);
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
