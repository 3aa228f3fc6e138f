//! The rule about CPU time that the hypervisor takes, and where ring threads ran meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use super::context::Waiter;
use super::{Answer, Context, Fire, QUIET, rule};
use crate::model::Severity;
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::sample::Sample;

rule! {
    /// Short windows are noise (a tick is 10 ms), so the share is over ten seconds. The worst CPU counts of those where a ring thread ran meanwhile,
    /// as far as looks once a second tell; of one whose CPU can't be seen, the one of its CPUs that was robbed least, since it sits on one. What was
    /// taken of a CPU that a ring thread may use, and did not, was taken from somebody else: info.
    STEAL = "steal", Warn, "the hypervisor takes CPU time away";
    fires: "steal above 1 % of a CPU over 10 s; crit above 5 %; info where no ring thread ran there";
    quiet: "short bursts; CPUs where no ring thread may run";
    fix: "another host or instance type; nothing inside the VM helps";
    explains: ["tail-spread", "run-delay", "outlier-client"];
    onset: State;
    looks_back_s: 10;
    check: Host(steal);
}

/// Steal from which it is an effect, and from which it is grave.
const STOLEN: [f64; 2] = [0.01, 0.05];

fn steal(ctx: &Context<'_>) -> Answer {
    if ctx.sample.host.cpus.is_empty() {
        return Err(ctx.no_cpu());
    }
    let then = ctx.ten_ago()?;
    let waiters = ctx.waiters();
    let mut shares: BTreeMap<u32, f64> = BTreeMap::new();
    for c in &ctx.sample.host.cpus {
        if waiters.iter().any(|w| w.may_run_on(c.cpu)) {
            shares.insert(c.cpu, steal_of(then, ctx.sample, c.cpu)?);
        }
    }
    let worst = |cpus: BTreeSet<u32>| {
        let robbed = cpus
            .into_iter()
            .filter_map(|cpu| Some((cpu, *shares.get(&cpu)?)));
        let robbed = robbed.filter(|(_, share)| *share > STOLEN[0]);
        robbed.max_by(|a, b| a.1.total_cmp(&b.1))
    };
    let Some(anywhere) = worst(shares.keys().copied().collect()) else {
        return QUIET;
    };
    let least = |w: &Waiter<'_>| {
        let may = shares.iter().filter(|(cpu, _)| w.may_run_on(**cpu));
        let least = may.min_by(|a, b| a.1.total_cmp(b.1));
        least.map(|(cpu, _)| *cpu).into_iter().collect()
    };
    let ran: Vec<(&Waiter<'_>, BTreeSet<u32>)> = waiters
        .iter()
        .map(|w| (w, ran_on(ctx, then, w).unwrap_or_else(|| least(w))))
        .collect();
    let under_one = worst(ran.iter().flat_map(|(_, cpus)| cpus).copied().collect());
    let (cpu, share) = under_one.unwrap_or(anywhere);
    let (whose, severity) = match under_one {
        None => (", where no ring thread ran", Severity::Info),
        Some(_) if share > STOLEN[1] => ("", Severity::Crit),
        Some(_) => ("", Severity::Warn),
    };
    // Whoever ran on one that was robbed, not this one alone; nobody, if none did: then it explains nothing.
    let of_it = ran.iter().filter(|(_, cpus)| worst(cpus.clone()).is_some());
    let pids: BTreeSet<u32> = of_it.map(|(w, _)| w.endpoint.pid).collect();
    Fire::new(
        format!(
            "the hypervisor took {:.1} % of CPU {cpu} over the last 10 s{whose}",
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
    .about(pids)
    .fires()
}

/// CPUs on which a ring thread ran since `then`: those where it last was at a look before which it had run. `None` if that can't be read.
fn ran_on(ctx: &Context<'_>, then: &Sample, w: &Waiter<'_>) -> Option<BTreeSet<u32>> {
    w.thread?.last_cpu.as_ref().ok()?;
    let looks = ctx.windows.iter().map(|s| &**s).chain([ctx.sample]);
    let looks = looks.filter(|s| s.time.monotonic_ns >= then.time.monotonic_ns);
    let threads = looks.filter_map(|s| s.process(w.endpoint.pid)?.thread(w.tid));
    let mut cpus = BTreeSet::new();
    let mut run_before = None;
    for t in threads {
        let run_ns = t.run_ns.known().copied();
        // Without the kernel's count of its time it may well have run.
        if run_before.is_some_and(|before| run_ns.is_none() || before != run_ns) {
            cpus.extend(t.last_cpu.known());
        }
        run_before = Some(run_ns);
    }
    Some(cpus)
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
