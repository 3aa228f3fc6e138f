//! Rules about the server: its handler, its time.

use super::fix::{perf, setting};
use super::whom::Whom;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::verdict::handler_share;
use crate::model::{Client, Endpoint, Shared};
use crate::reading::{Reading, WhyKind};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[HANDLER_BOUND, SERVER_SATURATED];

rule! {
    /// The transport is not what takes the time. Info: most servers are there to run their handler.
    HANDLER_BOUND = "handler-bound", Info, "nearly all of the round trip is the handler";
    fires: "the median handler time is above 80 % of the median round trip";
    quiet: "otherwise";
    fix: "a faster handler, or more workers where several clients share one";
    explains: ["shm-no-win"];
    once: true;
    check: Client(handler_bound);
}

fn handler_bound(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let (rtt, handler) = match (&c.rtt.interval, &c.handler.interval) {
        (Ok(r), Ok(h)) => (r, h),
        (Err(why), _) | (_, Err(why)) if why.kind == WhyKind::NotYet => return QUIET,
        (Err(why), _) | (_, Err(why)) => return Err(why.clone()),
    };
    let share = handler_share(c).unwrap_or(0.0);
    if share <= 0.8 {
        return QUIET;
    }
    let workers = match shares_its_worker(e, c) {
        true => "or more workers: Config::workers (exchange: --workers)",
        false => "more workers would not help: a connection has one",
    };
    Fire::new(
        format!(
            "client {}: {} of the round trip is the handler ({}); the rest costs {}",
            c.number,
            text::percent(share),
            text::ns(handler.p50),
            text::ns(rtt.p50.saturating_sub(handler.p50))
        ),
        Whom::server(ctx, e, c).told(
            |pid| format!("{} top -p {pid}   # {workers}", perf(ctx, pid)),
            |name| format!("see what the handler of {name} does; {workers}"),
        ),
    )
    .number(
        "handler p50",
        handler.p50 as f64,
        "ns",
        "stats page: handler_time_ns",
        format!("> {:.0}", 0.8 * rtt.p50 as f64),
    )
    .number(
        "round trip p50",
        rtt.p50 as f64,
        "ns",
        "stats page: rtt_ns",
        "",
    )
    .fires()
}

rule! {
    /// Useful time is handler and copies; spinning is not. The page's clock goes on while the thread waits for a core, so that
    /// share is taken off. And another worker only helps where a core is free that it may use, by its cpuset and its quota: on a machine
    /// whose CPUs are all busy a busy server is how it should be. One that is pinned could be pinned to more, and is told so.
    SERVER_SATURATED = "server-saturated", Warn, "a server thread has no time left";
    fires: "useful time above 95 % of wall with two clients or more waiting, while another half CPU of its cpuset and quota is free";
    quiet: "spinning; one client; all CPUs busy";
    fix: "another worker: Config::workers (exchange: --workers)";
    explains: ["ring-full", "tail-spread"];
    check: Endpoint(server_saturated);
}

/// Whether the thread that serves this client has requests of others as well. Only then another one would take something off it: a connection has one
/// worker. The server's own row knows; a client's does not.
pub(super) fn shares_its_worker(e: &Endpoint, c: &Client) -> bool {
    let Ok(worker) = c.server_thread.as_ref().map(|t| t.tid) else {
        return false;
    };
    let here = |o: &&Shared<Client>| o.server_thread.as_ref().is_ok_and(|t| t.tid == worker);
    let others = e.clients.iter().filter(|o| o.number != c.number);
    others.filter(here).any(|o| matches!(o.in_flight, Ok(1..)))
}

/// Pollers that have a client: others may be left of a time with more of them.
fn serving(e: &Endpoint) -> u64 {
    let serves = |tid| {
        e.clients
            .iter()
            .any(|c| c.server_thread.as_ref().is_ok_and(|t| t.tid == tid))
    };
    e.pollers.iter().filter(|p| serves(p.tid)).count() as u64
}

/// CPUs that a thread is kept to; `None` where that can't be read.
fn kept_to(e: &Endpoint, tid: u32) -> Option<&[u32]> {
    let threads = e.process.threads.as_ref().ok()?;
    let thread = threads.iter().find(|t| t.tid == tid)?;
    thread
        .allowed_cpus
        .as_ref()
        .ok()
        .map(|cpus| cpus.as_slice())
}

/// CPUs' worth of time that one more worker could have: on the CPUs of its cpuset that nobody set apart, and within the quota. A server
/// that keeps itself to a CPU may as well keep itself to two, so where the threads are kept now counts only if the cpuset can't be read.
fn free_for(ctx: &Context<'_>, e: &Endpoint, tid: u32) -> Reading<f64> {
    if ctx.model.host.cpus.is_empty() {
        return Err(ctx.no_cpu());
    }
    let kept = kept_to(e, tid);
    let cpuset = ctx.process(e.pid)?.cgroups.cpuset.known();
    let isolated = |id| (ctx.sample.host.cpus.iter()).any(|c| c.cpu == id && c.is_set_apart());
    let may_use = |id: u32| match (kept, cpuset) {
        (Some(kept), _) if kept.contains(&id) => true,
        (_, Some(cpuset)) => cpuset.contains(&id) && !isolated(id),
        (kept, None) => kept.is_none(),
    };
    let mut free = 0.0;
    for cpu in ctx.model.host.cpus.iter().filter(|c| may_use(c.id)) {
        free += 1.0 - cpu.busy.clone()?;
    }
    Ok(match (&e.limits.cpu_quota, &e.process.cpu) {
        // What others of its group use is not known.
        (Ok(quota), Ok(used)) => free.min((quota - used).max(0.0)),
        _ => free,
    })
}

/// What the reader must know of a server that is kept to a few CPUs: more workers need more of them.
fn is_kept(ctx: &Context<'_>, e: &Endpoint, tid: u32) -> String {
    let cpuset = ctx
        .process(e.pid)
        .ok()
        .and_then(|p| p.cgroups.cpuset.known());
    let most = cpuset.map_or(ctx.model.host.cpus.len(), Vec::len);
    let kept = kept_to(e, tid).filter(|kept| kept.len() < most);
    kept.map_or_else(String::new, |kept| {
        let list: Vec<String> = kept.iter().map(u32::to_string).collect();
        format!("; it is kept to CPU {}", list.join(","))
    })
}

fn server_saturated(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let mut unknown = None;
    for p in &e.pollers {
        let time = match &p.time {
            Ok(t) => t,
            Err(why) => {
                unknown = Some(why.clone());
                continue;
            }
        };
        if time.useful <= 0.95 {
            continue;
        }
        let served_here =
            |c: &&Shared<Client>| c.server_thread.as_ref().is_ok_and(|t| t.tid == p.tid);
        let here = e.clients.iter().filter(served_here);
        let waits = |c: &Shared<Client>| matches!(c.in_flight, Ok(1..));
        let waiting = here.clone().filter(|c| waits(c)).count();
        let unseen = here.filter_map(|c| c.in_flight.clone().err()).next();
        // A connection has one worker; a second would have nothing to do.
        if waiting < 2 && unseen.is_none() {
            continue;
        }
        let free = free_for(ctx, e, p.tid)?;
        if free < 0.5 {
            continue;
        }
        if waiting < 2 {
            unknown = unseen;
            continue;
        }
        return Fire::new(
            format!("{} (pid {}): thread {} is {} busy; {waiting} of {} clients wait, {free:.1} CPUs are free{}", e.name, e.pid, p.tid, text::percent(time.useful), e.clients.len(), is_kept(ctx, e, p.tid)),
            format!("start it with {}", setting("exchange", ("workers", serving(e) + 1), "--workers")),
        )
        .number("useful time", time.useful * 100.0, "%", "stats page: useful_ns", "> 95")
        .number("free", free, "CPUs", "/proc/stat", ">= 0.5")
        .fires();
    }
    unknown.map_or(QUIET, Err)
}
