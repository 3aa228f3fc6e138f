//! The stats page: what a process that embeds the transport says about itself, in memory that viewers can
//! read and nobody else can write.
//!
//! [`schema`] declares every counter once, [`histogram`] is the bucket arithmetic. A viewer finds pages with
//! [`registry`] and turns them (or any bytes) into a [`Snapshot`] or an error with [`reader`]. The writer's side
//! (`page`, `slot`, `recorder`, `sampler`, `words`) is the transport's own: public for this workspace's tests and benchmarks, hidden from the
//! documentation, and free to change in any version.

mod derived;
pub mod histogram;
mod layout;
mod memory;
#[doc(hidden)]
pub mod page;
mod parse;
pub mod reader;
#[doc(hidden)]
pub mod recorder;
pub mod registry;
#[doc(hidden)]
pub mod sampler;
pub mod schema;
mod seqlock;
#[doc(hidden)]
pub mod slot;
mod snapshot;
mod text;
#[doc(hidden)]
pub mod words;

pub use histogram::Histogram;
pub use reader::{PageReader, RawPage, ReadError};
pub use schema::{
    HouseCounters, ProcessCounters, ReqCounters, RxCounters, TxCounters, WaitCounters,
};
pub use snapshot::{FallbackFact, Role, Slot, SlotInfo, SlotKind, SlotState, Snapshot, Via};
pub use text::sanitise;
