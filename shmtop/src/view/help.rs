//! The help: printed from the key table, with the shapes and their meaning.

use super::Scene;
use super::cells::legend;
use super::pen::{Pen, Piece, width};
use super::sheet::Sheet;
use crate::ui::keymap::{BINDINGS, Group};

/// Draws the help over the body.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>) {
    let theme = scene.theme();
    pen.clear();
    let room = usize::from(pen.area().width.saturating_sub(2));
    let two = room >= 96;
    let mut sheet = Sheet::default();
    let blocks: Vec<Vec<Vec<Piece>>> = Group::ALL
        .into_iter()
        .map(|group| {
            let mut lines = vec![vec![(group.title().to_owned(), theme.title)]];
            for binding in BINDINGS.iter().filter(|b| b.group == group) {
                let keys: Vec<String> = binding.keys.iter().map(|k| k.label()).collect();
                let keys = keys.join("  ");
                let pad = 12usize.saturating_sub(width(&keys)).max(1);
                lines.push(vec![
                    (keys, theme.accent),
                    (" ".repeat(pad), theme.text),
                    (binding.help.to_owned(), theme.text),
                ]);
            }
            lines.push(Vec::new());
            lines
        })
        .collect();
    if two {
        let half = room / 2;
        let mut columns: [Vec<Vec<Piece>>; 2] = [Vec::new(), Vec::new()];
        for block in blocks {
            let shorter = usize::from(columns[1].len() < columns[0].len());
            columns[shorter].extend(block);
        }
        let [left, right] = columns;
        for i in 0..left.len().max(right.len()) {
            let mut line = left.get(i).cloned().unwrap_or_default();
            let used: usize = line.iter().map(|(t, _)| width(t)).sum();
            line.push((" ".repeat(half.saturating_sub(used)), theme.text));
            line.extend(right.get(i).cloned().unwrap_or_default());
            sheet.line(line);
        }
    } else {
        for line in blocks.into_iter().flatten() {
            sheet.line(line);
        }
    }
    sheet.title(theme, "Shapes");
    sheet.line(vec![
        ("●".to_owned(), theme.good),
        (" active  ".to_owned(), theme.text),
        ("○".to_owned(), theme.dim),
        (" idle  ".to_owned(), theme.text),
        ("▲".to_owned(), theme.warn),
        (" not what it asked for, warning  ".to_owned(), theme.text),
        ("■".to_owned(), theme.crit),
        (" stalled, stopped  ".to_owned(), theme.text),
        ("✖".to_owned(), theme.crit),
        (" dead, critical  ".to_owned(), theme.text),
        ("–".to_owned(), theme.faint),
        (
            " can't be had: open the client for the reason".to_owned(),
            theme.text,
        ),
    ]);
    let mut waits = vec![("Waiting: ".to_owned(), theme.text)];
    waits.extend(legend(theme));
    sheet.line(waits);
    sheet.line(vec![
        ("▶".to_owned(), theme.request),
        (" requests  ".to_owned(), theme.text),
        ("◀".to_owned(), theme.reply),
        (" replies  ".to_owned(), theme.text),
        ("╎".to_owned(), theme.dim),
        (" most the ring ever held".to_owned(), theme.text),
    ]);
    sheet.draw(pen, scene);
}
