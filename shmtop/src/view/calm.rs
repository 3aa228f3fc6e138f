//! Nothing runs: says so, and what would change it. Never an empty table.

use ratatui::style::Modifier;

use super::Scene;
use super::pen::{Pen, Piece, width, wrap};
use crate::text;

/// Draws the screen.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>) {
    let theme = scene.theme();
    let area = pen.area();
    let plain = |text: &str| (text.to_owned(), theme.dim);
    let command = |text: &str| (text.to_owned(), theme.accent);
    let mut lines: Vec<Vec<Piece>> = if scene.status.ready && scene.model.others > 0 {
        let others = match scene.model.others {
            1 => "One other process uses".to_owned(),
            n => format!("{n} other processes use"),
        };
        vec![
            vec![(
                "What was asked for (-p, --name) is not there.".to_owned(),
                theme.title,
            )],
            vec![],
            vec![plain(&format!("{others} the transport now:"))],
            vec![command("shmtop ps")],
        ]
    } else if scene.status.ready {
        vec![
            vec![(
                "Nothing is running that shmtop could show.".to_owned(),
                theme.title,
            )],
            vec![],
            vec![plain("An exchange and 16 traders to look at:")],
            vec![command("cargo run --release --bin demo")],
            vec![],
            vec![plain("Only the exchange, for traders of your own:")],
            vec![command("cargo run --release --bin exchange")],
            vec![],
            vec![plain(
                "Whatever embeds the transport appears here by itself.",
            )],
        ]
    } else {
        vec![vec![plain("Looking for stats pages …")]]
    };
    if scene.model.unsearched > 0 {
        // What the user is looking for may be there: before what to start instead.
        let is_root = scene.model.viewer_is_root;
        let what = text::unsearched(scene.model.unsearched, is_root);
        let is_live = scene.status.replay.is_none();
        let title = lines.iter().position(Vec::is_empty).unwrap_or(lines.len());
        let mut said = if is_live && !is_root {
            vec![
                vec![(format!("{what}; this searches them:"), theme.warn)],
                vec![command("sudo shmtop")],
            ]
        } else {
            vec![vec![(format!("{what}."), theme.dim)]]
        };
        said.insert(0, vec![]);
        lines.splice(title..title, said);
    }
    if let Some(left) = &scene.status.left {
        let gone = left.gone(scene.status.utc_offset_s);
        lines.insert(0, vec![(gone, theme.warn.add_modifier(Modifier::BOLD))]);
        lines.insert(
            1,
            vec![
                command("["),
                plain(" goes ten seconds back, "),
                command("Space"),
                plain(" returns."),
            ],
        );
        lines.insert(2, vec![]);
    }
    for page in scene.model.unreadable.iter().take(4) {
        lines.push(vec![(
            format!("Found, but not shown: {}: {}", page.name, page.why),
            theme.warn,
        )]);
    }
    let room = usize::from(area.width).saturating_sub(2);
    let lines: Vec<Vec<Piece>> = lines
        .into_iter()
        .flat_map(|line| match line.as_slice() {
            [(text, style)] if width(text) > room => wrap(text, room)
                .into_iter()
                .map(|part| vec![(part, *style)])
                .collect(),
            _ => vec![line],
        })
        .collect();
    let top = (usize::from(area.height).saturating_sub(lines.len()) / 3) as u16;
    let widest = lines
        .iter()
        .map(|l| l.iter().map(|(t, _)| width(t)).sum::<usize>())
        .max()
        .unwrap_or(0);
    let left = usize::from(area.width).saturating_sub(widest) / 2;
    for (i, line) in lines.iter().enumerate() {
        let x = area.x + left.max(1) as u16;
        pen.pieces(x, area.y + top + i as u16, line);
    }
}
