//! The table of clients: the heart of the overview.

use std::collections::HashMap;

use ratatui::layout::Rect;
use transport::stats::{Role, Via};

use super::cells::{draw_cell, spark_max};
use super::columns::place;
use super::format::{bytes, count, plural};
use super::panels::{latency, rate, reply_ring, request_ring, throughput, time};
use super::pen::{Pen, fit};
use super::titles::{COLUMNS, titles};
use super::{Hits, Scene};
use crate::model::{Client, Endpoint, Model, Severity};
use crate::reading::Why;
use crate::ui::Action;
use crate::ui::rows::{self, Group};

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
    let found = found(scene.model);
    let body = Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    };
    let free = body.height.saturating_sub(lines.len() as u16);
    if let Some(&(endpoint, client)) = selected.and_then(|i| flat.get(i))
        && free > PICTURE_ROWS
    {
        hits.connections.insert(client.connection_id);
        let height = (free - 1).min(2 * PICTURE_ROWS_MOST);
        let place = Rect {
            y: body.bottom() - height,
            height,
            ..body
        };
        pictures(&mut pen.part(place), scene, endpoint, client);
    }
    // What doesn't fit is counted in a line of its own.
    let fits = lines.len() <= usize::from(body.height) || body.height < 4;
    let height = usize::from(body.height).saturating_sub(usize::from(!fits));
    hits.page = height.saturating_sub(1).max(1);
    let at = lines
        .iter()
        .position(|l| matches!(l, Line::Client(i, _) if Some(*i) == selected))
        .unwrap_or(0);
    let mut offset = if lines.len() <= height {
        0
    } else {
        at.saturating_sub(height / 2).min(lines.len() - height)
    };
    // The second line of a client says nothing without the first.
    if matches!(lines.get(offset), Some(Line::More(..))) {
        offset += 1;
    }
    for (i, line) in lines.iter().skip(offset).take(height).enumerate() {
        let y = body.y + i as u16;
        let whole = Rect::new(area.x, y, area.width, 1);
        match line {
            Line::Endpoint(group) => caption(pen, scene, y, group),
            Line::Client(row, client) => {
                hits.connections.insert(client.connection_id);
                let worst = found.get(&client.connection_id).copied();
                for column in &placed {
                    let cell = Rect::new(area.x + 1 + column.x, y, column.width, 1);
                    draw_cell(
                        &mut pen.part(cell),
                        theme,
                        column.column.key,
                        (client, worst),
                        (scene.model.at_ns, spark_max),
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
    if !fits {
        let clients = |lines: &[Line<'_>]| {
            let clients = lines.iter().filter(|l| matches!(l, Line::Client(..)));
            clients.count()
        };
        let end = (offset + height).min(lines.len());
        pen.more(theme.dim, clients(&lines[..offset]), clients(&lines[end..]));
    }
}

/// The clients that something at `warn` or above is said of, by connection, with the gravest severity.
fn found(model: &Model) -> HashMap<u64, Severity> {
    let mut found = HashMap::new();
    for finding in model
        .findings
        .iter()
        .filter(|f| f.severity >= Severity::Warn)
    {
        if let Some(id) = finding.subject.connection_id {
            let worst = found.entry(id).or_insert(finding.severity);
            *worst = finding.severity.max(*worst);
        }
    }
    found
}

/// Rows that the pictures below the table need, and that one row of them can use.
const PICTURE_ROWS: u16 = 8;
const PICTURE_ROWS_MOST: u16 = 22;
/// Cells that a picture needs.
const PICTURE_WIDTH: u16 = 48;

type Picture = fn(&mut Pen<'_>, &Scene<'_>, &Endpoint, &Client);

/// What there is room for below the table, what says most first: the whole endpoint, and the selected client.
const PICTURES: [Picture; 6] = [
    |pen, scene, endpoint, _| throughput(pen, scene, endpoint),
    |pen, scene, _, client| latency(pen, scene, client),
    |pen, scene, _, client| time(pen, scene, client),
    |pen, scene, _, client| request_ring(pen, scene, client),
    |pen, scene, _, client| reply_ring(pen, scene, client),
    |pen, scene, _, client| rate(pen, scene, client),
];

/// The same of a client on the socket, which has no rings.
const PICTURES_OF_SOCKET: [Picture; 4] = [PICTURES[0], PICTURES[1], PICTURES[2], PICTURES[5]];

/// Pictures below the table, in one row or two, as many as have room side by side.
fn pictures(pen: &mut Pen<'_>, scene: &Scene<'_>, endpoint: &Endpoint, client: &Client) {
    let area = pen.area();
    let pictures: &[Picture] = match client.transport {
        Via::Shm => &PICTURES,
        Via::Socket => &PICTURES_OF_SOCKET,
    };
    let most = usize::from(area.width / PICTURE_WIDTH).clamp(1, 3);
    let down = usize::from(area.height.div_ceil(PICTURE_ROWS_MOST));
    let down = down.clamp(1, pictures.len().div_ceil(most));
    let across = most.min(pictures.len().div_ceil(down));
    for (i, picture) in pictures.iter().take(across * down).enumerate() {
        let part = |from: u16, length: u16, i: usize, n: usize| {
            let cut = |i: usize| (usize::from(length) * i / n) as u16;
            (from + cut(i), cut(i + 1) - cut(i))
        };
        let (x, width) = part(area.x, area.width, i % across, across);
        let (y, height) = part(area.y, area.height, i / across, down);
        picture(
            &mut pen.part(Rect::new(x, y, width, height)),
            scene,
            endpoint,
            client,
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
    if groups.is_empty() && scene.state.filter.is_empty() {
        lines.extend(without_a_server(scene).map(Line::Note));
    }
    for page in &scene.model.unreadable {
        let who = page
            .pid
            .map_or_else(String::new, |pid| format!(" (pid {pid})"));
        lines.push(Line::Note(format!("– {}{who}: {}", page.name, page.why)));
    }
    lines
}

/// Clients without a connection, and who served them.
fn without_a_server(scene: &Scene<'_>) -> impl Iterator<Item = String> {
    let left = scene.status.left.as_ref();
    let gone = left.map(|left| left.gone(scene.status.utc_offset_s));
    let clients = &scene.model.endpoints;
    let waiting = clients.first().map(|first| {
        let who = format!("{} ({})", first.name, first.pid);
        match clients.len() {
            1 => format!("{who} has no connection"),
            n => format!("{who} and {} more have no connection", n - 1),
        }
    });
    gone.into_iter().chain(waiting)
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
    let rate =
        |r: Result<f64, &Why>, show: fn(f64) -> String| r.map_or_else(|_| "–".to_owned(), show);
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
                    format!("{} req/s", rate(totals.steady_requests_per_s(), count)),
                    theme.text,
                )],
            ),
            (
                3,
                vec![(
                    format!("{}/s", rate(totals.steady_bytes_per_s(), bytes)),
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
    match (
        client.wait.as_ref().err(),
        client.rtt.interval.as_ref().err(),
    ) {
        (Some(waits), Some(trips)) if waits.text == trips.text => add("waits, round trips", waits),
        (waits, trips) => {
            waits.into_iter().for_each(|why| add("waits", why));
            trips.into_iter().for_each(|why| add("round trips", why));
        }
    }
    out
}
