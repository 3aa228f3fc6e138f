//! What an action does to the state. Pure: the same state, action and model give the same result.

use super::action::{Action, Effect, TimeMove};
use super::jump::{self, Jump};
use super::rows;
use super::state::{ClientId, FindingId, State, View};
use crate::model::Model;

/// Rows that a turn of the mouse wheel moves.
pub const WHEEL_ROWS: usize = 3;

/// Applies `action`, and says what is left for the runtime to do.
pub fn update(state: &mut State, action: Action, model: &Model) -> Effect {
    if let Some(text) = &mut state.jump {
        if let Some(effect) = typing_moment(text, action) {
            if action == Action::Back || matches!(effect, Effect::Jump(_)) {
                state.jump = None;
            }
            return effect;
        }
    } else if state.typing
        && let Some(effect) = typing(state, action)
    {
        return effect;
    }
    match action {
        Action::Quit => return Effect::Quit,
        Action::Suspend => return Effect::Suspend,
        Action::Freeze => return Effect::Time(TimeMove::Toggle),
        Action::StepBack => return Effect::Time(TimeMove::Step(-1)),
        Action::StepForward => return Effect::Time(TimeMove::Step(1)),
        Action::JumpBack => return Effect::Time(TimeMove::Seconds(-10)),
        Action::JumpForward => return Effect::Time(TimeMove::Seconds(10)),
        Action::Jump => {
            state.jump = Some(String::new());
            state.typing = false;
        }
        Action::Faster => return Effect::Rate(1),
        Action::Slower => return Effect::Rate(-1),
        Action::Help => {
            state.help = !state.help;
            state.typing = false;
            to_top(state);
        }
        Action::Theme => state.theme = state.theme.next(),
        Action::Expand => state.expanded = !state.expanded,
        Action::Show(view) => show(state, view),
        Action::NextView => show(state, state.view.turn(1)),
        Action::PreviousView => show(state, state.view.turn(-1)),
        Action::Back => back(state),
        Action::Filter => {
            show(state, View::Overview);
            state.typing = true;
        }
        Action::Sort => state.sort = state.turned_sort(1),
        Action::Invert => state.inverted = !state.inverted,
        Action::SortBy(key) if state.sort == key => state.inverted = !state.inverted,
        Action::SortBy(key) => {
            state.sort = key;
            state.inverted = false;
        }
        Action::Left | Action::Right => {
            let by = if action == Action::Left { -1 } else { 1 };
            if state.client.is_some() {
                neighbour(state, model, by);
            } else if state.view == View::Overview {
                state.sort = state.turned_sort(by);
            }
        }
        Action::Up => move_by(state, model, -1),
        Action::Down => move_by(state, model, 1),
        Action::PageUp => move_by(state, model, -(state.page.max(1) as isize)),
        Action::PageDown => move_by(state, model, state.page.max(1) as isize),
        Action::First => move_by(state, model, isize::MIN / 2),
        Action::Last => move_by(state, model, isize::MAX / 2),
        Action::Open => open(state, model),
        Action::Select(row) => select(state, model, row),
        Action::Type(_) | Action::Erase => {}
    }
    Effect::Redraw
}

/// What an action means while the filter is typed; `None` if the same as ever.
fn typing(state: &mut State, action: Action) -> Option<Effect> {
    match action {
        Action::Type(c) => {
            // A filter longer than this can't match anything and would only push the footer out.
            if !c.is_control() && state.filter.chars().count() < 64 {
                state.filter.push(c);
            }
        }
        Action::Erase => {
            if state.filter.pop().is_none() {
                state.typing = false;
            }
        }
        Action::Open => state.typing = false,
        Action::Back => {
            state.typing = false;
            state.filter.clear();
        }
        _ => return None,
    }
    Some(Effect::Redraw)
}

/// The same while a moment is typed. What is none, or not yet, stays to be mended.
fn typing_moment(text: &mut String, action: Action) -> Option<Effect> {
    match action {
        Action::Type(c) if jump::LETTERS.contains(c) && text.len() < jump::LONGEST => text.push(c),
        Action::Erase => {
            text.pop();
        }
        Action::Open => return Some(Jump::parse(text).map_or(Effect::Redraw, Effect::Jump)),
        Action::Type(_) | Action::Back => {}
        _ => return None,
    }
    Some(Effect::Redraw)
}

fn show(state: &mut State, view: View) {
    state.jump = None;
    state.help = false;
    state.client = None;
    state.finding = None;
    state.typing = false;
    state.view = view;
    to_top(state);
}

/// What is shown from now on is shown from its first line.
fn to_top(state: &mut State) {
    state.scroll = 0;
    state.last_scroll = UNKNOWN_SCROLL;
}

/// Closes the innermost thing that is open: help, then a client or hint, then the filter, then the view itself.
fn back(state: &mut State) {
    to_top(state);
    if state.help {
        state.help = false;
    } else if state.client.take().is_some() || state.finding.take().is_some() {
        // That was it.
    } else if !state.filter.is_empty() {
        state.filter.clear();
    } else {
        state.view = View::Overview;
    }
}

fn open(state: &mut State, model: &Model) {
    if state.help {
        return;
    }
    match state.view {
        View::Overview if state.client.is_none() => {
            let groups = rows::groups(model, state);
            let rows = rows::flat(&groups);
            if let Some(i) = rows::selected(state, &rows) {
                let id = ClientId::of(rows[i].0, rows[i].1);
                state.selected = Some(id.clone());
                state.client = Some(id);
                to_top(state);
            }
        }
        View::Hints if state.finding.is_none() => {
            if let Some(row) = rows::selected_hint(state, model) {
                mark_hint(state, model, row);
                state.finding.clone_from(&state.selected_hint);
                to_top(state);
            }
        }
        _ => {}
    }
}

/// Opens the client `by` rows further on.
fn neighbour(state: &mut State, model: &Model, by: isize) {
    let groups = rows::groups(model, state);
    let rows = rows::flat(&groups);
    if let Some(i) = rows::selected(state, &rows) {
        let i = (i as isize + by).rem_euclid(rows.len() as isize) as usize;
        let id = ClientId::of(rows[i].0, rows[i].1);
        state.row = i;
        state.selected = Some(id.clone());
        state.client = Some(id);
    }
}

fn move_by(state: &mut State, model: &Model, by: isize) {
    let scrolls = state.help
        || state.client.is_some()
        || state.finding.is_some()
        || !matches!(state.view, View::Overview | View::Hints);
    if scrolls {
        // From where the view stopped, which may be far short of where G or a page wanted to go.
        state.scroll = clamp(
            state.scroll.min(state.last_scroll),
            by,
            state.last_scroll + 1,
        );
    } else if state.view == View::Hints {
        if let Some(row) = rows::selected_hint(state, model) {
            mark_hint(state, model, clamp(row, by, model.findings.len()));
        }
    } else {
        let groups = rows::groups(model, state);
        let rows = rows::flat(&groups);
        if let Some(i) = rows::selected(state, &rows) {
            let i = clamp(i, by, rows.len());
            state.row = i;
            state.selected = Some(ClientId::of(rows[i].0, rows[i].1));
        }
    }
}

/// How far a page can be scrolled that was not drawn yet.
const UNKNOWN_SCROLL: usize = 10_000;

/// Selects the hint in this row.
fn mark_hint(state: &mut State, model: &Model, row: usize) {
    state.hint_row = row;
    state.selected_hint = model.findings.get(row).map(FindingId::of);
}

fn clamp(at: usize, by: isize, len: usize) -> usize {
    at.saturating_add_signed(by).min(len.saturating_sub(1))
}

fn select(state: &mut State, model: &Model, row: usize) {
    match state.view {
        View::Overview => {
            let groups = rows::groups(model, state);
            let rows = rows::flat(&groups);
            let Some(&(e, c)) = rows.get(row) else {
                return;
            };
            let again = rows::selected(state, &rows) == Some(row) && state.selected.is_some();
            state.row = row;
            state.selected = Some(ClientId::of(e, c));
            if again {
                open(state, model);
            }
        }
        View::Hints => {
            let again = rows::selected_hint(state, model) == Some(row);
            mark_hint(
                state,
                model,
                row.min(model.findings.len().saturating_sub(1)),
            );
            if again {
                open(state, model);
            }
        }
        _ => {}
    }
}
