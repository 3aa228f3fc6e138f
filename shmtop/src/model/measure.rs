//! The builder's part for one side of a connection: waiter, latency, and where its time went; its rings are `ring`'s.
//!
//! Counters of two looks become rates here. A wait that is still going on is not in its counter yet, so it is added: a
//! client asleep for three seconds has slept in each of them.

use transport::stats::histogram::{self, Histogram};

use super::client::{Percentiles, RttView, WaitView};
use super::host::ThreadView;
use super::join::Side;
use super::machine::first;
use super::time::TimeShares;
use crate::rate::{Span, ratio};
use crate::reading::{Reading, Why};

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

/// A time counter with the run that is not in it yet.
pub(super) fn going_on(counted_ns: u64, since_ns: u64, at_ns: u64) -> u64 {
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
        park: latency(side, |s| &s.park, NO_SLEEP),
        asked_sleep_ns: match w.asked_sleep_ns {
            0 => Err(Why::not_applicable("it parks: nobody asked for a time")),
            ns => Ok(ns),
        },
        policy: side.slot.info.wait_policy,
        crowded: w.crowded != 0,
        spin_budget_ns: w.spin_budget_ns,
    }
}

/// Why a histogram that can be seen has no percentiles: nothing came into it.
pub(super) const NO_ROUND_TRIP: &str = "no round trip was timed in the interval";
pub(super) const NO_HANDLER_RUN: &str = "no handler run was timed in the interval";
const NO_SLEEP: &str = "nothing slept in the interval";
const NOTHING: &str = "nothing was timed yet";

/// Whether there was nothing to count, and the count is 0; else it can't be known.
pub(crate) fn timed_none(why: &Why) -> bool {
    [NO_ROUND_TRIP, NO_HANDLER_RUN, NO_SLEEP, NOTHING].contains(&&*why.text)
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
        since_start: percentiles(now, false).ok_or_else(|| Why::not_yet(NOTHING)),
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
    use super::{TimeShares, settle};

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
}
