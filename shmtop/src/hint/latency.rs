//! Rules about latency: tails, replies that come too late, and what the socket would do as well. Who is slower than others: `outlier`.

use transport::stats::Via;

use super::outlier::in_flight;
use super::ring::{client_pid, hidden};
use super::whom::Whom;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, Shared};
use crate::reading::{Why, WhyKind};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[TAIL_SPREAD, LATE_REPLIES, SHM_NO_WIN];

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

fn tail_spread(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
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
        // The server's view shows both sides; where it has a number of another pid namespace, the client's own is left.
        Whom::server(ctx, e, c).told(
            |pid| {
                format!(
                    "shmtop -p {pid}   # and open client {}: where the time goes",
                    c.number
                )
            },
            |_| format!("shmtop -p {}   # where the time goes", e.pid),
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
    /// that shows in its rate times its mean, and it is not compared.
    SHM_NO_WIN = "shm-no-win", Info, "the socket would be as fast";
    fires: "the median over shared memory is 0.8 × that over the socket or more, 1000 requests each, one at a time";
    quiet: "no client of this server on the socket to compare with; requests in flight together";
    fix: "nothing, or Config::transport = Socket (trader: --transport socket) to save the memory";
    check: Endpoint(shm_no_win);
}

/// Half a request of doubt: rate and mean are of the timed ones, and those are few.
fn one_at_a_time(ctx: &Context<'_>, c: &Client) -> bool {
    in_flight(ctx, c).is_none_or(|depth| depth <= 1.5)
}

fn shm_no_win(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let median = |via: Via| {
        let mut all: Vec<u64> = e
            .clients
            .iter()
            .filter(|c| c.transport == via && one_at_a_time(ctx, c))
            .filter_map(|c| c.rtt.since_start.as_ref().ok().filter(|p| p.count >= 1000))
            .map(|p| p.p50)
            .collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    };
    let (by_shm, by_socket) = (median(Via::Shm), median(Via::Socket));
    let (Some(shm), Some(socket)) = (by_shm, by_socket) else {
        // What is missing may be on the page of a client that can't be seen.
        let missing = |c: &&Shared<Client>| match c.transport {
            Via::Socket => by_socket.is_none(),
            Via::Shm => by_shm.is_none(),
        };
        let unknown = e.clients.iter().filter(missing);
        let unknown = unknown.filter_map(|c| c.rtt.since_start.clone().err());
        let none = |via| e.clients.iter().all(|c| c.transport != via);
        return Err(match unknown.filter_map(hidden).next() {
            Some(why) if !none(Via::Shm) && !none(Via::Socket) => why,
            _ => Why::not_applicable("no client on the socket to compare with"),
        });
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
