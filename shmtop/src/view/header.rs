//! The first line: who is looked at, how many clients, how much, live or not, what shmtop itself costs, the time.

use transport::stats::Role;

use super::Scene;
use super::format::{bytes, count, duration, percent, plural};
use super::pen::{Pen, Piece, fit, width};
use crate::model::Totals;
use crate::reading::Why;
use crate::ui::local_time::{clock, stamp};

/// Draws the line at `y`.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16) {
    let theme = scene.theme();
    let area = pen.area();
    pen.tint_line(y, theme.head);
    let narrow = area.width < 60;
    let right = fit(
        right(scene, narrow, area.width),
        usize::from(area.width) * 3 / 5,
        2,
    );
    let right_width: usize = right.iter().map(|(t, _)| width(t)).sum();
    let room = usize::from(area.width).saturating_sub(right_width + 4);
    // Who fell back is worth more than the time of day.
    let left = fit(
        left(scene, area.width < 100),
        room,
        if narrow { 1 } else { 2 },
    );
    let on_head = |pieces: Vec<Piece>| -> Vec<Piece> {
        pieces
            .into_iter()
            .map(|(t, s)| (t, theme.head.patch(s)))
            .collect()
    };
    pen.pieces(area.x + 1, y, &on_head(left));
    let x = area.right().saturating_sub(right_width as u16 + 1);
    pen.pieces(x.max(area.x), y, &on_head(right));
}

/// Cells from which on a replay's clock says its day: who is there and how much moves comes first.
const STAMPED: u16 = 140;

/// What is looked at and how much moves.
fn left(scene: &Scene<'_>, short: bool) -> Vec<(u8, Vec<Piece>)> {
    let theme = scene.theme();
    let model = scene.model;
    let mut out = vec![(3, vec![("shmtop".to_owned(), theme.title)])];
    let servers: Vec<_> = model
        .endpoints
        .iter()
        .filter(|e| e.role == Role::Server)
        .collect();
    let shown: Vec<_> = if servers.is_empty() {
        model.endpoints.iter().collect()
    } else {
        servers
    };
    match shown.as_slice() {
        [] => {}
        [one] => out.push((
            0,
            vec![
                (one.name.clone(), theme.accent),
                (format!(" ({})", one.pid), theme.dim),
            ],
        )),
        many => out.push((0, vec![(plural(many.len(), "endpoint"), theme.accent)])),
    }
    if shown.is_empty() {
        return out;
    }
    let sum = |f: fn(&Totals) -> usize| shown.iter().map(|e| f(&e.totals)).sum::<usize>();
    let (clients, shm, socket) = (sum(|t| t.clients), sum(|t| t.shm), sum(|t| t.socket));
    let mut who = vec![(plural(clients, "client"), theme.text)];
    if clients > 0 {
        if !short {
            who.push((format!(": {shm} shm"), theme.dim));
        }
        if socket > 0 {
            who.push((format!(", {socket} socket"), theme.warn));
        }
    }
    out.push((2, who));
    let rate = |of: fn(&Totals) -> Result<f64, &Why>| {
        let known: Vec<f64> = shown.iter().filter_map(|e| of(&e.totals).ok()).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>())
    };
    let requests = rate(Totals::steady_requests_per_s);
    let payload = rate(Totals::steady_bytes_per_s);
    let cell = |value: Option<String>, wide: usize| match value {
        Some(v) => format!("{v:>wide$}"),
        None => format!("{:>wide$}", "–"),
    };
    out.push((
        1,
        vec![
            (cell(requests.map(count), 6), theme.text),
            (" req/s".to_owned(), theme.dim),
        ],
    ));
    out.push((
        2,
        vec![
            (cell(payload.map(bytes), 8), theme.text),
            ("/s".to_owned(), theme.dim),
        ],
    ));
    out
}

/// Live or not, own cost, time.
fn right(scene: &Scene<'_>, narrow: bool, wide: u16) -> Vec<(u8, Vec<Piece>)> {
    let theme = scene.theme();
    let status = scene.status;
    let hz = if status.interval_ns > 0 {
        let hz = 1e9 / status.interval_ns as f64;
        if hz >= 1.0 {
            format!("{hz:.0} Hz")
        } else {
            format!("every {}", duration(status.interval_ns as f64))
        }
    } else {
        String::new()
    };
    let mut mode = Vec::new();
    match (&status.replay, status.frozen_ns) {
        (Some(replay), behind) => {
            let behind = behind.filter(|_| !replay.seeking);
            let (what, style) = match behind {
                _ if replay.seeking => ("▶▶ reading on,", theme.accent),
                Some(_) => ("❚❚ frozen", theme.warn),
                None if replay.ended => ("■ ended", theme.accent),
                None => ("▶ replay", theme.accent),
            };
            // Of what is looked at, not of what was read.
            let position = replay.position_ns.saturating_sub(behind.unwrap_or(0));
            mode.push((what.to_owned(), style));
            if let Some(behind) = behind.filter(|b| *b > 0) {
                mode.push((format!(" −{}", duration(behind as f64)), style));
            }
            mode.push((
                format!(" {} ×{}", duration(position as f64), replay.speed),
                theme.dim,
            ));
        }
        (None, Some(behind)) => {
            mode.push(("❚❚ frozen".to_owned(), theme.warn));
            if behind > 0 {
                mode.push((format!(" −{}", duration(behind as f64)), theme.warn));
            }
        }
        (None, None) if !status.ready => mode.push(("○ starting".to_owned(), theme.dim)),
        (None, None) => {
            mode.push(("●".to_owned(), theme.good));
            if !narrow {
                mode.push((" live ".to_owned(), theme.text));
                mode.push((hz, theme.dim));
            }
        }
    }
    let mut out = vec![(0, mode)];
    if let Some(why) = &status.slowed {
        out.push((1, vec![(format!("▲ {why}"), theme.warn)]));
    }
    out.push((2, own_cost(scene)));
    let at = scene.model.at_realtime_ns;
    let when = match status.replay {
        Some(_) if wide >= STAMPED => stamp(at, status.utc_offset_s),
        Some(_) => {
            let stamp = stamp(at, status.utc_offset_s);
            stamp
                .split_once(' ')
                .map_or(String::new(), |(_, time)| time.to_owned())
        }
        None => clock(at, status.utc_offset_s),
    };
    if scene.model.at_realtime_ns > 0 && wide >= 100 {
        out.push((3, vec![(when, theme.dim)]));
    }
    out
}

fn own_cost(scene: &Scene<'_>) -> Vec<Piece> {
    let theme = scene.theme();
    let known = scene
        .status
        .own_cost
        .or(scene.model.viewer_cpu.as_ref().ok().copied());
    let (text, style) = match known {
        Some(share) if share > 0.02 => (percent(share), theme.warn),
        Some(share) => (percent(share), theme.dim),
        None => ("–".to_owned(), theme.dim),
    };
    vec![
        ("self ".to_owned(), theme.dim),
        (format!("{text:>5}"), style),
    ]
}
