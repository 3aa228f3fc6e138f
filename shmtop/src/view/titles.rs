//! The columns of the table of clients: their titles, widths, and the order in which they leave.

use ratatui::layout::Rect;

use super::columns::{Align, Column, Placed, place};
use super::format::count;
use super::pen::{Pen, width};
use super::{Hits, Scene};
use crate::ui::{Action, SortKey};

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// One that can be sorted by.
    Sorted(SortKey),
    /// The peer's program.
    Name,
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
pub(super) const COLUMNS: [Column<Key>; 17] = [
    column(Key::Sorted(SortKey::Client), "CLIENT", 6, 7, Align::Left, 0),
    column(Key::Sorted(SortKey::Peer), "PEER", 7, 7, Align::Right, 5),
    column(Key::Name, "NAME", 8, 15, Align::Left, 15),
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
        18,
        Align::Left,
        7,
    ),
    column(
        Key::Sorted(SortKey::ReplyRing),
        "◀ RING",
        11,
        18,
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
    // At most 40: a point comes each second, and a cell must not be shorter than that.
    column(Key::Rate, "RATE", 8, 40, Align::Left, 12),
];

/// The columns that can be sorted by and are there in a table so wide.
pub(super) fn sortable(width: u16) -> Vec<SortKey> {
    let placed = place(&COLUMNS, width.saturating_sub(2));
    let key = |p: &Placed<Key>| match p.column.key {
        Key::Sorted(key) => Some(key),
        _ => None,
    };
    placed.iter().filter_map(key).collect()
}

/// What the columns mean, for the help.
pub(super) const MEANINGS: [(&str, &str); 11] = [
    ("PEER NAME", "process id and name of the other side"),
    ("VIA", "shm or socket"),
    (
        "REQ/s MiB/s",
        "requests and payload both ways, mean of the last second",
    ),
    ("FLIGHT", "requests sent and not answered yet"),
    (
        "▶ RING",
        "how full the ring of requests is; ╎ marks its peak",
    ),
    ("◀ RING", "the same for replies"),
    (
        "HIT%",
        "pointer cache: accesses that needed no look at the other side's index",
    ),
    (
        "p50 … p99.9",
        "round trip of the client; HANDLER: of it in the server's handler, median",
    ),
    (
        "BOUND BY",
        "what limits it, or its state if it does not run; ↵ says why",
    ),
    ("RATE", "requests per second over the last minute"),
    ("WAIT", "share of time spent waiting, by kind:"),
];

/// Draws the titles, with the mark of the order.
pub(super) fn titles(
    pen: &mut Pen<'_>,
    scene: &Scene<'_>,
    placed: &[Placed<Key>],
    max: f32,
    hits: &mut Hits,
) {
    let theme = scene.theme();
    let area = pen.area();
    for column in placed {
        let cell = Rect::new(area.x + 1 + column.x, area.y, column.width, 1);
        let sorted = column.column.key == Key::Sorted(scene.state.sort);
        let style = if sorted { theme.accent } else { theme.title };
        let mut title = match column.column.key {
            Key::Sorted(SortKey::Wait) if column.width >= 20 => "WAIT spin|yield|park".to_owned(),
            Key::Sorted(SortKey::Wait) => "WAIT s|y|p".to_owned(),
            Key::Sorted(SortKey::RequestRing) if column.width >= 15 => "▶ RING (peak ╎)".to_owned(),
            Key::Sorted(SortKey::ReplyRing) if column.width >= 15 => "◀ RING (peak ╎)".to_owned(),
            Key::Rate if column.width >= 20 => format!("REQ/s, 60 s, ≤ {}", round(max)),
            Key::Rate if column.width >= 14 => format!("60 s ≤ {}/s", round(max)),
            Key::Rate => format!("60s≤{}", round(max)),
            _ => column.column.title.to_owned(),
        };
        let mark = if scene.state.inverted { "▴" } else { "▾" };
        let fits = width(&title) < usize::from(column.width);
        if sorted && fits {
            title.push_str(mark);
        }
        let mut part = pen.part(cell);
        match column.column.align {
            Align::Left => {
                part.put(cell.x, cell.y, &title, style);
            }
            Align::Right => part.put_right(cell.right(), cell.y, &title, style),
        }
        if sorted && !fits {
            // A title that fills its column has the mark in the gap beside it, where the next title doesn't begin.
            let x = match column.column.align {
                Align::Left => cell.right(),
                Align::Right => cell.x.saturating_sub(1),
            };
            pen.put(x, cell.y, mark, style);
        }
        if let Key::Sorted(key) = column.column.key {
            hits.add(cell, Action::SortBy(key));
        }
    }
}

/// The scale, which is a round number: `50k` where three figures would not fit.
fn round(max: f32) -> String {
    count(f64::from(max)).replace(".0", "").replace(' ', "")
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
    fn the_help_explains_every_column() {
        let explained: String = MEANINGS.iter().map(|(a, b)| format!("{a} {b} ")).collect();
        for column in COLUMNS.iter().filter(|c| c.title != "CLIENT") {
            let is_percentile = column.title.starts_with('p');
            assert!(
                is_percentile || explained.contains(column.title),
                "{}",
                column.title
            );
        }
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
}
