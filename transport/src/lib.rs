//! Request/response over shared memory between processes of one host.
//!
//! One server ([`Membrane`]), many clients ([`Synapse`]). Each connection begins on a Unix socket and moves to a pair of rings in one sealed
//! memfd; where shared memory can't be had, it works on over the socket and says why ([`Synapse::fallback`]). Nothing that a peer
//! writes into the memory can crash, hang or corrupt the other side, and the death of either is noticed within a second.
//!
//! A server:
//!
//! ```no_run
//! let config = transport::Config::default();
//! let _server = transport::Membrane::bind("/run/quotes/quotes.sock", &config, |request, reply| {
//!     // Any Fn(&[u8], &mut Reply) + Send + Sync. What is appended is written straight into the ring.
//!     if let Err(error) = reply.extend_from_slice(request) {
//!         reply.fail(error);
//!     }
//! })?;
//! loop {
//!     std::thread::park(); // The server's own threads do the work, until it is dropped.
//! }
//! # #[expect(unreachable_code, reason = "the type of the errors above")]
//! # Ok::<(), transport::error::BindError>(())
//! ```
//!
//! A client:
//!
//! ```no_run
//! let config = transport::Config::default();
//! let mut client = transport::Synapse::connect("/run/quotes/quotes.sock", &config)?;
//! // Blocks; a private copy, valid until the next call.
//! let reply: &[u8] = client.fire_bytes(b"price of tea?")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | to | use |
//! |---|---|
//! | have several requests in flight | [`Synapse::submit`], [`Synapse::receive`], [`Synapse::fire_batch`] |
//! | wait for many connections in one thread | [`Group`] |
//! | wait in an event loop of your own | [`Synapse::doorbell`] |
//! | share a connection between tasks on tokio | `AsyncSynapse` (feature `tokio`) |
//! | outlive a server that restarts | [`Reconnecting`] |
//! | save copies | [`Synapse::draft`], [`Synapse::fire_in_place`] |
//! | set sizes, limits, timeouts and how to wait | [`config`] |
//! | know what can go wrong | [`error`] |
//! | read the stats page of a process, as `shmtop` does | [`stats`] |
//!
//! # Features
//! * `tokio`: `AsyncSynapse`.
//! * `serde`: (de)serialisation of what [`stats`] reads.
//!
//! # Linux
//! Linux only, on 64-bit hosts. Shared memory needs memfds with seals (3.17); from 5.1 a seal also forbids holes in the rings, and from 5.16 a
//! poller sleeps on all its clients at once (`futex_waitv`). Where one of these is missing the next best is used.
#![cfg(target_os = "linux")]

/// The README's code compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

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
mod handler;
pub mod in_place;
mod layout;
mod limits;
mod mem;
pub mod membrane;
mod peer;
mod process;
pub mod reconnect;
mod record;
mod reply;
mod ring;
pub mod shm;
#[cfg(test)]
#[path = "../tests/common/skipped.rs"]
mod skipped;
pub mod stats;
pub mod synapse;
mod thread;
mod timing;
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
pub use peer::{Peer, ServerPeer};
pub use reconnect::{Backoff, Reconnecting};
pub use reply::{Reply, ReplyError};
pub use shm::ShmClient;
pub use synapse::{Synapse, Transport, UpgradeError};
