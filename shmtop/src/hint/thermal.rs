//! The rule about the heat limit of CPUs, and which of its events are not over.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{TEN_NS, Waiter};
use super::cpu::{ghz, slow};
use super::{Answer, Context, Fire, rule};
use crate::model::Severity;
use crate::rate::delta;
use crate::reading::Reading;
use crate::sample::{Cpu, Fact, Host};
use crate::text;

rule! {
    /// What the kernel's thermal_throttle files counted over ten seconds, of the CPUs where a ring thread may run; a package that is hot slows all its
    /// cores. Both hardware threads of a core count its events: they are counted once. A limit that is touched for a moment is how a chip with
    /// turbo stays below it: what counts is for how long it was slowed, which kernels say since 5.5, once it is over: one that has no length yet may
    /// still last. It does as long as a busy CPU that was fast before it has been slow ever since, and goes on being told. Where they don't say, as many events
    /// of one core as seconds are a CPU that is kept at its limit.
    THERMAL = "thermal", Warn, "the heat limit slows the CPUs";
    fires: "thermal_throttle counts grew within 10 s; info if a core or package was slowed for no more than 1 % of that or, where that is not known, each fewer than 10 times; or one whose length was not counted yet began earlier, and a CPU that a ring thread keeps more than 90 % busy has been slow since, not before";
    quiet: "they did not, or only of CPUs where no ring thread may run";
    fix: "cooling, or less load";
    explains: ["cpu-freq-low", "tail-spread"];
    onset: State;
    looks_back_s: 10;
    check: Host(thermal);
}

/// What to do.
const COOL: &str = "sensors   # then see to the cooling, or run less on this machine";
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

    /// What came to a CPU's core, and to its package.
    fn of(old: &Cpu, new: &Cpu) -> Reading<[Self; 2]> {
        let core = Self::grown(
            [&old.core_throttle_count, &new.core_throttle_count],
            [&old.core_throttle_ms, &new.core_throttle_ms],
        )?;
        let package = Self::grown(
            [&old.package_throttle_count, &new.package_throttle_count],
            [&old.package_throttle_ms, &new.package_throttle_ms],
        )?;
        Ok([core, package])
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
        let [here, there] = Heat::of(o, c)?;
        let first = c.siblings.known().and_then(|all| all.iter().min());
        let core = cores.entry(*first.unwrap_or(&c.cpu)).or_default();
        *core = core.or(here);
        package = package.or(there);
        if !here.is_cool() || !there.is_cool() {
            hot.push(c.cpu);
        }
    }
    if hot.is_empty() {
        return Ok(waiters.iter().find_map(|w| held(ctx, w)));
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
    let fire = Fire::new(format!("{says}{how_long}"), COOL)
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

/// A busy CPU that is slow since an event that is older than the look back.
fn held(ctx: &Context<'_>, w: &Waiter<'_>) -> Option<Fire> {
    let t = w.thread?;
    let id = *t.last_cpu.as_ref().ok()?;
    let since_ns = *ctx.heat.since_ns.get(&id)?;
    let held_ns = ctx.sample.host.at_ns.saturating_sub(since_ns);
    let cpu = ctx.sample.host.cpus.iter().find(|c| c.cpu == id)?;
    let (khz, max) = slow(cpu)?;
    let is_busy = t.cpu.as_ref().is_ok_and(|cpu| *cpu > 0.9);
    let fire = Fire::new(
        format!(
            "the heat limit has slowed CPU {id} for {} and does so still: it runs at {:.1} of {:.1} GHz",
            text::ns(held_ns),
            ghz(khz),
            ghz(max)
        ),
        COOL,
    )
    .number(
        "slowed for",
        held_ns as f64,
        "ns",
        format!("/sys/devices/system/cpu/cpu{id}/thermal_throttle/*_throttle_count, without a *_total_time_ms"),
        format!(">= {TEN_NS}"),
    )
    .about([w.endpoint.pid]);
    (is_busy && held_ns >= TEN_NS).then_some(fire)
}

/// Events of the heat limit that began while we looked, and that the kernel has not counted the length of: by CPU, since when (CLOCK_MONOTONIC ns). It
/// counts none of a spike, so one is over as well when its CPU is fast again. A CPU that was slow before it, by its governor say, is not slow by the heat
/// limit: a package's event is counted on all of its CPUs.
#[derive(Default)]
pub(super) struct Unfinished {
    since_ns: BTreeMap<u32, u64>,
}

impl Unfinished {
    /// Takes in what happened between two samples.
    pub(super) fn note(&mut self, before: &Host, now: &Host) {
        self.since_ns
            .retain(|id, _| now.cpus.iter().any(|c| c.cpu == *id));
        for c in &now.cpus {
            let at = before.cpus.binary_search_by_key(&c.cpu, |o| o.cpu);
            let Some(old) = at.ok().map(|at| &before.cpus[at]) else {
                continue;
            };
            let Ok(heat) = Heat::of(old, c) else { continue };
            let is_over = heat.iter().any(|h| h.slowed_ms.is_some_and(|ms| ms > 0));
            let begins = heat.iter().any(|h| h.events > 0 && h.slowed_ms == Some(0));
            if is_over || !begins && slow(c).is_none() {
                self.since_ns.remove(&c.cpu);
            } else if begins && slow(old).is_none() {
                self.since_ns.entry(c.cpu).or_insert(now.at_ns);
            }
        }
    }
}
