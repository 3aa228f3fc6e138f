//! Rules about getting a core: run delay, preemption. What a quota does: `quota`.

use super::context::Waiter;
use super::fix::{idlest, move_thread, sudo, sudo_for};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Endpoint, Severity};
use crate::reading::Why;
use crate::sample::ThreadPolicy;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[RUN_DELAY, PREEMPTED_SPINNER];

/// A waiter that spins this share of wall time is a spinner.
pub(super) const SPINNER: f64 = 0.2;
/// Run delay from which it is an effect.
pub(super) const DELAY: f64 = 0.01;
/// CPUs' worth of time that outsiders must take before they are blamed for run delay.
pub(super) const OUTSIDERS: f64 = 0.35;
/// And their share of all busy time there.
pub(super) const OUTSIDERS_SHARE: f64 = 0.3;

rule! {
    /// With more runnable threads than CPUs every thread waits for a core, and that is no fault: it is a busy machine. What
    /// is worth a warning is time lost to *others*. So the delay is weighed by the share of the processes' time on the allowed
    /// CPUs that no watched thread can have used; interrupts and what the hypervisor took are no process's. Before others are
    /// blamed every doubt is taken off: threads that move about, come and go or can't be read, processes that ended within the
    /// second, peers that are not looked at, threads that were read at another moment while the load changed, and what the kernel
    /// accounted of a CPU's time too much or too little, if that is more than 5 %: it counts a CPU's time in ticks, a thread's by
    /// the clock. Where it depends on a doubt, nobody knows. Outsiders must take 0.35 CPUs and 30 % of that time. Without
    /// any, the two counts were measured to differ, before doubts, by less than 0.1 CPUs in 26 of 28 seconds and by 0.18 and 0.35
    /// (18 %) in the others, beside 16 processes with 16 requests in flight each on two CPUs; by 0.05 beside 100 clients that think for 10 ms.
    /// A thread that was told to let others go first (nice above 0, SCHED_BATCH or SCHED_IDLE) gets what was ordered: info.
    RUN_DELAY = "run-delay", Warn, "a ring thread waits for a core that others use";
    fires: "more than 1 % of wall time runnable without a core because of other processes, which take more than 0.35 CPUs and 30 % of the busy time there; info of a thread that was told to stand back";
    quiet: "the watched processes themselves keep the CPUs busy, or oversubscribed / cfs-throttled explains it";
    fix: "move the other work away (taskset, cpuset), or pin the thread to a free CPU";
    explains: ["preempted-spinner", "tail-spread", "outlier-client", "migrating"];
    once: true;
    check: Endpoint(run_delay);
}

/// A ring thread that waits for a core because of outsiders.
struct Delayed<'w> {
    waiter: &'w Waiter<'w>,
    cpus: Vec<u32>,
    delay: f64,
    outsiders: f64,
    busy: f64,
}

impl Delayed<'_> {
    /// The part of the delay that is the outsiders' doing.
    fn blame(&self) -> f64 {
        self.delay * self.outsiders / self.busy.max(0.01)
    }

    fn fires(&self) -> bool {
        self.outsiders >= OUTSIDERS
            && self.outsiders >= OUTSIDERS_SHARE * self.busy
            && self.blame() > DELAY
    }
}

fn run_delay(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let waiters = ctx.waiters_of(e);
    if waiters.iter().all(|w| w.run_delay().is_none()) {
        return Err(Why::not_there("run delay of its threads can't be read"));
    }
    let online: Vec<u32> = ctx.model.host.cpus.iter().map(|c| c.id).collect();
    // Each on its own CPUs: the one that waits longest may wait for its own kind.
    let mut delayed = Vec::new();
    let mut unknown = None;
    for waiter in &waiters {
        let Some(delay) = waiter.run_delay().filter(|d| *d > DELAY) else {
            continue;
        };
        let allowed = waiter.thread.and_then(|t| t.allowed_cpus.clone().ok());
        let mut cpus = allowed.unwrap_or_else(|| online.clone());
        // A mask may name CPUs that the machine does not have.
        cpus.retain(|cpu| online.contains(cpu));
        let took = match ctx.outsiders(e.pid, &cpus) {
            Ok(took) => took,
            Err(why) => {
                // A CPU that has just come online hides nothing that is found on others.
                unknown = Some(why);
                continue;
            }
        };
        let one = |outsiders| Delayed {
            waiter,
            cpus: cpus.clone(),
            delay,
            outsiders,
            busy: took.busy,
        };
        let certain = one(took.least);
        if certain.fires() {
            delayed.push(certain);
        } else if one(took.most).fires() {
            unknown = Some(took.doubt);
        }
    }
    // Who was told to let others go first speaks only where nobody else waits.
    let (told, untold): (Vec<_>, Vec<_>) = delayed
        .into_iter()
        .partition(|d| stands_back(ctx, d.waiter).is_some());
    let delayed = if untold.is_empty() { told } else { untold };
    let worst = delayed.iter().map(Delayed::blame).fold(0.0, f64::max);
    // Of threads that suffer about as much, the first: another one is the worst every second.
    let Some(first) = delayed.into_iter().find(|d| d.blame() >= worst / 2.0) else {
        return unknown.map_or(QUIET, Err);
    };
    let Delayed {
        waiter: w,
        cpus,
        delay,
        outsiders,
        busy,
    } = first;
    let p99 = e
        .clients
        .iter()
        .filter_map(|c| c.rtt.interval.as_ref().ok().map(|p| p.p99))
        .max()
        .map_or(String::new(), |p| format!("; worst p99 {}", text::ns(p)));
    let list = cpus
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",");
    let (because, severity, fix) = match (stands_back(ctx, w), idlest(ctx, e.pid, &cpus)) {
        (Some((told, undo)), _) => (format!("; {told}"), Severity::Info, undo),
        (None, Some(cpu)) => {
            let away = format!(
                "{}taskset -cp {cpu} {}   # away from CPU {list}; who is there: ps -eo pid,psr,pcpu,comm --sort=-pcpu | head",
                sudo_for(ctx, e.pid),
                w.tid
            );
            (String::new(), Severity::Warn, away)
        }
        (None, None) => {
            let who = "ps -eo pid,psr,pcpu,comm --sort=-pcpu | head   # who else runs: move or end some of it";
            (String::new(), Severity::Warn, who.to_owned())
        }
    };
    Fire::new(
        format!("{} waited {:.0} ms/s for a core; other processes use {:.1} of its {} CPUs{because}{p99}", w.name(), delay * 1000.0, outsiders, cpus.len()),
        fix,
    )
    .at(severity)
    .number("run delay", delay * 100.0, "%", format!("/proc/{}/task/{}/schedstat", e.pid, w.tid), format!("> {}", DELAY * 100.0))
    .number("other processes", outsiders, "CPUs", "/proc/stat less the watched processes' schedstat", format!(">= {:.2}", OUTSIDERS.max(OUTSIDERS_SHARE * busy)))
    .fires()
}

/// What a thread was told that makes others go first, and the command that takes it back.
fn stands_back(ctx: &Context<'_>, w: &Waiter<'_>) -> Option<(String, String)> {
    let t = w.thread?;
    let policy = match t.policy {
        Ok(ThreadPolicy::Batch) => Some("SCHED_BATCH"),
        Ok(ThreadPolicy::Idle) => Some("SCHED_IDLE"),
        _ => None,
    };
    if let Some(policy) = policy {
        // Out of SCHED_IDLE is as up from nice 20: one's own thread is not enough.
        let sudo = match t.policy {
            Ok(ThreadPolicy::Idle) => sudo(ctx),
            _ => sudo_for(ctx, w.endpoint.pid),
        };
        let undo = format!("{sudo}chrt -o -p 0 {}", w.tid);
        return Some((format!("it runs as {policy}"), undo));
    }
    let nice = *t.nice.as_ref().ok().filter(|n| **n > 0)?;
    let undo = format!("{}renice -n 0 -p {}", sudo(ctx), w.tid);
    Some((format!("it runs at nice {nice}"), undo))
}

rule! {
    /// An involuntary switch in the middle of a spin costs a scheduling period. Info: where run delay is low nothing is lost. The
    /// kernel counts a sched_yield that hands the core over as involuntary too, so the thread's yields are taken off.
    PREEMPTED_SPINNER = "preempted-spinner", Info, "a spinning thread is preempted often";
    fires: "more than 100 involuntary switches per second beyond the thread's own yields, at a spin share above 20 % and run delay above 1 %";
    quiet: "run delay is low";
    fix: "give it a CPU of its own (isolcpus, cpuset, taskset)";
    once: true;
    check: Endpoint(preempted_spinner);
}

fn preempted_spinner(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    for w in ctx.waiters_of(e).iter().filter(|w| w.spin > SPINNER) {
        let Some(t) = w.thread else { continue };
        let (switches, delay) = (t.involuntary_per_s.clone()?, t.run_delay.clone()?);
        let switches = (switches - w.yields_per_s).max(0.0);
        if switches > 100.0 && delay > DELAY {
            return Fire::new(
                format!(
                    "{} was preempted {} times a second while it spins {} of the time",
                    w.name(),
                    text::count(switches),
                    text::percent(w.spin)
                ),
                move_thread(
                    ctx,
                    w.endpoint.pid,
                    w.tid,
                    t.last_cpu.as_ref().map_or(&[][..], std::slice::from_ref),
                ),
            )
            .number(
                "involuntary switches",
                switches,
                "1/s",
                format!("/proc/{}/task/{}/status, less yields", e.pid, w.tid),
                "> 100",
            )
            .number(
                "spin share",
                w.spin * 100.0,
                "%",
                "stats page: spin_ns",
                "> 20",
            )
            .fires();
        }
    }
    QUIET
}
