//! What the user is looking at, and what a key or click does to it: pure data and functions, no terminal, no clock.
//!
//! `runtime` turns terminal events into `Action`s through `keymap`, applies them with `update` and carries out
//! the `Effect` that comes back; `view` draws `State` and the model.

pub mod action;
mod departed;
pub mod jump;
pub mod keymap;
pub mod local_time;
pub mod rows;
pub mod state;
pub mod theme;
pub mod timeline;
pub mod update;

pub use crate::model::listing::SortKey;
pub use action::{Action, Effect, TimeMove};
pub use jump::{Jump, Seen};
pub use state::{ClientId, FindingId, Left, Lost, State, Status, View};
pub use theme::{Theme, ThemeName};
pub use timeline::Timeline;
pub use update::update;
