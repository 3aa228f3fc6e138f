//! What was counted on a thread: by the hardware per second, by both per message.
//!
//! Called by the builder. perf_event gives the hardware's part where there is a PMU; what the kernel counts comes from its
//! own perf counters where those are open, and else from /proc, which has the same at no cost to the thread. A group that
//! shared the PMU with others is scaled up by the share of the time it counted, and that share is shown.

use super::client::PerfView;
use super::host::ThreadView;
use super::join::Pair;
use super::machine;
use super::shared::Shared;
use crate::rate::{Span, delta, ratio};
use crate::reading::{Reading, Why};
use crate::sample::{CacheCounters, HardwareCounters, Perf, PerfThread};

/// What the hardware counted on one thread, in user space. Rates are per second of wall time.
#[derive(Clone, Debug, PartialEq)]
pub struct CountersView {
    /// CPU cycles per second.
    pub cycles_per_s: Reading<f64>,
    /// Instructions per second.
    pub instructions_per_s: Reading<f64>,
    /// References to (usually) the last-level cache per second.
    pub cache_references_per_s: Reading<f64>,
    /// Of them, misses.
    pub cache_misses_per_s: Reading<f64>,
    /// Share of the thread's time that the counters were on the PMU (0..=1): below 1 the rates are estimates.
    pub counted_share: Reading<f64>,
    /// Of the reads of the first-level data cache, those that missed (0..=1).
    pub l1d_miss_ratio: Reading<f64>,
    /// Of the reads of the last-level cache, those that missed.
    pub llc_miss_ratio: Reading<f64>,
}

impl CountersView {
    /// Nothing, for this reason.
    pub fn none(why: &Why) -> Self {
        Self {
            cycles_per_s: Err(why.clone()),
            instructions_per_s: Err(why.clone()),
            cache_references_per_s: Err(why.clone()),
            cache_misses_per_s: Err(why.clone()),
            counted_share: Err(why.clone()),
            l1d_miss_ratio: Err(why.clone()),
            llc_miss_ratio: Err(why.clone()),
        }
    }

    /// Instructions per cycle.
    ///
    /// # Errors
    /// Why one of the two can't be had, or that no cycle was counted.
    pub fn instructions_per_cycle(&self) -> Reading<f64> {
        quotient(&self.instructions_per_s, &self.cycles_per_s)
    }

    /// Share of the references that missed.
    ///
    /// # Errors
    /// Why one of the two can't be had, or that nothing was referenced.
    pub fn miss_ratio(&self) -> Reading<f64> {
        quotient(&self.cache_misses_per_s, &self.cache_references_per_s)
    }
}

fn quotient(part: &Reading<f64>, whole: &Reading<f64>) -> Reading<f64> {
    let (part, whole) = (part.clone()?, whole.clone()?);
    if whole > 0.0 {
        Ok(part / whole)
    } else {
        Err(Why::not_yet("nothing was counted"))
    }
}

/// How much the hardware's counters of a thread grew, and the share of its time that they counted.
struct Growth {
    counts: HardwareCounters,
    share: f64,
}

fn growth(before: Option<&PerfThread>, now: Option<&PerfThread>) -> Reading<Growth> {
    let now = now.ok_or_else(|| Why::not_yet("its thread is not counted yet"))?;
    let n = now.hardware.counting().ok_or_else(|| why(&now.hardware))?;
    let b = before
        .and_then(|b| b.hardware.counting())
        .ok_or_else(machine::first)?;
    let counts = HardwareCounters {
        time_enabled_ns: delta(b.time_enabled_ns, n.time_enabled_ns)?,
        time_running_ns: delta(b.time_running_ns, n.time_running_ns)?,
        cycles: delta(b.cycles, n.cycles)?,
        instructions: delta(b.instructions, n.instructions)?,
        cache_references: delta(b.cache_references, n.cache_references)?,
        cache_misses: delta(b.cache_misses, n.cache_misses)?,
    };
    let share = counted(counts.time_running_ns, counts.time_enabled_ns)?;
    Ok(Growth { counts, share })
}

fn why<T>(perf: &Perf<T>) -> Why {
    let text = perf.why().unwrap_or("no counters").to_owned();
    match perf {
        Perf::Denied(_) => Why::no_permission(text),
        _ => Why::not_there(text),
    }
}

/// What the hardware counted on a thread between two samples.
pub(super) fn of_thread(pair: &Pair<'_>, tid: u32) -> CountersView {
    let before = pair.before.and_then(|b| b.perf_of(tid));
    let now = pair.now.perf_of(tid);
    let view = match (growth(before, now), pair.span) {
        (Ok(g), Some(span)) => per_second(&g, span),
        (Err(why), _) => CountersView::none(&why),
        (Ok(_), None) => CountersView::none(&machine::first()),
    };
    // Two events of one group were counted in the same moments: their ratio needs no scaling.
    let cache = cache_growth(before, now);
    let missed = |f: fn(&CacheCounters) -> (u64, u64)| {
        let (missed, all) = f(&cache.as_ref().map_err(Why::clone)?.0);
        ratio(missed, all, "nothing was read")
    };
    CountersView {
        l1d_miss_ratio: missed(|c| (c.l1d_misses, c.l1d_reads)),
        llc_miss_ratio: missed(|c| (c.llc_misses, c.llc_reads)),
        ..view
    }
}

/// How much the second group grew, and the share of the time that it counted.
fn cache_growth(
    before: Option<&PerfThread>,
    now: Option<&PerfThread>,
) -> Reading<(CacheCounters, f64)> {
    let now = now.ok_or_else(|| Why::not_yet("its thread is not counted yet"))?;
    let n = now.cache.counting().ok_or_else(|| why(&now.cache))?;
    let b = before
        .and_then(|b| b.cache.counting())
        .ok_or_else(machine::first)?;
    let counts = CacheCounters {
        time_enabled_ns: delta(b.time_enabled_ns, n.time_enabled_ns)?,
        time_running_ns: delta(b.time_running_ns, n.time_running_ns)?,
        l1d_reads: delta(b.l1d_reads, n.l1d_reads)?,
        l1d_misses: delta(b.l1d_misses, n.l1d_misses)?,
        llc_reads: delta(b.llc_reads, n.llc_reads)?,
        llc_misses: delta(b.llc_misses, n.llc_misses)?,
    };
    let share = counted(counts.time_running_ns, counts.time_enabled_ns)?;
    Ok((counts, share))
}

/// The share of the thread's time that a group counted.
fn counted(running_ns: u64, enabled_ns: u64) -> Reading<f64> {
    match ratio(running_ns, enabled_ns, "the thread did not run")? {
        0.0 => Err(Why::not_yet("the counters were not on the CPU")),
        share => Ok(share),
    }
}

fn per_second(g: &Growth, span: Span) -> CountersView {
    let rate = |n: u64| Ok(n as f64 / g.share / span.seconds());
    CountersView {
        cycles_per_s: rate(g.counts.cycles),
        instructions_per_s: rate(g.counts.instructions),
        cache_references_per_s: rate(g.counts.cache_references),
        cache_misses_per_s: rate(g.counts.cache_misses),
        counted_share: Ok(g.share),
        ..CountersView::none(&machine::first())
    }
}

/// What was counted on the thread per message; `messages` moved between the two samples.
pub(super) fn per_message(
    pair: &Pair<'_>,
    tid: u32,
    thread: &Reading<Shared<ThreadView>>,
    messages: &Reading<u64>,
) -> PerfView {
    let (before, now) = (
        pair.before.and_then(|b| b.perf_of(tid)),
        pair.now.perf_of(tid),
    );
    let hardware = growth(before, now);
    let per = |n: f64| match messages.clone()? {
        0 => Err(Why::not_yet("no message in the interval")),
        messages => Ok(n / messages as f64),
    };
    let of_group = |f: fn(&HardwareCounters) -> u64| {
        let g = hardware.as_ref().map_err(Why::clone)?;
        per(f(&g.counts) as f64 / g.share)
    };
    let software = before.and_then(|b| Some((b.software.counting()?, now?.software.counting()?)));
    // Per second of the thread against messages per second: /proc is read at its own pace.
    let by_proc = |rate: &dyn Fn(&ThreadView) -> Reading<f64>| {
        let thread = thread.as_ref().map_err(Why::clone)?;
        let span = pair.span.ok_or_else(machine::first)?;
        per(rate(thread)? * span.seconds())
    };
    let faults = match software {
        Some((b, n)) => delta(b.page_faults, n.page_faults).and_then(|n| per(n as f64)),
        None => by_proc(&|t| t.faults_per_s.clone()),
    };
    let switches = match software {
        Some((b, n)) => b
            .context_switches
            .get()
            .and_then(|b| delta(b, n.context_switches.get()?))
            .and_then(|n| per(n as f64)),
        None => by_proc(&|t| Ok(t.voluntary_per_s.clone()? + t.involuntary_per_s.clone()?)),
    };
    let cache = cache_growth(before, now);
    let of_cache = |f: fn(&CacheCounters) -> u64| {
        let (counts, share) = cache.as_ref().map_err(Why::clone)?;
        per(f(counts) as f64 / share)
    };
    let messages_per_s = messages.clone().and_then(|n| {
        let span = pair.span.ok_or_else(machine::first)?;
        Ok(n as f64 / span.seconds())
    });
    PerfView {
        messages_per_s,
        cache_misses_per_message: of_group(|c| c.cache_misses),
        cache_references_per_message: of_group(|c| c.cache_references),
        l1d_misses_per_message: of_cache(|c| c.l1d_misses),
        llc_misses_per_message: of_cache(|c| c.llc_misses),
        instructions_per_message: of_group(|c| c.instructions),
        instructions_per_cycle: hardware
            .as_ref()
            .map_err(Why::clone)
            .map(|g| g.counts.instructions as f64 / g.counts.cycles.max(1) as f64),
        counted_share: hardware.as_ref().map(|g| g.share).map_err(Why::clone),
        faults_per_message: faults,
        context_switches_per_message: switches,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Clocks, Sample};

    fn at(second: u64, cycles: u64, running: u64) -> Sample {
        Sample {
            time: Clocks {
                monotonic_ns: second * 1_000_000_000,
                ..Clocks::default()
            },
            perf: vec![PerfThread {
                pid: 7,
                tid: 8,
                hardware: Perf::Counting(HardwareCounters {
                    time_enabled_ns: second * 500_000_000,
                    time_running_ns: running,
                    cycles,
                    instructions: cycles * 2,
                    cache_references: cycles / 10,
                    cache_misses: cycles / 100,
                }),
                cache: Perf::Counting(CacheCounters {
                    time_enabled_ns: second * 500_000_000,
                    time_running_ns: second * 250_000_000,
                    l1d_reads: cycles,
                    l1d_misses: cycles / 50,
                    llc_reads: cycles / 50,
                    llc_misses: cycles / 100,
                }),
                software: Perf::default(),
            }],
            ..Sample::default()
        }
    }

    #[test]
    fn a_group_that_shared_the_pmu_is_scaled_up_and_says_so() {
        let (a, b) = (at(1, 1_000, 100_000_000), at(3, 11_000, 350_000_000));
        let pair = Pair::new(Some(&a), &b);
        let view = of_thread(&pair, 8);
        // 10,000 cycles in 2 s of wall time, counted a quarter of the second that the thread ran.
        assert_eq!(view.counted_share, Ok(0.25));
        assert_eq!(view.cycles_per_s, Ok(20_000.0));
        assert_eq!(view.instructions_per_cycle(), Ok(2.0));
        assert_eq!(view.miss_ratio(), Ok(0.1));
        assert_eq!(view.l1d_miss_ratio, Ok(0.02));
        assert_eq!(view.llc_miss_ratio, Ok(0.5));
        let thread = Err(Why::not_yet("not looked at"));
        let perf = per_message(&pair, 8, &thread, &Ok(1_000));
        assert_eq!(perf.cache_misses_per_message, Ok(0.4));
        assert_eq!(perf.instructions_per_message, Ok(80.0));
        // Of the second group, which counted half of the time: 200 and 100 in 1000 messages.
        assert_eq!(perf.l1d_misses_per_message, Ok(0.4));
        assert_eq!(perf.llc_misses_per_message, Ok(0.2));
    }

    #[test]
    fn what_was_not_counted_is_a_reason_and_no_zero() {
        let (a, mut b) = (at(1, 1_000, 100_000_000), at(2, 1_000, 100_000_000));
        let view = of_thread(&Pair::new(Some(&a), &b), 8);
        assert!(view.cycles_per_s.is_err(), "never on the PMU");
        b.perf[0].hardware = Perf::NoPmu("no PMU: the hypervisor hides it".to_owned());
        b.perf[0].cache = Perf::NoPmu("no PMU: the hypervisor hides it".to_owned());
        let view = of_thread(&Pair::new(Some(&a), &b), 8);
        assert_eq!(
            view.cache_misses_per_s.unwrap_err().text,
            "no PMU: the hypervisor hides it"
        );
        let missed = view.llc_miss_ratio.unwrap_err().text;
        assert_eq!(missed, "no PMU: the hypervisor hides it");
        assert!(of_thread(&Pair::new(None, &b), 9).cycles_per_s.is_err());
    }
}
