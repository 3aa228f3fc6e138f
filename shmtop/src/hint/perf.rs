//! Rules about what a message costs the caches, and why that may be unknown.

use super::fix::{USER_SPACE, on_host, perf, sudo, sysctl};
use super::ring::client_pid;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, Severity, Shared};
use crate::reading::{Reading, Why};
use crate::sample::Perf;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[CACHE_MISSES, NO_PMU, PERF_DENIED];

rule! {
    /// Expected are about 4 misses per message for the shared lines (index, header, wake word) and two per 64 bytes of payload,
    /// written by one core and read by another. Three times that means something else throws the lines out: false sharing, a
    /// footprint beyond the cache. Below 1000 msg/s the caches are cold anyway, and a counter that ran less than 90 % of the
    /// time was scaled. The counter is the thread's, so a thread that does not spend most of its CPU time waiting may miss in code of
    /// its own: info. Of an ARM CPU the kernel counts what its first cache lacks, which is no such number: unknown.
    CACHE_MISSES = "cache-misses", Warn, "far more cache misses per message than the copies need";
    fires: "misses per message above 3 × (4 + 2·⌈bytes/64⌉); info where the thread waits for less than half of its CPU time";
    quiet: "fewer than 1000 messages per second, or the counter ran less than 90 % of the time";
    fix: "perf c2c record -p PID";
    check: Client(cache_misses);
}

fn cache_misses(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    // Without a message there are no misses per message: first of all the rate.
    if c.requests_per_s.clone()? < 1000.0 {
        return QUIET;
    }
    let misses = c.perf.cache_misses_per_message.clone()?;
    let machine = ctx.sample.host.machine.known();
    if machine.is_some_and(|m| ["aarch64", "arm"].iter().any(|arm| m.starts_with(arm))) {
        return Err(Why::not_there(
            "cache-misses of an ARM CPU are refills of its first cache: how many of those are too many is not known",
        ));
    }
    if c.perf.counted_share.clone()? < 0.9 {
        return QUIET;
    }
    let size = c.tx.mean_bytes.clone()?.max(c.rx.mean_bytes.clone()?);
    let expected = 4.0 + 2.0 * (size / 64.0).ceil();
    if misses <= 3.0 * expected {
        return QUIET;
    }
    let pid = client_pid(e, c);
    let perf = perf(ctx, pid);
    let waits = waits(e, c);
    let (of_whom, severity) = match waits >= 0.5 {
        true => ("", Severity::Warn),
        false => ("; they may be of code of its own", Severity::Info),
    };
    Fire::new(
        format!("client {} (pid {pid}): {misses:.0} cache misses per message, about {expected:.0} expected for {}{of_whom}", c.number, text::bytes(size as u64)),
        format!("{perf} c2c record -p {pid} -- sleep 5 && {perf} c2c report"),
    )
    .number("misses per message", misses, "", "perf_event: cache-misses", format!("> {:.0}", 3.0 * expected))
    .at(severity)
    .number("its CPU time spent waiting", waits * 100.0, "%", "stats page: spin_ns, yield_ns", "")
    .number("mean payload", size, "bytes", "stats page: tx_bytes / tx_messages", "")
    .fires()
}

/// The share of its CPU time that a client's thread spins or yields (0..=1), for all connections that it waits on; 0 where that is not known.
pub(super) fn waits(e: &Endpoint, c: &Client) -> f64 {
    let Ok(thread) = &c.thread else {
        return 0.0;
    };
    let share = |r: &Reading<f64>| r.as_ref().map_or(0.0, |share| *share);
    let of_thread = |o: &&Shared<Client>| matches!(&o.thread, Ok(t) if t.tid == thread.tid);
    let waits = e
        .clients
        .iter()
        .filter(of_thread)
        .filter_map(|o| o.wait.as_ref().ok());
    let waiting: f64 = waits
        .map(|w| share(&w.spin_share) + share(&w.yield_share))
        .sum();
    match thread.cpu {
        Ok(cpu) if cpu > 0.0 => (waiting / cpu).min(1.0),
        _ => 0.0,
    }
}

/// Of the threads whose hardware counters can't be had for the wanted kind of reason: the first reason, and their processes.
fn perf_reason(
    ctx: &Context<'_>,
    wanted: fn(&Perf<crate::sample::HardwareCounters>) -> Option<&str>,
) -> Reading<Option<(String, Vec<u32>)>> {
    if ctx.sample.perf.is_empty() {
        return Err(Why::not_applicable("no thread to count on"));
    }
    let threads = ctx.sample.perf.iter();
    let mut found = threads.filter_map(|p| Some((wanted(&p.hardware)?, p.pid)));
    Ok(found.next().map(|(why, first)| {
        let pids = std::iter::once(first).chain(found.map(|(_, pid)| pid));
        (text::clean(why), pids.collect())
    }))
}

rule! {
    /// Most virtual machines have no PMU. Software events (context switches, faults, CPU time) are still shown; only what a
    /// message costs the caches can't be said.
    NO_PMU = "no-pmu", Info, "no hardware counters";
    fires: "perf_event_open says ENOENT or EOPNOTSUPP";
    quiet: "counters can be opened, or they are forbidden (perf-denied)";
    fix: "of a virtual machine: a type with a virtual PMU, or the bare machine";
    check: Host(no_pmu);
}

fn no_pmu(ctx: &Context<'_>) -> Answer {
    let found = perf_reason(ctx, |p| match p {
        Perf::NoPmu(why) => Some(why),
        _ => None,
    })?;
    let (because, fix) = match ctx.model.host.hypervisor {
        Ok(true) => (
            "the hypervisor hides them",
            "run on a machine with a PMU; on QEMU/KVM start the guest with -cpu host,pmu=on"
                .to_owned(),
        ),
        _ => (
            "this machine does not count",
            format!(
                "{}dmesg | grep -iE 'pmu|perf'   # what the kernel found; the firmware may have it switched off",
                sudo(ctx)
            ),
        ),
    };
    Ok(found.map(|(why, pids)| {
        Fire::new(
            format!("no hardware counters: {because}; cache misses per message can't be shown, software events still are"),
            fix,
        )
        .state("perf_event_open", why, "perf_event_open(cycles, cache-misses)")
        .about(pids)
    }))
}

rule! {
    /// The counters exist but this user may not open them. They count user space alone, which perf_event_paranoid allows up to 2; where it is no
    /// higher, the process is another user's or a sandbox has its own mind. The sysctl would lower the barrier for everybody, the capability
    /// only for shmtop.
    PERF_DENIED = "perf-denied", Info, "hardware counters are not allowed";
    fires: "perf_event_open says EACCES or EPERM";
    quiet: "ENOENT (no-pmu)";
    fix: "sudo setcap cap_perfmon+ep shmtop, or sudo sysctl kernel.perf_event_paranoid=2";
    check: Host(perf_denied);
}

fn let_shmtop_count(ctx: &Context<'_>) -> String {
    let path = ctx.sample.viewer.program.as_str();
    // Another program that shows the dashboard (the demo) may be those that are watched as well, and with a capability of their own
    // shmtop could not read them any more.
    let program = match path.rsplit('/').next() {
        Some("shmtop") => text::shell(path),
        _ => "\"$(command -v shmtop)\"".into(),
    };
    let setting = format!("kernel.perf_event_paranoid={USER_SPACE}");
    if !on_host(ctx).is_empty() {
        // A program with a capability that its container may not have can't be started at all.
        let or = "or let its container count: docker run --cap-add PERFMON";
        return sysctl(ctx, &setting, or);
    }
    if is_without_perfmon(ctx) {
        return sysctl(ctx, &setting, "CAP_PERFMON came with Linux 5.8");
    }
    format!(
        "{0}setcap cap_perfmon+ep {program}   # or, for everybody: {0}sysctl {setting}",
        sudo(ctx)
    )
}

/// Whether the kernel is from before there was such a capability.
fn is_without_perfmon(ctx: &Context<'_>) -> bool {
    let release = ctx.sample.host.kernel.known();
    let mut numbers = release.into_iter().flat_map(|r| r.split(['.', '-']));
    let mut number = || numbers.next().and_then(|n| n.parse::<u32>().ok());
    matches!((number(), number()), (Some(major), Some(minor)) if (major, minor) < (5, 8))
}

fn perf_denied(ctx: &Context<'_>) -> Answer {
    let found = perf_reason(ctx, |p| match p {
        Perf::Denied(why) => Some(why),
        _ => None,
    })?;
    let paranoid = ctx.model.host.perf_paranoid.clone();
    Ok(found.map(|(why, pids)| {
        let now = paranoid.as_ref().map_or("unknown".into(), i64::to_string);
        let (says, fix) = match &paranoid {
            Ok(level) if *level <= USER_SPACE => (
                format!("hardware counters are not allowed, and perf_event_paranoid is not why (now {now}): another user's process needs CAP_PERFMON, or a sandbox forbids them"),
                match sudo(ctx) {
                    "" => "allow the container of shmtop perf_event_open: docker run --cap-add PERFMON".into(),
                    sudo => format!("{sudo}shmtop   # in a container also allow it perf_event_open: docker run --cap-add PERFMON"),
                },
            ),
            _ => (
                format!("hardware counters need perf_event_paranoid ≤ {USER_SPACE} (now {now}) or CAP_PERFMON"),
                let_shmtop_count(ctx),
            ),
        };
        Fire::new(says, fix)
        .state(
            "perf_event_open",
            why,
            "perf_event_open(cycles, cache-misses)",
        )
        .state(
            "perf_event_paranoid",
            now,
            "/proc/sys/kernel/perf_event_paranoid",
        )
        .about(pids)
    }))
}
