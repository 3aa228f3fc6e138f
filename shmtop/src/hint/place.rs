//! Rules about where and how a ring thread runs: its CPU, its node, its priority.

use super::fix::{is_idle, keep_thread, move_thread, sudo_for};
use super::outlier::{comparable, is_its_own_doing, median};
use super::ring::client_pid;
use super::sched::SPINNER;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, Severity};
use crate::reading::{Reading, Why};
use crate::sample::Cpu;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[MIGRATING, SAME_CPU, CROSS_NUMA, RT_SPINNER];

rule! {
    /// Each move costs the warm cache. It matters only where the tail moved with it.
    MIGRATING = "migrating", Info, "a ring thread moves between CPUs";
    fires: "more than 50 migrations per second, and the p99 of the window is 1.5 × that of the whole life";
    quiet: "p99 is unchanged";
    fix: "taskset -cp CPU TID";
    once: true;
    check: Client(migrating);
}

fn migrating(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let thread = c.thread.clone()?;
    let moves = thread.migrations_per_s.clone()?;
    if moves <= 50.0 {
        return QUIET;
    }
    let (now, life) = (c.rtt.interval.clone()?, c.rtt.since_start.clone()?);
    if now.p99 as f64 <= 1.5 * life.p99 as f64 {
        return QUIET;
    }
    Fire::new(
        format!("client {} (thread {}) moves {} times a second between CPUs; its p99 is {} against {} since start", c.number, thread.tid, text::count(moves), text::ns(now.p99), text::ns(life.p99)),
        keep_thread(ctx, client_pid(e, c), &thread),
    )
    .number("migrations", moves, "1/s", format!("/proc/{}/task/{}/sched", client_pid(e, c), thread.tid), "> 50")
    .fires()
}

rule! {
    /// Two threads that hand messages to each other on one CPU take turns; if one of them spins, the other can't run until
    /// the scheduler takes the CPU away. Waiters that sleep or yield hand over well, and where there is but one CPU that is how it must be
    /// (150,000 round trips a second were measured so): they stay quiet. SMT siblings share a core: info.
    SAME_CPU = "same-cpu", Crit, "both ends of a connection are pinned to the same CPU";
    fires: "both threads may run on one and the same CPU only, and one of them spins more than 20 % of the time";
    quiet: "waiters that sleep or yield";
    fix: "taskset -cp another CPU";
    explains: ["run-delay", "tail-spread", "preempted-spinner", "oversubscribed"];
    once: true;
    check: Client(same_cpu);
}

/// A CPU as it was looked at.
fn cpu<'a>(ctx: &Context<'a>, id: u32) -> Reading<&'a Cpu> {
    let all = &ctx.sample.host.cpus;
    if all.is_empty() {
        return Err(ctx.no_cpu());
    }
    let at = all.binary_search_by_key(&id, |c| c.cpu);
    at.map(|at| &all[at])
        .map_err(|_| Why::not_there(format!("CPU {id} is not online")))
}

fn same_cpu(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let (client, server) = (c.thread.clone()?, c.server_thread.clone()?);
    let (a, b) = (client.allowed_cpus.clone()?, server.allowed_cpus.clone()?);
    let (&[a], &[b]) = (a.as_slice(), b.as_slice()) else {
        return QUIET;
    };
    let busy = ctx.spin_on(client.tid).max(ctx.spin_on(server.tid));
    if busy <= SPINNER {
        return QUIET;
    }
    if a != b && !cpu(ctx, a)?.siblings.as_reading()?.contains(&b) {
        return QUIET;
    }
    let (what, severity) = if a == b {
        (format!("both pinned to CPU {a}"), Severity::Crit)
    } else {
        (
            format!("pinned to CPU {a} and {b}, two hardware threads of one core"),
            Severity::Info,
        )
    };
    Fire::new(
        format!(
            "client {} (thread {}) and its server (thread {}) are {what}: each waits for the other",
            c.number, client.tid, server.tid
        ),
        move_thread(ctx, client_pid(e, c), client.tid, &[a, b]),
    )
    .at(severity)
    .number(
        "CPU of the client",
        f64::from(a),
        "",
        "sched_getaffinity",
        "",
    )
    .number(
        "CPU of the server",
        f64::from(b),
        "",
        "sched_getaffinity",
        "",
    )
    .number("spin", busy * 100.0, "%", "stats page: spin_ns", "> 20")
    .fires()
}

rule! {
    /// Where the ring's pages lie is not read (it takes numa_maps of the peer); but with the two ends on different nodes one
    /// of them is remote wherever the pages are. On a machine of many nodes that may be as it must be: info, unless clients of the same
    /// server that run on its node are measured to be a third faster, with messages of like size, about as many requests in flight, and nothing that the
    /// client does by itself to explain it.
    CROSS_NUMA = "cross-numa", Warn, "client and server run on different NUMA nodes";
    fires: "both threads last ran on CPUs of different nodes, at more than 1000 messages per second; warn where its p50 is 1.5 × that of clients on the server's node";
    quiet: "one node";
    fix: "numactl --cpunodebind=N for both";
    once: true;
    check: Client(cross_numa);
}

fn cross_numa(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    if ctx.model.host.numa_nodes.clone()? < 2 {
        return Err(Why::not_applicable("one NUMA node"));
    }
    let node = |id: u32| -> Reading<u32> { cpu(ctx, id)?.node.get() };
    let (client, server) = (c.thread.clone()?, c.server_thread.clone()?);
    let (a, b) = (
        node(client.last_cpu.clone()?)?,
        node(server.last_cpu.clone()?)?,
    );
    if a == b || c.requests_per_s.clone()? < 1000.0 {
        return QUIET;
    }
    let beside = |o: &Client| {
        let thread = o.thread.as_ref().ok();
        let cpu = thread.and_then(|t| t.last_cpu.as_ref().ok());
        cpu.is_some_and(|cpu| node(*cpu) == Ok(b))
    };
    let mut others = comparable(ctx, e, c);
    others.retain(|o| o.client.number == c.number || beside(o.client));
    let near = others.iter().filter(|o| o.client.number != c.number);
    let near = median(near.map(|o| o.rtt.p50).collect());
    let mine = c.rtt.interval.as_ref().ok().map(|p| p.p50);
    let slower = mine.zip(near).filter(|(mine, near)| {
        *mine as f64 >= 1.5 * *near as f64
            && !is_its_own_doing(ctx, e, c, &others, mine.saturating_sub(*near), |p| p.p50)
    });
    let (effect, severity) = match slower {
        Some((mine, near)) => {
            let (mine, near) = (text::ns(mine), text::ns(near));
            let effect = format!("; its p50 is {mine}, that of clients on node {b} {near}");
            (effect, Severity::Warn)
        }
        None => (String::new(), Severity::Info),
    };
    Fire::new(
        format!(
            "client {} (pid {}) runs on node {a}, its server on node {b}: every message crosses{effect}",
            c.number,
            client_pid(e, c)
        ),
        keep_to_node(ctx, b, client_pid(e, c), client.tid),
    )
    .at(severity)
    .number(
        "node of the client",
        f64::from(a),
        "",
        "/sys/devices/system/node",
        "",
    )
    .number(
        "node of the server",
        f64::from(b),
        "",
        "/sys/devices/system/node",
        "",
    )
    .fires()
}

/// Keeps a thread to the CPUs of a node: those in the process's cpuset, as the kernel refuses others, that are not isolated, as those were set apart for
/// somebody and a thread that may run on several of them stays on the first, and that have room for it.
fn keep_to_node(ctx: &Context<'_>, node: u32, pid: u32, tid: u32) -> String {
    let process = ctx.process(pid).ok();
    let cpuset = process.and_then(|p| p.cgroups.cpuset.known());
    let mut cpus: Vec<&Cpu> = ctx.sample.host.cpus.iter().collect();
    cpus.retain(|c| c.node.known() == Some(&node) && cpuset.is_none_or(|set| set.contains(&c.cpu)));
    if cpus.is_empty() {
        return "its cpuset has no CPU there: widen it, or keep its server to its node".into();
    }
    cpus.retain(|c| !c.is_set_apart());
    if cpus.is_empty() {
        return "all that it may use there are isolated or without ticks (nohz_full): give it one that was set apart for it, or keep its server to its node".into();
    }
    cpus.retain(|c| is_idle(ctx, c.cpu) == Some(true));
    if cpus.is_empty() {
        return "none that it may use there is known to be idle: run less there, or keep its server to its node".into();
    }
    let list: Vec<String> = cpus.iter().map(|c| c.cpu.to_string()).collect();
    format!("{}taskset -cp {} {tid}", sudo_for(ctx, pid), list.join(","))
}

rule! {
    /// A real-time spinner never gives its CPU up: the kernel threads bound to it starve (the 95 % real-time throttle is all
    /// that is left). On an isolated CPU, by isolcpus= or a cpuset partition, that is the plan. In a container the partition may be that of a
    /// group above it, which can't be seen there: info, unless the thread may run everywhere, as no partition has all CPUs. On a CPU without ticks
    /// (nohz_full=) somebody has planned, but threads of others are placed there too, and starve: info. SCHED_DEADLINE has a budget and gives the CPU up.
    RT_SPINNER = "rt-spinner", Crit, "a real-time thread spins";
    fires: "SCHED_FIFO or RR with a spin share above 50 %; info where nothing says whether its CPUs are isolated, or they are without ticks only";
    quiet: "its CPUs are isolated";
    fix: "chrt -o -p 0 TID, or isolate the CPU";
    check: Endpoint(rt_spinner);
}

fn rt_spinner(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let mut unknown = None;
    for w in ctx.waiters_of(e).iter().filter(|w| w.spin > 0.5) {
        let Some(t) = w.thread else {
            unknown = Some(Why::not_there(format!(
                "which thread of pid {} spins can't be seen",
                e.pid
            )));
            continue;
        };
        if !t.policy.clone()?.is_unbounded() {
            continue;
        }
        let allowed = t.allowed_cpus.clone()?;
        let all = &ctx.sample.host.cpus;
        let its: Vec<&Cpu> = all.iter().filter(|c| allowed.contains(&c.cpu)).collect();
        let is_shared = |c: &&Cpu| c.isolated.known() != Some(&true);
        let shared: Vec<&&Cpu> = its.iter().filter(|c| is_shared(c)).collect();
        if !its.is_empty() && shared.is_empty() {
            continue;
        }
        let is_known = |c: &&Cpu| c.isolated.known() == Some(&false);
        let is_one_for_all = shared.iter().any(|c| is_known(c) && !c.tickless)
            || (its.len() == all.len() && !its.is_empty());
        let (doubt, severity) = if is_one_for_all {
            ("", Severity::Crit)
        } else if shared.iter().any(|c| is_known(c)) {
            (
                ", though nohz_full= without isolcpus= lets others be placed there",
                Severity::Info,
            )
        } else {
            (
                "; whether that was set apart for it can't be seen",
                Severity::Info,
            )
        };
        return Fire::new(
            format!(
                "{} spins {} of the time with a real-time policy: nothing else runs on its CPU{doubt}",
                w.name(),
                text::percent(w.spin)
            ),
            format!("{}chrt -o -p 0 {}", sudo_for(ctx, w.endpoint.pid), w.tid),
        )
        .at(severity)
        .number(
            "spin share",
            w.spin * 100.0,
            "%",
            "stats page: spin_ns",
            "> 50",
        )
        .state(
            "policy",
            format!("{:?}", t.policy.clone()?),
            format!("/proc/{}/task/{}/stat", e.pid, w.tid),
        )
        .fires();
    }
    unknown.map_or(QUIET, Err)
}
