//! Labelled places at which a test kills, stops or delays this process.
//!
//! `fault_point!` stands in the transport wherever a crash would leave the other side with something half done. Without the
//! feature `fault-points`, which only this crate's own tests switch on, it expands to nothing.
//! `tests/threats` goes through `Point::ALL`, so a new point is tested by being declared here.

/// Marks the place; see `points::Point`.
macro_rules! fault_point {
    ($point:ident) => {
        #[cfg(feature = "fault-points")]
        crate::fault::hit(crate::fault::Point::$point);
    };
}

#[cfg(feature = "fault-points")]
mod points;
#[cfg(feature = "fault-points")]
pub(crate) use points::hit;
#[cfg(feature = "fault-points")]
pub use points::{Action, Point, arm};
