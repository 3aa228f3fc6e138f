//! The lines that never go: the header, and under it what is wrong. With nothing wrong the second line says what was
//! checked.

use std::borrow::Cow;

use ratatui::layout::Rect;

use super::pen::{Pen, Piece, width};
use super::{Hits, Scene, header, severity_mark};
use crate::model::{Finding, Severity};
use crate::ui::{Action, View};

/// Draws them; returns how many lines they take.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, hits: &mut Hits) -> u16 {
    let area = pen.area();
    header::draw(pen, scene, area.y);
    let findings = &scene.model.findings;
    let loud = findings
        .iter()
        .filter(|f| f.severity >= Severity::Warn)
        .count();
    // Two sentences where there is room for them, one where every line counts; what is below warn only if alone.
    let room = if area.height >= 20 { 2 } else { 1 };
    let shown = loud.clamp(usize::from(!findings.is_empty()), room);
    let shown = shown.min(findings.len());
    let mut lines = shown.max(1) as u16;
    for (i, finding) in findings.iter().take(shown).enumerate() {
        let y = area.y + 1 + i as u16;
        let more = if i == 0 { findings.len() } else { 0 };
        let fixed = line(pen, scene, y, finding, more);
        // A sentence that stands alone may have its command below it.
        if !fixed && shown == 1 && room > 1 && finding.severity >= Severity::Warn {
            let theme = scene.theme();
            let x = pen.put(area.x + 3, y + 1, "→ ", theme.dim);
            let right = area.right().saturating_sub(x + 1);
            pen.put_max(x, y + 1, &finding.fix, usize::from(right), theme.accent);
            lines = 2;
        }
    }
    if shown == 0 {
        quiet(pen, scene, area.y + 1);
    }
    let rect = Rect::new(area.x, area.y + 1, area.width, lines);
    hits.add(rect, Action::Show(View::Hints));
    1 + lines
}

/// One finding: shape, subject, sentence; at the right the fix and how many there are.
/// Whether there was room for the fix.
fn line(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16, finding: &Finding, of: usize) -> bool {
    let theme = scene.theme();
    let area = pen.area();
    let (mark, style) = severity_mark(theme, finding.severity);
    let counter = if of > 1 {
        format!("[1/{of}]")
    } else {
        String::new()
    };
    let counter_width = if area.width >= 30 {
        width(&counter) as u16
    } else {
        0
    };
    let mut x = pen.put(area.x + 1, y, mark, style);
    x += 1;
    let subject = subject(finding);
    let mut says = Cow::Borrowed(finding.says.as_str());
    if !subject.is_empty() && area.width >= 60 {
        x = pen.put(x, y, &subject, theme.accent) + 2;
        says = sentence(finding);
    }
    let right = area.right().saturating_sub(1);
    let says_end = x + width(&says) as u16;
    // The command is worth more than the end of a long sentence only if the sentence keeps most of its room.
    let fix_width = width(&finding.fix) as u16;
    let fix_start = right
        .saturating_sub(counter_width + u16::from(counter_width > 0) * 2)
        .saturating_sub(fix_width);
    let fits = fix_width > 0 && fix_start > says_end + 2;
    let room = if fits {
        pen.put(fix_start, y, &finding.fix, theme.accent);
        says_end - x
    } else {
        right.saturating_sub(x + counter_width + 1)
    };
    pen.put_max(x, y, &says, usize::from(room), theme.text);
    if counter_width > 0 {
        pen.put_right(right, y, &counter, theme.dim);
    }
    fits || fix_width == 0
}

/// Whom a finding concerns, in a word or two.
pub(super) fn subject(finding: &Finding) -> String {
    match (
        finding.subject.client,
        &finding.subject.endpoint,
        finding.subject.pid,
    ) {
        (Some(client), _, _) => format!("client {client}"),
        (None, Some(name), Some(pid)) => format!("{name} ({pid})"),
        (None, Some(name), None) => name.clone(),
        (None, None, Some(pid)) => format!("pid {pid}"),
        (None, None, None) => String::new(),
    }
}

/// The sentence, without the name that stands before it already.
pub(super) fn sentence(finding: &Finding) -> Cow<'_, str> {
    let says = finding.says.as_str();
    if let Some(client) = finding.subject.client {
        return beside_client(says, client);
    }
    let Some(pid) = finding.subject.pid else {
        return says.into();
    };
    // "exchange (pid 4711) …", or by the program's name: the subject names it.
    match says.split_once(&format!(" (pid {pid})")) {
        Some((name, rest)) if !name.contains(' ') => rest.trim_start_matches([' ', ':', ',']),
        _ => says,
    }
    .into()
}

/// Beside `client 7`: "client 7 (pid 88): 3 requests …" says "pid 88: 3 requests …", "client pid 88 is stopped" and "pid 88 of client 7
/// died" say what is not said yet.
fn beside_client(says: &str, client: u32) -> Cow<'_, str> {
    let name = format!("client {client}");
    // Not of client 71.
    let whole = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_digit());
    if let Some(rest) = says.strip_prefix(&name).filter(|rest| whole(rest)) {
        let rest = rest.trim_start_matches([' ', ':', ',']);
        return match rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            Some((who, rest)) => format!("{who}{rest}").into(),
            None => rest.into(),
        };
    }
    if says.starts_with("client pid ") {
        return says["client ".len()..].into();
    }
    match says.split_once(&format!(" of {name}")) {
        Some((head, rest)) if whole(rest) => format!("{head}{rest}").into(),
        _ => says.into(),
    }
}

/// Nothing is wrong: says so, with what that rests on.
fn quiet(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16) {
    let theme = scene.theme();
    let model = scene.model;
    let x = pen.area().x + 1;
    let pieces: Vec<Piece> = if !scene.status.ready {
        vec![("looking for stats pages …".to_owned(), theme.dim)]
    } else if model.endpoints.is_empty() {
        vec![
            ("○ ".to_owned(), theme.dim),
            ("nothing to check".to_owned(), theme.dim),
        ]
    } else {
        let mut out = vec![
            ("✓ ".to_owned(), theme.good),
            ("nothing wrong".to_owned(), theme.text),
            (format!("  {} checks", model.checked.len()), theme.dim),
        ];
        if !model.unknown.is_empty() {
            out.push((
                format!(", {} could not be made", model.unknown.len()),
                theme.dim,
            ));
        }
        if model.needs_s > 0 {
            out.push((format!(", some need {} s more", model.needs_s), theme.dim));
        }
        out
    };
    pen.pieces(x, y, &pieces);
}

#[cfg(test)]
mod tests {
    use super::beside_client;

    #[test]
    fn beside_its_subject_a_sentence_says_what_is_not_said_yet() {
        for (says, shown) in [
            (
                "client 7: 2 MiB of replies unread",
                "2 MiB of replies unread",
            ),
            (
                "client 7 (pid 88): 3 requests refused",
                "pid 88: 3 requests refused",
            ),
            ("client 7 (pid 88) is 11× slower", "pid 88 is 11× slower"),
            (
                "client pid 88 is stopped (SIGSTOP)",
                "pid 88 is stopped (SIGSTOP)",
            ),
            ("pid 88 of client 7 died", "pid 88 died"),
            (
                "a request of client 71 is stuck",
                "a request of client 71 is stuck",
            ),
            ("client 71: full", "client 71: full"),
            ("server pid 4711 is stopped", "server pid 4711 is stopped"),
        ] {
            assert_eq!(beside_client(says, 7), shown);
        }
    }
}
