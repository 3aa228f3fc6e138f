//! The panels with pictures: fill of a ring over time, round trips, where the time goes, requests of an endpoint.
//!
//! Each fills the pen's area. Used by the client's own screen and, below the table, by the overview.

use ratatui::layout::Rect;
use ratatui::style::Style;

use super::bars::{TRACK, filled};
use super::cells::round_up;
use super::format::{bytes, count, duration, or_why, percent};
use super::pen::{Pen, wrap};
use super::{Scene, chart};
use crate::history::{FINE_NS, Point};
use crate::model::{Client, Endpoint, Percentiles, Quantile, RECENT_NS, RingView, TimeUse};
use crate::reading::Why;
use crate::ui::Theme;

/// Fill of the request ring over the last minute.
pub(super) fn request_ring(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let colour = (scene.theme().request, scene.theme().request_fill);
    let past = |p: &Point| p.request_ring_bytes;
    occupancy(
        pen,
        scene,
        client,
        "▶ request ring",
        client.request_ring(),
        colour,
        past,
    );
}

/// Fill of the reply ring over the last minute.
pub(super) fn reply_ring(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let colour = (scene.theme().reply, scene.theme().reply_fill);
    let past = |p: &Point| p.reply_ring_bytes;
    occupancy(
        pen,
        scene,
        client,
        "◀ reply ring",
        client.reply_ring(),
        colour,
        past,
    );
}

fn occupancy(
    pen: &mut Pen<'_>,
    scene: &Scene<'_>,
    client: &Client,
    name: &str,
    ring: &RingView,
    colour: (Style, Style),
    past: fn(&Point) -> Option<f32>,
) {
    let theme = scene.theme();
    let remark = match (&ring.high_water_bytes, &ring.capacity_bytes) {
        (Ok(high), Ok(capacity)) => {
            format!(
                "peak {} of {}",
                bytes(*high as f64),
                bytes(*capacity as f64)
            )
        }
        _ => String::new(),
    };
    let title = titled(scene, client, &format!("{name}, 60 s"));
    let inner = chart::frame(pen, theme, &title, &remark);
    if let Err(why) = &ring.occupancy_bytes {
        pen.part(inner)
            .put(inner.x, inner.y, &format!("– {why}"), theme.dim);
        return;
    }
    let values = client
        .history
        .largest(usize::from(inner.width), scene.model.at_ns, FINE_NS, past);
    let seen = values.iter().flatten().fold(0f32, |a, b| a.max(*b));
    // The chart's own scale, or the ring's once a tenth of it is in use: a nearly empty ring has a shape too.
    let capacity = ring.capacity_bytes.as_ref().map_or(0.0, |c| *c as f32);
    let max = if seen > capacity / 10.0 {
        capacity
    } else {
        round_up_bytes(seen)
    };
    let now = format!(
        "now {}",
        or_why(&ring.occupancy_bytes, |b| bytes(*b as f64))
    );
    let scale = format!("↑ {}", bytes(f64::from(max)));
    minute(pen, theme, inner, &values, max, colour, (&scale, &now));
}

/// A chart of the last minute with its scale below: from when, what its height means, and what it is now.
fn minute(
    pen: &mut Pen<'_>,
    theme: &Theme,
    inner: Rect,
    values: &[Option<f32>],
    max: f32,
    colour: (Style, Style),
    (scale, now): (&str, &str),
) {
    let place = Rect {
        height: inner.height.saturating_sub(1),
        ..inner
    };
    chart::area(&mut pen.part(place), values, max, colour, theme.faint);
    let y = inner.bottom().saturating_sub(1);
    let mut part = pen.part(inner);
    part.put(inner.x, y, "−60 s", theme.dim);
    part.put(inner.x + 8, y, scale, theme.dim);
    part.put_right(inner.right(), y, now, theme.text);
}

/// Requests per second over the last minute.
pub(super) fn rate(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let title = titled(scene, client, "requests per second, 60 s");
    let inner = chart::frame(pen, theme, &title, "");
    let values = client
        .history
        .means(usize::from(inner.width), scene.model.at_ns, FINE_NS, |p| {
            p.requests_per_s
        });
    let now = client.steady_requests_per_s();
    per_second(pen, theme, inner, &values, now);
}

/// The power of two not below `bytes`, so that the scale keeps still and reads as a size.
fn round_up_bytes(bytes: f32) -> f32 {
    let whole = bytes.max(1024.0).ceil() as u64;
    whole.next_power_of_two() as f32
}

/// A picture's title: below the table it says whose it is.
fn titled(scene: &Scene<'_>, client: &Client, what: &str) -> String {
    if scene.state.client.is_some() {
        what.to_owned()
    } else {
        format!("client {}: {what}", client.number)
    }
}

/// Percentiles of the last interval beside those since start, and the heat map.
pub(super) fn latency(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let title = titled(scene, client, "round trip");
    let inner = chart::frame(pen, theme, &title, "now | since start");
    let mut part = pen.part(inner);
    let rtt = &client.rtt;
    let ((Ok(_), _) | (_, Ok(_))) = (&rtt.recent, &rtt.since_start) else {
        if let Err(why) = &rtt.since_start {
            reason(&mut part, theme, why);
        }
        return;
    };
    let rows = [
        ("p50", Quantile::P50),
        ("p99", Quantile::P99),
        ("p99.9", Quantile::P999),
        ("max", Quantile::Max),
    ];
    for (i, (name, quantile)) in rows.into_iter().enumerate() {
        let y = inner.y + i as u16;
        let cell = |p: Result<&Percentiles, &Why>| {
            p.map_or_else(|_| "–".to_owned(), |p| duration(quantile.of(p) as f64))
        };
        let now = rtt.shown(quantile);
        let firm = now.is_ok_and(|p| quantile.is_carried_by(p));
        let style = if firm { theme.text } else { theme.dim };
        part.put(inner.x, y, name, theme.dim);
        part.put_right(inner.x + 13, y, &cell(now), style);
        part.put(inner.x + 14, y, "|", theme.faint);
        let all = cell(rtt.since_start.as_ref());
        part.put_right(inner.x + 22, y, &all, theme.dim);
    }
    // What the largest is of, and each percentile that the interval doesn't carry. Those of a longer interval are all of that one.
    let span = match &scene.model.interval_ns {
        Ok(ns) if *ns > RECENT_NS => "",
        _ => " in 10 s",
    };
    let timed = rtt.shown(Quantile::Max).map_or(0, |p| p.count);
    let timed = format!("{} timed{span}", count(timed as f64));
    part.put(inner.x, inner.y + 4, &timed, theme.dim);
    if inner.width >= 40 {
        let x = inner.x + 25;
        let map = Rect {
            x,
            width: inner.right() - x,
            height: inner.height.saturating_sub(1),
            ..inner
        };
        let seconds = client
            .history
            .heat(usize::from(map.width), scene.model.at_ns);
        let range = chart::heat(&mut pen.part(map), &seconds, theme);
        let mut part = pen.part(inner);
        let y = inner.bottom().saturating_sub(1);
        let text = match range {
            Some((low, high)) => format!(
                "↑ {} – {}, 1 s a column",
                duration(low as f64),
                duration(high as f64)
            ),
            None => "none was seen yet".to_owned(),
        };
        part.put(x, y, &text, theme.dim);
    }
}

/// Where the client's thread spends its time.
pub(super) fn time(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let title = titled(scene, client, "where the time goes");
    let inner = chart::frame(pen, theme, &title, "of wall time, no core apart");
    let mut part = pen.part(inner);
    let shares = match &client.time {
        Ok(shares) => shares,
        Err(why) => {
            reason(&mut part, theme, why);
            return;
        }
    };
    let wide = usize::from(inner.width.saturating_sub(16)).min(40);
    for (i, (what, share)) in shares.parts().into_iter().enumerate() {
        let y = inner.y + i as u16;
        let style = match what {
            TimeUse::Useful => theme.useful,
            TimeUse::Spin => theme.spin,
            TimeUse::Yield => theme.yielding,
            TimeUse::Blocked | TimeUse::NoCore => theme.blocked,
            TimeUse::Sleep | TimeUse::Idle => theme.park,
        };
        part.put(inner.x, y, what.name(), theme.dim);
        let track: String = std::iter::repeat_n(TRACK, wide).collect();
        part.put(inner.x + 8, y, &track, theme.faint);
        part.put(inner.x + 8, y, &filled(wide, share), style);
        part.put_right(
            inner.x + 8 + wide as u16 + 7,
            y,
            &percent(share),
            theme.text,
        );
    }
}

/// Why there is nothing to see, in as many lines as it takes.
pub(super) fn reason(pen: &mut Pen<'_>, theme: &Theme, why: &Why) {
    let area = pen.area();
    let lines = wrap(&format!("– {why}"), usize::from(area.width));
    for (i, line) in lines.iter().enumerate() {
        pen.put(area.x, area.y + i as u16, line, theme.dim);
    }
}

/// Requests per second of all clients of an endpoint over the last minute.
pub(super) fn throughput(pen: &mut Pen<'_>, scene: &Scene<'_>, endpoint: &Endpoint) {
    let theme = scene.theme();
    let title = format!("{}: requests per second, 60 s", endpoint.name);
    let inner = chart::frame(pen, theme, &title, "");
    let totals = &endpoint.totals;
    let values = totals
        .history
        .means(usize::from(inner.width), scene.model.at_ns, FINE_NS, |p| {
            p.requests_per_s
        });
    let now = totals.steady_requests_per_s();
    per_second(pen, theme, inner, &values, now);
}

/// A chart of requests per second.
fn per_second(
    pen: &mut Pen<'_>,
    theme: &Theme,
    inner: Rect,
    values: &[Option<f32>],
    now: Result<f64, &Why>,
) {
    let max = round_up(values.iter().flatten().fold(0f32, |a, b| a.max(*b)));
    let now = now.map_or_else(|_| "–".to_owned(), |v| format!("now {}/s", count(v)));
    let scale = format!("↑ {}/s", count(f64::from(max)));
    let colour = (theme.request, theme.request_fill);
    minute(pen, theme, inner, values, max, colour, (&scale, &now));
}
