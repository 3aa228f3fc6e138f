//! The builder's part for one side of a connection: ring, waiter, latency, and where its time went.
//!
//! Counters of two looks become rates here. A wait that is still going on is not in its counter yet, so it is added: a
//! client asleep for three seconds has slept in each of them.

use transport::stats::Via;
use transport::stats::histogram::{self, Histogram};

use super::client::{Percentiles, RingView, RttView, TimeShares, WaitView};
use super::host::ThreadView;
use super::join::Side;
use super::machine::first;
use crate::rate::{Span, ratio};
use crate::reading::{Reading, Why};
use crate::text;

/// The past of a side, or why there is none.
pub(super) fn past<'a>(side: &Side<'a>) -> Reading<(&'a transport::stats::Slot, Span)> {
    side.before.ok_or_else(|| {
        if side.slot.info.opened_ns == 0 {
            first()
        } else {
            Why::not_yet("needs a second sample of this connection")
        }
    })
}

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
                other.ok_or_else(|| Why::no_permission("the producer's page is not visible"))
            }
        }
    };
    let house = || house.ok_or_else(|| Why::no_permission("the server's page is not visible"));
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

/// How far into the ring's memory was ever written. A producer says it when it looks at the consumer's index, so not before its first
/// lap is over; until then its own index, which starts at 0, is the answer.
fn touched(tx: &transport::stats::TxCounters, capacity: u64) -> u64 {
    if tx.tx_wraps == 0 {
        tx.tx_touched_bytes.max(tx.tx_index.min(capacity))
    } else {
        tx.tx_touched_bytes
    }
}

/// A time counter with the run that is not in it yet.
fn going_on(counted_ns: u64, since_ns: u64, at_ns: u64) -> u64 {
    if since_ns == 0 {
        counted_ns
    } else {
        counted_ns.saturating_add(at_ns.saturating_sub(since_ns))
    }
}

/// The waiter of a slot.
pub(super) fn wait(side: &Side<'_>, now_ns: u64) -> WaitView {
    let w = &side.slot.wait;
    let old = past(side);
    let rate = |f: fn(&transport::stats::WaitCounters) -> u64| {
        let (o, span) = old.clone()?;
        span.per_second(f(&o.wait), f(w))
    };
    let share = |f: fn(&transport::stats::WaitCounters) -> u64| {
        let (o, span) = old.clone()?;
        span.share(f(&o.wait), f(w))
    };
    WaitView {
        waits_per_s: rate(|w| w.waits),
        spins_per_s: rate(|w| w.spins),
        yields_per_s: rate(|w| w.yields),
        sleeps_per_s: rate(|w| w.sleeps),
        spin_share: share(|w| w.spin_ns),
        yield_share: share(|w| w.yield_ns),
        sleep_share: old.clone().and_then(|(o, span)| {
            let then = now_ns.saturating_sub(span.ns());
            span.share(
                going_on(o.wait.sleep_ns, o.wait.waiting_since_ns, then),
                going_on(w.sleep_ns, w.waiting_since_ns, now_ns),
            )
        }),
        ended: old.and_then(|(o, _)| {
            let of = |f: fn(&transport::stats::WaitCounters) -> u64| {
                crate::rate::delta(f(&o.wait), f(w))
            };
            let ends = [
                of(|w| w.ended_spin)?,
                of(|w| w.ended_yield)?,
                of(|w| w.ended_sleep)?,
            ];
            let sum = ends.iter().copied().fold(0u64, u64::saturating_add);
            let part = |n| ratio(n, sum, "no wait ended in the interval");
            Ok([part(ends[0])?, part(ends[1])?, part(ends[2])?])
        }),
        park: latency(side, |s| &s.park, "nothing slept in the interval"),
        asked_sleep_ns: match w.asked_sleep_ns {
            0 => Err(Why::not_applicable("it parks: nobody asked for a time")),
            ns => Ok(ns),
        },
        policy: text::clean(&side.slot.info.wait_policy),
        crowded: w.crowded != 0,
        spin_budget_ns: w.spin_budget_ns,
    }
}

/// A histogram: the last interval beside the whole life.
pub(super) fn latency(
    side: &Side<'_>,
    of: fn(&transport::stats::Slot) -> &Histogram,
    nothing: &'static str,
) -> RttView {
    let now = of(side.slot);
    let interval = past(side).and_then(|(old, _)| {
        let grown = now
            .since(of(old))
            .ok_or_else(|| Why::gap("the histogram went backwards"))?;
        percentiles(&grown, true).ok_or_else(|| Why::not_yet(nothing))
    });
    RttView {
        recent: interval.clone(),
        interval,
        since_start: percentiles(now, false).ok_or_else(|| Why::not_yet("nothing was timed yet")),
    }
}

/// Percentiles of a histogram; `None` when it is empty. Of a difference the largest value is known to its bucket only.
pub(crate) fn percentiles(h: &Histogram, difference: bool) -> Option<Percentiles> {
    let [p50, p90, p99, p999] = h.quantiles([0.5, 0.9, 0.99, 0.999])?;
    let top = h
        .buckets
        .last()
        .map(|(i, _)| histogram::lower_bound(usize::from(*i) + 1));
    let max = if difference {
        top.unwrap_or(h.max_ns).min(h.max_ns.max(1))
    } else {
        h.max_ns
    };
    Some(Percentiles {
        p50,
        p90,
        p99,
        p999,
        max,
        count: h.count(),
    })
}

/// Where a waiter's time went; see [`TimeShares`] for what `no_core` means.
pub(super) fn time(
    side: &Side<'_>,
    wait: &WaitView,
    blocked: f64,
    thread: Option<&ThreadView>,
) -> Reading<TimeShares> {
    let (old, span) = past(side)?;
    let useful = crate::rate::delta(old.wait.useful_ns, side.slot.wait.useful_ns)?;
    let page = TimeShares {
        useful: useful as f64 / span.ns() as f64,
        spin: wait.spin_share.clone()?,
        yielding: wait.yield_share.clone()?,
        sleep: wait.sleep_share.clone()?,
        blocked,
        ..TimeShares::default()
    };
    let cpu = thread.and_then(|t| t.cpu.clone().ok());
    let delay = thread.and_then(|t| t.run_delay.clone().ok());
    settle(page, cpu, delay.unwrap_or(0.0))
}

/// Makes shares that add up to 1 of what the page counted and what the kernel says of the thread.
fn settle(mut t: TimeShares, cpu: Option<f64>, mut delay: f64) -> Reading<TimeShares> {
    let waited = t.spin + t.yielding + t.sleep + t.blocked;
    if waited > 1.25 {
        return Err(Why::gap("the page accounts for more time than passed"));
    }
    if waited > 1.0 {
        for part in [&mut t.spin, &mut t.yielding, &mut t.sleep, &mut t.blocked] {
            *part /= waited;
        }
    }
    // A poller that never waits books its useful time every 1024 rounds, and with handlers of a millisecond those are seconds: what
    // does not fit belongs to the intervals before.
    t.useful = t.useful.clamp(0.0, (1.0 - waited).max(0.0));
    t.idle = (1.0 - waited - t.useful).max(0.0);
    // For the same reason it may have booked nothing yet, and at a few hundred long requests a second the samples are thin. Time on a
    // core that was neither spun nor yielded away was work: the kernel counts it all.
    if let Some(cpu) = cpu {
        let worked = (cpu - t.spin - t.yielding - t.useful).clamp(0.0, t.idle);
        t.useful += worked;
        t.idle -= worked;
    }
    // What was on a core was not waiting for one.
    let awake = t.yielding + t.spin + t.useful;
    let mut room = (awake - cpu.unwrap_or(0.0)).max(0.0);
    for part in [&mut t.yielding, &mut t.spin, &mut t.useful] {
        let taken = delay.min(*part).min(room);
        *part -= taken;
        t.no_core += taken;
        delay -= taken;
        room -= taken;
    }
    for part in [&mut t.sleep, &mut t.idle] {
        let taken = delay.min(*part);
        *part -= taken;
        t.no_core += taken;
        delay -= taken;
    }
    Ok(t)
}

#[cfg(test)]
mod tests {
    use super::{End, TimeShares, high_water, settle, touched};
    use crate::reading::Why;
    use transport::stats::TxCounters;

    /// What a poller with handlers of a millisecond books: nothing for seconds, then seconds at once.
    #[test]
    fn a_server_that_never_waits_is_busy_in_each_interval_however_late_it_books() {
        for booked in [0.0, 0.3, 4.1] {
            let page = TimeShares {
                useful: booked,
                spin: 0.01,
                ..TimeShares::default()
            };
            let time = settle(page, Some(0.98), 0.0).unwrap();
            assert!(time.useful > 0.96, "{booked} booked: {time:?}");
            let sum: f64 = time.parts().iter().map(|(_, share)| share).sum();
            assert!((0.999..1.001).contains(&sum), "{time:?}");
        }
    }

    #[test]
    fn the_largest_occupancy_of_a_ring_is_unknown_to_who_only_consumes_it() {
        let tx = TxCounters {
            tx_high_water_bytes: 4096,
            ..TxCounters::default()
        };
        let no_server = || Err(Why::no_permission("the server's page is not visible"));
        assert_eq!(high_water(End::Producer, &tx, no_server()), Ok(4096));
        assert!(high_water(End::Consumer, &tx, no_server()).is_err());
    }

    #[test]
    fn what_a_ring_touched_is_known_before_its_first_lap_is_over() {
        let first_lap = TxCounters {
            tx_index: 4096,
            ..TxCounters::default()
        };
        assert_eq!(touched(&first_lap, 1 << 20), 4096);
        assert_eq!(touched(&first_lap, 1 << 10), 1 << 10, "a claim is bounded");
        let later = TxCounters {
            tx_index: 9 << 20,
            tx_wraps: 9,
            tx_touched_bytes: 1 << 20,
            ..TxCounters::default()
        };
        assert_eq!(touched(&later, 32 << 20), 1 << 20);
    }
}
