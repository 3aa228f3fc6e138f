//! The help: keys printed from the key table, the shapes, and what each column of the clients means.

use super::Scene;
use super::pen::{Pen, Piece, width};
use super::sheet::Sheet;
use super::titles::MEANINGS;
use crate::ui::Theme;
use crate::ui::keymap::{BINDINGS, Group};

/// Cells of a key or shape, before what it means.
const LABEL: usize = 12;

/// Draws the help over the body.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>) -> usize {
    let theme = scene.theme();
    pen.clear();
    let room = usize::from(pen.area().width.saturating_sub(2));
    let mut sheet = Sheet::default();
    let keys = |group| keys(theme, group, scene.state.ascii);
    let left = [keys(Group::Move), keys(Group::Views)].concat();
    let right = [keys(Group::Table), keys(Group::Time), shapes(theme)].concat();
    if room >= 78 {
        beside(&mut sheet, left, right, room / 2);
    } else {
        for line in left.into_iter().chain(right) {
            sheet.line(line);
        }
    }
    sheet.title(theme, "Columns");
    for (name, meaning) in MEANINGS {
        sheet.line(labelled(name, theme.accent, meaning, theme));
    }
    let mut waits = vec![(" ".repeat(LABEL), theme.text)];
    waits.extend(super::cells::legend(theme));
    sheet.line(waits);
    sheet.draw(pen, scene)
}

fn labelled(label: &str, style: ratatui::style::Style, text: &str, theme: &Theme) -> Vec<Piece> {
    let pad = LABEL.saturating_sub(width(label)).max(1);
    vec![
        (label.to_owned(), style),
        (" ".repeat(pad), theme.text),
        (text.to_owned(), theme.text),
    ]
}

/// A group of keys.
fn keys(theme: &Theme, group: Group, ascii: bool) -> Vec<Vec<Piece>> {
    let mut lines = vec![vec![(group.title().to_owned(), theme.title)]];
    for binding in BINDINGS.iter().filter(|b| b.group == group) {
        let keys: Vec<String> = binding.keys.iter().map(|k| k.label(ascii)).collect();
        lines.push(labelled(
            &keys.join("  "),
            theme.accent,
            binding.help,
            theme,
        ));
    }
    lines.push(Vec::new());
    lines
}

/// The shapes that states have besides their colours.
fn shapes(theme: &Theme) -> Vec<Vec<Piece>> {
    let mut lines = vec![vec![("Shapes".to_owned(), theme.title)]];
    for (shape, style, meaning) in [
        ("●", theme.good, "active"),
        ("○", theme.dim, "idle"),
        ("▲", theme.warn, "a warning; not on shm"),
        ("■", theme.crit, "stopped or stalled"),
        ("✖", theme.crit, "critical; dead"),
        ("–", theme.dim, "unknown: open it to see why"),
    ] {
        lines.push(labelled(shape, style, meaning, theme));
    }
    lines
}

/// Two columns.
fn beside(sheet: &mut Sheet, left: Vec<Vec<Piece>>, right: Vec<Vec<Piece>>, half: usize) {
    for i in 0..left.len().max(right.len()) {
        let mut line = left.get(i).cloned().unwrap_or_default();
        let used: usize = line.iter().map(|(t, _)| width(t)).sum();
        line.push((
            " ".repeat(half.saturating_sub(used)),
            ratatui::style::Style::new(),
        ));
        line.extend(right.get(i).cloned().unwrap_or_default());
        sheet.line(line);
    }
}
