//! Rules about the CPUs themselves: frequency, heat, the clock. What the hypervisor takes: `steal`.

use std::collections::{BTreeMap, BTreeSet};

use super::fix::{note, sudo};
use super::steal::STEAL;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::Severity;
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::sample::Fact;
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
    /// What the kernel's thermal_throttle files counted over ten seconds, of the CPUs where a ring thread may run; a package that is hot slows all its
    /// cores. Both hardware threads of a core count its events: they are counted once. A limit that is touched for a moment is how a chip with
    /// turbo stays below it: what counts is for how long it was slowed, which kernels say since 5.5, once it is over: one that has no length yet may
    /// still last, and cpu-freq-low sees what it does meanwhile. Where they don't say, as many events
    /// of one core as seconds are a CPU that is kept at its limit.
    THERMAL = "thermal", Warn, "the heat limit slows the CPUs";
    fires: "thermal_throttle counts grew within 10 s; info if a core or package was slowed for no more than 1 % of that or, where that is not known, each fewer than 10 times";
    quiet: "they did not, or only of CPUs where no ring thread may run";
    fix: "cooling, or less load";
    explains: ["cpu-freq-low", "tail-spread"];
    onset: State;
    looks_back_s: 10;
    check: Host(thermal);
}

/// Share of the time that a core is slowed, from which it is more than a touch.
const SLOWED: f64 = 0.01;
/// So many events in ten seconds are a CPU kept at its limit, if nothing says how long they were.
const KEPT_AT_LIMIT: u64 = 10;

/// What the heat limit did to a core, or to a package.
#[derive(Clone, Copy, Default)]
struct Heat {
    events: u64,
    /// `None` if no kernel says.
    slowed_ms: Option<u64>,
}

impl Heat {
    fn grown(count: [&Fact<u64>; 2], ms: [&Fact<u64>; 2]) -> Reading<Self> {
        let grown = |[old, new]: [&Fact<u64>; 2]| match (old.get(), new.get()) {
            (Ok(old), Ok(new)) => delta(old, new).map(Some),
            _ => Ok(None),
        };
        Ok(Self {
            events: grown(count)?.unwrap_or(0),
            slowed_ms: grown(ms)?,
        })
    }

    /// Of two that count the same, the one that says more.
    fn or(self, other: Self) -> Self {
        Self {
            events: self.events.max(other.events),
            slowed_ms: self.slowed_ms.max(other.slowed_ms),
        }
    }

    fn is_cool(self) -> bool {
        self.events == 0 && self.slowed_ms.unwrap_or(0) == 0
    }
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
            .unwrap_or_else(|| ctx.no_cpu()));
    }
    let then = ctx.ten_ago()?;
    let waiters = ctx.waiters();
    // By core: its hardware threads count the same events. Each CPU of a package says the same of it.
    let mut cores: BTreeMap<u32, Heat> = BTreeMap::new();
    let mut package = Heat::default();
    let mut hot = Vec::new();
    for c in &ctx.sample.host.cpus {
        let Some(o) = then.host.cpus.iter().find(|o| o.cpu == c.cpu) else {
            continue;
        };
        if !waiters.iter().any(|w| w.may_run_on(c.cpu)) {
            continue;
        }
        let here = Heat::grown(
            [&o.core_throttle_count, &c.core_throttle_count],
            [&o.core_throttle_ms, &c.core_throttle_ms],
        )?;
        let there = Heat::grown(
            [&o.package_throttle_count, &c.package_throttle_count],
            [&o.package_throttle_ms, &c.package_throttle_ms],
        )?;
        let first = c.siblings.known().and_then(|all| all.iter().min());
        let core = cores.entry(*first.unwrap_or(&c.cpu)).or_default();
        *core = core.or(here);
        package = package.or(there);
        if !here.is_cool() || !there.is_cool() {
            hot.push(c.cpu);
        }
    }
    if hot.is_empty() {
        return QUIET;
    }
    let hits = cores
        .values()
        .map(|c| c.events)
        .fold(0, u64::saturating_add);
    let slowed_ms = cores.values().map(|c| c.slowed_ms).max().flatten();
    let slowed_ms = slowed_ms.max(package.slowed_ms);
    let span_ns = ctx.sample.host.at_ns.saturating_sub(then.host.at_ns);
    let least_ms = SLOWED * span_ns as f64 / 1e6;
    let is_long = match slowed_ms {
        Some(ms) => ms as f64 > least_ms,
        None => {
            let most = cores.values().map(|c| c.events).max().unwrap_or(0);
            most.max(package.events) >= KEPT_AT_LIMIT
        }
    };
    let severity = match is_long {
        true => Severity::Warn,
        false => Severity::Info,
    };
    let says = match (hits, package.events) {
        (0, 0) => "the heat limit slowed the CPUs until now".to_owned(),
        (0, n) => format!("the heat limit of the package slowed all its CPUs {n}× in 10 s"),
        (n, _) => format!("the heat limit slowed the CPUs {n}× in 10 s"),
    };
    let how_long = match slowed_ms {
        Some(0) => ", and may do so still: the kernel says for how long when it is over".to_owned(),
        Some(ms) => format!(", for {}", text::ns(ms.saturating_mul(1_000_000))),
        None => String::new(),
    };
    let there = waiters
        .iter()
        .filter(|w| hot.iter().any(|cpu| w.may_run_on(*cpu)));
    let pids = there.map(|w| w.endpoint.pid).collect::<BTreeSet<_>>();
    let fire = Fire::new(
        format!("{says}{how_long}"),
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
        package.events as f64,
        "1/10 s",
        "/sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count",
        "> 0",
    );
    let fire = match slowed_ms {
        Some(ms) => fire.number(
            "slowed for",
            ms as f64,
            "ms",
            "/sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_total_time_ms",
            format!("> {least_ms:.0}"),
        ),
        None => fire,
    };
    fire.at(severity).about(pids).fires()
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
