//! The builder's part for one ring as one of its ends sees it.
//!
//! What only the other end counts is taken from its page, or from the server's housekeeping; where neither can be seen it is unknown.

use transport::stats::Via;

use super::client::RingView;
use super::join::Side;
use super::measure::{going_on, past};
use crate::rate::ratio;
use crate::reading::{Reading, Why};

/// What housekeeping of the server last saw of a ring.
#[derive(Clone, Copy)]
pub(super) struct House {
    pub(super) occupancy: u64,
    pub(super) high_water: u64,
    pub(super) moved_ns: u64,
    /// When that was seen.
    pub(super) seen_ns: u64,
}

/// Of housekeeping that has not looked for longer, only what it saw then is known: a server that is stopped sees nobody move.
const FRESH_NS: u64 = 1_000_000_000;

impl House {
    fn moved_age_ns(&self, now_ns: u64) -> u64 {
        let is_fresh = now_ns.saturating_sub(self.seen_ns) <= FRESH_NS;
        let until_ns = if is_fresh { now_ns } else { self.seen_ns };
        until_ns.saturating_sub(self.moved_ns)
    }
}

/// Which counters of a ring `own` has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Producer,
    Consumer,
}

/// One ring from `own`'s end; `other` is the other end if its page is visible.
pub(super) fn ring(
    own: &Side<'_>,
    other: Option<&Side<'_>>,
    end: End,
    house: Option<House>,
    now_ns: u64,
) -> RingView {
    let (tx, rx) = (&own.slot.tx, &own.slot.rx);
    let (capacity, messages, bytes, loads, hits, padding, record, largest) = match end {
        End::Producer => (
            own.slot.info.tx_capacity,
            tx.tx_messages,
            tx.tx_bytes,
            tx.tx_index_loads,
            tx.tx_index_hits,
            tx.tx_padding_bytes,
            tx.tx_record_bytes,
            tx.tx_largest_bytes,
        ),
        End::Consumer => (
            own.slot.info.rx_capacity,
            rx.rx_messages,
            rx.rx_bytes,
            rx.rx_index_loads,
            rx.rx_index_hits,
            rx.rx_padding_bytes,
            rx.rx_record_bytes,
            rx.rx_largest_bytes,
        ),
    };
    let old = past(own).map(|(s, span)| {
        let (t, r) = (&s.tx, &s.rx);
        match end {
            End::Producer => (
                t.tx_messages,
                t.tx_bytes,
                t.tx_index_loads,
                t.tx_index_hits,
                span,
            ),
            End::Consumer => (
                r.rx_messages,
                r.rx_bytes,
                r.rx_index_loads,
                r.rx_index_hits,
                span,
            ),
        }
    });
    let on_shm = || -> Reading<()> {
        if own.slot.info.transport == Via::Shm && capacity > 0 {
            Ok(())
        } else {
            Err(Why::not_applicable(
                "no ring: the connection is on the socket",
            ))
        }
    };
    let producer = || -> Reading<&Side<'_>> {
        match end {
            End::Producer => Ok(own),
            End::Consumer => {
                other.ok_or_else(|| Why::not_visible("the producer's page is not visible"))
            }
        }
    };
    let house = || house.ok_or_else(|| Why::not_visible("the server's page is not visible"));
    let blocked = || {
        on_shm()?;
        let p = producer()?;
        let (before, span) = past(p)?;
        let total = |s: &transport::stats::Slot, at: u64| {
            going_on(s.tx.tx_blocked_ns, s.tx.tx_blocked_since_ns, at)
        };
        span.share(
            total(before, now_ns.saturating_sub(span.ns())),
            total(p.slot, now_ns),
        )
    };
    let grown = old.clone().and_then(|(m, b, _, _, _)| {
        let n = crate::rate::delta(m, messages)?;
        let sum = crate::rate::delta(b, bytes)?;
        if n == 0 {
            return Err(Why::not_yet("no message in the interval"));
        }
        Ok(sum as f64 / n as f64)
    });
    RingView {
        capacity_bytes: on_shm().map(|()| capacity),
        // Without the server's page the producer's own last look is the next best.
        occupancy_bytes: on_shm().and_then(|()| match (house(), end) {
            (Ok(h), _) => Ok(h.occupancy),
            (Err(_), End::Producer) => Ok(tx.tx_occupancy_bytes),
            (Err(why), End::Consumer) => Err(why),
        }),
        last_seen_bytes: on_shm().and_then(|()| match (house(), producer()) {
            (Ok(h), Ok(p)) => Ok(h.occupancy.max(p.slot.tx.tx_occupancy_bytes)),
            (Ok(h), Err(_)) => Ok(h.occupancy),
            (Err(_), Ok(p)) => Ok(p.slot.tx.tx_occupancy_bytes),
            (Err(why), Err(_)) => Err(why),
        }),
        high_water_bytes: on_shm().and_then(|()| high_water(end, tx, house())),
        messages_per_s: old
            .clone()
            .and_then(|(m, .., span)| span.per_second(m, messages)),
        bytes_per_s: old
            .clone()
            .and_then(|(_, b, _, _, span)| span.per_second(b, bytes)),
        cached_index_hit_ratio: on_shm().and_then(|()| {
            let (m, _, _, h, _) = old.clone()?;
            ratio(
                crate::rate::delta(h, hits)?,
                crate::rate::delta(m, messages)?,
                "no message in the interval",
            )
        }),
        index_loads_per_s: on_shm().and_then(|()| {
            let (_, _, l, _, span) = old?;
            span.per_second(l, loads)
        }),
        blocked_ratio: blocked(),
        blocked_for_ns: on_shm().and_then(|()| match producer()?.slot.tx.tx_blocked_since_ns {
            0 => Err(Why::not_applicable("the producer does not wait for room")),
            since => Ok(now_ns.saturating_sub(since)),
        }),
        touched_bytes: on_shm().and_then(|()| Ok(touched(&producer()?.slot.tx, capacity))),
        window_bytes: on_shm().and_then(|()| Ok(producer()?.slot.tx.tx_window_bytes)),
        moved_age_ns: on_shm().and_then(|()| match house()? {
            House { moved_ns: 0, .. } => Err(Why::not_yet("nothing has moved yet")),
            house => Ok(house.moved_age_ns(now_ns)),
        }),
        padding_ratio: on_shm()
            .and_then(|()| ratio(padding, padding.saturating_add(record), "no message yet")),
        largest_bytes: Ok(largest),
        mean_bytes: grown,
        rejected: producer().map(|p| p.slot.tx.tx_rejected_size),
    }
}

/// The largest occupancy. The producer and the server's housekeeping see one each; a consumer sees none.
fn high_water(end: End, tx: &transport::stats::TxCounters, house: Reading<House>) -> Reading<u64> {
    match (house, end) {
        (Ok(h), End::Producer) => Ok(h.high_water.max(tx.tx_high_water_bytes)),
        (Ok(h), End::Consumer) => Ok(h.high_water),
        (Err(_), End::Producer) => Ok(tx.tx_high_water_bytes),
        (Err(why), End::Consumer) => Err(why),
    }
}

/// How far into the ring's memory was ever written. A producer says it when it looks at the consumer's index, so once per lap; in between
/// its own index says where it is, because padding fills each lap up to the capacity.
pub(crate) fn touched(tx: &transport::stats::TxCounters, capacity: u64) -> u64 {
    let in_lap = if tx.tx_wraps == 0 {
        tx.tx_index.min(capacity)
    } else {
        tx.tx_index.checked_rem(capacity).unwrap_or(0)
    };
    tx.tx_touched_bytes.max(in_lap)
}

#[cfg(test)]
mod tests {
    use super::{End, high_water, touched};
    use crate::reading::Why;
    use transport::stats::TxCounters;

    #[test]
    fn the_largest_occupancy_of_a_ring_is_unknown_to_who_only_consumes_it() {
        let tx = TxCounters {
            tx_high_water_bytes: 4096,
            ..TxCounters::default()
        };
        let no_server = || Err(Why::not_visible("the server's page is not visible"));
        assert_eq!(high_water(End::Producer, &tx, no_server()), Ok(4096));
        assert!(high_water(End::Consumer, &tx, no_server()).is_err());
    }

    #[test]
    fn what_a_ring_touched_is_known_before_a_lap_is_over() {
        let first_lap = TxCounters {
            tx_index: 4096,
            ..TxCounters::default()
        };
        assert_eq!(touched(&first_lap, 1 << 20), 4096);
        assert_eq!(touched(&first_lap, 1 << 10), 1 << 10, "a claim is bounded");
        let later = TxCounters {
            tx_index: 9 * (32 << 20) + 4096,
            tx_wraps: 9,
            tx_touched_bytes: 1 << 20,
            ..TxCounters::default()
        };
        assert_eq!(touched(&later, 32 << 20), 1 << 20);
        let further = TxCounters {
            tx_index: later.tx_index + (1 << 20),
            ..later
        };
        assert_eq!(touched(&further, 32 << 20), (1 << 20) + 4096);
        assert_eq!(touched(&further, 0), 1 << 20, "a claim of no capacity");
    }
}
