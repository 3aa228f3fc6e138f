//! Rules about latency: outliers, tails, replies that come too late.

use transport::stats::Via;

use super::fix::sudo;
use super::ring::{client_pid, server_pid};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, Percentiles};
use crate::reading::{Why, WhyKind};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[OUTLIER_CLIENT, TAIL_SPREAD, LATE_REPLIES, SHM_NO_WIN];

rule! {
    /// Clients of one server with messages of like size should see like tails; one that is 5 × slower has a private problem. The
    /// median of at least four, 500 timed requests each, and at least 20 µs more, so that a few scheduling accidents at a
    /// microsecond's scale don't make an outlier. Who keeps more requests in flight waits for its own, whose requests take the handler longer has
    /// asked for more, and who pauses until both sides sleep is woken each time: none of them is slower than it should be. Where waiters outnumber the CPUs the scheduler makes one of them wait now and then, for half a
    /// minute on end, 10 × as long as the others and with less than half of their requests, as measured with seventeen healthy processes on two
    /// CPUs; there it must also be niced, or kept to other CPUs than they are.
    OUTLIER_CLIENT = "outlier-client", Warn, "one client is far slower than the others";
    fires: "its p99 is above 5 × the median client's, by 20 µs or more";
    quiet: "fewer than 4 clients or 500 timed requests, messages of unlike sizes, unlike numbers of requests in flight, a longer handler or a wake-up that explains it, or crowded CPUs and nothing that sets it apart";
    fix: "look at what only this client has: its CPU, its nice value, its policy";
    check: Client(outlier_client);
}

/// Round trips that make a p99 worth comparing.
const TIMED: u64 = 500;

/// Clients of the same server on the same transport, with enough timed requests and messages of like size; itself among them.
pub(super) fn comparable<'c>(e: &'c Endpoint, c: &Client) -> Vec<(&'c Client, Percentiles)> {
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
                .filter(|p| p.count >= TIMED)
                .map(|p| (&**o, p))
        })
        .collect()
}

/// Whether its waiter, or one that serves it, takes the CPUs to be oversubscribed: then the scheduler decides whose turn is late.
fn is_crowded(e: &Endpoint, c: &Client) -> bool {
    let served_so = e.pollers.iter().any(|p| p.wait.crowded);
    served_so || c.wait.as_ref().is_ok_and(|w| w.crowded)
}

/// Whether the kernel was told to treat it otherwise than each of the others: niced, or kept to CPUs of its own.
fn is_apart(c: &Client, all: &[(&Client, Percentiles)]) -> bool {
    let cpus = |c: &Client| c.thread.as_ref().ok()?.allowed_cpus.clone().ok();
    let mine = cpus(c);
    let mut others = all.iter().map(|(o, _)| *o).filter(|o| o.number != c.number);
    // Those whose CPUs are not known may well be kept to the same.
    let elsewhere = |o: &Client| cpus(o).is_some() && cpus(o) != mine;
    is_niced(c) || mine.is_some() && others.all(elsewhere)
}

fn is_niced(c: &Client) -> bool {
    c.thread
        .as_ref()
        .is_ok_and(|t| t.nice.as_ref().is_ok_and(|n| *n > 0))
}

/// How many requests it keeps in flight, by Little's law: its rate times its median. Half a request of doubt, as the median is not the mean.
fn in_flight(c: &Client, rtt: &Percentiles) -> f64 {
    let rate = c.requests_per_s.clone().unwrap_or(0.0);
    (rate * (rtt.p50 as f64 / 1e9)).max(1.5)
}

/// What a wake-up costs at most, ns: tens of microseconds where an idle virtual CPU halts.
const WAKE_UP_NS: u64 = 200_000;

/// The p99 of the handler, or the share of waits that end in a sleep, of one client and of the median one.
fn beside<T: PartialOrd + Copy>(
    c: &Client,
    all: &[(&Client, Percentiles)],
    of: impl Fn(&Client) -> Option<T>,
) -> Option<(T, T)> {
    let mut theirs: Vec<T> = all.iter().filter_map(|(o, _)| of(o)).collect();
    theirs.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    Some((of(c)?, *theirs.get(theirs.len() / 2)?))
}

/// Whether it takes `more_ns` longer than the median client because of what it asks for, and when.
fn is_its_own_doing(c: &Client, all: &[(&Client, Percentiles)], more_ns: u64) -> bool {
    let handled = |c: &Client| c.handler.interval.as_ref().ok().map(|p| p.p99);
    let longer_ns = beside(c, all, handled).map_or(0, |(mine, theirs)| mine.saturating_sub(theirs));
    let asleep = |c: &Client| Some(c.wait.as_ref().ok()?.ended.as_ref().ok()?[2]);
    // One in a hundred is what a p99 shows.
    let is_woken =
        beside(c, all, asleep).is_some_and(|(mine, theirs)| mine > (2.0 * theirs).max(0.01));
    longer_ns > more_ns / 2 || is_woken && more_ns < WAKE_UP_NS
}

fn outlier_client(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(mine) = c.rtt.interval.as_ref().ok().filter(|p| p.count >= TIMED) else {
        return QUIET;
    };
    // Five times a median is at least five times the least, and with a thousand clients that spares most of the comparing.
    if ctx
        .least_p99(e)
        .is_some_and(|least| mine.p99 <= least.saturating_mul(5))
    {
        return QUIET;
    }
    let mut others = comparable(e, c);
    let depth = in_flight(c, mine);
    others.retain(|(o, p)| (0.5..=2.0).contains(&(in_flight(o, p) / depth)));
    if others.len() < 4 {
        return Err(Why::not_applicable("fewer than 4 clients to compare with"));
    }
    let mut p99: Vec<u64> = others.iter().map(|(_, p)| p.p99).collect();
    p99.sort_unstable();
    let median = p99[p99.len() / 2];
    if mine.p99 <= median.saturating_mul(5) || mine.p99 - median < 20_000 {
        return QUIET;
    }
    if is_crowded(e, c) && !is_apart(c, &others) || is_its_own_doing(c, &others, mine.p99 - median)
    {
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
    let fix = match c.thread.as_ref().ok().filter(|_| is_niced(c)) {
        // Of the thread: here a nice value is each thread's own, and a process's number is its first thread's.
        Some(t) => format!("{}renice -n 0 -p {}", sudo(ctx), t.tid),
        None => format!("ps -L -o pid,tid,ni,psr,stat,cls -p {pid}"),
    };
    Fire::new(
        format!(
            "client {} (pid {pid}) is {:.0}× slower than the others: p99 {} against {}{only}",
            c.number,
            mine.p99 as f64 / median.max(1) as f64,
            text::ns(mine.p99),
            text::ns(median)
        ),
        fix,
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
    let p = match &c.rtt.interval {
        Ok(p) => p,
        // Nothing was timed: fewer requests.
        Err(why) if why.kind == WhyKind::NotYet => return QUIET,
        Err(why) => return Err(why.clone()),
    };
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
            "shmtop -p {}   # and open client {}: where the time goes",
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
    /// A reply that comes after its timeout is work for nothing, and the client has probably asked again. The reply to a request that was
    /// cancelled looks the same when it comes, so no more of them count than timeouts there were.
    LATE_REPLIES = "late-replies", Warn, "replies come after their timeout";
    fires: "more than 1 % of the replies of the window were discarded as late";
    quiet: "explicit cancel";
    fix: "a longer timeout, or a faster server";
    check: Client(late_replies);
}

fn late_replies(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    ctx.before()?;
    let (Some(now), Some(old)) = ctx.client_slots(c.connection_id) else {
        return Err(Why::not_visible("the client's own page is not visible"));
    };
    let seconds = ctx.seconds()?;
    let late = crate::rate::delta(old.req.late_replies, now.req.late_replies)?;
    let all = crate::rate::delta(old.req.replies, now.req.replies)?.saturating_add(late);
    let late = late.min(crate::rate::delta(old.req.timeouts, now.req.timeouts)?);
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
        late as f64 / seconds,
        "1/s",
        "stats page: late_replies",
        format!("> {:.0}", 0.01 * all as f64 / seconds),
    )
    .fires()
}

rule! {
    /// At a message per second both transports cost a wake-up, and the ring buys nothing. Both medians must be measured, at
    /// this server, with a thousand requests each. Whoever keeps several requests in flight waits for its own: by Little's law
    /// that shows in its rate times its median, and it is not compared.
    SHM_NO_WIN = "shm-no-win", Info, "the socket would be as fast";
    fires: "the median over shared memory is 0.8 × that over the socket or more, 1000 requests each, one at a time";
    quiet: "no client of this server on the socket to compare with; requests in flight together";
    fix: "nothing, or Config::transport = Socket (trader: --transport socket) to save the memory";
    check: Endpoint(shm_no_win);
}

/// Half a request of doubt: the median is not the mean.
fn one_at_a_time(c: &Client) -> bool {
    match (&c.requests_per_s, &c.rtt.interval) {
        (Ok(rate), Ok(rtt)) => rate * (rtt.p50 as f64 / 1e9) <= 1.5,
        _ => true,
    }
}

fn shm_no_win(_: &Context<'_>, e: &Endpoint) -> Answer {
    let median = |via: Via| {
        let mut all: Vec<u64> = e
            .clients
            .iter()
            .filter(|c| c.transport == via && one_at_a_time(c))
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
        "nothing to do; Config::transport = Socket (trader: --transport socket) would save the rings' memory",
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
