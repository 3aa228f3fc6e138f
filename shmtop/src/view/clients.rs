//! The table of clients: the heart of the overview.

use ratatui::layout::Rect;
use ratatui::style::Style;
use transport::stats::{Role, Via};

use super::bars::{TRACK, filled, level, mark, split};
use super::columns::{Align, Column, Placed, place};
use super::format::{bytes, count, duration, mib, missing, plural, whole_percent};
use super::pen::{Pen, Piece, fit};
use super::{Hits, Scene, bound_style, client_mark};
use crate::model::{Client, ClientState, Percentiles, RingView, WaitView};
use crate::reading::Reading;
use crate::ui::rows::{self, Group, via_name};
use crate::ui::{Action, SortKey, Theme};

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// One that can be sorted by.
    Sorted(SortKey),
    /// Requests in flight.
    InFlight,
    /// Median handler time.
    Handler,
    /// Requests per second over the last minute.
    Rate,
}

const fn column(
    key: Key,
    title: &'static str,
    width: u16,
    most: u16,
    align: Align,
    rank: u8,
) -> Column<Key> {
    Column {
        key,
        title,
        width,
        most,
        align,
        rank,
    }
}

/// The columns and the order in which they go when there is less room: at 80 cells the rate, p99.9 and the wait mix
/// are gone, then the reply ring; at 40 client, via, requests, p99 and the verdict are left.
const COLUMNS: [Column<Key>; 16] = [
    column(Key::Sorted(SortKey::Client), "CLIENT", 6, 6, Align::Left, 0),
    column(Key::Sorted(SortKey::Peer), "PEER", 7, 7, Align::Right, 5),
    column(Key::Sorted(SortKey::Via), "VIA", 6, 6, Align::Left, 0),
    column(
        Key::Sorted(SortKey::Requests),
        "REQ/s",
        6,
        6,
        Align::Right,
        0,
    ),
    column(Key::Sorted(SortKey::Bytes), "MiB/s", 6, 6, Align::Right, 6),
    column(Key::InFlight, "FLIGHT", 6, 6, Align::Right, 13),
    column(
        Key::Sorted(SortKey::RequestRing),
        "▶ RING",
        13,
        26,
        Align::Left,
        7,
    ),
    column(
        Key::Sorted(SortKey::ReplyRing),
        "◀ RING",
        11,
        24,
        Align::Left,
        9,
    ),
    column(Key::Sorted(SortKey::Hits), "HIT%", 4, 4, Align::Right, 8),
    column(Key::Sorted(SortKey::Wait), "WAIT", 10, 22, Align::Left, 10),
    column(Key::Handler, "HANDLER", 7, 7, Align::Right, 14),
    column(Key::Sorted(SortKey::P50), "p50", 6, 6, Align::Right, 4),
    column(Key::Sorted(SortKey::P99), "p99", 6, 6, Align::Right, 0),
    column(Key::Sorted(SortKey::P999), "p99.9", 6, 6, Align::Right, 11),
    column(
        Key::Sorted(SortKey::Bound),
        "BOUND BY",
        9,
        9,
        Align::Left,
        0,
    ),
    column(Key::Rate, "RATE", 8, 60, Align::Left, 12),
];

/// One line of the table's body.
enum Line<'a> {
    /// Caption of an endpoint.
    Endpoint(&'a Group<'a>),
    /// A client: its position among all listed ones.
    Client(usize, &'a Client),
    /// More about the client above.
    More(usize, &'a Client),
    /// Something to say.
    Note(String),
}

/// Draws the table.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, hits: &mut Hits) {
    let theme = scene.theme();
    let area = pen.area();
    if area.height == 0 || area.width < 2 {
        return;
    }
    let groups = rows::groups(scene.model, scene.state);
    let flat = rows::flat(&groups);
    let selected = rows::selected(scene.state, &flat);
    let placed = place(&COLUMNS, area.width - 2);
    let spark_max = spark_max(&flat.iter().map(|(_, c)| *c).collect::<Vec<_>>());
    titles(pen, scene, &placed, spark_max, hits);

    let lines = lines(scene, &groups);
    let body = Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    };
    let height = usize::from(body.height);
    hits.page = height.saturating_sub(1).max(1);
    let at = lines
        .iter()
        .position(|l| matches!(l, Line::Client(i, _) if Some(*i) == selected))
        .unwrap_or(0);
    let offset = if lines.len() <= height {
        0
    } else {
        at.saturating_sub(height / 2).min(lines.len() - height)
    };
    for (i, line) in lines.iter().skip(offset).take(height).enumerate() {
        let y = body.y + i as u16;
        let whole = Rect::new(area.x, y, area.width, 1);
        match line {
            Line::Endpoint(group) => caption(pen, scene, y, group),
            Line::Client(row, client) => {
                for column in &placed {
                    let cell = Rect::new(area.x + 1 + column.x, y, column.width, 1);
                    draw_cell(
                        &mut pen.part(cell),
                        theme,
                        column.column.key,
                        client,
                        spark_max,
                    );
                }
                if Some(*row) == selected {
                    pen.put(area.x, y, "›", theme.accent);
                    pen.tint(whole, theme.select);
                }
                hits.add(whole, Action::Select(*row));
            }
            Line::More(row, client) => {
                pen.put(area.x + 3, y, &more(client), theme.dim);
                if Some(*row) == selected {
                    pen.tint(whole, theme.select);
                }
                hits.add(whole, Action::Select(*row));
            }
            Line::Note(text) => {
                pen.put(area.x + 1, y, text, theme.dim);
            }
        }
    }
    if offset + height < lines.len() {
        let left = lines.len() - offset - height;
        pen.put_right(
            area.right(),
            area.bottom().saturating_sub(1),
            &format!(" ↓ {left} more "),
            theme.dim,
        );
    }
}

fn lines<'a>(scene: &Scene<'_>, groups: &'a [Group<'a>]) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    let mut row = 0;
    for group in groups {
        if groups.len() > 1 {
            if !lines.is_empty() {
                lines.push(Line::Note(String::new()));
            }
            lines.push(Line::Endpoint(group));
        }
        if group.clients.is_empty() {
            lines.push(Line::Note(format!(
                "no client yet: listening on {}",
                group.endpoint.socket_path
            )));
        }
        for client in &group.clients {
            lines.push(Line::Client(row, client));
            if scene.state.expanded {
                lines.push(Line::More(row, client));
            }
            row += 1;
        }
    }
    if row == 0 && !scene.state.filter.is_empty() {
        lines.push(Line::Note(format!(
            "no client matches “{}”: Esc shows all",
            scene.state.filter
        )));
    }
    for page in &scene.model.unreadable {
        let who = page
            .pid
            .map_or_else(String::new, |pid| format!(" (pid {pid})"));
        lines.push(Line::Note(format!("– {}{who}: {}", page.name, page.why)));
    }
    lines
}

fn titles(pen: &mut Pen<'_>, scene: &Scene<'_>, placed: &[Placed<Key>], max: f32, hits: &mut Hits) {
    let theme = scene.theme();
    let area = pen.area();
    for column in placed {
        let cell = Rect::new(area.x + 1 + column.x, area.y, column.width, 1);
        let sorted = column.column.key == Key::Sorted(scene.state.sort);
        let style = if sorted { theme.accent } else { theme.title };
        let mut title = match column.column.key {
            Key::Sorted(SortKey::Wait) if column.width >= 20 => "WAIT spin|yield|park".to_owned(),
            Key::Sorted(SortKey::Wait) => "WAIT s|y|p".to_owned(),
            Key::Sorted(SortKey::RequestRing) if column.width >= 18 => {
                "▶ REQUESTS (peak ╎)".to_owned()
            }
            Key::Sorted(SortKey::ReplyRing) if column.width >= 18 => {
                "◀ REPLIES (peak ╎)".to_owned()
            }
            Key::Rate if column.width >= 20 => format!("REQ/s 60 s, max {}", count(f64::from(max))),
            Key::Rate if column.width >= 14 => format!("60 s ≤ {}", count(f64::from(max))),
            Key::Rate => format!("≤ {}", count(f64::from(max))),
            _ => column.column.title.to_owned(),
        };
        if sorted && super::pen::width(&title) < usize::from(column.width) {
            title.push(if scene.state.inverted { '▴' } else { '▾' });
        }
        let mut part = pen.part(cell);
        match column.column.align {
            Align::Left => {
                part.put(cell.x, cell.y, &title, style);
            }
            Align::Right => part.put_right(cell.right(), cell.y, &title, style),
        }
        if let Key::Sorted(key) = column.column.key {
            hits.add(cell, Action::SortBy(key));
        }
    }
}

/// Caption of an endpoint, when there are several.
fn caption(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16, group: &Group<'_>) {
    let theme = scene.theme();
    let area = pen.area();
    let e = group.endpoint;
    let totals = &e.totals;
    let role = match e.role {
        Role::Server => plural(totals.clients, "client"),
        Role::Client => "client; its server is not visible".to_owned(),
    };
    let rate = |r: &Reading<f64>, show: fn(f64) -> String| {
        r.as_ref().map_or_else(|_| "–".to_owned(), |v| show(*v))
    };
    let cpu = match &e.process.cpu {
        Ok(cpu) => format!("{cpu:.2} CPU"),
        Err(_) => String::new(),
    };
    let pieces = fit(
        vec![
            (
                0,
                vec![
                    (e.name.clone(), theme.accent),
                    (format!(" ({})", e.pid), theme.dim),
                ],
            ),
            (1, vec![(role, theme.text)]),
            (
                2,
                vec![(
                    format!("{} req/s", rate(&totals.requests_per_s, count)),
                    theme.text,
                )],
            ),
            (
                3,
                vec![(
                    format!("{}/s", rate(&totals.bytes_per_s, bytes)),
                    theme.text,
                )],
            ),
            (4, vec![(cpu, theme.dim)]),
        ],
        usize::from(area.width.saturating_sub(2)),
        3,
    );
    pen.pieces(area.x + 1, y, &pieces);
}

/// Second line of a client when expanded: the verdict's sentence and what is missing with its reason.
fn more(client: &Client) -> String {
    let mut out = client.verdict.says.clone();
    let mut add = |what: &str, why: &dyn std::fmt::Display| {
        if !out.is_empty() {
            out.push_str("; ");
        }
        out.push_str(&format!("{what} – {why}"));
    };
    if let Some(doubt) = &client.doubt {
        add("not believed", doubt);
    }
    if let Err(why) = &client.wait {
        add("waits", why);
    }
    if let Err(why) = &client.rtt.interval {
        add("round trips", why);
    }
    out
}

fn draw_cell(pen: &mut Pen<'_>, theme: &Theme, key: Key, client: &Client, spark_max: f32) {
    let area = pen.area();
    let (x, y, right, wide) = (area.x, area.y, area.right(), usize::from(area.width));
    let mut number = |value: Result<String, &crate::reading::Why>, style: Style| match value {
        Ok(text) => pen.put_right(right, y, &text, style),
        Err(why) => pen.put_right(right, y, missing(why, wide), theme.faint),
    };
    let rtt = |pick: fn(&Percentiles) -> u64| {
        client
            .rtt
            .interval
            .as_ref()
            .map(|p| duration(pick(p) as f64))
    };
    match key {
        Key::Sorted(SortKey::Client) => {
            let (mark, style) = client_mark(theme, client);
            pen.put(x, y, mark, style);
            pen.put(x + 2, y, &client.number.to_string(), theme.accent);
        }
        Key::Sorted(SortKey::Peer) => number(Ok(client.peer_pid.to_string()), theme.dim),
        Key::Sorted(SortKey::Via) => {
            let style = match (client.transport, client.wanted) {
                (Via::Socket, Via::Shm) => theme.warn,
                (Via::Socket, Via::Socket) => theme.dim,
                (Via::Shm, _) => theme.text,
            };
            pen.put(x, y, via_name(client.transport), style);
        }
        Key::Sorted(SortKey::Requests) => {
            number(
                client.requests_per_s.as_ref().map(|v| count(*v)),
                theme.text,
            );
        }
        Key::Sorted(SortKey::Bytes) => {
            number(client.bytes_per_s.as_ref().map(|v| mib(*v)), theme.text);
        }
        Key::InFlight => number(Ok(count(client.in_flight as f64)), theme.text),
        Key::Sorted(SortKey::RequestRing) => ring(pen, theme, client.request_ring(), theme.request),
        Key::Sorted(SortKey::ReplyRing) => ring(pen, theme, client.reply_ring(), theme.reply),
        Key::Sorted(SortKey::Hits) => {
            let hits = &client.request_ring().cached_index_hit_ratio;
            number(
                hits.as_ref().map(|h| format!("{:.0}", h * 100.0)),
                theme.text,
            );
        }
        Key::Sorted(SortKey::Wait) => wait(pen, theme, client),
        Key::Handler => {
            let handler = client.handler.interval.as_ref();
            number(handler.map(|p| duration(p.p50 as f64)), theme.dim);
        }
        Key::Sorted(SortKey::P50) => number(rtt(|p| p.p50), theme.text),
        Key::Sorted(SortKey::P99) => number(rtt(|p| p.p99), theme.text),
        Key::Sorted(SortKey::P999) => number(rtt(|p| p.p999), theme.text),
        Key::Sorted(SortKey::Bound) => {
            let bound = client.verdict.bound;
            pen.put(x, y, bound.name(), bound_style(theme, bound));
        }
        Key::Rate => spark(pen, theme, client, spark_max),
    }
}

/// Fill of a ring with the mark of its peak, and percent.
fn ring(pen: &mut Pen<'_>, theme: &Theme, ring: &RingView, colour: Style) {
    let area = pen.area();
    let fill = match (&ring.occupancy_bytes, ring.fill()) {
        (_, Some(fill)) => fill,
        (Err(why), None) => {
            pen.put(
                area.x,
                area.y,
                missing(why, usize::from(area.width)),
                theme.faint,
            );
            return;
        }
        (Ok(_), None) => {
            pen.put(area.x, area.y, "–", theme.faint);
            return;
        }
    };
    let wide = usize::from(area.width.saturating_sub(5)).max(1);
    let track: String = std::iter::repeat_n(TRACK, wide).collect();
    pen.put(area.x, area.y, &track, theme.faint);
    if let Some(peak) = ring.peak().filter(|p| *p > 0.0) {
        pen.put(area.x + mark(wide, peak) as u16, area.y, "╎", theme.dim);
    }
    let style = if fill > 0.8 { theme.crit } else { colour };
    pen.put(area.x, area.y, &filled(wide, fill), style);
    let text = whole_percent(fill);
    let style = if fill > 0.8 { theme.crit } else { theme.text };
    pen.put_right(area.right(), area.y, &text, style);
}

/// Where waiting time goes, or what state keeps the client from waiting.
fn wait(pen: &mut Pen<'_>, theme: &Theme, client: &Client) {
    let area = pen.area();
    let wide = usize::from(area.width);
    if !matches!(client.state, ClientState::Active | ClientState::Idle) {
        let age = duration(client.state_for_ns as f64);
        let mut text = format!("{} {age}", client.state.name());
        if text.chars().count() > wide {
            text = client.state.name().to_owned();
        }
        let (_, style) = client_mark(theme, client);
        pen.put(area.x, area.y, &text, style);
        return;
    }
    match &client.wait {
        Err(why) => {
            pen.put(area.x, area.y, missing(why, wide), theme.faint);
        }
        Ok(view) => mix(pen, theme, view),
    }
}

/// The stacked bar spin | yield | park over wall time; what is left of it was useful or blocked.
fn mix(pen: &mut Pen<'_>, theme: &Theme, wait: &WaitView) {
    let area = pen.area();
    let share = |r: &Reading<f64>| r.as_ref().ok().copied().unwrap_or(0.0);
    if let Err(why) = &wait.spin_share {
        pen.put(
            area.x,
            area.y,
            missing(why, usize::from(area.width)),
            theme.faint,
        );
        return;
    }
    let shares = [
        share(&wait.spin_share),
        share(&wait.yield_share),
        share(&wait.sleep_share),
    ];
    let cells = split(usize::from(area.width), shares);
    let mut x = area.x;
    for (n, (symbol, style)) in
        cells
            .into_iter()
            .zip([('█', theme.spin), ('▒', theme.yielding), ('░', theme.park)])
    {
        let text: String = std::iter::repeat_n(symbol, n).collect();
        x = pen.put(x, area.y, &text, style);
    }
    let rest: String = std::iter::repeat_n(TRACK, usize::from(area.right() - x)).collect();
    pen.put(x, area.y, &rest, theme.faint);
}

/// Span of the sparkline.
const SPARK_S: u64 = 60;

/// The largest rate among the clients in the last minute, rounded up so that the scale keeps still.
fn spark_max(clients: &[&Client]) -> f32 {
    let max = clients
        .iter()
        .flat_map(|c| {
            let now = c.history.latest().map_or(0, |p| p.at_ns);
            c.history
                .coarse()
                .rev()
                .take_while(move |p| now - p.at_ns < SPARK_S * 1_000_000_000)
                .filter_map(|p| p.requests_per_s)
        })
        .fold(0f32, f32::max);
    round_up(max)
}

/// 1, 2 or 5 times a power of ten, not below `v`.
pub(super) fn round_up(v: f32) -> f32 {
    if v <= 0.0 || !v.is_finite() {
        return 1.0;
    }
    let power = 10f32.powf(v.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|m| m * power)
        .find(|m| *m >= v)
        .unwrap_or(10.0 * power)
}

/// Requests per second of the last minute; newest at the right.
fn spark(pen: &mut Pen<'_>, theme: &Theme, client: &Client, max: f32) {
    let area = pen.area();
    let wide = u64::from(area.width.max(1));
    let now = client.history.latest().map_or(0, |p| p.at_ns);
    let mut cells: Vec<(u32, f32)> = vec![(0, 0.0); wide as usize];
    for point in client.history.coarse().rev() {
        let age = now.saturating_sub(point.at_ns);
        if age >= SPARK_S * 1_000_000_000 {
            break;
        }
        let back = age * wide / (SPARK_S * 1_000_000_000);
        let (n, sum) = &mut cells[(wide - 1 - back.min(wide - 1)) as usize];
        if let Some(v) = point.requests_per_s {
            *n += 1;
            *sum += v;
        }
    }
    let text: String = cells
        .into_iter()
        .map(|(n, sum)| level((n > 0).then(|| sum / n as f32), max))
        .collect();
    pen.put(area.x, area.y, &text, theme.request);
}

/// The pieces that explain the wait mix, for a legend.
pub(super) fn legend(theme: &Theme) -> Vec<Piece> {
    vec![
        ("█".to_owned(), theme.spin),
        (" spin ".to_owned(), theme.dim),
        ("▒".to_owned(), theme.yielding),
        (" yield ".to_owned(), theme.dim),
        ("░".to_owned(), theme.park),
        (" park ".to_owned(), theme.dim),
        ("·".to_owned(), theme.faint),
        (" working".to_owned(), theme.dim),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn titles_at(width: u16) -> Vec<&'static str> {
        place(&COLUMNS, width - 2)
            .iter()
            .map(|p| p.column.title)
            .collect()
    }

    #[test]
    fn columns_leave_in_the_order_of_their_worth() {
        assert_eq!(titles_at(40), ["CLIENT", "VIA", "REQ/s", "p99", "BOUND BY"]);
        assert_eq!(
            titles_at(80),
            [
                "CLIENT", "PEER", "VIA", "REQ/s", "MiB/s", "▶ RING", "HIT%", "p50", "p99",
                "BOUND BY"
            ]
        );
        let at_120 = titles_at(120);
        for title in ["◀ RING", "WAIT", "p99.9", "RATE"] {
            assert!(at_120.contains(&title), "{title}");
        }
        assert_eq!(titles_at(200).len(), COLUMNS.len());
    }

    #[test]
    fn the_scale_of_the_sparklines_is_a_round_number() {
        assert_eq!(round_up(26_400.0), 50_000.0);
        assert_eq!(round_up(1_000.0), 1_000.0);
        assert_eq!(round_up(0.0), 1.0);
    }
}
