//! Rules about latency and what a message costs: outliers, tails, handlers, saturation, cache misses.

use transport::stats::Via;

use super::ring::{client_pid, server_pid};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::verdict::handler_share;
use crate::model::{Client, Endpoint, Percentiles};
use crate::reading::{Why, WhyKind};
use crate::sample::Perf;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[
    CACHE_MISSES,
    NO_PMU,
    PERF_DENIED,
    OUTLIER_CLIENT,
    TAIL_SPREAD,
    HANDLER_BOUND,
    LATE_REPLIES,
    SERVER_SATURATED,
    SHM_NO_WIN,
];

rule! {
    /// Expected are about 4 misses per message for the shared lines (index, header, wake word) and two per 64 bytes of payload,
    /// written by one core and read by another. Three times that means something else throws the lines out: false sharing, a
    /// footprint beyond the cache. Below 1000 msg/s the caches are cold anyway, and a counter that ran less than 90 % of the
    /// time was scaled.
    CACHE_MISSES = "cache-misses", Warn, "far more cache misses per message than the copies need";
    fires: "misses per message above 3 × (4 + 2·⌈bytes/64⌉)";
    quiet: "fewer than 1000 messages per second, or the counter ran less than 90 % of the time";
    fix: "perf c2c record -p PID";
    check: Client(cache_misses);
}

fn cache_misses(_: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let misses = c.perf.cache_misses_per_message.clone()?;
    if c.requests_per_s.clone()? < 1000.0 || c.perf.counted_share.clone()? < 0.9 {
        return QUIET;
    }
    let size = c.tx.mean_bytes.clone()?.max(c.rx.mean_bytes.clone()?);
    let expected = 4.0 + 2.0 * (size / 64.0).ceil();
    if misses <= 3.0 * expected {
        return QUIET;
    }
    let pid = client_pid(e, c);
    Fire::new(
        format!("client {} (pid {pid}): {misses:.0} cache misses per message, about {expected:.0} expected for {}", c.number, text::bytes(size as u64)),
        format!("perf c2c record -p {pid} -- sleep 5 && perf c2c report"),
    )
    .number("misses per message", misses, "", "perf_event: cache-misses", format!("> {:.0}", 3.0 * expected))
    .number("mean payload", size, "bytes", "stats page: tx_bytes / tx_messages", "")
    .fires()
}

/// The hardware counters of every thread: the first reason of the wanted kind.
fn perf_reason(
    ctx: &Context<'_>,
    wanted: fn(&Perf<crate::sample::HardwareCounters>) -> Option<&str>,
) -> Answer {
    if ctx.sample.perf.is_empty() {
        return Err(Why::not_applicable("no thread to count on"));
    }
    Ok(ctx
        .sample
        .perf
        .iter()
        .find_map(|p| wanted(&p.hardware))
        .map(|why| Fire::new(text::clean(why), String::new())))
}

rule! {
    /// Most virtual machines have no PMU. Software events (context switches, faults, CPU time) are still shown; only what a
    /// message costs the caches can't be said.
    NO_PMU = "no-pmu", Info, "no hardware counters";
    fires: "perf_event_open says ENOENT or EOPNOTSUPP";
    quiet: "counters can be opened, or they are forbidden (perf-denied)";
    fix: "a machine type with a virtual PMU, or the bare machine";
    check: Host(no_pmu);
}

fn no_pmu(ctx: &Context<'_>) -> Answer {
    let found = perf_reason(ctx, |p| match p {
        Perf::NoPmu(why) => Some(why),
        _ => None,
    })?;
    Ok(found.map(|f| {
        Fire::new(
            "no hardware counters: the hypervisor hides them; cache misses per message can't be shown, software events still are",
            "run on a machine with a PMU; on QEMU/KVM start the guest with -cpu host,pmu=on",
        )
        .state("perf_event_open", f.says, "perf_event_open(cycles, cache-misses)")
    }))
}

rule! {
    /// The counters exist but this user may not open them. The command would lower the barrier for everybody; the capability
    /// only for shmtop.
    PERF_DENIED = "perf-denied", Info, "hardware counters are not allowed";
    fires: "perf_event_open says EACCES or EPERM";
    quiet: "ENOENT (no-pmu)";
    fix: "setcap cap_perfmon+ep shmtop, or sysctl kernel.perf_event_paranoid=1";
    check: Host(perf_denied);
}

fn perf_denied(ctx: &Context<'_>) -> Answer {
    let found = perf_reason(ctx, |p| match p {
        Perf::Denied(why) => Some(why),
        _ => None,
    })?;
    let paranoid = ctx.model.host.perf_paranoid.clone();
    Ok(found.map(|f| {
        let now = paranoid.as_ref().map_or("unknown".into(), i64::to_string);
        Fire::new(
            format!("hardware counters need perf_event_paranoid ≤ 1 (now {now}) or CAP_PERFMON"),
            "setcap cap_perfmon+ep $(command -v shmtop), or sysctl kernel.perf_event_paranoid=1",
        )
        .state(
            "perf_event_open",
            f.says,
            "perf_event_open(cycles, cache-misses)",
        )
        .state(
            "perf_event_paranoid",
            now,
            "/proc/sys/kernel/perf_event_paranoid",
        )
    }))
}

rule! {
    /// Clients of one server with messages of like size should see like tails; one that is 5 × slower has a private problem. The
    /// median of at least four, 500 timed requests each, and at least 20 µs more, so that a few scheduling accidents at a
    /// microsecond's scale don't make an outlier.
    OUTLIER_CLIENT = "outlier-client", Warn, "one client is far slower than the others";
    fires: "its p99 is above 5 × the median client's, by 20 µs or more";
    quiet: "fewer than 4 clients or 500 timed requests, or messages of unlike sizes";
    fix: "look at what only this client has: its CPU, its nice value, its policy";
    check: Client(outlier_client);
}

fn comparable<'c>(e: &'c Endpoint, c: &Client) -> Vec<(&'c Client, Percentiles)> {
    let size = |c: &Client| {
        c.rx.mean_bytes
            .clone()
            .unwrap_or(0.0)
            .max(c.tx.mean_bytes.clone().unwrap_or(0.0))
    };
    let mine = size(c).max(1.0);
    e.clients
        .iter()
        .filter(|o| o.transport == c.transport)
        .filter(|o| (0.25..=4.0).contains(&(size(o).max(1.0) / mine)))
        .filter_map(|o| {
            o.rtt
                .interval
                .clone()
                .ok()
                .filter(|p| p.count >= 500)
                .map(|p| (o, p))
        })
        .collect()
}

fn outlier_client(_: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let others = comparable(e, c);
    if others.len() < 4 {
        return Err(Why::not_applicable("fewer than 4 clients to compare with"));
    }
    let Some((_, mine)) = others
        .iter()
        .find(|(o, _)| o.connection_id == c.connection_id)
    else {
        return QUIET;
    };
    let mut p99: Vec<u64> = others.iter().map(|(_, p)| p.p99).collect();
    p99.sort_unstable();
    let median = p99[p99.len() / 2];
    if mine.p99 <= median.saturating_mul(5) || mine.p99 - median < 20_000 {
        return QUIET;
    }
    let mut only = String::new();
    if let Ok(t) = &c.thread {
        let cpus = |c: &Client| c.thread.as_ref().ok().and_then(|t| t.last_cpu.clone().ok());
        let mine = cpus(c);
        if mine.is_some() && others.iter().filter(|(o, _)| cpus(o) == mine).count() == 1 {
            only = format!("; only it is on CPU {}", mine.unwrap_or(0));
        }
        if let Ok(nice) = t.nice.clone()
            && nice > 0
        {
            only = format!("; its nice value is {nice}");
        }
    }
    let pid = client_pid(e, c);
    Fire::new(
        format!(
            "client {} (pid {pid}) is {:.0}× slower than the others: p99 {} against {}{only}",
            c.number,
            mine.p99 as f64 / median.max(1) as f64,
            text::ns(mine.p99),
            text::ns(median)
        ),
        format!("ps -o pid,ni,psr,stat,cls -p {pid}; renice -n 0 -p {pid}"),
    )
    .number(
        "p99",
        mine.p99 as f64,
        "ns",
        "stats page: rtt_ns",
        format!("> {}", median.saturating_mul(5)),
    )
    .number(
        "p99 of the median client",
        median as f64,
        "ns",
        "stats page: rtt_ns",
        "",
    )
    .fires()
}

rule! {
    /// A tail of fifty medians is a few requests that met something else: a preemption, a sleep, a quota. Info, because under
    /// load it is the rule rather than the exception; the counter that moves with it is the hint.
    TAIL_SPREAD = "tail-spread", Info, "a few requests take very much longer";
    fires: "p99.9 above 50 × p50, with 10,000 or more timed requests";
    quiet: "fewer requests";
    fix: "look at the counter named";
    once: true;
    check: Client(tail_spread);
}

fn tail_spread(_: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let p = c.rtt.interval.clone()?;
    if p.count < 10_000 || p.p999 <= p.p50.saturating_mul(50) {
        return QUIET;
    }
    let mut moves: Vec<(f64, String)> = Vec::new();
    if let Ok(t) = &c.thread {
        if let Ok(d) = t.run_delay {
            moves.push((
                d,
                format!(
                    "its thread waited {} of the time for a core",
                    text::percent(d)
                ),
            ));
        }
        if let Ok(w) = &c.wait
            && let Ok(s) = w.sleep_share
        {
            moves.push((s, format!("it slept {} of the time", text::percent(s))));
        }
    }
    if let Ok(b) = c.request_ring().blocked_ratio {
        moves.push((
            b,
            format!(
                "it was blocked on a full ring {} of the time",
                text::percent(b)
            ),
        ));
    }
    let with = moves
        .into_iter()
        .filter(|(share, _)| *share > 0.01)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(String::new(), |(_, t)| format!("; {t}"));
    Fire::new(
        format!(
            "client {}: p99.9 is {}, p50 {}{with}",
            c.number,
            text::ns(p.p999),
            text::ns(p.p50)
        ),
        format!(
            "shmtop -p {} and open client {}: where the time goes",
            server_pid(e, c),
            c.number
        ),
    )
    .number(
        "p99.9",
        p.p999 as f64,
        "ns",
        "stats page: rtt_ns",
        format!("> {}", p.p50.saturating_mul(50)),
    )
    .number(
        "requests",
        p.count as f64,
        "",
        "stats page: rtt_ns",
        ">= 10000",
    )
    .fires()
}

rule! {
    /// The transport is not what takes the time. Info: most servers are there to run their handler.
    HANDLER_BOUND = "handler-bound", Info, "nearly all of the round trip is the handler";
    fires: "the median handler time is above 80 % of the median round trip";
    quiet: "otherwise";
    fix: "a faster handler, or more workers";
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
            "perf top -p {}, or more workers (--workers)",
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
    /// A reply that comes after its timeout is work for nothing, and the client has probably asked again. An explicit cancel looks
    /// the same to the ring but is not counted as a timeout.
    LATE_REPLIES = "late-replies", Warn, "replies come after their timeout";
    fires: "more than 1 % of the replies of the window were discarded as late";
    quiet: "explicit cancel";
    fix: "a longer timeout, or a faster server";
    check: Client(late_replies);
}

fn late_replies(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let ends = |sample: &crate::sample::Sample| {
        sample
            .pages
            .iter()
            .filter_map(|p| p.snapshot())
            .filter(|s| s.role == transport::stats::Role::Client)
            .flat_map(|s| &s.slots)
            .find(|s| s.info.connection_id == c.connection_id)
            .map(|s| (s.req.late_replies, s.req.replies))
    };
    let (Some((late, replies)), Some((old_late, old))) = (ends(ctx.sample), ends(ctx.before()?))
    else {
        return Err(Why::no_permission("the client's own page is not visible"));
    };
    let late = crate::rate::delta(old_late, late)?;
    let all = crate::rate::delta(old, replies)?.saturating_add(late);
    if late == 0 || late as f64 <= 0.01 * all as f64 {
        return QUIET;
    }
    let p99 = c
        .rtt
        .interval
        .as_ref()
        .map_or(String::new(), |p| format!("; p99 {}", text::ns(p.p99)));
    Fire::new(
        format!(
            "client {} (pid {}): {late} of {all} replies came after their timeout{p99}",
            c.number,
            client_pid(e, c)
        ),
        "raise request_timeout above the p99.9, or see what slows the server",
    )
    .number(
        "late replies",
        late as f64,
        "1/s",
        "stats page: late_replies",
        format!("> {:.0}", 0.01 * all as f64),
    )
    .fires()
}

rule! {
    /// Useful time is handler and copies; spinning is not. The page's clock goes on while the thread waits for a core, so that
    /// share is taken off. And another worker only helps where a core is free: on a machine whose CPUs are all busy
    /// a busy server is how it should be.
    SERVER_SATURATED = "server-saturated", Warn, "a server thread has no time left";
    fires: "useful time above 95 % of wall, on a core all that time, while another half CPU is free";
    quiet: "spinning; all CPUs busy";
    fix: "another worker (--workers)";
    explains: ["ring-full", "tail-spread"];
    check: Endpoint(server_saturated);
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
        let mut free = 0.0;
        for cpu in &ctx.model.host.cpus {
            free += 1.0 - cpu.busy.clone()?;
        }
        if free < 0.5 {
            continue;
        }
        let waiting = e.clients.iter().filter(|c| c.in_flight > 0).count();
        return Fire::new(
            format!("{} (pid {}): thread {} is {} busy; {waiting} of {} clients wait, {free:.1} CPUs are free", e.name, e.pid, p.tid, text::percent(time.useful), e.clients.len()),
            format!("start it with --workers {}", e.pollers.len() + 1),
        )
        .number("useful time", time.useful * 100.0, "%", "stats page: useful_ns", "> 95")
        .number("free", free, "CPUs", "/proc/stat", ">= 0.5")
        .fires();
    }
    unknown.map_or(QUIET, Err)
}

rule! {
    /// At a message per second both transports cost a wake-up, and the ring buys nothing. Both medians must be measured, at
    /// this server, with a thousand requests each.
    SHM_NO_WIN = "shm-no-win", Info, "the socket would be as fast";
    fires: "the median over shared memory is 0.8 × that over the socket or more, 1000 requests each";
    quiet: "no client of this server on the socket to compare with";
    fix: "nothing, or --transport socket to save the memory";
    check: Endpoint(shm_no_win);
}

fn shm_no_win(_: &Context<'_>, e: &Endpoint) -> Answer {
    let median = |via: Via| {
        let mut all: Vec<u64> = e
            .clients
            .iter()
            .filter(|c| c.transport == via)
            .filter_map(|c| c.rtt.since_start.as_ref().ok().filter(|p| p.count >= 1000))
            .map(|p| p.p50)
            .collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    let (Some(shm), Some(socket)) = (median(Via::Shm), median(Via::Socket)) else {
        return Err(Why::not_applicable(
            "no client on the socket to compare with",
        ));
    };
    if (shm as f64) < 0.8 * socket as f64 {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} (pid {}): p50 {} over shared memory, {} over the socket",
            e.name,
            e.pid,
            text::ns(shm),
            text::ns(socket)
        ),
        "nothing to do; --transport socket would save the rings' memory",
    )
    .number(
        "p50 shm",
        shm as f64,
        "ns",
        "stats page: rtt_ns",
        format!(">= {:.0}", 0.8 * socket as f64),
    )
    .number("p50 socket", socket as f64, "ns", "stats page: rtt_ns", "")
    .fires()
}
