//! `check --assert`: a small language over the figures of a watch, for CI.
//!
//! [`expr`] evaluates, `parse` reads, [`Watch`] and [`Summary`] make the figures, which `diff` compares as well.

pub mod expr;
mod parse;
mod summary;

pub use expr::Expr;
pub use parse::ParseError;
pub use summary::{FIGURES, Figure, Seen, Summary, Watch};
