//! One hint, opened: the sentence, the evidence, what follows from it, what to type, when it goes away.

use super::Scene;
use super::columns::{Align, Column};
use super::format::{age, bytes, count, duration};
use super::pen::{Pen, width};
use super::severity_mark;
use super::sheet::{Row, Sheet};
use super::top::subject;
use crate::model::{Evidence, Finding};
use crate::ui::local_time::clock;

/// The finding that is open, while it holds.
pub(super) fn find<'a>(scene: &Scene<'a>) -> Option<&'a Finding> {
    let id = scene.state.finding.as_ref()?;
    scene.model.findings.iter().find(|f| id.is(f))
}

/// Draws it.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, finding: &Finding) -> usize {
    let theme = scene.theme();
    let room = usize::from(pen.area().width.saturating_sub(2));
    let mut sheet = Sheet::default();
    let (mark, style) = severity_mark(theme, finding.severity);
    let since = clock(finding.since_realtime_ns, scene.status.utc_offset_s);
    let held = age(scene.model.at_ns.saturating_sub(finding.since_ns));
    sheet.line(vec![
        (format!("{mark} {}", finding.severity.name()), style),
        (format!("  {}", finding.id), theme.accent),
        (format!("  {}", subject(finding)), theme.text),
        (format!("  since {since}, for {held}"), theme.dim),
    ]);
    sheet.gap();
    sheet.text(&finding.says, theme.title, room, 0);
    sheet.title(theme, "What to type");
    for line in finding.fix.lines() {
        sheet.text(line, theme.accent, room, 2);
    }
    if !finding.evidence.is_empty() {
        sheet.title(theme, "Evidence");
        let measured = finding.evidence.iter();
        let widest = measured.map(|e| width(&e.name)).max().unwrap_or(0);
        let mut columns = vec![
            Column {
                key: 0,
                title: "what",
                width: 18,
                most: (widest as u16).max(18),
                align: Align::Left,
                rank: 0,
            },
            Column {
                key: 1,
                title: "measured",
                width: 12,
                most: 20,
                align: Align::Right,
                rank: 0,
            },
            Column {
                key: 2,
                title: "threshold",
                width: 10,
                most: 16,
                align: Align::Right,
                rank: 1,
            },
            Column {
                key: 3,
                title: "from",
                width: 20,
                most: 60,
                align: Align::Left,
                rank: 2,
            },
        ];
        if finding.evidence.iter().all(|e| e.threshold.is_empty()) {
            columns.retain(|c| c.key != 2);
        }
        let rows = finding
            .evidence
            .iter()
            .map(|e| {
                Row::Cells(vec![
                    (e.name.clone(), theme.text),
                    (value(e), theme.text),
                    (against(e), theme.dim),
                    (e.source.clone(), theme.dim),
                ])
            })
            .collect();
        sheet.table(theme, &columns, rows, room);
    }
    if !finding.explains.is_empty() {
        sheet.title(theme, "What follows from it");
        for effect in &finding.explains {
            let who = effect
                .subject
                .client
                .map(|n| format!("client {n}"))
                .filter(|name| !effect.says.starts_with(name))
                .map_or_else(String::new, |name| format!("{name}: "));
            sheet.text(
                &format!("{} – {who}{}", effect.id, effect.says),
                theme.text,
                room,
                2,
            );
        }
    }
    sheet.title(theme, "Goes away");
    sheet.text(finding.clears, theme.text, room, 2);
    sheet.gap();
    sheet.line(vec![
        ("more: ".to_owned(), theme.dim),
        (format!("shmtop explain {}", finding.id), theme.dim),
    ]);
    sheet.draw(pen, scene)
}

/// What it is compared with, in the same unit.
fn against(evidence: &Evidence) -> String {
    evidence.against(|n| match evidence.unit {
        "ns" => duration(n),
        _ => bytes(n),
    })
}

/// The value of an evidence with its unit, in the magnitude that people read.
pub(super) fn value(evidence: &Evidence) -> String {
    if let Some(text) = &evidence.text {
        return text.clone();
    }
    match evidence.unit {
        "ns" => duration(evidence.value),
        "bytes" => bytes(evidence.value),
        "bytes/s" | "B/s" => format!("{}/s", bytes(evidence.value)),
        "1/s" | "/s" => format!("{}/s", count(evidence.value)),
        "" => count(evidence.value),
        unit => format!("{} {unit}", count(evidence.value)),
    }
}
