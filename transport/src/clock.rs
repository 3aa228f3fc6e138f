//! Time for instrumentation: the timestamp counter where it is invariant, else the kernel's clock.
//!
//! `rdtsc` costs 8–10 ns where `clock_gettime` costs 24, which is a tenth of a round trip. Differences are
//! in ticks until somebody asks for nanoseconds; [`monotonic_ns`] is comparable between processes. The two clocks drift apart by
//! seconds a day (the counter's rate is measured once, the kernel's is steered), so what is shown to other processes is led back to the
//! kernel's each second.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// A point in time in ticks of the fastest clock; only differences mean something, and only in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(u64);

/// How ticks become nanoseconds: `ns = ticks × mult >> 24`.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// True if ticks are the timestamp counter's.
    tsc: bool,
    /// Nanoseconds per tick, as a fixed-point number with 24 fractional bits.
    mult: u64,
    /// Anchor: ticks at a moment…
    anchor_ticks: u64,
    /// …whose CLOCK_MONOTONIC was this.
    anchor_ns: u64,
}

/// How far the kernel's clock is ahead of ours by now. Both words are right by themselves, whatever the other says, so threads that renew
/// them at the same time do no harm; Relaxed, as they publish nothing else.
struct Lead {
    /// Nanoseconds, wrapping: it may be behind.
    ns: AtomicU64,
    /// Our time when that was seen.
    seen_ns: AtomicU64,
}

static LEAD: Lead = Lead {
    ns: AtomicU64::new(0),
    seen_ns: AtomicU64::new(0),
};

/// How long the last look is good for: at 500 ppm, more than a kernel is ever steered by, half a millisecond.
const LEAD_NS: u64 = 1_000_000_000;

/// A counter that is so far behind an earlier reading has begun anew: counters of two sockets differ by microseconds.
const ANEW_NS: u64 = 1_000_000_000;

impl Lead {
    /// Our time as the kernel's; `look` gives both at one moment.
    fn kernels(&self, ours_ns: u64, look: impl FnOnce() -> (u64, u64)) -> u64 {
        // Backwards, too: after a suspend the counter may begin anew.
        if ours_ns.abs_diff(self.seen_ns.load(Relaxed)) > LEAD_NS {
            self.renew(look());
        }
        ours_ns.wrapping_add(self.ns.load(Relaxed))
    }

    #[cold]
    fn renew(&self, (ours_ns, kernels_ns): (u64, u64)) {
        self.ns.store(kernels_ns.wrapping_sub(ours_ns), Relaxed);
        self.seen_ns.store(ours_ns, Relaxed);
    }
}

impl Scale {
    /// Our time in nanoseconds, wrapping. It runs on also where the counter has begun anew and is below the anchor, for days if need be.
    #[inline]
    fn ours(&self, at: Ticks) -> u64 {
        let anchor = Ticks(self.anchor_ticks);
        if at < anchor {
            self.anchor_ns.wrapping_sub(anchor.ns_since(at))
        } else {
            self.anchor_ns.wrapping_add(at.ns_since(anchor))
        }
    }
}

static SCALE: OnceLock<Scale> = OnceLock::new();

/// CLOCK_MONOTONIC in nanoseconds, straight from the kernel.
pub(crate) fn monotonic_ns() -> u64 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `ts` is a valid, exclusively borrowed timespec; CLOCK_MONOTONIC exists on every Linux.
    let ok = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts) };
    debug_assert_eq!(ok, 0);
    ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn raw() -> u64 {
    // SAFETY: rdtsc is unprivileged (CR4.TSD is clear under Linux unless PR_SET_TSC asked otherwise) and
    // touches no memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn raw() -> u64 {
    monotonic_ns()
}

/// True if the counter ticks at one rate in every power state (CPUID 8000_0007 EDX bit 8) and the kernel itself
/// trusts the hardware's clock.
#[cfg(target_arch = "x86_64")]
fn invariant() -> bool {
    use std::arch::x86_64::__cpuid;
    let has = __cpuid(0x8000_0000).eax >= 0x8000_0007 && __cpuid(0x8000_0007).edx & (1 << 8) != 0;
    let source =
        std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    // Not readable in some sandboxes: the CPU's word alone decides then.
    let trusted = source.map_or(true, |s| {
        matches!(
            s.trim(),
            "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page"
        )
    });
    has && trusted
}

fn scale() -> &'static Scale {
    SCALE.get_or_init(measure)
}

fn measure() -> Scale {
    #[cfg(target_arch = "x86_64")]
    if invariant() {
        return calibrate();
    }
    Scale {
        tsc: false,
        mult: 1 << 24,
        anchor_ticks: 0,
        anchor_ns: 0,
    }
}

/// Both clocks at one moment: the tightest of a few (before, ns, after) brackets, since a preemption in between would spoil a single one.
fn pair() -> (u64, u64) {
    (0..8)
        .map(|_| {
            let before = raw();
            let ns = monotonic_ns();
            let after = raw();
            (
                after.wrapping_sub(before),
                before.wrapping_add(after.wrapping_sub(before) / 2),
                ns,
            )
        })
        .min()
        .map_or((0, 0), |(_, ticks, ns)| (ticks, ns))
}

/// Compares the counter with CLOCK_MONOTONIC over 2 ms: a reading is good to some 50 ns, so the rate to 50 ppm.
#[cfg(target_arch = "x86_64")]
fn calibrate() -> Scale {
    let (t0, n0) = pair();
    while monotonic_ns() - n0 < 2_000_000 {
        std::hint::spin_loop();
    }
    let (t1, n1) = pair();
    let ticks = t1.wrapping_sub(t0).max(1);
    let mult = ((u128::from(n1 - n0) << 24) / u128::from(ticks)) as u64;
    Scale {
        tsc: true,
        mult: mult.max(1),
        anchor_ticks: t1,
        anchor_ns: n1,
    }
}

/// Calibrates now (2 ms, once per process) so that no request pays for it.
pub(crate) fn init() {
    if SCALE.get().is_none() {
        // Not within the lock: a fork made meanwhile would wait for ever for who has it. Of several who measure, the first to come is taken.
        let _ = SCALE.set(measure());
    }
}

/// True if timestamps are the CPU's counter.
pub(crate) fn uses_tsc() -> bool {
    scale().tsc
}

impl Ticks {
    /// Now.
    #[inline(always)]
    pub(crate) fn now() -> Self {
        if scale().tsc {
            Self(raw())
        } else {
            Self(monotonic_ns())
        }
    }

    /// The number itself, to be kept and given back to [`Self::from_count`] in this process.
    pub(crate) const fn count(self) -> u64 {
        self.0
    }

    /// What [`Self::count`] was of.
    pub(crate) const fn from_count(count: u64) -> Self {
        Self(count)
    }

    /// Nanoseconds from `earlier` to `self`; 0 if `earlier` is later (counters of two sockets may differ a little).
    #[inline]
    pub(crate) fn ns_since(self, earlier: Self) -> u64 {
        let delta = self.0.wrapping_sub(earlier.0);
        if delta > i64::MAX as u64 {
            return 0;
        }
        ((u128::from(delta) * u128::from(scale().mult)) >> 24) as u64
    }

    /// The same for who waits until some time has passed: if the counter has begun anew since `earlier`, as it may in a suspend, it has. Else
    /// the wait would go on until the counter is there again, which may take days.
    #[inline]
    pub(crate) fn waited_since(self, earlier: Self) -> u64 {
        if self < earlier && earlier.ns_since(self) > ANEW_NS {
            return u64::MAX;
        }
        self.ns_since(earlier)
    }

    /// As CLOCK_MONOTONIC nanoseconds, to half a millisecond if it is a moment just past. Costs a look at the kernel's clock once a second.
    pub(crate) fn monotonic_ns(self) -> u64 {
        let s = scale();
        if !s.tsc {
            return self.0;
        }
        LEAD.kernels(s.ours(self), || {
            let (ticks, kernels_ns) = pair();
            (s.ours(Self(ticks)), kernels_ns)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_measure_the_same_time_as_the_kernel() {
        init();
        let (t0, n0) = (Ticks::now(), monotonic_ns());
        while monotonic_ns() - n0 < 20_000_000 {
            std::hint::spin_loop();
        }
        let (t1, n1) = (Ticks::now(), monotonic_ns());
        let (ours, kernel) = (t1.ns_since(t0) as f64, (n1 - n0) as f64);
        assert!(
            (ours / kernel - 1.0).abs() < 0.05,
            "{ours} against {kernel}"
        );
        assert_eq!(
            t0.ns_since(t1),
            0,
            "a clock that went backwards is no time, not 500 years"
        );
    }

    #[test]
    fn a_wait_is_over_when_the_counter_has_begun_anew_and_not_when_another_ones_is_a_little_behind()
    {
        init();
        let earlier = Ticks::now();
        let behind = |ns: u64| {
            let ticks = (u128::from(ns) << 24) / u128::from(scale().mult);
            Ticks::from_count(earlier.count() - ticks as u64)
        };
        assert_eq!(behind(ANEW_NS / 1000).waited_since(earlier), 0);
        assert_eq!(behind(2 * ANEW_NS).waited_since(earlier), u64::MAX);
        assert_eq!(
            earlier.waited_since(behind(2 * ANEW_NS)),
            earlier.ns_since(behind(2 * ANEW_NS))
        );
    }

    #[test]
    fn a_clock_whose_rate_is_a_little_off_does_not_drift_away_in_a_week() {
        /// As the kernel sees it, `ours` from boot on.
        fn kernels(ours_ns: u64, ppm: i64) -> u64 {
            let off = i128::from(ours_ns) * i128::from(ppm) / 1_000_000;
            (i128::from(ours_ns) + off) as u64
        }
        const STEP_NS: u64 = 700_000_000;
        const WEEK_NS: u64 = 7 * 86_400 * 1_000_000_000;
        for ppm in [-400, -20, 35, 400] {
            let lead = Lead {
                ns: AtomicU64::new(0),
                seen_ns: AtomicU64::new(0),
            };
            let mut looks = 0;
            for ours_ns in (0..WEEK_NS).step_by(STEP_NS as usize) {
                let shown = lead.kernels(ours_ns, || {
                    looks += 1;
                    (ours_ns, kernels(ours_ns, ppm))
                });
                let off = shown.abs_diff(kernels(ours_ns, ppm));
                assert!(off <= 500_000, "{off} ns after {ours_ns} ns at {ppm} ppm");
            }
            assert!(looks <= WEEK_NS / LEAD_NS, "{looks} looks");
        }
    }

    #[test]
    fn time_goes_on_after_a_suspend_in_which_the_counter_began_anew() {
        init();
        const DAY_NS: u64 = 86_400 * 1_000_000_000;
        let ticks = |ns: u64| ((u128::from(ns) << 24) / u128::from(scale().mult)) as u64;
        // Measured after two days; one day later the counter begins anew.
        let scale = Scale {
            anchor_ticks: ticks(2 * DAY_NS),
            anchor_ns: 2 * DAY_NS,
            ..*scale()
        };
        let lead = Lead {
            ns: AtomicU64::new(0),
            seen_ns: AtomicU64::new(scale.ours(Ticks(ticks(3 * DAY_NS)))),
        };
        let mut looks = 0;
        for since_ns in (0..10).map(|n| n * 400_000_000) {
            let kernels_ns = 3 * DAY_NS + since_ns;
            let ours = scale.ours(Ticks(ticks(since_ns)));
            let shown = lead.kernels(ours, || {
                looks += 1;
                (ours, kernels_ns)
            });
            let off = shown.abs_diff(kernels_ns);
            assert!(off <= 500_000, "{off} ns after {since_ns} ns");
        }
        assert_eq!(looks, 4, "one at once, and one each second");
    }

    #[test]
    fn a_moment_just_past_is_the_kernels_too() {
        init();
        for _ in 0..1000 {
            let (before, now, after) = (monotonic_ns(), Ticks::now(), monotonic_ns());
            let shown = now.monotonic_ns();
            let off = 500_000;
            assert!(
                (before - off..=after + off).contains(&shown),
                "{before} {shown} {after}"
            );
        }
    }
}
