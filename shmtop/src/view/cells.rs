//! The cells of the table of clients: numbers, bars, sparklines.

use ratatui::style::Style;
use transport::stats::Via;

use super::bars::{TRACK, filled, level, mark, split};
use super::format::{count, duration, mib, missing, whole_percent};
use super::pen::{Pen, Piece};
use super::titles::Key;
use super::{bound_style, client_mark, severity_mark};
use crate::history::FINE_NS;
use crate::model::{Client, Quantile, RingView, RttView, Severity, WaitView};
use crate::reading::{Reading, Why};
use crate::ui::{SortKey, Theme};

/// Draws one cell of a client's row; `worst` is the gravest thing said of it, `spark` says when sparklines end (CLOCK_MONOTONIC ns) and
/// how much their full height is.
pub(super) fn draw_cell(
    pen: &mut Pen<'_>,
    theme: &Theme,
    key: Key,
    (client, worst): (&Client, Option<Severity>),
    spark: (u64, f32),
) {
    let area = pen.area();
    let (x, y, right, wide) = (area.x, area.y, area.right(), usize::from(area.width));
    // What is not there stands back, so that what moves stands out.
    let mut number = |value: Result<String, &Why>, style: Style| match value {
        Ok(text) if text == "0" => pen.put_right(right, y, &text, theme.faint),
        Ok(text) => pen.put_right(right, y, &text, style),
        Err(why) => pen.put_right(right, y, missing(why, wide), theme.faint),
    };
    let mut latency =
        |view: &'_ RttView, quantile: Quantile, style: Style| match view.shown(quantile) {
            // One that too few values carry is an estimate at best.
            Ok(p) if !quantile.is_carried_by(p) => {
                number(Ok(duration(quantile.of(p) as f64)), theme.dim)
            }
            shown => number(shown.map(|p| duration(quantile.of(p) as f64)), style),
        };
    match key {
        Key::Sorted(SortKey::Client) => {
            let (mark, style) = match worst {
                Some(severity) if !client.state.stands_still() => severity_mark(theme, severity),
                _ => client_mark(theme, client),
            };
            pen.put(x, y, mark, style);
            pen.put(x + 2, y, &client.number.to_string(), theme.accent);
        }
        Key::Sorted(SortKey::Peer) => match client.peer_pid {
            // In another pid namespace.
            0 => number(Ok("–".to_owned()), theme.dim),
            pid => number(Ok(pid.to_string()), theme.dim),
        },
        Key::Sorted(SortKey::Via) => {
            let style = match (client.transport, client.wanted) {
                (Via::Socket, Via::Shm) => theme.warn,
                (Via::Socket, Via::Socket) => theme.dim,
                (Via::Shm, _) => theme.text,
            };
            pen.put(x, y, client.transport.name(), style);
        }
        Key::Sorted(SortKey::Requests) => {
            let rate = client.steady_requests_per_s();
            number(rate.map(count), theme.text);
        }
        Key::Sorted(SortKey::Bytes) => {
            let rate = client.steady_bytes_per_s();
            number(rate.map(mib), theme.text);
        }
        Key::Name => {
            pen.put(x, y, &client.peer_name, theme.dim);
        }
        Key::InFlight => number(
            client.in_flight.as_ref().map(|n| count(*n as f64)),
            theme.text,
        ),
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
            latency(&client.handler, Quantile::P50, theme.dim);
        }
        // What it had before would pass for what it has.
        Key::Sorted(SortKey::P50 | SortKey::P99 | SortKey::P999) if client.state.stands_still() => {
            number(Ok("–".to_owned()), theme.faint);
        }
        Key::Sorted(SortKey::P50) => latency(&client.rtt, Quantile::P50, theme.text),
        Key::Sorted(SortKey::P99) => latency(&client.rtt, Quantile::P99, theme.text),
        Key::Sorted(SortKey::P999) => latency(&client.rtt, Quantile::P999, theme.text),
        // Of one that doesn't run, the state says more than what bounds it.
        Key::Sorted(SortKey::Bound) if client.state.stands_still() => {
            pen.put(x, y, client.state.name(), client_mark(theme, client).1);
        }
        Key::Sorted(SortKey::Bound) => {
            let bound = client.verdict.bound;
            pen.put(x, y, bound.name(), bound_style(theme, bound));
        }
        Key::Rate => rates(pen, theme, client, spark),
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
    // A peak in the first cell says nothing, and a fill that rounds to nothing would only flicker.
    let peak = ring.peak().map_or(0, |peak| mark(wide, peak));
    if peak > 0 {
        pen.put(area.x + peak as u16, area.y, "╎", theme.dim);
    }
    if fill < 0.005 {
        pen.put_right(area.right(), area.y, "0%", theme.faint);
        return;
    }
    let (bar, number) = if fill > 0.8 {
        (theme.crit, theme.crit)
    } else {
        (colour, theme.text)
    };
    pen.put(area.x, area.y, &filled(wide, fill), bar);
    pen.put_right(area.right(), area.y, &whole_percent(fill), number);
}

/// Where waiting time goes, or for how long the client's state has kept it from waiting.
fn wait(pen: &mut Pen<'_>, theme: &Theme, client: &Client) {
    let area = pen.area();
    let wide = usize::from(area.width);
    if client.state.stands_still() {
        let text = format!("for {}", duration(client.state_for_ns as f64));
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

/// The largest rate among the clients in the last minute, rounded up so that the scale keeps still.
pub(super) fn spark_max(clients: &[&Client]) -> f32 {
    let peaks = clients.iter().map(|c| c.history.peak_requests_per_s());
    let max = peaks.fold(0f32, f32::max);
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
fn rates(pen: &mut Pen<'_>, theme: &Theme, client: &Client, (now_ns, max): (u64, f32)) {
    let area = pen.area();
    let rates = client
        .history
        .rates(usize::from(area.width), now_ns, FINE_NS);
    let text: String = rates.into_iter().map(|rate| level(rate, max)).collect();
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
        (" the rest: at work, or nothing to do".to_owned(), theme.dim),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_of_the_sparklines_is_a_round_number() {
        assert_eq!(round_up(26_400.0), 50_000.0);
        assert_eq!(round_up(1_000.0), 1_000.0);
        assert_eq!(round_up(0.0), 1.0);
    }
}
