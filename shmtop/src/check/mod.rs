//! `check --assert`: a small language over the figures of a watch, for CI.
//!
//! [`expr`] evaluates, `parse` reads. [`Watch`] cuts what it sees into parts and makes a [`Summary`] of the figures, with what each
//! varies by itself; `diff` compares two of those.

mod cuts;
pub mod expr;
mod figures;
mod parse;
mod part;
mod summary;
mod warm;
mod watch;

pub use expr::Expr;
pub use figures::{FIGURES, Figure, Kind};
pub use parse::ParseError;
pub use summary::{Seen, Summary};
pub use watch::Watch;
