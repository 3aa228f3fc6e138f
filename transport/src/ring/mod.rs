//! The SPSC ring.
pub(crate) mod plan;
