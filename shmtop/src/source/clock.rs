//! The clocks of a sample: its moments, what a clock read costs, and shmtop's own CPU time.

use crate::sample::Clocks;
use nix::time::{ClockId, clock_gettime};

fn ns(clock: ClockId) -> u64 {
    // These clocks exist on every Linux and the call has no other way to fail; times before 1970 read as 0.
    clock_gettime(clock).map_or(0, |t| {
        u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(t.tv_nsec()).unwrap_or(0)
    })
}

/// CLOCK_MONOTONIC in ns.
pub(super) fn monotonic_ns() -> u64 {
    ns(ClockId::CLOCK_MONOTONIC)
}

/// All clocks, one right after the other.
pub(super) fn now() -> Clocks {
    Clocks {
        monotonic_ns: monotonic_ns(),
        boottime_ns: ns(ClockId::CLOCK_BOOTTIME),
        realtime_ns: ns(ClockId::CLOCK_REALTIME),
        took_ns: 0,
    }
}

/// CPU time of this process so far, all threads, in ns.
pub(super) fn own_cpu_ns() -> u64 {
    ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of this thread so far.
pub(crate) fn thread_cpu_ns() -> u64 {
    ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// Median cost of reading CLOCK_MONOTONIC, over 9 batches of 100: some 25 µs where the clock is fast, 2 ms where it
/// is a device.
pub(super) fn cost_ns() -> u64 {
    const BATCH: u64 = 100;
    let mut costs = [0; 9].map(|_: u64| {
        let start = monotonic_ns();
        for _ in 1..BATCH {
            std::hint::black_box(monotonic_ns());
        }
        monotonic_ns().saturating_sub(start) / BATCH
    });
    costs.sort_unstable();
    costs[costs.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_read_costs_something_and_time_passes() {
        let before = now();
        assert!(cost_ns() > 0);
        let after = now();
        assert!(after.monotonic_ns > before.monotonic_ns);
        assert!(
            after.boottime_ns >= after.monotonic_ns,
            "boot time goes on in suspend"
        );
        assert!(own_cpu_ns() > 0);
    }

    #[test]
    fn what_it_says_it_costs_is_what_the_kernel_charges_it_with() {
        let charged_ns = || {
            let stat = procfs::process::Process::myself()
                .and_then(|p| p.stat())
                .unwrap();
            (stat.utime + stat.stime) * (1_000_000_000 / procfs::ticks_per_second())
        };
        // Other threads of this test run meanwhile, so each look at the charge lies between two of ours.
        let look = || (own_cpu_ns(), charged_ns(), own_cpu_ns());
        let before = look();
        while own_cpu_ns() - before.2 < 200_000_000 {
            std::hint::black_box(monotonic_ns());
        }
        let after = look();
        let charged = after.1 - before.1;
        // User and system time are cut to ticks, and a running thread is charged at its next one.
        let ticks = 40_000_000;
        let least = (after.0 - before.2).saturating_sub(ticks);
        let most = after.2 - before.0 + ticks;
        assert!(
            (least..=most).contains(&charged),
            "{least} {charged} {most}"
        );
    }
}
