//! Bars and sparklines as text: the shapes only, in Unicode; colours are the caller's, ASCII is `super::ascii`'s.

/// Left-to-right eighths of a cell.
const EIGHTHS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
/// Bottom-to-top eighths of a cell.
const LEVELS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// An empty cell of a bar's track.
pub const TRACK: char = '·';

/// The filled part of a bar of `width` cells: `share` (0..=1) in eighths of a cell. Anything above 0 shows.
pub fn filled(width: usize, share: f64) -> String {
    let share = if share.is_finite() {
        share.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let mut eighths = (share * width as f64 * 8.0).round() as usize;
    if share > 0.0 {
        eighths = eighths.max(1);
    }
    let mut out: String = std::iter::repeat_n('█', eighths / 8).collect();
    if !eighths.is_multiple_of(8) {
        out.push(EIGHTHS[eighths % 8]);
    }
    out
}

/// Cell of a bar of `width` cells in which `share` ends.
pub fn mark(width: usize, share: f64) -> usize {
    ((share.clamp(0.0, 1.0) * width as f64).ceil() as usize).clamp(1, width.max(1)) - 1
}

/// Cells per part of a bar of `width` cells; the parts' shares should add up to at most 1. Largest remainders get the
/// cells that rounding leaves, so the sum never jitters.
pub fn split<const N: usize>(width: usize, shares: [f64; N]) -> [usize; N] {
    let clean = shares.map(|s| {
        if s.is_finite() {
            s.clamp(0.0, 1.0)
        } else {
            0.0
        }
    });
    let sum: f64 = clean.iter().sum();
    let scale = if sum > 1.0 { 1.0 / sum } else { 1.0 };
    let exact = clean.map(|s| s * scale * width as f64);
    let mut cells = exact.map(|e| e.floor() as usize);
    let total = (exact.iter().sum::<f64>().round() as usize).min(width);
    let mut order: [usize; N] = std::array::from_fn(|i| i);
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let missing = total.saturating_sub(cells.iter().sum());
    for i in order.into_iter().take(missing) {
        cells[i] += 1;
    }
    cells
}

/// One cell of a sparkline: eight levels up to `max`; 0 is the lowest level, a gap is empty.
pub fn level(value: Option<f32>, max: f32) -> char {
    match value {
        None => ' ',
        Some(v) if max <= 0.0 || v <= 0.0 => LEVELS[1],
        Some(v) => LEVELS[((v / max * 8.0).ceil() as usize).clamp(1, 8)],
    }
}

/// One cell of a chart `rows` high, counted from the bottom: full below the value, a level at its top, else empty.
pub fn chart_cell(value: f32, max: f32, row: usize, rows: usize) -> char {
    if max <= 0.0 {
        return if row == 0 { LEVELS[1] } else { ' ' };
    }
    let eighths = (value / max * rows as f32 * 8.0).round() as i64;
    let here = eighths - row as i64 * 8;
    if row == 0 {
        LEVELS[here.clamp(1, 8) as usize]
    } else {
        LEVELS[here.clamp(0, 8) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_longer_than_its_track_and_never_hides_a_little() {
        for width in 0..20 {
            for i in 0..=100 {
                let bar = filled(width, f64::from(i) / 100.0);
                assert!(bar.chars().count() <= width.max(1));
                assert_eq!(bar.is_empty(), i == 0, "{width} {i}");
            }
        }
    }

    #[test]
    fn the_parts_of_a_bar_fill_it_exactly_when_they_add_up_to_one() {
        for width in 0..40 {
            for a in 0..=10 {
                for b in 0..=(10 - a) {
                    let (a, b) = (f64::from(a) / 10.0, f64::from(b) / 10.0);
                    let cells = split(width, [a, b, 1.0 - a - b]);
                    assert_eq!(cells.iter().sum::<usize>(), width, "{width} {a} {b}");
                }
            }
        }
    }

    #[test]
    fn a_gap_in_a_sparkline_is_empty_and_a_zero_is_not() {
        assert_eq!(level(None, 10.0), ' ');
        assert_eq!(level(Some(0.0), 10.0), '▁');
        assert_eq!(level(Some(0.01), 10.0), '▁');
        assert_eq!(level(Some(10.0), 10.0), '█');
        assert_eq!(level(Some(99.0), 10.0), '█');
    }
}
