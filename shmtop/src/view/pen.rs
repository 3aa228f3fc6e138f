//! Writes text into a frame: clipped, so that no screen is too small, and styled by role.
//!
//! Every view draws through a [`Pen`]; it borrows the buffer, knows its area and never writes outside of it.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

pub(crate) use crate::text::width;
use crate::text::{self, is_plain};

/// A text with its style.
pub(crate) type Piece = (String, Style);

/// A buffer and the part of it that may be written.
pub(crate) struct Pen<'a> {
    buffer: &'a mut Buffer,
    area: Rect,
}

impl<'a> Pen<'a> {
    /// A pen for `area`, as far as the buffer has it.
    pub(crate) fn new(buffer: &'a mut Buffer, area: Rect) -> Self {
        let area = area.intersection(buffer.area);
        Self { buffer, area }
    }

    /// The part that may be written.
    pub(crate) fn area(&self) -> Rect {
        self.area
    }

    /// A pen for a part of this one's area.
    pub(crate) fn part(&mut self, area: Rect) -> Pen<'_> {
        let area = area.intersection(self.area);
        Pen {
            buffer: self.buffer,
            area,
        }
    }

    /// Writes at an absolute position, at most `max` cells; returns the column after it.
    pub(crate) fn put_max(&mut self, x: u16, y: u16, text: &str, max: usize, style: Style) -> u16 {
        let inside = y >= self.area.y && y < self.area.bottom() && x >= self.area.x;
        if !inside || x >= self.area.right() {
            return x;
        }
        let room = usize::from(self.area.right() - x).min(max);
        if is_plain(text) {
            return self.put_plain(x, y, text, room, style);
        }
        if width(text) <= room {
            return self.buffer.set_stringn(x, y, text, room, style).0;
        }
        // What doesn't fit ends in an ellipsis, so that a cut text is never taken for a whole one.
        let (end, _) = self
            .buffer
            .set_stringn(x, y, text, room.saturating_sub(1), style);
        if room > 0 {
            self.buffer.set_stringn(end, y, "…", 1, style);
        }
        x + room as u16
    }

    /// The same for text of which each character takes one cell; the position lies inside.
    fn put_plain(&mut self, x: u16, y: u16, text: &str, room: usize, style: Style) -> u16 {
        let mut chars = text.chars();
        let mut end = x;
        for i in 0..room {
            let Some(mut c) = chars.next() else {
                break;
            };
            if i + 1 == room && !chars.as_str().is_empty() {
                c = '…';
            }
            if let Some(cell) = self.buffer.cell_mut((end, y)) {
                // Bold over a dim line is bold.
                cell.modifier = Modifier::empty();
                cell.set_char(c).set_style(style);
            }
            end += 1;
        }
        end
    }

    /// Writes at an absolute position as far as there is room; returns the column after it.
    pub(crate) fn put(&mut self, x: u16, y: u16, text: &str, style: Style) -> u16 {
        self.put_max(x, y, text, usize::MAX, style)
    }

    /// Writes so that the text ends before column `right`.
    pub(crate) fn put_right(&mut self, right: u16, y: u16, text: &str, style: Style) {
        let x = right.saturating_sub(width(text) as u16);
        self.put(x.max(self.area.x), y, text, style);
    }

    /// Says in the last line how much there is above and below.
    pub(crate) fn more(&mut self, style: Style, above: usize, below: usize) {
        let mut said = Vec::new();
        if above > 0 {
            said.push(format!("↑ {above} more"));
        }
        if below > 0 {
            said.push(format!("↓ {below} more"));
        }
        let (right, bottom) = (self.area.right(), self.area.bottom());
        let text = said.join("   ");
        self.put_right(
            right.saturating_sub(1),
            bottom.saturating_sub(1),
            &text,
            style,
        );
    }

    /// Writes pieces one after the other; returns the column after the last.
    pub(crate) fn pieces(&mut self, mut x: u16, y: u16, pieces: &[Piece]) -> u16 {
        for (text, style) in pieces {
            x = self.put(x, y, text, *style);
        }
        x
    }

    /// Lays a style over an area.
    pub(crate) fn tint(&mut self, area: Rect, style: Style) {
        self.buffer.set_style(area.intersection(self.area), style);
    }

    /// Lays a style over a whole line of the pen's area.
    pub(crate) fn tint_line(&mut self, y: u16, style: Style) {
        let line = Rect::new(self.area.x, y, self.area.width, 1);
        self.tint(line, style);
    }

    /// Empties the pen's area.
    pub(crate) fn clear(&mut self) {
        for y in self.area.y..self.area.bottom() {
            for x in self.area.x..self.area.right() {
                if let Some(cell) = self.buffer.cell_mut((x, y)) {
                    cell.reset();
                }
            }
        }
    }
}

/// Breaks a text into lines of at most `width` cells, at blanks where there are some.
pub(crate) fn wrap(text: &str, width_cells: usize) -> Vec<String> {
    let limit = width_cells.max(1);
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            let mut word = word;
            if !line.is_empty() && width(&line) + 1 + width(word) <= limit {
                line.push(' ');
                line.push_str(word);
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            // A word longer than the line is cut: a path is better broken than lost.
            while width(word) > limit {
                let first = word.chars().next().map_or(0, char::len_utf8);
                let cut = text::start(word, limit).len().max(first);
                if cut == word.len() {
                    break;
                }
                lines.push(word[..cut].to_owned());
                word = &word[cut..];
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// The pieces of a line that fit into `room` cells: whole groups are left out, the one with the highest `rank` first.
/// Groups are separated by `gap` cells; returns the pieces in their order.
pub(crate) fn fit(groups: Vec<(u8, Vec<Piece>)>, room: usize, gap: usize) -> Vec<Piece> {
    let mut groups = groups;
    groups.retain(|(_, pieces)| !pieces.is_empty());
    loop {
        let total: usize = groups
            .iter()
            .map(|(_, pieces)| pieces.iter().map(|(t, _)| width(t)).sum::<usize>())
            .sum::<usize>()
            + gap * groups.len().saturating_sub(1);
        if total <= room || groups.len() <= 1 {
            break;
        }
        let worst = groups
            .iter()
            .enumerate()
            .max_by_key(|(i, (rank, _))| (*rank, *i))
            .map_or(0, |(i, _)| i);
        groups.remove(worst);
    }
    let mut out: Vec<Piece> = Vec::new();
    for (i, (_, pieces)) in groups.into_iter().enumerate() {
        if i > 0 {
            out.push((" ".repeat(gap), Style::new()));
        }
        out.extend(pieces);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::text::Span;

    #[test]
    fn what_does_not_fit_ends_in_an_ellipsis_and_stays_inside() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 1));
        let mut pen = Pen::new(&mut buffer, Rect::new(2, 0, 6, 1));
        pen.put(3, 0, "abcdefghij", Style::new());
        pen.put(9, 0, "outside", Style::new());
        pen.put(3, 5, "below", Style::new());
        assert_eq!(buffer, Buffer::with_lines(["   abcd…    "]));
    }

    #[test]
    fn a_word_of_wide_letters_is_broken_where_the_line_ends() {
        assert_eq!(wrap("日本証券取引所", 5), ["日本", "証券", "取引", "所"]);
        assert_eq!(wrap("日本", 1), ["日", "本"], "and never for ever");
    }

    #[test]
    fn the_short_way_writes_what_the_long_way_would() {
        for text in [
            "p99 2.6 µs",
            "▏▎▍▌▋▊▉█ ▁▂▃▄▅▆▇█ ░▒▓",
            "● ▲ ■ ✖ ○ • ✓ ▶ ◀ ▸ ▴ ▾ → ↵ ⇄",
            "–−×≥≤…╎╭─╮│╰╯·",
        ] {
            assert!(is_plain(text), "{text}");
            assert_eq!(width(text), Span::raw(text).width(), "{text}");
            for room in 0..40 {
                let area = Rect::new(0, 0, room, 1);
                let (mut short, mut long) = (Buffer::empty(area), Buffer::empty(area));
                Pen::new(&mut short, area).put(0, 0, text, Style::new());
                if width(text) <= usize::from(room) {
                    long.set_string(0, 0, text, Style::new());
                    assert_eq!(short, long);
                }
            }
        }
    }

    #[test]
    fn wrapped_text_keeps_every_word_and_the_width() {
        let text =
            "61 of 64 fds used: room for 1 more client; see /a/very/long/path/that/must/be/cut";
        for limit in 1..90 {
            let lines = wrap(text, limit);
            assert!(lines.iter().all(|l| width(l) <= limit), "{limit}");
            let letters = |s: &str| s.chars().filter(|c| !c.is_whitespace()).count();
            assert_eq!(
                lines.iter().map(|l| letters(l)).sum::<usize>(),
                letters(text)
            );
        }
    }

    #[test]
    fn the_least_important_group_leaves_a_narrow_line_first() {
        let p = |rank, t: &str| (rank, vec![(t.to_owned(), Style::new())]);
        let text = |room| {
            fit(vec![p(0, "name"), p(2, "clock"), p(1, "rate")], room, 1)
                .into_iter()
                .map(|(t, _)| t)
                .collect::<String>()
        };
        assert_eq!(text(20), "name clock rate");
        assert_eq!(text(10), "name rate");
        assert_eq!(text(4), "name");
        assert_eq!(text(1), "name");
    }
}
