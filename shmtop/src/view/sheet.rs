//! A page of lines that scrolls, for the views that are read rather than watched: a hint, limits, perf, host, help.

use ratatui::style::Style;

use super::Scene;
use super::columns::{Align, Column, place};
use super::pen::{Pen, Piece, width, wrap};
use crate::ui::Theme;

/// The lines of a page.
#[derive(Default)]
pub(super) struct Sheet {
    lines: Vec<Vec<Piece>>,
}

/// A row of a table.
pub(super) enum Row {
    /// A piece for each column, in the order of the columns' keys.
    Cells(Vec<Piece>),
    /// What goes across the columns: a caption, or why a row has no cells.
    Line(Vec<Piece>),
}

impl Sheet {
    /// Adds a line.
    pub(super) fn line(&mut self, pieces: Vec<Piece>) {
        self.lines.push(pieces);
    }

    /// Adds an empty line, unless there is one already or nothing at all.
    pub(super) fn gap(&mut self) {
        if self.lines.last().is_some_and(|l| !l.is_empty()) {
            self.lines.push(Vec::new());
        }
    }

    /// Adds a caption, with room above.
    pub(super) fn title(&mut self, theme: &Theme, text: &str) {
        self.gap();
        self.line(vec![(text.to_owned(), theme.title)]);
    }

    /// Adds a text in as many lines as it takes, indented.
    pub(super) fn text(&mut self, text: &str, style: Style, room: usize, indent: usize) {
        for line in wrap(text, room.saturating_sub(indent)) {
            self.line(vec![(" ".repeat(indent), Style::new()), (line, style)]);
        }
    }

    /// Adds a line, or as many as its words take, the further ones indented.
    pub(super) fn flow(&mut self, pieces: Vec<Piece>, room: usize, indent: usize) {
        let whole: usize = pieces.iter().map(|(text, _)| width(text)).sum();
        if whole <= room {
            return self.line(pieces);
        }
        let (mut line, mut at) = (Vec::new(), 0);
        for (text, style) in &pieces {
            for word in text.split_inclusive(' ') {
                if at > indent && at + width(word.trim_end()) > room {
                    self.line(std::mem::take(&mut line));
                    line.push((" ".repeat(indent), Style::new()));
                    at = indent;
                }
                line.push((word.to_owned(), *style));
                at += width(word);
            }
        }
        self.line(line);
    }

    /// Adds a table: titles, then rows. Columns leave by rank when there is no room.
    pub(super) fn table(
        &mut self,
        theme: &Theme,
        columns: &[Column<usize>],
        rows: Vec<Row>,
        room: usize,
    ) {
        let placed = place(columns, room.min(usize::from(u16::MAX)) as u16);
        let cell = |text: &str, style: Style, align: Align, wide: usize| -> Vec<Piece> {
            let text = cut(text, wide);
            let pad = " ".repeat(wide.saturating_sub(width(&text)));
            match align {
                Align::Left => vec![(text, style), (pad, Style::new())],
                Align::Right => vec![(pad, Style::new()), (text, style)],
            }
        };
        let mut head = Vec::new();
        for p in &placed {
            head.extend(cell(
                p.column.title,
                theme.dim,
                p.column.align,
                usize::from(p.width),
            ));
            head.push((" ".to_owned(), Style::new()));
        }
        self.line(head);
        for row in rows {
            let row = match row {
                Row::Cells(row) => row,
                Row::Line(pieces) => {
                    self.line(pieces);
                    continue;
                }
            };
            let mut line = Vec::new();
            for p in &placed {
                if let Some((text, style)) = row.get(p.column.key) {
                    line.extend(cell(text, *style, p.column.align, usize::from(p.width)));
                    line.push((" ".to_owned(), Style::new()));
                }
            }
            self.line(line);
        }
    }

    /// Draws the page from the line that the state scrolled to; returns how far it can be scrolled.
    pub(super) fn draw(self, pen: &mut Pen<'_>, scene: &Scene<'_>) -> usize {
        let theme = scene.theme();
        let area = pen.area();
        // A page that doesn't fit says so in a line of its own.
        let fits = self.lines.len() <= usize::from(area.height) || area.height < 4;
        let height = usize::from(area.height).saturating_sub(usize::from(!fits));
        let last = self.lines.len().saturating_sub(height);
        let first = scene.state.scroll.min(last);
        for (i, line) in self.lines.iter().skip(first).take(height).enumerate() {
            pen.pieces(area.x + 1, area.y + i as u16, line);
        }
        if !fits {
            pen.more(theme.dim, first, last - first);
        }
        last
    }
}

/// At most `wide` cells of a text; what is cut ends in an ellipsis.
fn cut(text: &str, wide: usize) -> String {
    if width(text) <= wide {
        return text.to_owned();
    }
    format!("{}…", crate::text::start(text, wide.saturating_sub(1)))
}
