//! One client, opened: who, the verdict, and panels on its rings, latency, time, waits, memory and counters.

use ratatui::layout::Rect;
use ratatui::style::Style;
use transport::stats::Via;

use super::bars::{TRACK, filled};
use super::format::{age, bytes, count, duration, or_why, percent};
use super::pen::{Pen, Piece, fit, wrap};
use super::{Scene, bound_style, chart, client_mark};
use crate::model::{Client, Endpoint, Percentiles, RingView, RttView, ThreadView};
use crate::reading::Reading;
use crate::ui::Theme;
use crate::ui::local_time::clock;

/// The client that is open, while it is there.
pub(super) fn find<'a>(scene: &Scene<'a>) -> Option<(&'a Endpoint, &'a Client)> {
    let id = scene.state.client.as_ref()?;
    scene
        .model
        .endpoints
        .iter()
        .flat_map(|e| e.clients.iter().map(move |c| (e, c)))
        .find(|(e, c)| id.is(e, c))
}

/// A panel: its height at least, and what draws it.
struct Panel {
    height: u16,
    draw: fn(&mut Pen<'_>, &Scene<'_>, &Client),
}

const OCCUPANCY: Panel = Panel {
    height: 7,
    draw: occupancy,
};
const LATENCY: Panel = Panel {
    height: 7,
    draw: latency,
};
const TIME: Panel = Panel {
    height: 9,
    draw: time,
};
const POINTER: Panel = Panel {
    height: 5,
    draw: pointer,
};
const WAITS: Panel = Panel {
    height: 6,
    draw: waits,
};
const MEMORY: Panel = Panel {
    height: 6,
    draw: memory,
};
const COUNTERS: Panel = Panel {
    height: 7,
    draw: counters,
};
const REQUESTS: Panel = Panel {
    height: 6,
    draw: requests,
};

/// Draws it.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, endpoint: &Endpoint, client: &Client) {
    let area = pen.area();
    let used = head(pen, scene, endpoint, client);
    if area.is_empty() {
        return;
    }
    let body = Rect {
        y: (area.y + used).min(area.bottom()),
        height: area.height.saturating_sub(used),
        ..area
    };
    // Columns of panels, filled from the top; what has no room below is reached by scrolling panel by panel.
    let columns: Vec<Vec<Panel>> = if area.width >= 150 {
        vec![
            vec![OCCUPANCY, POINTER, REQUESTS],
            vec![LATENCY, WAITS, COUNTERS],
            vec![TIME, MEMORY],
        ]
    } else if area.width >= 96 {
        vec![
            vec![OCCUPANCY, POINTER, WAITS, MEMORY],
            vec![LATENCY, TIME, REQUESTS, COUNTERS],
        ]
    } else {
        vec![vec![
            LATENCY, OCCUPANCY, TIME, WAITS, POINTER, REQUESTS, MEMORY, COUNTERS,
        ]]
    };
    let n = columns.len() as u16;
    for (i, panels) in columns.into_iter().enumerate() {
        let i = i as u16;
        let x = body.x + body.width * i / n;
        let right = body.x + body.width * (i + 1) / n;
        let column = Rect {
            x,
            width: right - x,
            ..body
        };
        stack(pen, scene, client, column, &panels);
    }
}

/// Draws panels one below the other; the first one takes what is left over.
fn stack(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client, area: Rect, panels: &[Panel]) {
    let total: u16 = panels.iter().map(|p| p.height).sum();
    let mut skip = 0;
    let mut hidden = total;
    while skip < scene.state.scroll && skip + 1 < panels.len() && hidden > area.height {
        hidden -= panels[skip].height;
        skip += 1;
    }
    let shown = &panels[skip..];
    let mut y = area.y;
    let needed: u16 = shown.iter().map(|p| p.height).sum();
    let spare = area.height.saturating_sub(needed).min(12);
    for (i, panel) in shown.iter().enumerate() {
        let height = panel.height + if i == 0 { spare } else { 0 };
        if y + height > area.bottom() && i > 0 {
            let left = shown.len() - i;
            let text = format!(" ↓ {left} more ");
            pen.put_right(
                area.right(),
                area.bottom().saturating_sub(1),
                &text,
                scene.theme().dim,
            );
            break;
        }
        let place = Rect { y, height, ..area };
        (panel.draw)(&mut pen.part(place), scene, client);
        y += height;
    }
}

/// Who it is and what bounds it; returns the lines used.
fn head(pen: &mut Pen<'_>, scene: &Scene<'_>, endpoint: &Endpoint, client: &Client) -> u16 {
    let theme = scene.theme();
    let area = pen.area();
    let room = usize::from(area.width.saturating_sub(2));
    let (mark, style) = client_mark(theme, client);
    let ring = client.request_ring();
    let via = match (client.transport, &ring.capacity_bytes) {
        (Via::Shm, Ok(capacity)) => format!("shm, 2 × {}, sealed", bytes(*capacity as f64)),
        (Via::Shm, Err(_)) => "shm".to_owned(),
        (Via::Socket, _) => "socket".to_owned(),
    };
    let groups: Vec<(u8, Vec<Piece>)> = vec![
        (
            0,
            vec![
                (format!("{mark} "), style),
                (format!("client {}", client.number), theme.accent),
                (format!(" ▸ peer {}", client.peer_pid), theme.text),
                (
                    format!(" {} (uid {})", client.peer_comm, client.peer_uid),
                    theme.dim,
                ),
            ],
        ),
        (1, vec![(via, theme.text)]),
        (
            3,
            vec![
                ("policy ".to_owned(), theme.dim),
                (client.wait_policy.clone(), theme.text),
            ],
        ),
        (
            2,
            vec![
                ("up ".to_owned(), theme.dim),
                (age(client.age_ns), theme.text),
            ],
        ),
        (
            4,
            vec![
                ("at ".to_owned(), theme.dim),
                (format!("{} ({})", endpoint.name, endpoint.pid), theme.dim),
            ],
        ),
    ];
    pen.pieces(area.x + 1, area.y, &fit(groups, room, 3));
    let mut y = area.y + 1;
    let place = format!(
        "thread {} ⇄ server {}",
        thread(&client.thread),
        thread(&client.server_thread)
    );
    if area.height >= 14 {
        pen.put(area.x + 1, y, &place, theme.dim);
        y += 1;
    }
    let ago = scene.model.at_ns.saturating_sub(client.verdict.since_ns);
    let since = clock(
        scene.model.at_realtime_ns.saturating_sub(ago),
        scene.status.utc_offset_s,
    );
    let mut x = pen.put(area.x + 1, y, "bound by ", theme.dim);
    x = pen.put(
        x,
        y,
        client.verdict.bound.name(),
        bound_style(theme, client.verdict.bound).add_modifier(ratatui::style::Modifier::BOLD),
    );
    x = pen.put(x, y, &format!(" since {since}: "), theme.dim);
    let said = wrap(
        &client.verdict.says,
        usize::from(area.right().saturating_sub(x + 1)),
    );
    for (i, line) in said.iter().take(2).enumerate() {
        pen.put(x, y, line, theme.text);
        y += u16::from(i + 1 < said.len().min(2));
    }
    y += 1;
    if let (Via::Socket, Some(fallback)) = (client.transport, &client.fallback) {
        let step = transport::error::Step::from_number(fallback.step);
        let step = step.map_or_else(
            || format!("step {}", fallback.step),
            |s| s.name().to_owned(),
        );
        let mut text = format!("not on shared memory: {step}");
        if fallback.errno != 0 {
            text.push_str(&format!(
                " → {}",
                transport::error::errno_name(fallback.errno)
            ));
        }
        if fallback.limit > 0 {
            text.push_str(&format!(", {} of {}", fallback.used, fallback.limit));
        }
        if fallback.at_peer {
            text.push_str(" (at the peer)");
        }
        pen.put(area.x + 1, y, &text, theme.warn);
        y += 1;
    }
    if let Some(doubt) = &client.doubt {
        pen.put(area.x + 1, y, &format!("not believed: {doubt}"), theme.warn);
        y += 1;
    }
    y - area.y + u16::from(area.height >= 20)
}

fn thread(thread: &Reading<ThreadView>) -> String {
    match thread {
        Err(why) => format!("– {why}"),
        Ok(t) => match &t.last_cpu {
            Ok(cpu) => format!("{} on CPU {cpu}", t.tid),
            Err(_) => t.tid.to_string(),
        },
    }
}

/// Fill of the request ring over the last minute.
fn occupancy(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let ring = client.request_ring();
    let remark = match (&ring.high_water_bytes, &ring.capacity_bytes) {
        (Ok(high), Ok(capacity)) => {
            format!(
                "most {} of {}",
                bytes(*high as f64),
                bytes(*capacity as f64)
            )
        }
        _ => String::new(),
    };
    let inner = chart::frame(pen, theme, "▶ ring, 60 s", &remark);
    if let Err(why) = &ring.occupancy_bytes {
        pen.part(inner)
            .put(inner.x, inner.y, &format!("– {why}"), theme.dim);
        return;
    }
    let values = client.history.columns(
        usize::from(inner.width),
        scene.model.at_ns,
        60_000_000_000,
        |p| p.request_ring_bytes,
    );
    let seen = values.iter().flatten().fold(0f32, |a, b| a.max(*b));
    // The chart's own scale, or the ring's once a tenth of it is in use: a nearly empty ring has a shape too.
    let capacity = ring.capacity_bytes.as_ref().map_or(0.0, |c| *c as f32);
    let max = if seen > capacity / 10.0 {
        capacity
    } else {
        super::clients::round_up(seen)
    };
    let chart_area = Rect {
        height: inner.height.saturating_sub(1),
        ..inner
    };
    chart::area(
        &mut pen.part(chart_area),
        &values,
        max,
        theme.request,
        theme.faint,
    );
    let y = inner.bottom().saturating_sub(1);
    pen.part(inner).put(inner.x, y, "−60 s", theme.dim);
    let now = format!(
        "now {}",
        or_why(&ring.occupancy_bytes, |b| bytes(*b as f64))
    );
    let mut part = pen.part(inner);
    part.put_right(inner.right(), y, &now, theme.text);
    let scale = format!("↑ {}", bytes(f64::from(max)));
    part.put(inner.x + 8, y, &scale, theme.dim);
}

/// Percentiles of the last interval beside those since start, and the heat map.
fn latency(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(pen, theme, "round trip", "now | since start");
    let mut part = pen.part(inner);
    let rtt = &client.rtt;
    let ((Ok(_), _) | (_, Ok(_))) = (&rtt.interval, &rtt.since_start) else {
        if let Err(why) = &rtt.since_start {
            for (i, line) in wrap(&format!("– {why}"), usize::from(inner.width))
                .iter()
                .enumerate()
            {
                part.put(inner.x, inner.y + i as u16, line, theme.dim);
            }
        }
        return;
    };
    type Pick = fn(&Percentiles) -> u64;
    let rows: [(&str, Pick); 4] = [
        ("p50", |p| p.p50),
        ("p99", |p| p.p99),
        ("p99.9", |p| p.p999),
        ("max", |p| p.max),
    ];
    let cell = |r: &Reading<Percentiles>, pick: fn(&Percentiles) -> u64| {
        r.as_ref()
            .map_or_else(|_| "–".to_owned(), |p| duration(pick(p) as f64))
    };
    for (i, (name, pick)) in rows.into_iter().enumerate() {
        let y = inner.y + i as u16;
        part.put(inner.x, y, name, theme.dim);
        part.put_right(inner.x + 13, y, &cell(&rtt.interval, pick), theme.text);
        part.put(inner.x + 14, y, "|", theme.faint);
        part.put_right(inner.x + 22, y, &cell(&rtt.since_start, pick), theme.dim);
    }
    let n = rtt.interval.as_ref().map_or(0, |p| p.count);
    part.put(
        inner.x,
        inner.y + 4,
        &format!("of {}", count(n as f64)),
        theme.dim,
    );
    if inner.width >= 40 {
        let x = inner.x + 25;
        let map = Rect {
            x,
            width: inner.right() - x,
            height: inner.height.saturating_sub(1),
            ..inner
        };
        let range = chart::heat(&mut pen.part(map), client.history.heat(), theme);
        let mut part = pen.part(inner);
        let y = inner.bottom().saturating_sub(1);
        let text = match range {
            Some((low, high)) => format!(
                "↑ {} – {}, a column per s",
                duration(low as f64),
                duration(high as f64)
            ),
            None => "no round trip in sight".to_owned(),
        };
        part.put(x, y, &text, theme.dim);
    }
}

/// Where the client's thread spends its time.
fn time(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(pen, theme, "where the client's time goes", "of wall time");
    let mut part = pen.part(inner);
    let shares = match &client.time {
        Ok(shares) => shares,
        Err(why) => {
            for (i, line) in wrap(&format!("– {why}"), usize::from(inner.width))
                .iter()
                .enumerate()
            {
                part.put(inner.x, inner.y + i as u16, line, theme.dim);
            }
            return;
        }
    };
    let wide = usize::from(inner.width.saturating_sub(16)).min(40);
    for (i, (name, share)) in shares.parts().into_iter().enumerate() {
        let y = inner.y + i as u16;
        let style = match name {
            "useful" => theme.useful,
            "spin" => theme.spin,
            "yield" => theme.yielding,
            "blocked" | "no core" => theme.blocked,
            _ => theme.park,
        };
        part.put(inner.x, y, name, theme.dim);
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

/// A label and its value at the row.
fn fact(pen: &mut Pen<'_>, theme: &Theme, row: u16, label: &str, value: &str, style: Style) {
    let area = pen.area();
    let y = area.y + row;
    let x = pen.put(area.x, y, label, theme.dim);
    pen.put(x.max(area.x + 10) + 1, y, value, style);
}

fn pointer(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
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
    let hits = client.history.columns(
        usize::from(inner.width.saturating_sub(12)),
        scene.model.at_ns,
        60_000_000_000,
        |p| p.hit_ratio,
    );
    let text: String = hits
        .into_iter()
        .map(|h| super::bars::level(h, 1.0))
        .collect();
    fact(&mut part, theme, 2, "60 s", &text, theme.request);
}

fn waits(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(pen, theme, "waits of the client", "per second");
    let mut part = pen.part(inner);
    let wait = match &client.wait {
        Ok(wait) => wait,
        Err(why) => {
            for (i, line) in wrap(&format!("– {why}"), usize::from(inner.width))
                .iter()
                .enumerate()
            {
                part.put(inner.x, inner.y + i as u16, line, theme.dim);
            }
            return;
        }
    };
    let rate = |r: &Reading<f64>| or_why(r, |v| count(*v));
    let share = |r: &Reading<f64>| or_why(r, |v| percent(*v));
    let ended = |i: usize| or_why(&wait.ended, |e| percent(e[i]));
    let line = |n: &Reading<f64>, s: &Reading<f64>, i: usize| {
        format!(
            "{:>6}  {:>6} of time  ended {:>6} of waits",
            rate(n),
            share(s),
            ended(i)
        )
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
        Err(_) => or_why(&wait.park.since_start, |p| {
            format!("p50 {} since start", duration(p.p50 as f64))
        }),
    };
    let crowd = if wait.crowded { "; CPUs crowded" } else { "" };
    fact(
        &mut part,
        theme,
        3,
        "slept",
        &format!("{woke}{crowd}"),
        theme.text,
    );
}

fn memory(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
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
    let padding = or_why(&client.request_ring().padding_ratio, |p| percent(*p));
    fact(&mut part, theme, 2, "padding", &padding, theme.text);
    let pages = match client.huge_pages {
        0 => "4 KiB",
        1 => "huge",
        _ => "4 KiB (huge ones asked for, none free)",
    };
    fact(&mut part, theme, 3, "pages", pages, theme.text);
}

fn counters(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
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
    let ipc = or_why(&perf.instructions_per_cycle, |v| format!("{v:.2}"));
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

fn requests(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client) {
    let theme = scene.theme();
    let inner = chart::frame(pen, theme, "requests", "");
    let mut part = pen.part(inner);
    let rate = format!(
        "{}/s, {}/s both ways",
        or_why(&client.requests_per_s, |v| count(*v)),
        or_why(&client.bytes_per_s, |v| bytes(*v)),
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
        &format!("{}{oldest}", client.in_flight),
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
    let bad = client.timeouts + client.late_replies + client.errors;
    let style = if bad > 0 { theme.warn } else { theme.text };
    let text = format!(
        "{} timeouts, {} late replies, {} errors",
        client.timeouts, client.late_replies, client.errors
    );
    fact(&mut part, theme, 3, "since start", &text, style);
}

fn handler(view: &RttView) -> String {
    or_why(&view.interval, |p| {
        format!(
            "p50 {}, p99 {}",
            duration(p.p50 as f64),
            duration(p.p99 as f64)
        )
    })
}
