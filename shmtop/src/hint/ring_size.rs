//! Rules about the size of rings: waste at the wrap, memory in vain, a cached index that saves nothing.

use super::ring::{on_shm, power_of_two_above};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint};
use crate::reading::Why;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[WRAP_WASTE, RING_OVERSIZED, POINTER_REFRESH];

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
        format!("--ring-size {}", slot.info.tx_capacity.saturating_mul(4)),
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
    quiet: "no memory limit";
    fix: "--ring-size";
    check: Endpoint(ring_oversized);
}

fn ring_oversized(_: &Context<'_>, e: &Endpoint) -> Answer {
    if e.role != transport::stats::Role::Server || e.totals.shm == 0 {
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
    let used: u64 = e
        .clients
        .iter()
        .flat_map(|c| [c.tx.high_water_bytes.clone(), c.rx.high_water_bytes.clone()])
        .flatten()
        .max()
        .unwrap_or(0);
    Fire::new(
        format!(
            "{} (pid {}) has reserved {} for rings of a {} limit; no ring ever held more than {}",
            e.name,
            e.pid,
            text::bytes(reserved),
            text::bytes(limit),
            text::bytes(used)
        ),
        format!(
            "--ring-size {}",
            power_of_two_above(used.saturating_mul(8)).max(1 << 20)
        ),
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
    /// With one request in flight each message needs a look at the other side's index: about 1 per message is inherent. With 8
    /// in flight most looks should be saved by the cached index.
    POINTER_REFRESH = "pointer-refresh", Info, "the cached index saves nothing";
    fires: "more than 0.5 looks at the other side's index per message with 8 or more in flight";
    quiet: "depth 1";
    fix: "batch: submit several before receiving, or use a larger ring";
    check: Client(pointer_refresh);
}

fn pointer_refresh(_: &Context<'_>, _: &Endpoint, c: &Client) -> Answer {
    on_shm(c)?;
    if c.in_flight < 8 {
        return QUIET;
    }
    let (loads, messages) = (
        c.tx.index_loads_per_s.clone()?,
        c.tx.messages_per_s.clone()?,
    );
    if messages < 1000.0 || loads <= 0.5 * messages {
        return QUIET;
    }
    Fire::new(
        format!(
            "client {}: {:.2} looks at the other side's index per message with {} in flight",
            c.number,
            loads / messages,
            c.in_flight
        ),
        "send in batches (fire_batch), or use a larger ring",
    )
    .number(
        "looks per message",
        loads / messages,
        "",
        "stats page: tx_index_loads / tx_messages",
        "> 0.5",
    )
    .number(
        "in flight",
        c.in_flight as f64,
        "",
        "stats page: in_flight",
        ">= 8",
    )
    .fires()
}
