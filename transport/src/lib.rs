//! Request/response over shared memory between processes of one host.
#![cfg(target_os = "linux")]

#[macro_use]
#[doc(hidden)]
pub mod fault;
mod calls;
mod clock;
pub mod config;
pub mod draft;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod group;
pub mod in_place;
mod layout;
mod mem;
pub mod membrane;
pub mod reconnect;
mod record;
mod reply;
mod ring;
pub mod shm;
pub mod stats;
pub mod synapse;
#[cfg(feature = "tokio")]
pub mod tokio;
mod wait;
mod wire;

#[cfg(feature = "tokio")]
pub use crate::tokio::AsyncSynapse;
pub use calls::{MAX_IN_FLIGHT, RequestId};
pub use config::{Config, TransportChoice, WaitPolicy};
pub use draft::Draft;
pub use group::Group;
pub use in_place::{InPlace, TrustedServer};
pub use membrane::Membrane;
pub use reconnect::{Backoff, Reconnecting};
pub use reply::{Reply, ReplyError};
pub use shm::ShmClient;
pub use synapse::{Synapse, Transport, UpgradeError};
