//! Rules about the CPUs themselves: frequency, heat, the hypervisor, the clock.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Waiter;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::Severity;
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::sample::{Fact, Sample};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[CPU_FREQ_LOW, THERMAL, STEAL, SLOW_CLOCK];

/// Why there are no CPUs to look at.
fn no_cpu(ctx: &Context<'_>) -> Why {
    let why = ctx.sample.host.cpus_unknown.clone();
    why.unwrap_or_else(|| Why::not_there("no CPU could be read"))
}

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
            None => Err(no_cpu(ctx)),
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
        // The maximum is of a single core: with all of them busy even a healthy chip may stay below 70 % of it.
        let seen = ctx.sample.host.cpus.iter().find(|c| c.cpu == cpu);
        let base = seen.and_then(|c| c.frequency.base_khz.known().copied());
        let least = base
            .map_or(f64::MAX, |b| 0.98 * b as f64)
            .min(0.7 * max as f64);
        if max == 0 || khz.max(old_khz) as f64 >= least {
            continue;
        }
        let ghz = |k: u64| k as f64 / 1e6;
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
                false => format!("cpupower -c {cpu} frequency-set -g performance"),
                true => format!("turbostat --cpu {cpu} --num_iterations 1   # the governor asks for all there is: a limit of heat, power or turbo?"),
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
    /// Counts of the kernel's thermal_throttle files over ten seconds, of the CPUs where a ring thread may run; a package that is hot slows all its
    /// cores. Both hardware threads of a core count its events: they are counted once.
    THERMAL = "thermal", Warn, "the heat limit slows the CPUs";
    fires: "thermal_throttle counts grew within 10 s";
    quiet: "they did not, or only of CPUs where no ring thread may run";
    fix: "cooling, or less load";
    explains: ["cpu-freq-low", "tail-spread"];
    onset: State;
    looks_back_s: 10;
    check: Host(thermal);
}

fn thermal(ctx: &Context<'_>) -> Answer {
    if ctx.sample.host.cpus.iter().all(|c| {
        c.core_throttle_count.known().is_none() && c.package_throttle_count.known().is_none()
    }) {
        return Err(ctx
            .sample
            .host
            .cpus
            .first()
            .and_then(|c| c.core_throttle_count.why().cloned())
            .unwrap_or_else(|| no_cpu(ctx)));
    }
    let then = ctx.ten_ago()?;
    let waiters = ctx.waiters();
    // By core: its hardware threads count the same events. Each CPU of a package says the same of it.
    let mut cores: BTreeMap<u32, u64> = BTreeMap::new();
    let mut package = 0;
    let mut hot = Vec::new();
    for c in &ctx.sample.host.cpus {
        let Some(o) = then.host.cpus.iter().find(|o| o.cpu == c.cpu) else {
            continue;
        };
        if !waiters.iter().any(|w| may_run_on(w, c.cpu)) {
            continue;
        }
        let grown = |a: &Fact<u64>, b: &Fact<u64>| match (a.get(), b.get()) {
            (Ok(a), Ok(b)) => delta(a, b),
            _ => Ok(0),
        };
        let here = grown(&o.core_throttle_count, &c.core_throttle_count)?;
        let there = grown(&o.package_throttle_count, &c.package_throttle_count)?;
        let first = c.siblings.known().and_then(|all| all.iter().min());
        let core = cores.entry(*first.unwrap_or(&c.cpu)).or_default();
        *core = here.max(*core);
        package = there.max(package);
        if here > 0 || there > 0 {
            hot.push(c.cpu);
        }
    }
    let hits = cores.values().copied().fold(0u64, u64::saturating_add);
    let says = match (hits, package) {
        (0, 0) => return QUIET,
        (0, n) => format!("the heat limit of the package slowed all its CPUs {n}× in 10 s"),
        (n, _) => format!("the heat limit slowed the CPUs {n}× in 10 s"),
    };
    let there = waiters
        .iter()
        .filter(|w| hot.iter().any(|cpu| may_run_on(w, *cpu)));
    let pids = there.map(|w| w.endpoint.pid).collect::<BTreeSet<_>>();
    Fire::new(
        says,
        "sensors   # then see to the cooling, or run less on this machine",
    )
    .number(
        "throttle events",
        hits as f64,
        "1/10 s",
        "/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count",
        "> 0",
    )
    .number(
        "of a package",
        package as f64,
        "1/10 s",
        "/sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count",
        "> 0",
    )
    .about(pids)
    .fires()
}

rule! {
    /// Short windows are noise (a tick is 10 ms), so the share is over ten seconds; the worst CPU counts of those where a ring thread
    /// may run, since it sits on one.
    STEAL = "steal", Warn, "the hypervisor takes CPU time away";
    fires: "steal above 1 % of a CPU over 10 s; crit above 5 %";
    quiet: "short bursts; CPUs where no ring thread may run";
    fix: "another host or instance type; nothing inside the VM helps";
    explains: ["tail-spread", "run-delay", "outlier-client"];
    onset: State;
    looks_back_s: 10;
    check: Host(steal);
}

fn steal(ctx: &Context<'_>) -> Answer {
    if ctx.sample.host.cpus.is_empty() {
        return Err(no_cpu(ctx));
    }
    let then = ctx.ten_ago()?;
    let waiters = ctx.waiters();
    let mut worst: Option<(u32, f64)> = None;
    for c in &ctx.sample.host.cpus {
        if !waiters.iter().any(|w| may_run_on(w, c.cpu)) {
            continue;
        }
        let share = steal_of(then, ctx.sample, c.cpu)?;
        if worst.is_none_or(|(_, w)| share > w) {
            worst = Some((c.cpu, share));
        }
    }
    let Some((cpu, share)) = worst.filter(|(_, s)| *s > 0.01) else {
        return QUIET;
    };
    let severity = if share > 0.05 {
        Severity::Crit
    } else {
        Severity::Warn
    };
    let on_it = waiters.iter().filter(|w| may_run_on(w, cpu));
    Fire::new(
        format!(
            "the hypervisor took {:.1} % of CPU {cpu} over the last 10 s",
            share * 100.0
        ),
        "ask the provider for a less busy host or dedicated CPUs; inside the VM nothing helps",
    )
    .at(severity)
    .number(
        "steal",
        share * 100.0,
        "%",
        format!("/proc/stat cpu{cpu} steal"),
        "> 1",
    )
    .about(on_it.map(|w| w.endpoint.pid))
    .fires()
}

/// Whether a ring thread may run on this CPU, as far as that is known.
fn may_run_on(w: &Waiter<'_>, cpu: u32) -> bool {
    let allowed = w.thread.and_then(|t| t.allowed_cpus.as_ref().ok());
    allowed.is_none_or(|cpus| cpus.contains(&cpu))
}

fn steal_of(before: &Sample, now: &Sample, cpu: u32) -> Reading<f64> {
    let find = |s: &Sample| {
        s.host
            .cpus
            .iter()
            .find(|c| c.cpu == cpu)
            .map(|c| c.jiffies)
            .ok_or_else(|| Why::gap("a CPU went on- or offline"))
    };
    let (a, b) = (find(before)?, find(now)?);
    crate::rate::ratio(
        delta(a.steal, b.steal)?,
        delta(a.total(), b.total())?,
        "no tick passed",
    )
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
