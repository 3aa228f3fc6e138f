//! The stats page: what a process that embeds the transport says about itself, in memory that viewers can
//! read and nobody else can write.
//!
//! [`schema`] declares every counter once. [`page`] creates the sealed memfd and lends its words;
//! [`recorder`] is the writer's side; [`reader`] turns any bytes into a [`Snapshot`] or an error; [`registry`]
//! announces a page and finds those of others; [`histogram`] is the bucket arithmetic.

pub mod histogram;
pub mod schema;
mod snapshot;

pub use histogram::Histogram;
pub use schema::{
    HouseCounters, ProcessCounters, ReqCounters, RxCounters, TxCounters, WaitCounters,
};
pub use snapshot::{FallbackFact, Role, Slot, SlotInfo, SlotKind, SlotState, Snapshot, Via};
