//! The rows of the overview and of the hints, and which of them is selected.

use super::state::{ClientId, FindingId, State};
pub use crate::model::listing::{Group, flat};
use crate::model::{Client, Endpoint, Model, listing};

/// Endpoints with the clients to list, as [`listing::groups`] finds them for what the user looks at.
pub fn groups<'a>(model: &'a Model, state: &State) -> Vec<Group<'a>> {
    listing::groups(model, state.listing())
}

/// Which of `rows` is selected; `None` only if there are none.
pub fn selected(state: &State, rows: &[(&Endpoint, &Client)]) -> Option<usize> {
    let last = rows.len().checked_sub(1)?;
    let by_name = state
        .selected
        .as_ref()
        .and_then(|id: &ClientId| rows.iter().position(|(e, c)| id.is(e, c)));
    Some(by_name.unwrap_or(state.row.min(last)))
}

/// The row of the selected finding.
pub fn selected_hint(state: &State, model: &Model) -> Option<usize> {
    let last = model.findings.len().checked_sub(1)?;
    let id = state.selected_hint.as_ref();
    let by_name = id.and_then(|id: &FindingId| model.findings.iter().position(|f| id.is(f)));
    Some(by_name.unwrap_or(state.hint_row.min(last)))
}
