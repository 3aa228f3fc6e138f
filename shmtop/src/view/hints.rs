//! The list of hints: what is wrong, and below it what could not be checked and why.

use ratatui::layout::Rect;

use super::format::age;
use super::pen::{Pen, width};
use super::top::{sentence, subject};
use super::{Hits, Scene, severity_mark};
use crate::ui::Action;

/// Draws the list.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, hits: &mut Hits) {
    let theme = scene.theme();
    let model = scene.model;
    let area = pen.area();
    if area.height == 0 {
        return;
    }
    let findings = &model.findings;
    let mut y = area.y;
    if findings.is_empty() {
        let text = if model.endpoints.is_empty() {
            "Nothing runs, so there is nothing to check.".to_owned()
        } else {
            format!(
                "Nothing is wrong: {} checks are quiet.",
                model.checked.len()
            )
        };
        pen.put(area.x + 1, y, &text, theme.text);
        y += 2;
    } else {
        let wide = area.width >= 90;
        if wide {
            pen.put(area.x + 3, y, "HINT", theme.title);
            pen.put(area.x + 24, y, "WHO", theme.title);
            pen.put(area.x + 40, y, "WHAT", theme.title);
            pen.put_right(area.right() - 1, y, "SINCE", theme.title);
            y += 1;
        }
        // The list keeps two thirds of the screen at most, so that what could not be checked stays in sight.
        let most = usize::from(area.bottom().saturating_sub(y)) * 2 / 3;
        let shown = findings.len().min(most.max(1));
        let selected = scene.state.hint_row.min(findings.len() - 1);
        let first = (selected + 1).saturating_sub(shown);
        for (i, finding) in findings.iter().enumerate().skip(first).take(shown) {
            let line = Rect::new(area.x, y, area.width, 1);
            let (mark, style) = severity_mark(theme, finding.severity);
            pen.put(area.x + 1, y, mark, style);
            let since = age(model.at_ns.saturating_sub(finding.since_ns));
            let mut right = area.right().saturating_sub(1);
            if area.width >= 60 {
                pen.put_right(right, y, &since, theme.dim);
                right = right.saturating_sub(width(&since).max(9) as u16 + 1);
            }
            let mut text = pen.part(Rect::new(area.x, y, right.saturating_sub(area.x), 1));
            if wide {
                text.put_max(area.x + 3, y, finding.id, 20, theme.accent);
                text.put_max(area.x + 24, y, &subject(finding), 15, theme.text);
                text.put(area.x + 40, y, &sentence(finding), theme.text);
            } else {
                let x = text.put(area.x + 3, y, finding.id, theme.accent);
                text.put(x + 1, y, &finding.says, theme.text);
            }
            if i == selected {
                pen.tint(line, theme.select);
            }
            hits.add(line, Action::Select(i));
            y += 1;
            if scene.state.expanded && y < area.bottom() {
                let x = pen.put(area.x + 3, y, "fix: ", theme.dim);
                pen.put(x, y, &finding.fix, theme.text);
                y += 1;
            }
        }
        y += 1;
    }
    unknown(pen, scene, y);
}

/// What could not be checked, and why.
fn unknown(pen: &mut Pen<'_>, scene: &Scene<'_>, mut y: u16) {
    let theme = scene.theme();
    let model = scene.model;
    let area = pen.area();
    if model.unknown.is_empty() || y >= area.bottom() {
        return;
    }
    pen.put(area.x + 1, y, "Could not be checked", theme.title);
    y += 1;
    let room = usize::from(area.bottom().saturating_sub(y));
    let cut = model.unknown.len() > room;
    let shown = if cut {
        room.saturating_sub(1)
    } else {
        model.unknown.len()
    };
    for rule in model.unknown.iter().take(shown) {
        pen.put(area.x + 1, y, "–", theme.faint);
        pen.put_max(area.x + 3, y, rule.id, 20, theme.dim);
        let indent = if area.width >= 60 {
            24
        } else {
            3 + width(rule.id) as u16 + 1
        };
        pen.put(area.x + indent, y, &rule.why.text, theme.text);
        y += 1;
    }
    if cut {
        let more = model.unknown.len() - shown;
        pen.put(
            area.x + 3,
            y,
            &format!("and {more} more: shmtop doctor lists all"),
            theme.dim,
        );
    }
}
