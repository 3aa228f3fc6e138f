//! Charts over time: an area chart of a level, and the heat map of a latency.

use ratatui::style::Style;

use super::bars::chart_cell;
use super::pen::Pen;
use crate::history::HeatColumn;
use crate::ui::Theme;
use transport::stats::histogram::{BUCKETS, lower_bound};

/// Fills the pen's area with a chart: a bright edge, and quieter below it. `values` has one entry per cell of its width, `None`
/// is a gap.
pub(super) fn area(
    pen: &mut Pen<'_>,
    values: &[Option<f32>],
    max: f32,
    (edge, fill): (Style, Style),
    gap: Style,
) {
    let area = pen.area();
    let rows = usize::from(area.height);
    for (i, value) in values.iter().take(usize::from(area.width)).enumerate() {
        let x = area.x + i as u16;
        let Some(value) = value else {
            if rows > 0 {
                pen.put(x, area.bottom().saturating_sub(1), "·", gap);
            }
            continue;
        };
        for row in 0..rows {
            let cell = chart_cell(*value, max, row, rows);
            if cell == ' ' {
                break;
            }
            let top = row + 1 == rows || chart_cell(*value, max, row + 1, rows) == ' ';
            let mut text = [0u8; 4];
            let y = area.bottom() - 1 - row as u16;
            let style = if top { edge } else { fill };
            pen.put(x, y, cell.encode_utf8(&mut text), style);
        }
    }
}

/// Shades of a heat map, from none to most.
const SHADES: [&str; 5] = [" ", "░", "▒", "▓", "█"];

/// Fills the pen's area with a heat map: seconds to the right (`seconds` has the newest first), latency upwards on a logarithmic
/// scale, the darker the more round trips. Returns the range of the scale in ns, or `None` if there is nothing to show.
pub(super) fn heat(
    pen: &mut Pen<'_>,
    seconds: &[Vec<&HeatColumn>],
    theme: &Theme,
) -> Option<(u64, u64)> {
    let area = pen.area();
    let (wide, rows) = (usize::from(area.width), usize::from(area.height));
    if wide == 0 || rows == 0 {
        return None;
    }
    let used = seconds.iter().flatten().flat_map(|c| c.buckets.iter());
    let (mut low, mut high) = (usize::MAX, 0);
    for &(bucket, n) in used {
        if n > 0 {
            low = low.min(usize::from(bucket));
            high = high.max(usize::from(bucket));
        }
    }
    if low > high {
        return None;
    }
    // Buckets are logarithmic already: rows are equal steps of bucket numbers.
    let high = (high + 1).min(BUCKETS);
    let span = (high - low).max(rows);
    for (back, second) in seconds.iter().take(wide).enumerate() {
        let mut sums = vec![0u64; rows];
        for &(bucket, n) in second.iter().flat_map(|c| &c.buckets) {
            let row = (usize::from(bucket) - low) * rows / span;
            let sum = &mut sums[row.min(rows - 1)];
            *sum = sum.saturating_add(n);
        }
        let most = sums.iter().copied().max().unwrap_or(0);
        let x = area.right() - 1 - back as u16;
        for (row, n) in sums.into_iter().enumerate() {
            // Anything that happened shows, however rare: the rare ones are the tail.
            // In steps of about four: what is a quarter as often is no less worth seeing.
            let shade = match n {
                0 => 0,
                n if n >= most.div_ceil(2) => 4,
                n if n >= most.div_ceil(8) => 3,
                n if n >= most.div_ceil(32) => 2,
                _ => 1,
            };
            if shade > 0 {
                let style = if shade == 1 { theme.dim } else { theme.request };
                pen.put(x, area.bottom() - 1 - row as u16, SHADES[shade], style);
            }
        }
    }
    Some((lower_bound(low), lower_bound((low + span).min(BUCKETS - 1))))
}

/// A frame with a title at the left and a remark at the right of its upper edge; returns the area inside.
pub(super) fn frame(
    pen: &mut Pen<'_>,
    theme: &Theme,
    title: &str,
    remark: &str,
) -> ratatui::layout::Rect {
    let area = pen.area();
    if area.width < 4 || area.height < 2 {
        return ratatui::layout::Rect {
            width: 0,
            height: 0,
            ..area
        };
    }
    let (left, right) = (area.x, area.right() - 1);
    let (top, bottom) = (area.y, area.bottom() - 1);
    let line = "─".repeat(usize::from(area.width) - 2);
    pen.put(left, top, &format!("╭{line}╮"), theme.faint);
    pen.put(left, bottom, &format!("╰{line}╯"), theme.faint);
    for y in top + 1..bottom {
        pen.put(left, y, "│", theme.faint);
        pen.put(right, y, "│", theme.faint);
    }
    let inner = usize::from(area.width) - 4;
    let used = super::pen::width(title);
    pen.put_max(left + 2, top, &format!(" {title} "), inner + 1, theme.title);
    let room = inner.saturating_sub(used + 3);
    if !remark.is_empty() && super::pen::width(remark) <= room {
        pen.put_right(right - 1, top, &format!(" {remark} "), theme.dim);
    }
    ratatui::layout::Rect {
        x: left + 2,
        y: top + 1,
        width: area.width - 4,
        height: area.height - 2,
    }
}
