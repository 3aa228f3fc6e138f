//! The last lines: room that is left, the filter, and the keys that matter here.

use ratatui::layout::Rect;
use transport::stats::Role;

use super::format::{bytes, percent};
use super::pen::{Pen, Piece, fit, width};
use super::room::room;
use super::titles::sortable;
use super::{Hits, Scene};
use crate::model::Endpoint;
use crate::ui::{Action, View, rows};

/// With less room than this, what bounds the number of clients is said in fewer words.
const NARROW: u16 = 48;

/// Draws them; returns how many lines they take.
pub(super) fn draw(pen: &mut Pen<'_>, scene: &Scene<'_>, hits: &mut Hits) -> u16 {
    let area = pen.area();
    let keys = area.bottom() - 1;
    key_line(pen, scene, keys, hits);
    let wants_summary = scene.state.view == View::Overview
        && scene.state.client.is_none()
        && !scene.state.help
        && area.height >= 12;
    match (wants_summary, subject(scene)) {
        (true, Some(endpoint)) => {
            summary(pen, scene, keys - 1, endpoint);
            2
        }
        _ => 1,
    }
}

/// Whose headroom the summary shows: the endpoint of the selected client, else the first server.
fn subject<'a>(scene: &Scene<'a>) -> Option<&'a Endpoint> {
    let endpoints = &scene.model.endpoints;
    let chosen = scene
        .state
        .selected
        .as_ref()
        .and_then(|id| endpoints.iter().find(|e| e.key == id.endpoint));
    chosen
        .or_else(|| endpoints.iter().find(|e| e.role == Role::Server))
        .or_else(|| endpoints.first())
        .map(|e| &**e)
}

fn summary(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16, endpoint: &Endpoint) {
    let theme = scene.theme();
    let area = pen.area();
    let limits = &endpoint.limits;
    let label = |text: &str| (text.to_owned(), theme.dim);
    let mut groups: Vec<(u8, Vec<Piece>)> = Vec::new();
    if let (Ok(used), Ok(soft)) = (&limits.fds_used, &limits.fds_soft) {
        let tight = *soft > 0 && *used as f64 / *soft as f64 > 0.8;
        let mut pieces = vec![label("fds "), (format!("{used}/{soft}"), theme.text)];
        if tight {
            pieces.push((" ▲".to_owned(), theme.warn));
        }
        groups.push((1, pieces));
    }
    if let (Ok(current), Ok(max)) = (&limits.memory_current_bytes, &limits.memory_max_bytes) {
        let tight = *max > 0 && *current as f64 / *max as f64 > 0.8;
        let text = format!("{}/{}", bytes(*current as f64), bytes(*max as f64));
        let mut pieces = vec![label("cgroup mem "), (text, theme.text)];
        if tight {
            pieces.push((" ▲".to_owned(), theme.warn));
        }
        groups.push((3, pieces));
    }
    let totals = &endpoint.totals;
    if totals.ring_reserved_bytes > 0 {
        groups.push((
            2,
            vec![
                label("rings "),
                (bytes(totals.ring_reserved_bytes as f64), theme.text),
                label(" reserved, "),
                (bytes(totals.ring_touched_bytes as f64), theme.text),
                label(" touched"),
            ],
        ));
    }
    if let Some((n, what)) = room(endpoint) {
        let style = if n == 0 { theme.warn } else { theme.text };
        let n = if n > 9_999 {
            "> 9999".to_owned()
        } else {
            n.to_string()
        };
        groups.push((
            0,
            vec![
                label("room for "),
                (n, style),
                label(&if area.width < NARROW {
                    format!(" more ({what})")
                } else {
                    format!(" more clients ({what})")
                }),
            ],
        ));
    }
    let cpus = &scene.model.host.cpus;
    let known: Vec<f64> = cpus
        .iter()
        .filter_map(|c| c.busy.as_ref().ok().copied())
        .collect();
    if !known.is_empty() {
        groups.push((
            4,
            vec![
                label("CPU "),
                (format!("{:.1}", known.iter().sum::<f64>()), theme.text),
                label(&format!(" of {} busy", cpus.len())),
            ],
        ));
    }
    let delay = endpoint
        .pollers
        .iter()
        .filter_map(|p| p.thread.as_ref().ok()?.run_delay.as_ref().ok().copied())
        .reduce(f64::max);
    if let Some(delay) = delay {
        let style = if delay > 0.01 { theme.warn } else { theme.text };
        groups.push((5, vec![label("run-delay "), (percent(delay), style)]));
    }
    let pieces = fit(groups, usize::from(area.width.saturating_sub(2)), 3);
    pen.pieces(area.x + 1, y, &pieces);
}

/// `3 of 16`: the clients that the filter shows.
fn matches(scene: &Scene<'_>) -> String {
    let shown = rows::flat(&rows::groups(scene.model, scene.state)).len();
    format!("{shown} of {}", scene.model.rows().count())
}

fn key_line(pen: &mut Pen<'_>, scene: &Scene<'_>, y: u16, hits: &mut Hits) {
    let theme = scene.theme();
    let state = scene.state;
    let area = pen.area();
    if let Some(moment) = &state.jump {
        let x = pen.put(area.x + 1, y, "@", theme.accent);
        let x = pen.put(x, y, moment, theme.text);
        let x = pen.put(x, y, "█", theme.accent);
        let since = match scene.status.replay {
            Some(_) => "the recording began",
            None => "shmtop began",
        };
        let help = format!("12:04:31 on your clock, or 90s, 2m since {since}   ↵ go   Esc stay");
        pen.put(x + 2, y, &help, theme.dim);
        return;
    }
    if state.typing {
        let x = pen.put(area.x + 1, y, "/", theme.accent);
        let x = pen.put(x, y, &state.filter, theme.text);
        let x = pen.put(x, y, "█", theme.accent);
        let x = pen.put(x + 2, y, &matches(scene), theme.text);
        pen.put(
            x,
            y,
            "   number, pid, name, shm, socket, stalled, handler …   ↵ keep   Esc all",
            theme.dim,
        );
        return;
    }
    if let Some(trouble) = &scene.status.trouble {
        let x = pen.put(area.x + 1, y, "▲ ", theme.warn);
        pen.put(x, y, trouble, theme.text);
        return;
    }
    let mut x = area.x + 1;
    if !state.filter.is_empty() && state.view == View::Overview {
        x = pen.put(x, y, "/", theme.accent);
        x = pen.put(x, y, &state.filter, theme.warn) + 2;
        x = pen.put(x, y, &matches(scene), theme.dim) + 3;
    }
    let mut keys = keys(scene, area.width);
    let total = |tabs: &[(String, View)]| tabs.iter().map(|(t, _)| width(t) + 2).sum::<usize>();
    let used = |keys: &[Key]| keys.iter().map(Key::width).sum::<usize>();
    // One cell is enough behind the last key.
    let room = usize::from(area.right().saturating_sub(x)) + 1;
    // Names of the views go before keys do, that of the view one is in only before the way back and to the help.
    let named = |named: &dyn Fn(View) -> bool| -> Vec<(String, View)> {
        let text = |v: View| match named(v) {
            true => format!("{} {}", v.index() + 1, v.name()),
            false => format!("{}", v.index() + 1),
        };
        View::ALL.into_iter().map(|v| (text(v), v)).collect()
    };
    let needed: Vec<Key> = keys.iter().filter(|k| k.rank <= 1).cloned().collect();
    let choices = [
        (named(&|_| true), used(&keys)),
        (named(&|v| v == state.view), used(&needed)),
    ];
    let tabs = choices
        .into_iter()
        .find(|(tabs, keys)| total(tabs) + keys <= room);
    let tabs = tabs.map_or_else(|| named(&|_| false), |(tabs, _)| tabs);
    while total(&tabs) + used(&keys) > room {
        let worst = keys.iter().enumerate().max_by_key(|(_, k)| k.rank);
        let Some((i, _)) = worst else {
            break;
        };
        keys.remove(i);
    }
    for key in keys {
        let start = x;
        let mut end = pen.put(x, y, key.key, theme.accent);
        end = pen.put(end + 1, y, &key.name, theme.dim);
        let place = Rect::new(start, y, end.saturating_sub(start), 1);
        hits.add(place, key.action);
        x = end + 2;
    }
    let mut x = area.right().saturating_sub(total(&tabs) as u16);
    x = x.max(area.x);
    for (text, view) in tabs {
        let style = if view == state.view {
            theme.title.patch(theme.select)
        } else {
            theme.dim
        };
        let end = pen.put(x, y, &text, style);
        hits.add(
            Rect::new(x, y, end.saturating_sub(x), 1),
            Action::Show(view),
        );
        x = end + 2;
    }
}

/// A key of the line, what it does here, and when it goes: the higher `rank`, the earlier; 0 is the way back.
#[derive(Clone)]
struct Key {
    rank: u8,
    key: &'static str,
    name: String,
    action: Action,
}

impl Key {
    /// With the gap behind it.
    fn width(&self) -> usize {
        width(self.key) + 1 + width(&self.name) + 2
    }
}

/// The keys that matter here.
fn keys(scene: &Scene<'_>, width: u16) -> Vec<Key> {
    let state = scene.state;
    let (enter, space, arrows) = if state.ascii {
        ("Enter", "Space", "Left Right")
    } else {
        ("↵", "␣", "← →")
    };
    let mut keys = Vec::new();
    let mut add = |rank, key, name: &str, action| {
        keys.push(Key {
            rank,
            key,
            name: name.to_owned(),
            action,
        });
    };
    add(1, "?", "help", Action::Help);
    let open = state.client.is_some() || state.finding.is_some() || state.help;
    if open {
        add(0, "Esc", "back", Action::Back);
        if state.client.is_some() {
            add(5, arrows, "client", Action::Right);
        }
    } else if has_rows(scene) {
        add(2, enter, "open", Action::Open);
    }
    if state.view == View::Overview && !open && has_rows(scene) {
        add(5, "/", "filter", Action::Filter);
        if sortable(width).contains(&state.sort) {
            add(6, "s", "sort", Action::Sort);
        } else {
            // In an order that no title tells.
            let sorted = format!("sorted by {}", state.sort.name());
            add(2, "s", &sorted, Action::Sort);
        }
    }
    if scene.status.frozen_ns.is_some() {
        add(0, space, "go on", Action::Freeze);
        add(7, ", .", "step", Action::StepBack);
        add(7, "[ ]", "10 s", Action::JumpBack);
    } else {
        add(4, space, "freeze", Action::Freeze);
        if scene.status.replay.is_some() {
            add(7, "@", "time", Action::Jump);
        }
    }
    add(3, "q", "quit", Action::Quit);
    keys
}

/// Whether there is a row to select.
fn has_rows(scene: &Scene<'_>) -> bool {
    match scene.state.view {
        View::Overview => scene.model.rows().next().is_some(),
        View::Hints => !scene.model.findings.is_empty(),
        View::Limits | View::Perf | View::Host => false,
    }
}
