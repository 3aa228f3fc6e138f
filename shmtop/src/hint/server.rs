//! Rules about the server: its handler, its time.

use super::fix::setting;
use super::ring::server_pid;
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
    fix: "a faster handler, or more workers";
    explains: ["shm-no-win"];
    once: true;
    check: Client(handler_bound);
}

fn handler_bound(_: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let (rtt, handler) = match (&c.rtt.interval, &c.handler.interval) {
        (Ok(r), Ok(h)) => (r, h),
        (Err(why), _) | (_, Err(why)) if why.kind == WhyKind::NotYet => return QUIET,
        (Err(why), _) | (_, Err(why)) => return Err(why.clone()),
    };
    let share = handler_share(c).unwrap_or(0.0);
    if share <= 0.8 {
        return QUIET;
    }
    Fire::new(
        format!(
            "client {}: {} of the round trip is the handler ({}); the rest costs {}",
            c.number,
            text::percent(share),
            text::ns(handler.p50),
            text::ns(rtt.p50.saturating_sub(handler.p50))
        ),
        format!(
            "perf top -p {}   # or more workers: Config::workers (exchange: --workers)",
            server_pid(e, c)
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
    /// share is taken off. And another worker only helps where a core is free that it may use, by its affinity and its quota: on a machine
    /// whose CPUs are all busy a busy server is how it should be.
    SERVER_SATURATED = "server-saturated", Warn, "a server thread has no time left";
    fires: "useful time above 95 % of wall with two clients or more waiting, while another half CPU that it may use is free";
    quiet: "spinning; one client; all CPUs busy";
    fix: "another worker: Config::workers (exchange: --workers)";
    explains: ["ring-full", "tail-spread"];
    check: Endpoint(server_saturated);
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

/// CPUs' worth of time that another thread like this one could have: on the CPUs where it may run, and within the quota.
fn free_for(ctx: &Context<'_>, e: &Endpoint, tid: u32) -> Reading<f64> {
    let threads = e.process.threads.as_ref().ok();
    let thread = threads.and_then(|all| all.iter().find(|t| t.tid == tid));
    let allowed = thread.and_then(|t| t.allowed_cpus.as_ref().ok());
    let mut free = 0.0;
    for cpu in &ctx.model.host.cpus {
        if allowed.is_none_or(|cpus| cpus.contains(&cpu.id)) {
            free += 1.0 - cpu.busy.clone()?;
        }
    }
    Ok(match (&e.limits.cpu_quota, &e.process.cpu) {
        // What others of its group use is not known.
        (Ok(quota), Ok(used)) => free.min((quota - used).max(0.0)),
        _ => free,
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
        let free = free_for(ctx, e, p.tid)?;
        if free < 0.5 {
            continue;
        }
        let served_here =
            |c: &&Shared<Client>| c.server_thread.as_ref().is_ok_and(|t| t.tid == p.tid);
        let here = e.clients.iter().filter(served_here);
        let waiting = here.filter(|c| c.in_flight > 0).count();
        // A connection has one worker; a second would have nothing to do.
        if waiting < 2 {
            continue;
        }
        return Fire::new(
            format!("{} (pid {}): thread {} is {} busy; {waiting} of {} clients wait, {free:.1} CPUs are free", e.name, e.pid, p.tid, text::percent(time.useful), e.clients.len()),
            format!("start it with {}", setting("exchange", ("workers", serving(e) + 1), "--workers")),
        )
        .number("useful time", time.useful * 100.0, "%", "stats page: useful_ns", "> 95")
        .number("free", free, "CPUs", "/proc/stat", ">= 0.5")
        .fires();
    }
    unknown.map_or(QUIET, Err)
}
