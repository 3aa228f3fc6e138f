//! shmtop's parts as a library; the binary is a thin shell around it.
//!
//! Data flows one way: `source` (pages, /proc, perf, limits) → `sample` → `model` → `hint` → `report` | `ui`.
#![cfg(target_os = "linux")]

pub mod hint;
pub mod history;
pub mod model;
pub mod rate;
pub mod reading;
pub mod runtime;
pub mod sample;
pub mod source;
pub mod text;
pub mod ui;
pub mod view;

pub use reading::{Reading, Why, WhyKind};
