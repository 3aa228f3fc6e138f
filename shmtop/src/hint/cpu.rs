//! Rules about the CPUs themselves: frequency, the clock. Heat: `thermal`. What the hypervisor takes: `steal`.

use super::fix::{note, sudo};
use super::steal::STEAL;
use super::thermal::THERMAL;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::reading::Why;
use crate::sample::Cpu;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[CPU_FREQ_LOW, THERMAL, STEAL, SLOW_CLOCK];

rule! {
    /// Only a CPU that a ring thread keeps busy for ten seconds is asked: an idle core is slow on purpose. In a VM the MHz of
    /// /proc/cpuinfo are a constant and there is no cpufreq, so the answer is unknown, not fine.
    CPU_FREQ_LOW = "cpu-freq-low", Warn, "a busy CPU runs below its frequency";
    fires: "below 70 % of the maximum and below the base frequency (where that is known), over 10 s, on a CPU that a ring thread keeps more than 90 % busy";
    quiet: "idle cores";
    fix: "cpupower frequency-set -g performance";
    onset: State;
    looks_back_s: 10;
    check: Host(cpu_freq_low);
}

/// Where a busy CPU of this maximum is slow, below.
fn least_khz(cpu: &Cpu, max_khz: u64) -> f64 {
    // The maximum is of a single core: with all of them busy even a healthy chip may stay below 70 % of it.
    let base = cpu.frequency.base_khz.known();
    let base = base.map_or(f64::MAX, |base| 0.98 * *base as f64);
    base.min(0.7 * max_khz as f64)
}

/// Its frequency and the maximum, in kHz, if it runs so slowly.
pub(super) fn slow(cpu: &Cpu) -> Option<(u64, u64)> {
    let now = *cpu.frequency.current_khz.known()?;
    let max = *cpu.frequency.max_khz.known()?;
    ((now as f64) < least_khz(cpu, max)).then_some((now, max))
}

/// As in "1.2 of 3.6 GHz".
pub(super) fn ghz(khz: u64) -> f64 {
    khz as f64 / 1e6
}

fn cpu_freq_low(ctx: &Context<'_>) -> Answer {
    let virtual_machine = ctx.model.host.hypervisor == Ok(true);
    if ctx.model.host.cpus.iter().all(|c| c.frequency_khz.is_err()) {
        if virtual_machine {
            return Err(Why::not_there("hidden by the hypervisor"));
        }
        return match ctx.model.host.cpus.first() {
            Some(c) => Err(c
                .frequency_khz
                .clone()
                .err()
                .unwrap_or_else(|| Why::not_there("no cpufreq"))),
            None => Err(ctx.no_cpu()),
        };
    }
    let then = ctx.ten_ago()?;
    for w in ctx.waiters() {
        let Some(t) = w.thread else { continue };
        let (Ok(cpu), Ok(busy)) = (t.last_cpu.clone(), t.cpu.clone()) else {
            continue;
        };
        if busy <= 0.9 {
            continue;
        }
        let Some(now) = ctx.model.host.cpus.iter().find(|c| c.id == cpu) else {
            continue;
        };
        let (khz, max) = now.frequency_khz.clone()?;
        let old = then.host.cpus.iter().find(|c| c.cpu == cpu);
        let old_khz = old
            .and_then(|c| c.frequency.current_khz.known().copied())
            .unwrap_or(khz);
        let seen = ctx.sample.host.cpus.iter().find(|c| c.cpu == cpu);
        let least = seen.map_or(0.0, |seen| least_khz(seen, max));
        if max == 0 || khz.max(old_khz) as f64 >= least {
            continue;
        }
        let governor = match &now.governor {
            Ok(g) if !g.is_empty() => format!(" (governor {})", text::clean(g)),
            _ => String::new(),
        };
        return Fire::new(
            format!(
                "CPU {cpu} runs at {:.1} of {:.1} GHz under load{governor}: {}",
                ghz(khz),
                ghz(max),
                w.name()
            ),
            match governor.contains("performance") {
                false => format!(
                    "{}cpupower -c {cpu} frequency-set -g performance{}",
                    sudo(ctx),
                    note(ctx, "")
                ),
                true => format!("{}turbostat --cpu {cpu} --num_iterations 1   # the governor asks for all there is: a limit of heat, power or turbo?", sudo(ctx)),
            },
        )
        .number(
            "frequency",
            khz as f64,
            "kHz",
            format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_cur_freq"),
            format!("< {least:.0}"),
        )
        .number(
            "busy",
            busy * 100.0,
            "%",
            format!("/proc/{}/task/{}/schedstat", w.endpoint.pid, w.tid),
            "> 90",
        )
        .about([w.endpoint.pid])
        .fires();
    }
    QUIET
}

rule! {
    /// With tsc or kvm-clock a timestamp is read without entering the kernel; hpet and acpi_pm cost a device access. Both the
    /// name and the measured cost must speak, since a sandbox may slow any clock.
    SLOW_CLOCK = "slow-clock", Warn, "reading the clock is slow";
    fires: "the clocksource is none of the fast ones and clock_gettime costs more than 200 ns";
    quiet: "the cost is low, whatever its name";
    fix: "boot with clocksource=tsc tsc=reliable where that is true";
    check: Host(slow_clock);
}

fn slow_clock(ctx: &Context<'_>) -> Answer {
    let (source, cost) = (
        ctx.model.host.clocksource.clone()?,
        ctx.model.host.clock_cost_ns.clone()?,
    );
    let fast = [
        "tsc",
        "kvm-clock",
        "arch_sys_counter",
        "hyperv_clocksource_tsc_page",
    ];
    if fast.contains(&source.as_str()) || cost <= 200 {
        return QUIET;
    }
    Fire::new(
        format!("{source}: {} per timestamp", text::ns(cost)),
        "cat /sys/devices/system/clocksource/clocksource0/available_clocksource   # if tsc is there: boot with clocksource=tsc",
    )
    .state("clocksource", source, "/sys/devices/system/clocksource/clocksource0/current_clocksource")
    .number("clock_gettime", cost as f64, "ns", "measured by shmtop", "> 200")
    .fires()
}
