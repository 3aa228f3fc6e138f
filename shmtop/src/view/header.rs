//! The first line: who is looked at, how many clients, how much, live or not, what shmtop itself costs, the time.

use ratatui::layout::Rect;
use transport::stats::{Role, Via};

use super::Scene;
use super::format::{bytes, count, duration, percent, plural};
use super::pen::{Pen, Piece, width};
use crate::model::{Client, Totals};
use crate::reading::Why;
use crate::ui::Theme;
use crate::ui::local_time::{clock, stamp};

/// A group of pieces: it stays or goes whole.
struct Part {
    /// The higher, the earlier it goes when there is less room; 0 never goes.
    rank: u8,
    /// Cells before it, unless it is the first on its side.
    gap: usize,
    pieces: Vec<Piece>,
}

impl Part {
    fn width(&self) -> usize {
        self.pieces.iter().map(|(text, _)| width(text)).sum()
    }
}

/// The parts that go, from the first to the last: who is looked at, whether it is now, how much moves and how many clients there are
/// outlive all that is there to be looked up.
mod rank {
    pub(super) const NEVER: u8 = 0;
    pub(super) const REQUESTS: u8 = 1;
    pub(super) const CLIENTS: u8 = 2;
    pub(super) const FELL_BACK: u8 = 3;
    pub(super) const SLOWED: u8 = 4;
    pub(super) const POSITION: u8 = 5;
    pub(super) const PID: u8 = 6;
    pub(super) const BYTES: u8 = 7;
    pub(super) const OWN_COST: u8 = 8;
    pub(super) const LIVE: u8 = 9;
    pub(super) const BY_KIND: u8 = 10;
    pub(super) const CLOCK: u8 = 11;
    pub(super) const SHMTOP: u8 = 12;
}

/// Cells between what stands at the left and what stands at the right.
const BETWEEN: usize = 2;

/// Draws the line at `y`.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16) {
    let theme = scene.theme();
    let area = pen.area();
    pen.tint_line(y, theme.head);
    let mut left = left(scene);
    let mut right = right(scene, area.width);
    let room = usize::from(area.width.saturating_sub(2));
    while line(&left) + BETWEEN + line(&right) > room {
        let worst = |side: &[Part]| side.iter().map(|p| p.rank).max().unwrap_or(rank::NEVER);
        let (of_left, of_right) = (worst(&left), worst(&right));
        let (side, rank) = if of_left > of_right {
            (&mut left, of_left)
        } else {
            (&mut right, of_right)
        };
        if rank == rank::NEVER {
            break;
        }
        side.retain(|p| p.rank != rank);
    }
    let start = area.right().saturating_sub(line(&right) as u16 + 1);
    let start = start.max(area.x);
    put(pen, theme, start, y, &right);
    // A name that is too long ends in an ellipsis before what stands at the right.
    let before = Rect::new(area.x, y, (start - area.x).saturating_sub(1), 1);
    put(&mut pen.part(before), theme, area.x + 1, y, &left);
}

/// Cells that parts take beside each other.
fn line(parts: &[Part]) -> usize {
    let gaps = parts.iter().skip(1).map(|p| p.gap).sum::<usize>();
    gaps + parts.iter().map(Part::width).sum::<usize>()
}

fn put(pen: &mut Pen<'_>, theme: &Theme, mut x: u16, y: u16, parts: &[Part]) {
    for (i, part) in parts.iter().enumerate() {
        x += if i == 0 { 0 } else { part.gap as u16 };
        for (text, style) in &part.pieces {
            x = pen.put(x, y, text, theme.head.patch(*style));
        }
    }
}

/// Cells from which on a replay's clock says its day: who is there and how much moves comes first.
const STAMPED: u16 = 140;

/// What is looked at and how much moves.
fn left(scene: &Scene<'_>) -> Vec<Part> {
    let theme = scene.theme();
    let model = scene.model;
    let part = |rank, gap, pieces| Part { rank, gap, pieces };
    let mut out = vec![part(
        rank::SHMTOP,
        2,
        vec![("shmtop".to_owned(), theme.title)],
    )];
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
        // Nobody but itself.
        [] => {
            out[0].rank = rank::NEVER;
            return out;
        }
        [one] => {
            let name = vec![(one.name.clone(), theme.accent)];
            let pid = vec![(format!("({})", one.pid), theme.dim)];
            out.push(part(rank::NEVER, 2, name));
            out.push(part(rank::PID, 1, pid));
        }
        many => {
            let many = plural(many.len(), "endpoint");
            out.push(part(rank::NEVER, 2, vec![(many, theme.accent)]));
        }
    }
    let sum = |f: fn(&Totals) -> usize| shown.iter().map(|e| f(&e.totals)).sum::<usize>();
    let (clients, shm, socket) = (sum(|t| t.clients), sum(|t| t.shm), sum(|t| t.socket));
    let who = vec![(plural(clients, "client"), theme.text)];
    out.push(part(rank::CLIENTS, 2, who));
    if clients > 0 {
        let by_kind = vec![(format!(": {shm} shm"), theme.dim)];
        out.push(part(rank::BY_KIND, 0, by_kind));
    }
    if clients > 0 && socket > 0 {
        // On the socket by choice is as good as anything.
        let fell_back = |c: &Client| c.wanted == Via::Shm && c.transport == Via::Socket;
        let mut all = shown.iter().flat_map(|e| &e.clients);
        let style = if all.any(|c| fell_back(c)) {
            theme.warn
        } else {
            theme.dim
        };
        let on_socket = vec![(format!(", {socket} socket"), style)];
        out.push(part(rank::FELL_BACK, 0, on_socket));
    }
    let rate = |of: fn(&Totals) -> Result<f64, &Why>| {
        let known: Vec<f64> = shown.iter().filter_map(|e| of(&e.totals).ok()).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>())
    };
    let requests = rate(Totals::steady_requests_per_s).map_or_else(|| "–".to_owned(), count);
    let payload = rate(Totals::steady_bytes_per_s).map_or_else(|| "–".to_owned(), bytes);
    out.push(part(
        rank::REQUESTS,
        2,
        vec![
            (format!("{requests:>6}"), theme.text),
            (" req/s".to_owned(), theme.dim),
        ],
    ));
    out.push(part(
        rank::BYTES,
        2,
        vec![
            (format!("{payload:>8}"), theme.text),
            ("/s".to_owned(), theme.dim),
        ],
    ));
    out
}

/// Live or not, own cost, time.
fn right(scene: &Scene<'_>, wide: u16) -> Vec<Part> {
    let theme = scene.theme();
    let status = scene.status;
    let mut out: Vec<Part> = Vec::new();
    let mut add = |rank, gap, text: String, style| {
        out.push(Part {
            rank,
            gap,
            pieces: vec![(text, style)],
        });
    };
    match (&status.replay, status.frozen_ns) {
        (Some(replay), behind) => {
            let behind = behind.filter(|_| !replay.seeking);
            let (what, style) = match behind {
                _ if replay.seeking => ("▶▶ reading on,", theme.accent),
                Some(_) => ("❚❚ frozen", theme.warn),
                None if replay.ended => ("■ ended", theme.accent),
                None => ("▶ replay", theme.accent),
            };
            add(rank::NEVER, 2, what.to_owned(), style);
            if let Some(behind) = behind.filter(|b| *b > 0) {
                let ago = format!("−{}", duration(behind as f64));
                add(rank::POSITION, 1, ago, style);
            }
            // Of what is looked at, not of what was read.
            let position = replay.position_ns.saturating_sub(behind.unwrap_or(0));
            let place = format!("{} ×{}", duration(position as f64), replay.speed);
            add(rank::POSITION, 1, place, theme.dim);
        }
        (None, Some(behind)) => {
            add(rank::NEVER, 2, "❚❚ frozen".to_owned(), theme.warn);
            if behind > 0 {
                let ago = format!("−{}", duration(behind as f64));
                add(rank::POSITION, 1, ago, theme.warn);
            }
        }
        (None, None) if !status.ready => add(rank::NEVER, 2, "○ starting".to_owned(), theme.dim),
        (None, None) => {
            add(rank::NEVER, 2, "●".to_owned(), theme.good);
            match &status.slowed {
                Some(why) => add(rank::SLOWED, 1, why.clone(), theme.warn),
                None => add(rank::LIVE, 1, "live".to_owned(), theme.text),
            }
            if status.interval_ns > 0 {
                add(rank::LIVE, 1, pace(status.interval_ns), theme.dim);
            }
        }
    }
    // What a replay costs is worth less than of when it is.
    let (cost_rank, clock_rank) = match status.replay {
        Some(_) => (rank::CLOCK, rank::OWN_COST),
        None => (rank::OWN_COST, rank::CLOCK),
    };
    out.push(Part {
        rank: cost_rank,
        gap: 2,
        pieces: own_cost(scene),
    });
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
    if at > 0 {
        out.push(Part {
            rank: clock_rank,
            gap: 2,
            pieces: vec![(when, theme.dim)],
        });
    }
    out
}

/// How often the screen is made anew.
fn pace(interval_ns: u64) -> String {
    let hz = 1e9 / interval_ns as f64;
    if hz >= 1.0 {
        format!("{hz:.0} Hz")
    } else {
        format!("every {}", duration(interval_ns as f64))
    }
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
