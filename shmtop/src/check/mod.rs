//! `check --assert`: a small language over the figures of a watch, for CI.
//!
//! [`expr`] parses and evaluates, [`Watch`] and [`Summary`] make the figures, which `diff` compares as well.

pub mod expr;
mod summary;

pub use expr::{Expr, ParseError};
pub use summary::{FIGURES, Figure, Summary, Watch};
