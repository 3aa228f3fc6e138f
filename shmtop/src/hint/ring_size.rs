//! Rules about the size of rings: waste at the wrap, memory in vain, a cached index that saves nothing.

use transport::config::MAX_RING_BYTES;
use transport::stats::{Role, Slot};

use super::fix::setting;
use super::ring::{on_shm, power_of_two_above};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint};
use crate::rate::{Span, delta};
use crate::reading::Why;
use crate::sample::Sample;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[WRAP_WASTE, RING_OVERSIZED, POINTER_REFRESH];

/// What a message takes in its half of a ring besides itself.
const HEADER_BYTES: u64 = 64;

/// Rings of another size, which both sides must agree on.
fn ring_of(bytes: u64) -> String {
    let bytes = bytes.min(MAX_RING_BYTES as u64);
    let size = setting("exchange, trader", ("ring_bytes", bytes), "--ring-size");
    format!("start both sides with {size}")
}

/// Bytes of the smallest rings, each way, that a server's clients may have: the library takes none that do not hold two of the largest message
/// with their headers. And 1 MiB, below which there is little to win.
pub(super) fn smallest_ring(e: &Endpoint) -> u64 {
    let allowed = e.clients.iter().map(|c| c.max_message_bytes).max();
    // No client yet: the library's default.
    let allowed = allowed.filter(|n| *n > 0).unwrap_or(2 << 20);
    let least = allowed.saturating_add(HEADER_BYTES).saturating_mul(2);
    power_of_two_above(least - 1).max(1 << 20)
}

rule! {
    /// A message must be contiguous, so what is left at the end of the ring is skipped. Early wraps on purpose (the window) are
    /// padding too, but cheap: they save memory traffic. So only padding beyond 10 % after many wraps counts.
    WRAP_WASTE = "wrap-waste", Info, "much of the ring is skipped at the wrap";
    fires: "padding above 10 % of the bytes after more than 1000 wraps, with a window that is the whole ring";
    quiet: "early wraps within a window";
    fix: "a bigger ring or smaller messages";
    check: Client(wrap_waste);
}

fn wrap_waste(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    on_shm(c)?;
    let slot = ctx.slot(e, c)?;
    let t = &slot.tx;
    let padding = c.tx.padding_ratio.clone().unwrap_or(0.0);
    let windowed = t.tx_window_bytes != 0 && t.tx_window_bytes < slot.info.tx_capacity;
    if windowed || t.tx_wraps <= 1000 || padding <= 0.1 {
        return QUIET;
    }
    Fire::new(
        format!(
            "client {}: {} of the ring's bytes are padding: messages of {} don't divide {}",
            c.number,
            text::percent(padding),
            text::bytes(t.tx_largest_bytes),
            text::bytes(slot.info.tx_capacity)
        ),
        ring_of(slot.info.tx_capacity.saturating_mul(4)),
    )
    .number(
        "padding",
        padding * 100.0,
        "%",
        "stats page: tx_padding_bytes",
        "> 10",
    )
    .number(
        "wraps",
        t.tx_wraps as f64,
        "",
        "stats page: tx_wraps",
        "> 1000",
    )
    .fires()
}

rule! {
    /// Reserved ring memory costs nothing until it is touched, so this matters only where the reservation is a large part of
    /// a memory limit: then it bounds how many clients may come.
    RING_OVERSIZED = "ring-oversized", Info, "rings are much larger than ever needed";
    fires: "after 60 s no ring was ever fuller than 5 %, and all rings together are more than 10 % of the memory limit";
    quiet: "no memory limit, or rings as small as the largest message allows";
    fix: "Config::ring_bytes (exchange, trader: --ring-size)";
    check: Endpoint(ring_oversized);
}

fn ring_oversized(_: &Context<'_>, e: &Endpoint) -> Answer {
    if e.role != Role::Server || e.totals.shm == 0 {
        return Err(Why::not_applicable("not a server with rings"));
    }
    let limit = e.limits.memory_max_bytes.clone()?;
    let reserved = e.totals.ring_reserved_bytes;
    if e.age_ns < 60_000_000_000 || reserved as f64 <= 0.1 * limit as f64 {
        return QUIET;
    }
    let peak = e
        .clients
        .iter()
        .flat_map(|c| [c.tx.peak(), c.rx.peak()])
        .flatten()
        .fold(0.0, f64::max);
    if peak >= 0.05 {
        return QUIET;
    }
    let used = e
        .clients
        .iter()
        .flat_map(|c| [c.tx.high_water_bytes.clone(), c.rx.high_water_bytes.clone()])
        .flatten()
        .max()
        .unwrap_or(0);
    let enough = power_of_two_above(used.saturating_mul(8)).max(smallest_ring(e));
    let rings = e.clients.iter().flat_map(|c| [&c.tx, &c.rx]);
    let largest = rings.filter_map(|r| r.capacity_bytes.clone().ok()).max();
    if largest.is_some_and(|now| enough >= now) {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} (pid {}) has reserved {} for rings of a {} limit; no ring ever held more than {}",
            e.name,
            e.pid,
            text::bytes(reserved),
            text::bytes(limit),
            text::bytes(used)
        ),
        ring_of(enough),
    )
    .number(
        "high water",
        peak * 100.0,
        "%",
        "stats page: house_*_high_water_bytes",
        "< 5",
    )
    .number(
        "reserved",
        reserved as f64,
        "bytes",
        "stats page: *_capacity",
        format!("> {:.0}", 0.1 * limit as f64),
    )
    .fires()
}

rule! {
    /// A producer looks at the other side's index only when the one it remembers leaves no room, so with room for many messages most
    /// looks are saved. A ring that holds few messages saves none: with 12,000 B in rings of 64 KiB the demo's client looked 0.59 times a
    /// message, with 15,000 B once, with 4000 B 0.2 times. With one request in flight the other side has to be waited for anyway; and beside the copy
    /// of a large message (64 KiB take 6 µs or more) a look, some 0.1 µs, is nothing. A ring that holds many messages and is full all the time needs
    /// a look for each of them, too; that is its reader's doing, and `ring-full` says so.
    POINTER_REFRESH = "pointer-refresh", Info, "the cached index saves nothing";
    fires: "a producer looks at the other side's index more than 0.5 times a message, with 2 or more requests in flight and 1000 messages per second or more, in a ring that holds fewer than 32 of them";
    quiet: "depth 1; messages above 64 KiB; a ring for more messages than that";
    fix: "a ring that holds 32 messages or more: Config::ring_bytes (exchange, trader: --ring-size)";
    check: Client(pointer_refresh);
}

/// Messages whose copy makes a look at an index not worth mentioning.
const LARGE_BYTES: u64 = 64 << 10;

fn pointer_refresh(ctx: &Context<'_>, _: &Endpoint, c: &Client) -> Answer {
    on_shm(c)?;
    let in_flight = c.in_flight.clone()?;
    if in_flight < 2 {
        return QUIET;
    }
    let before = ctx.before()?;
    let span = Span::between(before.time.monotonic_ns, ctx.sample.time.monotonic_ns)?;
    for (name, role) in [("request", Role::Client), ("reply", Role::Server)] {
        let sides = producer(before, c, role).zip(producer(ctx.sample, c, role));
        // The other end's page need not be visible.
        let Some((old, now)) = sides else { continue };
        let (old, capacity, now) = (&old.tx, now.info.tx_capacity, &now.tx);
        let messages = delta(old.tx_messages, now.tx_messages)?;
        let looks = delta(old.tx_index_loads, now.tx_index_loads)?;
        let per_s = span.per_second(0, messages)?;
        if per_s < 1000.0 || looks as f64 <= 0.5 * messages as f64 {
            continue;
        }
        let size = delta(old.tx_bytes, now.tx_bytes)? / messages.max(1);
        let enough = power_of_two_above(size.saturating_add(64).saturating_mul(32));
        if size > LARGE_BYTES || capacity >= enough {
            continue;
        }
        let per_message = looks as f64 / messages.max(1) as f64;
        return Fire::new(
            format!(
                "client {}: the {name} ring holds so few messages of {} that its writer looks {per_message:.2} times a message at the reader's index, with {} in flight",
                c.number,
                text::bytes(size),
                in_flight
            ),
            ring_of(enough),
        )
        .number("looks per message", per_message, "", "stats pages: tx_index_loads / tx_messages", "> 0.5")
        .number("in flight", in_flight as f64, "", "stats page: in_flight", ">= 2")
        .fires();
    }
    QUIET
}

/// The slot of a connection's writer on one side.
fn producer<'s>(sample: &'s Sample, c: &Client, role: Role) -> Option<&'s Slot> {
    let pages = sample.pages.iter().filter_map(|p| p.snapshot());
    let slots = pages.filter(|s| s.role == role).flat_map(|s| &s.slots);
    let mut mine = slots.filter(|s| s.info.connection_id == c.connection_id);
    mine.next()
}
