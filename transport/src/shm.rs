//! Request/response over a pair of rings: the client's half, the server's half, and the loop that serves many of them.
//!
//! [`ShmClient`] is what a `Synapse` turns into after its upgrade. A `Membrane` hands upgraded connections to pollers, whose
//! body is `handle_shm_loop`. Here rings, waiting, records in the stats page and liveness meet; the handshake
//! that leads here is `synapse`'s and `membrane`'s.

mod client;
mod inbox;
mod isolation;
mod link;
mod poller;
mod server;

pub use client::ShmClient;
pub(crate) use client::{FLOODED, Lying};
pub(crate) use inbox::{Ends, Inbox, MAX_CONNECTIONS};
pub(crate) use link::{
    HouseLook, HouseView, Rings, alive, has_input, is_readable, is_whole_farewell, says_farewell,
};
pub(crate) use poller::{Poller, handle_shm_loop};
pub(crate) use server::{Kept, ShmServer};
