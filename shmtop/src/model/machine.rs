//! The builder's part for the machine, processes, threads and their limits.

use transport::stats::Snapshot;

use super::counters::CountersView;
use super::host::{CpuView, HostView, LimitsView, ProcessView, ThreadView};
use super::join::Pair;
use super::shared::Shared;
use crate::rate::{Span, delta, ratio};
use crate::reading::{Reading, Why};
use crate::sample::{Cpu, Fact, Perf, Process, Sample, Thread};
use crate::text;

/// The reason for every rate of a first sample.
pub(super) fn first() -> Why {
    Why::not_yet("needs a second sample")
}

/// Descriptors that a handshake holds for a moment besides those that the client keeps.
pub(crate) const HANDED_OVER: u64 = 1;

/// Clients that get shared memory with so many free descriptors, one after the other.
pub(crate) fn room_for_clients(free: u64, each: u64) -> u64 {
    free.saturating_sub(HANDED_OVER) / each.max(1)
}

/// The machine.
pub(super) fn host(pair: &Pair<'_>) -> HostView {
    let h = &pair.now.host;
    let memory = h.memory.get();
    HostView {
        name: h.hostname.as_reading().map(|n| text::clean(n)),
        kernel: h.kernel.as_reading().map(|n| text::clean(n)),
        cpus: h.cpus.iter().map(|c| cpu(pair.before, c)).collect(),
        hypervisor: h.hypervisor.get(),
        load: h.load.get().map(|l| [l.one, l.five, l.fifteen]),
        pressure: ["cpu", "memory", "io"].map(|resource| {
            let found = h.pressure.get(resource);
            let found = found.ok_or_else(|| Why::not_there("this kernel measures no pressure"))?;
            Ok(found.as_reading()?.some.avg10 / 100.0)
        }),
        clocksource: h.clocksource.as_reading().map(|n| text::clean(n)),
        clock_cost_ns: h.clock_gettime_ns.get(),
        memory_total_bytes: memory.clone().map(|m| m.total_bytes),
        memory_available_bytes: memory.map(|m| m.available_bytes),
        files: h.file_nr.get().map(|f| (f.used, f.max)),
        shmmax_bytes: h.shmmax_bytes.get(),
        dev_shm_bytes: h.dev_shm.get().map(|f| (f.used_bytes, f.size_bytes)),
        perf_paranoid: h.perf_event_paranoid.get().map(i64::from),
        hardware_counters: hardware(pair.now),
        numa_nodes: h.numa_nodes.get(),
    }
}

/// Whether any thread has hardware counters; else the first reason.
fn hardware(now: &Sample) -> Reading<()> {
    if now.perf.iter().any(|p| p.hardware.counting().is_some()) {
        return Ok(());
    }
    Err(match now.perf.first().map(|p| &p.hardware) {
        None => Why::not_yet("no thread to count on"),
        Some(Perf::Denied(why)) => Why::no_permission(why.clone()),
        Some(other) => Why::not_there(other.why().unwrap_or("no counters").to_owned()),
    })
}

fn cpu(before: Option<&Sample>, now: &Cpu) -> CpuView {
    let old = before
        .and_then(|b| b.host.cpus.iter().find(|c| c.cpu == now.cpu))
        .ok_or_else(first);
    let share = |f: fn(&Cpu) -> u64| -> Reading<f64> {
        let old = old.clone()?;
        let total = delta(old.jiffies.total(), now.jiffies.total())?;
        ratio(
            delta(f(old), f(now))?,
            total,
            "the interval is shorter than a clock tick",
        )
    };
    let idle = share(|c| c.jiffies.idle.saturating_add(c.jiffies.iowait));
    CpuView {
        id: now.cpu,
        siblings: now.siblings.as_reading().cloned(),
        llc: now.llc.get(),
        node: now.node.get(),
        busy: idle.map(|i| 1.0 - i),
        steal: share(|c| c.jiffies.steal),
        frequency_khz: now
            .frequency
            .current_khz
            .get()
            .and_then(|c| Ok((c, now.frequency.max_khz.get()?))),
        governor: now.frequency.governor.as_reading().cloned(),
        thermal_throttles: now.core_throttle_count.get(),
    }
}

/// A process, or why nothing is known of it.
pub(super) fn process(pair: &Pair<'_>, pid: u32) -> ProcessView {
    let Some((now, before)) = pair.process(pid) else {
        return nobody();
    };
    let span = before
        .ok_or_else(first)
        .and_then(|b| Span::between(b.at_ns, now.at_ns));
    let rate = |f: fn(&Process) -> &Fact<u64>| -> Reading<f64> {
        let b = before.ok_or_else(first)?;
        span.clone()?.per_second(f(b).get()?, f(now).get()?)
    };
    let threads: Vec<Shared<ThreadView>> = now
        .threads
        .iter()
        .map(|t| {
            thread(
                pair.now.host.ticks_per_second,
                before.and_then(|b| b.thread(t.tid)),
                t,
            )
            .into()
        })
        .collect();
    let known: Vec<f64> = threads.iter().filter_map(|t| t.cpu.clone().ok()).collect();
    let cpu = if known.is_empty() {
        Err(threads
            .first()
            .and_then(|t| t.cpu.clone().err())
            .unwrap_or_else(first))
    } else {
        Ok(known.iter().sum())
    };
    ProcessView {
        state: now.state.get(),
        cpu,
        system_share: system_share(before, now),
        rss_bytes: now.memory.get().map(|m| m.rss_bytes),
        minor_faults_per_s: rate(|p| &p.minor_faults),
        major_faults_per_s: rate(|p| &p.major_faults),
        threads: if threads.is_empty() {
            Err(Why::no_permission("no thread of the process can be read"))
        } else {
            Ok(threads)
        },
    }
}

fn nobody() -> ProcessView {
    fn no<T>() -> Reading<T> {
        Err(Why::not_there("the process was not looked at"))
    }
    ProcessView {
        state: no(),
        cpu: no(),
        system_share: no(),
        rss_bytes: no(),
        minor_faults_per_s: no(),
        major_faults_per_s: no(),
        threads: no(),
    }
}

/// System time as a share of all CPU time of the threads that can be compared.
fn system_share(before: Option<&Process>, now: &Process) -> Reading<f64> {
    let before = before.ok_or_else(first)?;
    let (mut user, mut system) = (0u64, 0u64);
    for t in &now.threads {
        let Some(old) = before.thread(t.tid) else {
            continue;
        };
        user = user.saturating_add(delta(old.utime_ticks.get()?, t.utime_ticks.get()?)?);
        system = system.saturating_add(delta(old.stime_ticks.get()?, t.stime_ticks.get()?)?);
    }
    ratio(
        system,
        user.saturating_add(system),
        "used less CPU than a clock tick",
    )
}

/// A thread and its rates.
pub(super) fn thread(ticks_per_second: u64, before: Option<&Thread>, now: &Thread) -> ThreadView {
    let span = before
        .ok_or_else(first)
        .and_then(|b| Span::between(b.at_ns, now.at_ns));
    let slow = before
        .ok_or_else(first)
        .and_then(|b| Span::between(b.facts_at_ns, now.facts_at_ns));
    let share = |f: fn(&Thread) -> &Fact<u64>| -> Reading<f64> {
        let b = before.ok_or_else(first)?;
        span.clone()?.share(f(b).get()?, f(now).get()?)
    };
    let rate = |f: fn(&Thread) -> &Fact<u64>| -> Reading<f64> {
        let b = before.ok_or_else(first)?;
        slow.clone()?.per_second(f(b).get()?, f(now).get()?)
    };
    let by_ticks = || -> Reading<f64> {
        let b = before.ok_or_else(first)?;
        let ticks =
            |t: &Thread| Ok::<u64, Why>(t.utime_ticks.get()?.saturating_add(t.stime_ticks.get()?));
        let ns = 1_000_000_000 / ticks_per_second.max(1);
        span.clone()?
            .share(ticks(b)?.saturating_mul(ns), ticks(now)?.saturating_mul(ns))
    };
    let faults = || -> Reading<f64> {
        let b = before.ok_or_else(first)?;
        let sum = |t: &Thread| Ok(t.minor_faults.get()?.saturating_add(t.major_faults.get()?));
        span.clone()?.per_second(sum(b)?, sum(now)?)
    };
    ThreadView {
        tid: now.tid,
        comm: text::clean(&now.comm),
        state: now.state.get(),
        cpu: share(|t| &t.run_ns).or_else(|_| by_ticks()),
        run_delay: share(|t| &t.wait_ns),
        voluntary_per_s: rate(|t| &t.voluntary_switches),
        involuntary_per_s: rate(|t| &t.involuntary_switches),
        migrations_per_s: rate(|t| &t.migrations),
        faults_per_s: faults(),
        counters: CountersView::none(&Why::not_applicable(
            "counted only on threads that own a slot",
        )),
        last_cpu: now.last_cpu.get(),
        allowed_cpus: now.allowed_cpus.as_reading().cloned(),
        policy: now.policy.get(),
        nice: now.nice.get(),
        wchan: now.wchan.as_reading().map(|w| text::clean(w)),
    }
}

/// What bounds a process, and how many more clients fit in.
pub(super) fn limits(pair: &Pair<'_>, pid: u32, snapshot: &Snapshot) -> LimitsView {
    fn no<T>() -> Reading<T> {
        Err(Why::not_there("the process was not looked at"))
    }
    let Some((now, before)) = pair.process(pid) else {
        return LimitsView {
            fds_used: no(),
            fds_beyond: 0,
            fds_soft: no(),
            fds_hard: no(),
            room_fds: no(),
            room_memory: no(),
            memory_max_bytes: no(),
            memory_current_bytes: no(),
            memory_group: no(),
            cpu_quota: no(),
            throttled: no(),
            memlock_bytes: no(),
            fsize_bytes: no(),
            as_bytes: no(),
        };
    };
    let limits = now.limits.get();
    let bound = |value: Reading<Option<u64>>| {
        value.and_then(|v| v.ok_or_else(|| Why::not_applicable("unlimited")))
    };
    let soft = bound(limits.clone().map(|l| l.nofile.soft));
    let room_fds = || {
        let each = snapshot.process.fds_per_client;
        if each == 0 {
            return Err(Why::not_applicable("not a server"));
        }
        let free = soft.clone()?.saturating_sub(now.fds_below_limit()?);
        Ok(room_for_clients(free, each))
    };
    let no_limit = || Why::not_applicable("no memory limit is set");
    let group = now
        .cgroups
        .memory
        .as_reading()
        .and_then(|_| now.cgroups.tightest_memory().ok_or_else(no_limit));
    let room_memory = || {
        let each = snapshot.process.ring_bytes;
        if each == 0 {
            return Err(Why::not_applicable("not a server"));
        }
        Ok(group.clone()?.headroom_bytes().ok_or_else(no_limit)? / each)
    };
    LimitsView {
        fds_used: now.fds_below_limit(),
        fds_beyond: now.fds_beyond.known().copied().unwrap_or(0),
        room_fds: room_fds(),
        fds_soft: soft,
        fds_hard: bound(limits.clone().map(|l| l.nofile.hard)),
        room_memory: room_memory(),
        memory_max_bytes: group
            .clone()
            .and_then(|g| g.limit_bytes.get()?.ok_or_else(no_limit)),
        memory_current_bytes: group.and_then(|g| {
            let usage = g.usage_bytes.get()?;
            Ok(g.needed_bytes().unwrap_or(usage))
        }),
        memory_group: now.cgroups.memory.as_reading().and_then(|groups| {
            let own = groups.first().map(|g| text::clean(&g.path));
            own.ok_or_else(|| Why::not_applicable("in no memory cgroup"))
        }),
        cpu_quota: now.cgroups.cpu.as_reading().and_then(|_| {
            now.cgroups
                .quota_cpus()
                .ok_or_else(|| Why::not_applicable("no CPU quota is set"))
        }),
        throttled: throttled(before, now),
        memlock_bytes: bound(limits.clone().map(|l| l.memlock.soft)),
        fsize_bytes: bound(limits.clone().map(|l| l.fsize.soft)),
        as_bytes: bound(limits.map(|l| l.address_space.soft)),
    }
}

/// Largest share of periods, own group or parent, in which a quota stopped the process.
fn throttled(before: Option<&Process>, now: &Process) -> Reading<f64> {
    let before = before.ok_or_else(first)?;
    let (old, new) = (
        before.cgroups.cpu.as_reading()?,
        now.cgroups.cpu.as_reading()?,
    );
    let mut worst: Option<f64> = None;
    for g in new {
        let Some(o) = old.iter().find(|o| o.path == g.path) else {
            continue;
        };
        if g.quota_us.known().copied().flatten().is_none() {
            continue;
        }
        let periods = delta(o.periods.get()?, g.periods.get()?)?;
        if let Ok(share) = ratio(delta(o.throttled.get()?, g.throttled.get()?)?, periods, "") {
            worst = Some(worst.map_or(share, |w| w.max(share)));
        }
    }
    worst.ok_or_else(|| Why::not_applicable("no CPU quota is set, or no period passed"))
}
