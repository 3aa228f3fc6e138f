//! The panels with facts about one client: pointer cache, waits, ring memory, counters per message, requests.
//!
//! Each fills the pen's area. Used by the client's own screen.

use ratatui::style::Style;
use transport::stats::{Role, Via};

use super::format::{bytes, count, duration, or_why, percent};
use super::panels::reason;
use super::pen::{Pen, width};
use super::{Scene, chart};
use crate::history::FINE_NS;
use crate::model::{Client, Quantile, RingView, RttView};
use crate::reading::{Reading, Why};
use crate::ui::Theme;

/// A label and its value at the row.
fn fact(pen: &mut Pen<'_>, theme: &Theme, row: u16, label: &str, value: &str, style: Style) {
    let area = pen.area();
    let y = area.y + row;
    let x = pen.put(area.x, y, label, theme.dim);
    // A reason stands back behind what is known.
    let style = if value.starts_with('–') {
        theme.dim
    } else {
        style
    };
    pen.put(x.max(area.x + 12) + 1, y, value, style);
}

pub(super) fn pointer(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(
        pen,
        theme,
        "pointer cache",
        "hits | looks at the other index",
    );
    let mut part = pen.part(inner);
    let line = |ring: &RingView| {
        format!(
            "{:>6} | {}",
            or_why(&ring.cached_index_hit_ratio, |h| percent(*h)),
            or_why(&ring.index_loads_per_s, |l| format!("{}/s", count(*l))),
        )
    };
    let rings = [client.request_ring(), client.reply_ring()];
    for (i, (ring, name)) in rings
        .into_iter()
        .zip(["▶ requests", "◀ replies"])
        .enumerate()
    {
        let text = match &ring.cached_index_hit_ratio {
            Ok(_) => line(ring),
            Err(why) => format!("– {why}"),
        };
        fact(&mut part, theme, i as u16, name, &text, theme.text);
    }
    let hits = client.history.means(
        usize::from(inner.width.saturating_sub(13)),
        scene.model.at_ns,
        FINE_NS,
        |p| p.hit_ratio,
    );
    let text: String = hits
        .into_iter()
        .map(|h| super::bars::level(h, 1.0))
        .collect();
    fact(&mut part, theme, 2, "60 s", &text, theme.request);
}

pub(super) fn waits(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(
        pen,
        theme,
        "waits of the client",
        "per s | of time | ends the wait",
    );
    let mut part = pen.part(inner);
    let wait = match &client.wait {
        Ok(wait) => wait,
        Err(why) => {
            reason(&mut part, theme, why);
            return;
        }
    };
    let rate = |r: &Reading<f64>| or_why(r, |v| count(*v));
    let share = |r: &Reading<f64>| or_why(r, |v| percent(*v));
    // Why there is none is plain from the column beside it.
    let ended = |i: usize| {
        wait.ended
            .as_ref()
            .map_or("–".to_owned(), |e| percent(e[i]))
    };
    let line = |n: &Reading<f64>, s: &Reading<f64>, i: usize| {
        format!("{:>6} | {:>6} | {:>6}", rate(n), share(s), ended(i))
    };
    let spin = line(&wait.spins_per_s, &wait.spin_share, 0);
    let yields = line(&wait.yields_per_s, &wait.yield_share, 1);
    let parks = line(&wait.sleeps_per_s, &wait.sleep_share, 2);
    fact(&mut part, theme, 0, "spin", &spin, theme.text);
    fact(&mut part, theme, 1, "yield", &yields, theme.text);
    fact(&mut part, theme, 2, "park", &parks, theme.text);
    let woke = match &wait.park.interval {
        Ok(p) => format!(
            "p50 {}, p99 {}",
            duration(p.p50 as f64),
            duration(p.p99 as f64)
        ),
        Err(_) if client.transport == Via::Socket => "– timed on rings only".to_owned(),
        Err(_) => or_why(&wait.park.since_start, |p| {
            format!("p50 {} since start", duration(p.p50 as f64))
        }),
    };
    let crowd = if wait.crowded { "; CPUs crowded" } else { "" };
    fact(
        &mut part,
        theme,
        3,
        "parked for",
        &format!("{woke}{crowd}"),
        theme.text,
    );
}

pub(super) fn memory(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(pen, theme, "ring memory", "touched | most | window");
    let mut part = pen.part(inner);
    let size = |r: &Reading<u64>| {
        r.as_ref()
            .map_or_else(|_| "–".to_owned(), |b| bytes(*b as f64))
    };
    let line = |ring: &RingView| match &ring.capacity_bytes {
        Err(why) => format!("– {why}"),
        Ok(capacity) => format!(
            "{:>8} | {:>8} | {:>8} of {}",
            size(&ring.touched_bytes),
            size(&ring.high_water_bytes),
            size(&ring.window_bytes),
            bytes(*capacity as f64)
        ),
    };
    fact(
        &mut part,
        theme,
        0,
        "▶ requests",
        &line(client.request_ring()),
        theme.text,
    );
    fact(
        &mut part,
        theme,
        1,
        "◀ replies",
        &line(client.reply_ring()),
        theme.text,
    );
    let largest = or_why(&client.request_ring().largest_bytes, |b| {
        format!(
            "{} of {} allowed",
            bytes(*b as f64),
            bytes(client.max_message_bytes as f64)
        )
    });
    fact(&mut part, theme, 2, "largest", &largest, theme.text);
    let pages = match client.huge_pages {
        0 => "4 KiB",
        1 => "huge",
        3 => "transparent huge ones (none free in the pool)",
        _ => "4 KiB (huge ones asked for, none free)",
    };
    fact(&mut part, theme, 3, "pages", pages, theme.text);
    // The end of a path says most.
    let room = usize::from(inner.width.saturating_sub(13));
    let mut charged = charged(scene, client);
    if charged.starts_with('/') {
        charged = tail(charged, room);
    }
    fact(&mut part, theme, 4, "charged to", &charged, theme.text);
}

/// At most `room` cells of a text, its end.
fn tail(text: String, room: usize) -> String {
    if width(&text) <= room {
        return text;
    }
    format!("…{}", crate::text::end(&text, room.saturating_sub(1)))
}

/// Whose memory cgroup pays: that of the process which touches a page first, as a rule the one that writes.
fn charged(scene: &Scene<'_>, client: &Client) -> String {
    let group = |pid: u32| {
        let of = scene.model.endpoints.iter().find(|e| e.pid == pid)?;
        Some(of.limits.memory_group.clone())
    };
    let own = super::client::find(scene).map(|(e, _)| e.pid);
    let peer = Some(client.peer_pid);
    let (requester, replier) = match client.role {
        Role::Server => (peer, own),
        Role::Client => (own, peer),
    };
    let name = |group: Option<Reading<String>>| match group {
        Some(Ok(path)) => path.trim_start_matches("/sys/fs/cgroup").to_owned(),
        Some(Err(why)) => format!("– {why}"),
        None => "– its page is not shown".to_owned(),
    };
    let (writer, replier) = (
        name(requester.and_then(group)),
        name(replier.and_then(group)),
    );
    if writer == replier {
        format!("{writer} (both ends)")
    } else {
        format!("▶ {writer}  ◀ {replier} (first touch)")
    }
}

pub(super) fn counters(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(pen, theme, "per message", "");
    let mut part = pen.part(inner);
    let perf = &client.perf;
    let number = |r: &Reading<f64>| {
        or_why(r, |v| {
            if *v > 0.0 && *v < 0.05 {
                format!("{v:.4}")
            } else {
                count(*v)
            }
        })
    };
    fact(
        &mut part,
        theme,
        0,
        "cache misses",
        &number(&perf.cache_misses_per_message),
        theme.text,
    );
    let counted = match &perf.counted_share {
        Ok(share) => format!(", counted {} of the time", percent(*share)),
        Err(_) => String::new(),
    };
    let ipc = or_why(&perf.instructions_per_cycle, |v| format!("{v:.2}{counted}"));
    fact(&mut part, theme, 1, "instr/cycle", &ipc, theme.text);
    fact(
        &mut part,
        theme,
        2,
        "page faults",
        &number(&perf.faults_per_message),
        theme.text,
    );
    let switches = number(&perf.context_switches_per_message);
    fact(&mut part, theme, 3, "ctx switches", &switches, theme.text);
    let mean = or_why(&client.request_ring().mean_bytes, |b| bytes(*b));
    fact(&mut part, theme, 4, "size, mean", &mean, theme.text);
}

pub(super) fn requests(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(pen, theme, "requests", "");
    let mut part = pen.part(inner);
    let shown = |rate: Result<f64, &Why>, show: fn(f64) -> String| {
        rate.map_or_else(|why| format!("– {why}"), show)
    };
    let rate = format!(
        "{}/s, {}/s both ways",
        shown(client.steady_requests_per_s(), count),
        shown(client.steady_bytes_per_s(), bytes),
    );
    fact(&mut part, theme, 0, "rate", &rate, theme.text);
    let oldest = client.oldest_age_ns.as_ref().map_or_else(
        |_| String::new(),
        |ns| format!(", oldest for {}", duration(*ns as f64)),
    );
    fact(
        &mut part,
        theme,
        1,
        "in flight",
        &(or_why(&client.in_flight, u64::to_string) + &oldest),
        theme.text,
    );
    fact(
        &mut part,
        theme,
        2,
        "handler",
        &handler(&client.handler),
        theme.text,
    );
    let bad = |n: &Reading<u64>| matches!(n, Ok(1..));
    let style = if bad(&client.timeouts) || bad(&client.late_replies) || client.errors > 0 {
        theme.warn
    } else {
        theme.text
    };
    let errors = format!("{} errors", client.errors);
    let text = match (&client.timeouts, &client.late_replies) {
        (Ok(timeouts), Ok(late)) => format!("{timeouts} timeouts, {late} late replies, {errors}"),
        (Err(why), _) | (_, Err(why)) => format!("{errors}; timeouts – {why}"),
    };
    fact(&mut part, theme, 3, "since start", &text, style);
}

fn handler(view: &RttView) -> String {
    let shown = |q: Quantile| view.shown(q).map(|p| duration(q.of(p) as f64));
    match (shown(Quantile::P50), shown(Quantile::P99)) {
        (Ok(p50), Ok(p99)) => format!("p50 {p50}, p99 {p99}"),
        (Err(why), _) | (_, Err(why)) => format!("– {why}"),
    }
}
