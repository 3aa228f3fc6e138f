//! The rule about a client that is slower than its like, and what tells who is alike.

use transport::config::PolicyKind;

use super::fix::sudo;
use super::ring::{BLOCKED, client_pid};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, Percentiles, WaitView};
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[OUTLIER_CLIENT];

rule! {
    /// Clients of one server with messages of like size should see like tails; one that is 5 × slower has a private problem. The
    /// median of at least four, 500 timed requests each, and at least 20 µs more, so that a few scheduling accidents at a
    /// microsecond's scale don't make an outlier. Who keeps more requests in flight waits for its own, whose requests take the handler longer has
    /// asked for more, who fills its ring of requests waits for room in it, and who pauses until both sides sleep is woken each time: none of them is
    /// slower than it should be. How many are in flight is, by Little's law, the rate times the mean round trip; but who asks at a pace of its own has
    /// more of them in flight because it is slow, and that excuses nobody: at the others' speed it would have one there for less than a fifth of the
    /// time. Nor does a sleep that the late reply itself has caused: it counts where the client has nothing in flight for half of the time and
    /// the server sleeps, too, or where the client was told to park. Where waiters outnumber the CPUs the scheduler makes one of them wait now and then, for half a
    /// minute on end, 10 × as long as the others and with less than half of their requests, as measured with seventeen healthy processes on two
    /// CPUs; there it must also be niced, or kept to other CPUs than they are.
    OUTLIER_CLIENT = "outlier-client", Warn, "one client is far slower than the others";
    fires: "its p99 is above 5 × the median client's, by 20 µs or more";
    quiet: "fewer than 4 clients or 500 timed requests, messages of unlike sizes, unlike numbers of requests in flight, a longer handler, a full ring or a wake-up that explains it, or crowded CPUs and nothing that sets it apart";
    fix: "look at what only this client has: its CPU, its nice value, its policy";
    explains: ["tail-spread", "late-replies", "ring-full"];
    check: Client(outlier_client);
}

/// Round trips that make a p99 worth comparing.
const TIMED: u64 = 500;

/// A client with enough timed requests, and what it is compared by.
pub(super) struct Timed<'a> {
    pub(super) client: &'a Client,
    pub(super) rtt: &'a Percentiles,
    /// Of its messages: the larger of the means of both directions.
    bytes: f64,
    requests_per_s: f64,
    mean_ns: Option<f64>,
    /// 1.5 where it is not known, or less.
    depth: f64,
}

impl<'a> Timed<'a> {
    pub(super) fn new(ctx: &Context<'_>, client: &'a Client) -> Option<Self> {
        let rtt = client.rtt.interval.as_ref().ok();
        let rtt = rtt.filter(|p| p.count >= TIMED)?;
        let bytes = |mean: &Reading<f64>| mean.as_ref().map_or(0.0, |bytes| *bytes);
        Some(Self {
            client,
            rtt,
            bytes: bytes(&client.rx.mean_bytes)
                .max(bytes(&client.tx.mean_bytes))
                .max(1.0),
            requests_per_s: client.requests_per_s.as_ref().map_or(0.0, |rate| *rate),
            mean_ns: mean_ns(ctx, client),
            depth: in_flight(ctx, client).unwrap_or(0.0).max(SEVERAL),
        })
    }
}

/// Clients of the same server on the same transport, with enough timed requests, messages of like size and about as many requests in flight; itself
/// among them. Nothing if too few of its own were timed.
pub(super) fn comparable<'t>(ctx: &'t Context<'_>, e: &Endpoint, c: &Client) -> Vec<&'t Timed<'t>> {
    let all = ctx.timed(e);
    let Some(mine) = all.iter().find(|o| o.client.number == c.number) else {
        return Vec::new();
    };
    let alike = all.iter().filter(|o| {
        o.client.transport == c.transport && (0.25..=4.0).contains(&(o.bytes / mine.bytes))
    });
    as_deep(mine, alike.collect())
}

/// Whether its waiter, or one that serves it, takes the CPUs to be oversubscribed: then the scheduler decides whose turn is late.
fn is_crowded(e: &Endpoint, c: &Client) -> bool {
    let served_so = e.pollers.iter().any(|p| p.wait.crowded);
    served_so || c.wait.as_ref().is_ok_and(|w| w.crowded)
}

/// Whether the kernel was told to treat it otherwise than each of the others: niced, or kept to CPUs of its own.
fn is_apart(c: &Client, all: &[&Timed<'_>]) -> bool {
    let cpus = |c: &Client| c.thread.as_ref().ok()?.allowed_cpus.clone().ok();
    let mine = cpus(c);
    let mut others = all
        .iter()
        .map(|o| o.client)
        .filter(|o| o.number != c.number);
    // Those whose CPUs are not known may well be kept to the same.
    let elsewhere = |o: &Client| cpus(o).is_some() && cpus(o) != mine;
    is_niced(c) || mine.is_some() && others.all(elsewhere)
}

fn is_niced(c: &Client) -> bool {
    c.thread
        .as_ref()
        .is_ok_and(|t| t.nice.as_ref().is_ok_and(|n| *n > 0))
}

/// Its mean round trip in this window, ns.
fn mean_ns(ctx: &Context<'_>, c: &Client) -> Option<f64> {
    let timed = c.rtt.interval.as_ref().ok()?.count;
    let (now, old) = ctx.client_slots(c.connection_id);
    let sum_ns = delta(old?.rtt.sum_ns, now?.rtt.sum_ns).ok()?;
    (timed > 0).then(|| sum_ns as f64 / timed as f64)
}

/// How many of its requests are in flight, taken over all of the window: by Little's law its rate times its mean round trip. The median would be
/// that of a client without a tail.
pub(super) fn in_flight(ctx: &Context<'_>, c: &Client) -> Option<f64> {
    let rate = c.requests_per_s.as_ref().ok()?;
    Some(rate * mean_ns(ctx, c)? / 1e9)
}

/// Who has more in flight than this has several. Half a request of doubt: of the requests few are timed.
const SEVERAL: f64 = 1.5;
/// Who would have a request in flight for less of the time, if its replies came as those of others do, has no more of them but for their delay.
const SELDOM: f64 = 0.2;

/// Those of `all` that have about as many requests in flight as `c`.
fn as_deep<'t>(c: &Timed<'_>, mut all: Vec<&'t Timed<'t>>) -> Vec<&'t Timed<'t>> {
    let usual_ns = median(all.iter().filter_map(|o| o.mean_ns).collect()).unwrap_or(0.0);
    let without_delay = match c.requests_per_s * usual_ns / 1e9 < SELDOM {
        true => SEVERAL,
        false => c.depth,
    };
    let is_like = |o: f64, c: f64| (0.5..=2.0).contains(&(o / c));
    all.retain(|o| {
        o.client.number == c.client.number
            || is_like(o.depth, c.depth)
            || is_like(o.depth, without_delay)
    });
    all
}

/// The upper one of two, in a time that grows with their number alone.
pub(super) fn median<T: PartialOrd + Copy>(mut all: Vec<T>) -> Option<T> {
    let middle = all.len() / 2;
    if all.is_empty() {
        return None;
    }
    let order = |a: &T, b: &T| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal);
    Some(*all.select_nth_unstable_by(middle, order).1)
}

/// What a wake-up costs at most, ns: tens of microseconds where an idle virtual CPU halts.
const WAKE_UP_NS: u64 = 200_000;

/// Something of one client, and of the median one of the others.
fn beside<T: PartialOrd + Copy>(
    c: &Client,
    all: &[&Timed<'_>],
    of: impl Fn(&Client) -> Option<T>,
) -> Option<(T, T)> {
    let others = all.iter().filter(|o| o.client.number != c.number);
    let theirs = others.filter_map(|o| of(o.client)).collect();
    Some((of(c)?, median(theirs)?))
}

/// Share of the waits that end in a sleep from which a p99 shows it.
const SHOWS: f64 = 0.01;

/// Whether it takes `more_ns` longer than the median client, by a percentile, because of what it asks for, and when.
pub(super) fn is_its_own_doing(
    ctx: &Context<'_>,
    e: &Endpoint,
    c: &Client,
    all: &[&Timed<'_>],
    more_ns: u64,
    by: fn(&Percentiles) -> u64,
) -> bool {
    let handled = |c: &Client| c.handler.interval.as_ref().ok().map(by);
    let longer_ns = beside(c, all, handled).map_or(0, |(mine, theirs)| mine.saturating_sub(theirs));
    let is_full = matches!(c.request_ring().blocked_ratio, Ok(share) if share > BLOCKED);
    longer_ns > more_ns / 2 || is_full || more_ns < WAKE_UP_NS && is_woken(ctx, e, c, all)
}

/// Whether it pauses until both sides sleep. A client that waits for late replies sleeps as well, but its server does not.
fn is_woken(ctx: &Context<'_>, e: &Endpoint, c: &Client, all: &[&Timed<'_>]) -> bool {
    let ends_asleep = |w: &WaitView| Some(w.ended.as_ref().ok()?[2]);
    let asleep = |c: &Client| ends_asleep(c.wait.as_ref().ok()?);
    let sleeps =
        beside(c, all, asleep).is_some_and(|(mine, theirs)| mine > (2.0 * theirs).max(SHOWS));
    let pauses = in_flight(ctx, c).is_none_or(|depth| depth < 0.5);
    let poller = ctx.slot(e, c).ok().and_then(|s| s.info.poller_slot);
    let poller = e.pollers.iter().find(|p| Some(p.slot) == poller);
    let server_sleeps = poller.and_then(|p| ends_asleep(&p.wait));
    // Who was told to park sleeps for each reply, however the others wait.
    let parks = c.wait.as_ref().is_ok_and(|w| w.policy == PolicyKind::Park);
    sleeps && (parks || pauses && server_sleeps.is_none_or(|share| share > SHOWS))
}

fn outlier_client(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(mine) = c.rtt.interval.as_ref().ok().filter(|p| p.count >= TIMED) else {
        return QUIET;
    };
    // The median of four or more is no less than the third least of all, and with a thousand clients that spares most of the comparing.
    if ctx
        .third_p99(e)
        .is_some_and(|third| mine.p99 <= third.saturating_mul(5))
    {
        return QUIET;
    }
    let others = comparable(ctx, e, c);
    if others.len() < 4 {
        return Err(Why::not_applicable("fewer than 4 clients to compare with"));
    }
    let median = median(others.iter().map(|o| o.rtt.p99).collect()).unwrap_or(u64::MAX);
    if mine.p99 <= median.saturating_mul(5) || mine.p99 - median < 20_000 {
        return QUIET;
    }
    let more_ns = mine.p99 - median;
    if is_crowded(e, c) && !is_apart(c, &others)
        || is_its_own_doing(ctx, e, c, &others, more_ns, |p| p.p99)
    {
        return QUIET;
    }
    let mut only = String::new();
    if let Ok(t) = &c.thread {
        let cpus = |c: &Client| c.thread.as_ref().ok().and_then(|t| t.last_cpu.clone().ok());
        let mine = cpus(c);
        if mine.is_some() && others.iter().filter(|o| cpus(o.client) == mine).count() == 1 {
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
