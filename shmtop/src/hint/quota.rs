//! Rules about CPU quotas: what one does, and what it may.

use std::collections::BTreeSet;

use super::context::Waiter;
use super::fix::WAIT_WELL;
use super::groups::more_cpus;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Endpoint, Severity};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[CFS_THROTTLED, QUOTA_BELOW_SPINNERS];

/// Run delay below which a thread was stopped by nothing: a single stop of a period's rest is more.
const NO_DELAY: f64 = 0.001;
/// What a thread may wait for its core each time that it is woken, in seconds, though the core is free.
const PER_WAKE: f64 = 5e-6;

rule! {
    /// The quota stops every thread of the group for the rest of the period: a stall of tens of milliseconds that looks like
    /// a slow peer. Own group and parents count; other groups don't. Where no ring thread waited for a core, as threads that are stopped do
    /// by the kernel's count, the quota was used up by others of the group beside the rings: info. That count has a few microseconds of each wake-up as well;
    /// where those may be more than half of what the stops were, nobody can tell: warn. Time that was stopped is summed over CPUs: how long each stood still
    /// is known in the mean over all of them only, and may be more.
    CFS_THROTTLED = "cfs-throttled", Crit, "a CPU quota stops the process";
    fires: "stopped in more than 1 % of the periods; info if each ring thread of the process waited for a core no more than 0.1 % of the time and 5 us each time it was woken; warn if that is more than half of the time that a CPU was stopped in the mean";
    quiet: "no quota, or it was not reached";
    fix: "raise the quota to what it would have used, where it is kept (cpu.max, CPUQuota= of a unit, the container's own), or use less CPU";
    explains: ["run-delay", "quota-below-spinners", "oversubscribed", "tail-spread", "outlier-client", "preempted-spinner"];
    check: Endpoint(cfs_throttled);
}

fn cfs_throttled(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let (new, old) = (ctx.process(e.pid)?, ctx.old_process(e.pid)?);
    let groups = new.cgroups.cpu.as_reading()?;
    let before = old.cgroups.cpu.as_reading()?;
    for g in groups {
        let Some(o) = before.iter().find(|o| o.path == g.path) else {
            continue;
        };
        let Some(quota) = g.quota_cpus() else {
            continue;
        };
        let periods = crate::rate::delta(o.periods.get()?, g.periods.get()?)?;
        let stopped = crate::rate::delta(o.throttled.get()?, g.throttled.get()?)?;
        if periods == 0 || stopped as f64 <= 0.01 * periods as f64 {
            continue;
        }
        let lost = g
            .throttled_ns
            .get()
            .and_then(|n| crate::rate::delta(o.throttled_ns.get()?, n))
            .ok();
        // Summed over CPUs, of which all may stand still at once, or one. Where this is the process's own group, on those of its cpuset only: a parent's
        // other groups may run elsewhere. Its own is that of its memory, too; in v1 no path says so.
        let own = new.cgroups.memory.known().and_then(|groups| groups.first());
        let allowed = match own.is_some_and(|own| own.path == g.path) {
            true => new.cgroups.cpuset.known(),
            false => None,
        };
        let may_stop = |cpu: &u32| allowed.is_none_or(|set| set.contains(cpu));
        let online = ctx.model.host.cpus.iter().map(|cpu| cpu.id);
        let cpus = Some(online.filter(may_stop).count()).filter(|n| *n > 0);
        let period_ns = g.period_us.get().unwrap_or(u64::MAX).saturating_mul(1000);
        let mean = lost.map_or(String::new(), |ns| {
            let stop_ns = (ns / stopped.max(1)).min(period_ns);
            let up_to = if cpus == Some(1) { "" } else { "up to " };
            format!("; mean stop {up_to}{}", text::ns(stop_ns))
        });
        let stood_still = lost.zip(cpus).zip(ctx.seconds().ok());
        let stood_still = stood_still.map_or(0.0, |((ns, cpus), seconds)| {
            ns as f64 / cpus as f64 / 1e9 / seconds
        });
        let waiters = ctx.waiters_of(e);
        let severity = waiters.iter().map(|w| how_stopped(w, stood_still)).max();
        let severity = severity.unwrap_or(Severity::Crit);
        return Fire::new(
            format!("the quota of {quota:.2} CPUs stopped {} (pid {}) in {stopped} of {periods} periods{mean}", e.name, e.pid),
            more_cpus(ctx, e, g, enough(quota, lost, ctx)).alone(),
        )
        .number("periods stopped", stopped as f64, "", format!("{}/cpu.stat nr_throttled", g.path), format!("> {:.1}", 0.01 * periods as f64))
        .number("periods", periods as f64, "", format!("{}/cpu.stat nr_periods", g.path), "")
        .number("quota", quota, "CPUs", g.path.clone(), "")
        .at(severity)
        .fires();
    }
    QUIET
}

/// Whether a ring thread was among the stopped, where each CPU stood still for this share of the time in the mean: on one of those that did it waited for
/// its core as long at least. What it waits each time that it is woken may be as much or more, and hide that.
fn how_stopped(w: &Waiter<'_>, stood_still: f64) -> Severity {
    let woken = w.thread.and_then(|t| t.voluntary_per_s.clone().ok());
    let healthy = NO_DELAY + PER_WAKE * woken.unwrap_or(0.0);
    match w.run_delay() {
        Some(delay) if delay <= NO_DELAY => Severity::Info,
        Some(delay) if delay <= healthy && delay <= 0.5 * stood_still => Severity::Info,
        Some(delay) if delay <= healthy => Severity::Warn,
        _ => Severity::Crit,
    }
}

/// CPUs that would have been enough: what it had and what it was kept from, more than it has now, and at most twice as many: time kept from
/// it is summed over CPUs, and spinners would take each one that they are given. Without the quota it could take the whole machine, which
/// somebody had a reason not to let it.
fn enough(quota: f64, lost_ns: Option<u64>, ctx: &Context<'_>) -> u64 {
    let lost = lost_ns.zip(ctx.seconds().ok());
    let lost = lost.map_or(quota, |(ns, seconds)| ns as f64 / 1e9 / seconds);
    let wanted = (quota + lost.min(quota)).ceil();
    wanted.max(quota.floor() + 1.0) as u64
}

rule! {
    /// Before the quota bites it can be seen that it may: each spinner may use a whole CPU. One that is adaptive spins no more than pays,
    /// so it counts with what it does spin. As long as all together spin and yield for less than the quota that is no more than a setting: info. A quota is
    /// shared by all processes of its group.
    QUOTA_BELOW_SPINNERS = "quota-below-spinners", Warn, "the CPU quota is smaller than the number of spinning threads";
    fires: "quota in CPUs below the time that threads of its group with a spin share above 20 % spin and yield; info where it is below their number, and an adaptive one counts with its share";
    quiet: "no quota, or waiters park";
    fix: "raise the quota or lower the spin";
    explains: ["run-delay"];
    check: Endpoint(quota_below_spinners);
}

fn quota_below_spinners(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let quota = e.limits.cpu_quota.clone()?;
    let groups = ctx.process(e.pid)?.cgroups.cpu.as_reading()?;
    let tightest = groups.iter().find(|g| g.quota_cpus() == Some(quota));
    let own = ctx.spinning().iter().filter(|s| s.pid == e.pid).count();
    let Some(group) = tightest.filter(|_| own > 0) else {
        return QUIET;
    };
    let in_group = |pid| {
        let groups = ctx.process(pid).ok().and_then(|p| p.cgroups.cpu.known());
        groups.is_some_and(|all| all.iter().any(|g| g.path == group.path))
    };
    let all = ctx.spinning().iter().filter(|s| in_group(s.pid));
    let (mut spinners, mut may_take, mut take) = (0u64, 0.0f64, 0.0f64);
    let mut cpus: BTreeSet<u32> = BTreeSet::new();
    for s in all {
        spinners += 1;
        may_take += s.may_take;
        take += s.takes;
        cpus.extend(&s.cpus);
    }
    // Threads that yield to each other take no more than the CPUs they share.
    let take = f64::min(take, cpus.len() as f64);
    let severity = match take > quota {
        true => Severity::Warn,
        false => Severity::Info,
    };
    if take.max(may_take) <= quota {
        return QUIET;
    }
    let others = match spinners.saturating_sub(own as u64) {
        0 => String::new(),
        n => format!(", its group {n} more,"),
    };
    Fire::new(
        format!(
            "{} (pid {}) has {own} spinning thread(s){others} and a quota of {quota:.2} CPUs",
            e.name, e.pid
        ),
        more_cpus(ctx, e, group, spinners).or(WAIT_WELL),
    )
    .at(severity)
    .number(
        "spinning threads",
        spinners as f64,
        "",
        "stats page: spin_ns",
        format!("> {quota:.2}"),
    )
    .number(
        "they spin and yield",
        take,
        "CPUs",
        "stats page: spin_ns, yield_ns",
        format!("> {quota:.2}"),
    )
    .number("quota", quota, "CPUs", "cgroup cpu.max", "")
    .fires()
}
