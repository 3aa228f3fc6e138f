//! One client, opened: who, the verdict, and panels on its rings, latency, time, waits, memory and counters.

use ratatui::layout::Rect;
use ratatui::style::Modifier;
use transport::stats::Via;

use super::facts::{counters, memory, pointer, requests, waits};
use super::format::{age, bytes};
use super::panels::{latency, rate, reply_ring, request_ring, time};
use super::pen::{Pen, Piece, fit, wrap};
use super::{Scene, bound_style, client_mark, placement};
use crate::model::{Bound, Client, Endpoint};
use crate::ui::local_time::clock;

/// Cells that a sentence needs at least beside what it is about; with fewer it has the line below.
const SENTENCE: u16 = 40;
/// Lines that a sentence takes at most; the last one ends in an ellipsis if more was to be said.
const SENTENCE_LINES: usize = 3;

/// The client that is open, while it is there.
pub(super) fn find<'a>(scene: &Scene<'a>) -> Option<(&'a Endpoint, &'a Client)> {
    let id = scene.state.client.as_ref()?;
    scene
        .model
        .endpoints
        .iter()
        .flat_map(|e| e.clients.iter().map(move |c| (&**e, &**c)))
        .find(|(e, c)| id.is(e, c))
}

/// A panel: its height at least, whether a higher one shows more, and what draws it.
#[derive(Clone, Copy)]
struct Panel {
    height: u16,
    grows: bool,
    draw: fn(&mut Pen<'_>, &Scene<'_>, &Client),
}

/// A picture: the higher, the finer.
const fn picture(height: u16, draw: fn(&mut Pen<'_>, &Scene<'_>, &Client)) -> Panel {
    Panel {
        height,
        grows: true,
        draw,
    }
}

/// Lines of text.
const fn facts(height: u16, draw: fn(&mut Pen<'_>, &Scene<'_>, &Client)) -> Panel {
    Panel {
        height,
        grows: false,
        draw,
    }
}

const REQUEST_RING: Panel = picture(6, request_ring);
const REPLY_RING: Panel = picture(6, reply_ring);
const RATE: Panel = picture(6, rate);
const LATENCY: Panel = picture(7, latency);
const TIME: Panel = facts(9, time);
const POINTER: Panel = facts(5, pointer);
const WAITS: Panel = facts(6, waits);
const MEMORY: Panel = facts(7, memory);
const COUNTERS: Panel = facts(7, counters);
const REQUESTS: Panel = facts(6, requests);
/// Says that there is none.
const NO_RING: Panel = facts(3, request_ring);
/// Body height from which columns of two have room for one more picture.
const TALL: u16 = 37;

/// Which panels stand where. Without a ring there is nothing to say about rings but that.
fn columns(width: u16, height: u16, via: Via) -> Vec<Vec<Panel>> {
    let tall = if height >= TALL { vec![RATE] } else { vec![] };
    match (via, width) {
        (Via::Shm, 150..) => vec![
            vec![REQUEST_RING, REPLY_RING, POINTER, MEMORY],
            vec![LATENCY, WAITS, COUNTERS],
            vec![TIME, RATE, REQUESTS],
        ],
        (Via::Shm, 96..) => vec![
            vec![REQUEST_RING, REPLY_RING, WAITS, MEMORY, POINTER],
            [vec![LATENCY, TIME, REQUESTS, COUNTERS], tall].concat(),
        ],
        (Via::Shm, _) => vec![vec![
            LATENCY,
            REQUEST_RING,
            REPLY_RING,
            TIME,
            WAITS,
            REQUESTS,
            MEMORY,
            POINTER,
            COUNTERS,
            RATE,
        ]],
        (Via::Socket, 96..) => vec![
            vec![LATENCY, REQUESTS, NO_RING],
            [vec![TIME, WAITS, COUNTERS], tall].concat(),
        ],
        (Via::Socket, _) => vec![vec![
            LATENCY, TIME, REQUESTS, WAITS, COUNTERS, NO_RING, RATE,
        ]],
    }
}

/// Draws it; returns how far it can be scrolled.
pub(super) fn draw(
    pen: &mut Pen<'_>,
    scene: &Scene<'_>,
    endpoint: &Endpoint,
    client: &Client,
) -> usize {
    let area = pen.area();
    let used = head(pen, scene, endpoint, client);
    if area.is_empty() {
        return 0;
    }
    let body = Rect {
        y: (area.y + used).min(area.bottom()),
        height: area.height.saturating_sub(used),
        ..area
    };
    // Columns of panels, filled from the top; what has no room below is reached by scrolling panel by panel.
    let columns = columns(body.width, body.height, client.transport);
    let n = columns.len() as u16;
    let mut last = 0;
    for (i, panels) in columns.into_iter().enumerate() {
        let i = i as u16;
        let x = body.x + body.width * i / n;
        let right = body.x + body.width * (i + 1) / n;
        let column = Rect {
            x,
            width: right - x,
            ..body
        };
        last = last.max(stack(pen, scene, client, column, &panels));
    }
    last
}

/// Draws panels one below the other; pictures share what is left over. Returns by how many they can be scrolled.
fn stack(
    pen: &mut Pen<'_>,
    scene: &Scene<'_>,
    client: &Client,
    area: Rect,
    panels: &[Panel],
) -> usize {
    let total = |panels: &[Panel]| panels.iter().map(|p| p.height).sum::<u16>();
    let fits = total(panels) <= area.height;
    // If not, the last line counts what is above and below.
    let room = area.height.saturating_sub(u16::from(!fits));
    // The last one stays, however little of it fits.
    let last = (0..panels.len().saturating_sub(1))
        .find(|skip| total(&panels[*skip..]) <= room)
        .unwrap_or(panels.len().saturating_sub(1));
    let skip = scene.state.scroll.min(last);
    let mut shown = &panels[skip..];
    while shown.len() > 1 && total(shown) > room {
        shown = &shown[..shown.len() - 1];
    }
    let mut spare = room.saturating_sub(total(shown));
    let mut growing = shown.iter().filter(|p| p.grows).count() as u16;
    let mut y = area.y;
    for panel in shown {
        let mut height = panel.height;
        if panel.grows {
            let more = spare / growing;
            height += more;
            spare -= more;
            growing -= 1;
        }
        // The last line is not a panel's, however little room there is.
        height = height.min(room.saturating_sub(y - area.y));
        let place = Rect { y, height, ..area };
        (panel.draw)(&mut pen.part(place), scene, client);
        y += height;
    }
    if !fits {
        let below = panels.len() - skip - shown.len();
        pen.part(area).more(scene.theme().dim, skip, below);
    }
    last
}

/// ` in docker 3f2ab9c41d22, pid 1 inside`, if it lives elsewhere than the viewer.
fn elsewhere(endpoint: Option<&Endpoint>) -> String {
    let place = endpoint.and_then(|e| e.place.as_ref());
    place.map_or(String::new(), |p| format!(" in {p}"))
}

/// Who it is and what bounds it; returns the lines used.
fn head(pen: &mut Pen<'_>, scene: &Scene<'_>, endpoint: &Endpoint, client: &Client) -> u16 {
    let theme = scene.theme();
    let area = pen.area();
    let room = usize::from(area.width.saturating_sub(2));
    let groups = identity(scene, endpoint, client);
    pen.pieces(area.x + 1, area.y, &fit(groups, room, 3));
    let mut y = area.y + 1;
    let place = placement::sentence(&scene.model.host, &client.thread, &client.server_thread);
    if area.height >= 14 {
        // How far the ends are from each other stands at its end.
        for line in wrap(&place, room) {
            pen.put(area.x + 1, y, &line, theme.dim);
            y += 1;
        }
    }
    y = verdict(pen, scene, client, y);
    if let Some(text) = fell_back(client) {
        pen.put(area.x + 1, y, &text, theme.warn);
        y += 1;
    }
    if let Some(doubt) = &client.doubt {
        pen.put(area.x + 1, y, &format!("not believed: {doubt}"), theme.warn);
        y += 1;
    }
    y - area.y + u16::from(area.height >= 20)
}

/// The first line, in pieces: what goes first where there is no room has the highest number.
fn identity(scene: &Scene<'_>, endpoint: &Endpoint, client: &Client) -> Vec<(u8, Vec<Piece>)> {
    let theme = scene.theme();
    let (mark, style) = client_mark(theme, client);
    let ring = client.request_ring();
    let mut others = scene.model.endpoints.iter();
    let peer = others.find(|e| e.pid == client.peer_pid && e.role != endpoint.role);
    let via = match (client.transport, &ring.capacity_bytes) {
        (Via::Shm, Ok(capacity)) => format!("shm, 2 × {}, sealed", bytes(*capacity as f64)),
        (Via::Shm, Err(_)) => "shm".to_owned(),
        (Via::Socket, _) => "socket".to_owned(),
    };
    let mut groups: Vec<(u8, Vec<Piece>)> = vec![
        (
            0,
            vec![
                (format!("{mark} "), style),
                (format!("client {}", client.number), theme.accent),
                (
                    match client.peer_pid {
                        0 => " ▸ peer elsewhere".to_owned(),
                        pid => format!(" ▸ peer {pid}"),
                    },
                    theme.text,
                ),
                (
                    format!(" {} (uid {})", client.peer_name, client.peer_uid),
                    theme.dim,
                ),
                (elsewhere(peer.map(|e| &**e)), theme.text),
            ],
        ),
        (1, vec![(via, theme.text)]),
        (
            3,
            vec![
                ("policy ".to_owned(), theme.dim),
                (client.wait_policy.name().to_owned(), theme.text),
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
                (elsewhere(Some(endpoint)), theme.text),
            ],
        ),
    ];
    if client.peer_comm != client.peer_name {
        groups.push((
            5,
            vec![
                ("program ".to_owned(), theme.dim),
                (client.peer_comm.clone(), theme.text),
            ],
        ));
    }
    groups
}

/// What bounds it, since when and why, from line `y` on; returns the next line.
fn verdict(pen: &mut Pen<'_>, scene: &Scene<'_>, client: &Client, mut y: u16) -> u16 {
    let theme = scene.theme();
    let area = pen.area();
    let ago = scene.model.at_ns.saturating_sub(client.verdict.since_ns);
    let since = clock(
        scene.model.at_realtime_ns.saturating_sub(ago),
        scene.status.utc_offset_s,
    );
    let bound = client.verdict.bound;
    let mut x = area.x + 1;
    // Of one that stands still, the state says more than what bounds it; the table says nothing else.
    let still = client.state.stands_still();
    if still {
        let style = client_mark(theme, client).1.add_modifier(Modifier::BOLD);
        x = pen.put(x, y, client.state.name(), style);
    }
    let what = match bound {
        Bound::Idle => "",
        Bound::Unknown => "what bounds it is ",
        _ if still => ", bound by ",
        _ => "bound by ",
    };
    if !(still && matches!(bound, Bound::Idle | Bound::Unknown)) {
        x = pen.put(x, y, what, theme.dim);
        let style = bound_style(theme, bound).add_modifier(Modifier::BOLD);
        x = pen.put(x, y, bound.name(), style);
    }
    x = pen.put(x, y, &format!(" since {since}: "), theme.dim);
    let beside = area.right().saturating_sub(x + 1);
    if beside < SENTENCE && x > area.x + 1 {
        x = area.x + 1;
        y += 1;
    }
    let room = usize::from(area.right().saturating_sub(x + 1));
    let said = wrap(&client.verdict.says, room);
    let (first, rest) = said.split_at(said.len().min(SENTENCE_LINES - 1));
    for line in first {
        pen.put(x, y, line, theme.text);
        y += 1;
    }
    if !rest.is_empty() {
        // What doesn't fit in the last line ends in an ellipsis.
        pen.put_max(x, y, &rest.join(" "), room, theme.text);
        y += 1;
    }
    y
}

/// Why it is not on shared memory, if it should be.
fn fell_back(client: &Client) -> Option<String> {
    let (Via::Socket, Some(fallback)) = (client.transport, &client.fallback) else {
        return None;
    };
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
    Some(text)
}
