//! Rules about rings that are full, and messages that are too large for them.

use transport::stats::{Role, Via};

use super::fix::{is_frozen, perf, setting};
use super::peer::whereabouts;
use super::refusals::{NEAR, is_near};
use super::server::shares_its_worker;
use super::whom::Whom;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, RingView, Severity};
use crate::reading::{Why, WhyKind};
use crate::sample::Process;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[RING_FULL, MUTUAL_FULL, NEAR_MAX_MESSAGE];

/// The programs that come with the library and have flags for what both sides must agree on.
const BOTH: &str = "exchange, trader";
/// Share of the capacity from which a ring counts as full.
pub(super) const FULL: f64 = 0.8;
/// A ring that was not this full of late did not block for want of room: the transport wraps early, and a batch that crosses the
/// wrap may have to wait for the reader once. A message may be half the ring, so a full ring may hold little more than that.
const LATELY_FULL: f64 = 0.4;
/// Share of the time blocked from which it is critical.
pub(super) const BLOCKED: f64 = 0.01;

/// The two rings with their names and who reads them.
fn rings(c: &Client) -> [(&RingView, &'static str, &'static str); 2] {
    [
        (c.request_ring(), "request", "server"),
        (c.reply_ring(), "reply", "client"),
    ]
}

/// Whether there are rings at all.
pub(super) fn on_shm(c: &Client) -> Result<(), Why> {
    if c.transport == Via::Shm {
        Ok(())
    } else {
        Err(Why::not_applicable("on the socket"))
    }
}

rule! {
    /// Occupancy is sampled, so each window's look at the ring is one vote and hysteresis makes the percentile: full in 3 of 5
    /// windows is no burst. Time blocked on a full ring is counted, not sampled, and it is the effect itself: crit. It counts only
    /// where the ring was 40 % full within ten seconds: at an early wrap a producer may wait at 2 % occupancy, and nothing is wrong.
    RING_FULL = "ring-full", Warn, "a ring is full";
    fires: "occupancy above 80 %; crit if its producer was blocked for more than 1 % of the time";
    quiet: "one burst";
    fix: "a faster reader, more workers where several clients share one, or fewer requests in flight; a larger ring only moves the point";
    explains: ["tail-spread"];
    check: Client(ring_full);
}

/// The fullest that a ring was seen within ten seconds (0..=1).
fn lately(
    ctx: &Context<'_>,
    e: &Endpoint,
    c: &Client,
    ring: &RingView,
    reader: &str,
) -> Option<f64> {
    let capacity = ring.capacity_bytes.clone().ok().filter(|n| *n > 0)?;
    let (requests, replies) = ctx.fullest(e, c);
    let seen = if reader == "server" {
        requests
    } else {
        replies
    };
    Some((seen as f64 / capacity as f64).min(1.0))
}

fn ring_full(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    on_shm(c)?;
    let mut unseen = None;
    for (ring, name, reader) in rings(c) {
        let fill = ring.fill().unwrap_or(0.0);
        // Its producer alone counts that, and may have been blocked between two looks at a ring that is empty now.
        let blocked = ring.blocked_ratio.clone().unwrap_or_else(|why| {
            unseen = hidden(why).or(unseen.take());
            0.0
        });
        let lately = (blocked > BLOCKED).then(|| lately(ctx, e, c, ring, reader));
        let lately = lately.flatten().filter(|full| *full >= LATELY_FULL);
        let blocked = if lately.is_some() { blocked } else { 0.0 };
        if fill <= FULL && blocked <= BLOCKED {
            continue;
        }
        let drained = ring.bytes_per_s.clone().unwrap_or(0.0);
        let fix = if reader == "server" {
            let more = match shares_its_worker(e, c) {
                true => "; or another worker: Config::workers (exchange: --workers)",
                false => ", as a connection has one worker",
            };
            Whom::server(ctx, e, c).told(
                |pid| {
                    let perf = perf(ctx, pid);
                    format!("{perf} top -p {pid}   # its handler is the place to look{more}")
                },
                |name| format!("the handler of {name} is the place to look{more}"),
            )
        } else {
            format!(
                "{} must read its replies before it sends more (trader: a smaller --depth)",
                Whom::client(ctx, e, c).name
            )
        };
        let says = if blocked > BLOCKED {
            // A look between two rounds may find it empty, and "blocked, and 0 % full" reads as a contradiction.
            let full = match lately.filter(|_| fill <= FULL) {
                Some(peak) => format!("has been up to {} full", text::percent(peak)),
                None => format!("is {} full", text::percent(fill)),
            };
            format!(
                "client {}: {} blocked {} of the time; the {reader} drains {}/s, the ring {full}",
                c.number,
                plural(name),
                text::percent(blocked),
                text::bytes(drained as u64)
            )
        } else {
            format!(
                "client {}: the {name} ring is {} full; the {reader} drains {}/s",
                c.number,
                text::percent(fill),
                text::bytes(drained as u64)
            )
        };
        let fire = Fire::new(says, fix)
            .number(
                "occupancy",
                fill * 100.0,
                "%",
                "stats page: house_*_occupancy_bytes",
                format!("> {}", FULL * 100.0),
            )
            .number(
                "blocked",
                blocked * 100.0,
                "%",
                "stats page: tx_blocked_ns",
                format!("> {}", BLOCKED * 100.0),
            );
        return if blocked > BLOCKED {
            fire.at(Severity::Crit)
        } else {
            fire
        }
        .fires();
    }
    unseen.map_or(QUIET, Err)
}

/// A reason why nobody can tell, unless it is one that time mends or that says that there is nothing to tell.
pub(super) fn hidden(why: Why) -> Option<Why> {
    matches!(why.kind, WhyKind::NotVisible | WhyKind::NoPermission).then_some(why)
}

/// The next power of two above `value`; numbers from a page may be anything.
pub(super) fn power_of_two_above(value: u64) -> u64 {
    value
        .saturating_add(1)
        .checked_next_power_of_two()
        .unwrap_or(u64::MAX)
}

/// What allows more than `bytes` in a message: the limit, and rings of which such a message is no more than a quarter.
fn room_for_more_than(bytes: u64) -> String {
    let more = power_of_two_above(bytes);
    let ring = more.saturating_mul(4).max(32 << 20);
    format!(
        "start both sides with {} and {}",
        setting(BOTH, ("max_message_bytes", more), "--max-message"),
        setting(BOTH, ("ring_bytes", ring), "--ring-size")
    )
}

/// Several of what a ring carries.
pub(super) fn plural(name: &str) -> &'static str {
    match name {
        "reply" => "replies",
        _ => "requests",
    }
}

/// Pid of the server of a row; 0 if nobody here knows it.
pub(super) fn server_pid(e: &Endpoint, c: &Client) -> u32 {
    match c.role {
        transport::stats::Role::Server => e.pid,
        transport::stats::Role::Client => c.peer_pid,
    }
}

/// Pid of the client of a row; 0 if nobody here knows it.
pub(super) fn client_pid(e: &Endpoint, c: &Client) -> u32 {
    match c.role {
        transport::stats::Role::Server => c.peer_pid,
        transport::stats::Role::Client => e.pid,
    }
}

rule! {
    /// Each side waits for room in the ring that the other one should drain: nobody moves until a timeout. Both producers must
    /// have waited longer than 200 ms, which no scheduling explains.
    MUTUAL_FULL = "mutual-full", Crit, "both rings are full and both sides wait";
    fires: "both rings full and both producers blocked for more than 200 ms";
    quiet: "one of them moves, or is stopped or frozen";
    fix: "the client must drain replies before it sends";
    explains: ["ring-full", "consumer-stalled"];
    onset: Dated;
    check: Client(mutual_full);
}

fn mutual_full(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    on_shm(c)?;
    let mut blocked = Vec::new();
    for (ring, _, _) in rings(c) {
        match &ring.blocked_for_ns {
            Ok(ns) => blocked.push(*ns),
            Err(why) if why.kind == WhyKind::NotApplicable => return QUIET,
            Err(why) => return Err(why.clone()),
        }
    }
    let least = blocked.iter().copied().min().unwrap_or(0);
    if least <= 200_000_000 {
        return QUIET;
    }
    // Whom somebody halted reads once it goes on: that is the cause, and has rules of its own.
    let halted = |whom: &Whom, thread| {
        let pid = whom.pid.unwrap_or(0);
        let is_stopped = ctx.process(pid).is_ok_and(Process::is_stopped);
        is_stopped || whereabouts(ctx, pid, thread).is_some_and(|at| is_frozen(&at))
    };
    let client = Whom::client(ctx, e, c);
    let server = Whom::server(ctx, e, c);
    if halted(&client, &c.thread) || halted(&server, &c.server_thread) {
        return QUIET;
    }
    let client = client.name;
    Fire::new(
        format!("client {} ({client}): both sides wait for room for {}: a deadlock until the timeout", c.number, text::ns(least)),
        format!("{client} must receive replies while it sends: fewer requests in flight (trader: --depth), or receive when submit says Full"),
    )
    .number("blocked for, the shorter", least as f64, "ns", "stats page: tx_blocked_since_ns", "> 200000000")
    .fires()
}

rule! {
    /// A message of exactly the limit is legal and common where the limit was chosen for it, so nearness alone is reported
    /// only above 80 % and below the limit; a refusal always is, for a minute. Messages that grow may grow beyond the limit; those that have been as
    /// large for a minute are what the limit is for: info. Of a connection that was open for longer when shmtop
    /// began to look, neither refusals nor growth before that are counted.
    NEAR_MAX_MESSAGE = "near-max-message", Warn, "messages reach the size limit";
    fires: "one was refused within the last minute, or the largest is above 80 % of the limit; info where that has not grown for a minute";
    quiet: "exactly the limit and nothing refused for a minute";
    fix: "raise Config::max_message_bytes (exchange, trader: --max-message), and the ring: a message may be half of it at most";
    check: Client(near_max_message);
}

fn near_max_message(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let max = c.max_message_bytes;
    if max == 0 {
        return Err(Why::not_yet("the limit is not agreed yet"));
    }
    let mut unseen = None;
    for (ring, name, _) in rings(c) {
        let from = match name {
            "reply" => Role::Server,
            _ => Role::Client,
        };
        if !ctx.refusals.knows(c.connection_id, from) {
            unseen = Some(Why::not_visible(match from {
                Role::Server => {
                    "the server's page is not visible, which alone counts the replies that were refused"
                }
                Role::Client => {
                    "the client's own page is not visible, which alone counts the requests that were refused"
                }
            }));
        }
        let refused = ctx.refusals.of(c.connection_id, from);
        let largest = ring.largest_bytes.clone().unwrap_or(0);
        if refused > 0 {
            let pages = ctx.model.endpoints.iter().filter(|x| x.role == from);
            let size = pages
                .filter_map(|x| ctx.page(x).ok())
                .flat_map(|p| &p.slots)
                .filter(|s| s.info.connection_id == c.connection_id)
                .map(|s| s.tx.tx_rejected_bytes)
                .max()
                .unwrap_or(0);
            return Fire::new(
                format!(
                    "client {} ({}): {refused} {} of {} refused within a minute (max {})",
                    c.number,
                    Whom::client(ctx, e, c).name,
                    plural(name),
                    text::bytes(size),
                    text::bytes(max)
                ),
                room_for_more_than(size.max(max)),
            )
            .number(
                "refused",
                refused as f64,
                "",
                "stats page: tx_rejected_size, of the last minute",
                "> 0",
            )
            .number(
                "size of the last",
                size as f64,
                "bytes",
                "stats page: tx_rejected_bytes",
                format!("> {max}"),
            )
            .fires();
        }
        if is_near(largest, max) && largest < max {
            let severity = match ctx.refusals.has_grown(c.connection_id, from) {
                true => Severity::Warn,
                false => Severity::Info,
            };
            return Fire::new(
                format!(
                    "client {}: the largest {name} has {} of {} allowed",
                    c.number,
                    text::bytes(largest),
                    text::bytes(max)
                ),
                room_for_more_than(max),
            )
            .number(
                "largest",
                largest as f64,
                "bytes",
                "stats page: *_largest_bytes",
                format!("> {:.0}", NEAR * max as f64),
            )
            .at(severity)
            .fires();
        }
    }
    unseen.map_or(QUIET, Err)
}
