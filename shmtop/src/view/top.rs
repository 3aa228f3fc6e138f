//! The lines that never go: the header, and under it what is wrong. With nothing wrong the second line says what was
//! checked. Before all of it stands that the server of those who are still there has gone.

use std::borrow::Cow;

use ratatui::layout::Rect;
use ratatui::style::Modifier;

use super::format::plural;
use super::pen::{Pen, Piece, width};
use super::{Hits, Scene, header, severity_mark};
use crate::model::{Finding, Severity};
use crate::ui::{Action, Lost, View};

/// Draws them; returns how many lines they take: above the table as many whatever there is to say, so that it doesn't jump.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, hits: &mut Hits) -> u16 {
    let area = pen.area();
    header::draw(pen, scene, area.y);
    let state = scene.state;
    let findings = &scene.model.findings;
    let lost = scene.status.lost.as_ref();
    if state.view == View::Hints && state.finding.is_none() && !state.help && !findings.is_empty() {
        // The list begins with the same sentences.
        return 1 + lost.map_or(0, |lost| lost_line(pen, scene, area.y + 1, lost));
    }
    let watched = state.view == View::Overview && state.client.is_none();
    let lines = match area.height {
        0..12 => 1,
        // Read rather than watched.
        _ if state.help || state.finding.is_some() => 1,
        _ if findings.is_empty() && !watched => 1,
        12..24 => 2,
        _ => 3,
    };
    let (first, end) = (area.y + 1, area.y + 1 + lines);
    let loud: Vec<&Finding> = findings
        .iter()
        .filter(|f| f.severity >= Severity::Warn)
        .collect();
    let mut y = first;
    if let Some(lost) = lost {
        y += lost_line(pen, scene, y, lost);
    }
    for (i, finding) in loud.iter().enumerate() {
        if y >= end {
            break;
        }
        let of = if i == 0 { findings.len() } else { 0 };
        y += finding_lines(pen, scene, (y, end), finding, of);
    }
    if loud.is_empty() {
        if lost.is_none() {
            quiet(pen, scene, first);
        }
        if let Some(note) = findings.first().filter(|_| lines > 1) {
            let (mark, style) = severity_mark(scene.theme(), note.severity);
            let x = pen.put(area.x + 1, first + 1, mark, style) + 1;
            pen.put(x, first + 1, &note.says, scene.theme().dim);
        }
    }
    let rect = Rect::new(area.x, first, area.width, lines);
    hits.add(rect, Action::Show(View::Hints));
    1 + lines
}

/// One finding from line `y` on, above line `end`: shape, subject, sentence, and what to type: beside the sentence, if need be
/// beside its first half, else below it. `of` is how many findings there are, said if it is not 1 or 0.
/// Returns the lines used.
fn finding_lines(
    pen: &mut Pen<'_>,
    scene: &Scene<'_>,
    (y, end): (u16, u16),
    finding: &Finding,
    of: usize,
) -> u16 {
    let theme = scene.theme();
    let area = pen.area();
    let (mark, style) = severity_mark(theme, finding.severity);
    let text = if finding.severity == Severity::Crit {
        theme.text.add_modifier(Modifier::BOLD)
    } else {
        theme.text
    };
    let end_of_line = area.right().saturating_sub(1);
    let wide = area.width >= 60;
    let all = if of > 1 && wide {
        format!("all {of}: press 2")
    } else {
        String::new()
    };
    let mut x = pen.put(area.x + 1, y, mark, style) + 1;
    let subject = subject(finding);
    let mut says = Cow::Borrowed(finding.says.as_str());
    if !subject.is_empty() && wide {
        x = pen.put(x, y, &subject, theme.accent) + 2;
        says = sentence(finding);
    }
    let short = first_sentence(&says);
    let fix = finding.fix.lines().next().unwrap_or_default();
    let right = match width(&all) {
        0 => end_of_line,
        n => end_of_line.saturating_sub(n as u16 + 3),
    };
    let room = usize::from(right.saturating_sub(x));
    let beside = |says: &&str| width(says) + 3 + width(fix) <= room;
    let chosen = [&*says, short].into_iter().find(beside);
    if let Some(says) = chosen.filter(|_| !fix.is_empty() && wide) {
        pen.put(x, y, says, text);
        pen.put_right(right, y, fix, theme.accent);
        pen.put_right(end_of_line, y, &all, theme.dim);
        return 1;
    }
    // How many there are stands on the line with more room for it.
    let below = !fix.is_empty() && y + 1 < end;
    let right = if below { end_of_line } else { right };
    let room = usize::from(right.saturating_sub(x));
    let says = if width(&says) > room { short } else { &*says };
    pen.put_max(x, y, says, room, text);
    if !below {
        pen.put_right(end_of_line, y, &all, theme.dim);
        return 1;
    }
    let x = pen.put(area.x + 3, y + 1, "→ ", theme.dim);
    pen.put_right(end_of_line, y + 1, &all, theme.dim);
    let room = usize::from(end_of_line.saturating_sub(x)).saturating_sub(width(&all) + 1);
    pen.put_max(x, y + 1, fix, room, theme.accent);
    2
}

/// That a server has gone, and who is without it now. Returns the lines used.
fn lost_line(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16, lost: &Lost) -> u16 {
    let theme = scene.theme();
    let area = pen.area();
    let (mark, style) = severity_mark(theme, Severity::Crit);
    let x = pen.put(area.x + 1, y, mark, style) + 1;
    let loud = theme.text.add_modifier(Modifier::BOLD);
    let says = format!("{}; {}", lost.gone(), lost.alone());
    pen.put_max(
        x,
        y,
        &says,
        usize::from(area.right().saturating_sub(x + 1)),
        loud,
    );
    1
}

/// Up to the first full stop: what comes after it explains.
fn first_sentence(says: &str) -> &str {
    says.split_once(". ").map_or(says, |(first, _)| first)
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

/// Beside `client 7`: "client 7 (pid 88): 3 requests …" says "pid 88: 3 requests …", "client pid 88 has been stopped" and "pid 88 of client 7
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
    } else if model.checked.is_empty() {
        let why = match model.needs_s {
            0 => "nothing could be checked".to_owned(),
            s => format!("nothing checked yet: needs {s} s more"),
        };
        vec![("○ ".to_owned(), theme.dim), (why, theme.dim)]
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
        match model.findings.len() {
            0 => {}
            n => out.push((format!(", {}", plural(n, "note")), theme.dim)),
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
                "client pid 88 has been stopped for 4 s",
                "pid 88 has been stopped for 4 s",
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
