//! The model as text and machine-readable documents: tables, JSON, CSV, metrics; and what follows from
//! the hints for those who read them elsewhere (alerting rules).
//!
//! Called by the command line; pure functions from a model to a string. Names and sentences are sanitised by the model
//! already. JSON follows `docs/*.schema.json`, which tests hold against real output.

mod alerts;
mod csv;
mod diff;
mod doctor;
mod json;
mod metrics;
mod ps;
mod table;

pub use alerts::{alert_rules, alert_tests};
pub use csv::csv;
pub use diff::diff;
pub use doctor::{doctor_json, doctor_text, finding_text, hint_json};
pub use json::snapshot_json;
pub use metrics::{Dialect, MAX_CLIENTS, metrics};
pub use ps::{ps, ps_json};
pub use table::table;
