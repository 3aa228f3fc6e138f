//! Request/response over shared memory between processes of one host.
#![cfg(target_os = "linux")]

mod clock;
pub mod config;
pub mod error;
#[allow(dead_code, reason = "its users, shm.rs and membrane.rs, arrive next")]
mod mem;
mod ring;
pub mod stats;
#[allow(dead_code, reason = "its users arrive next")]
mod wait;
#[allow(
    dead_code,
    reason = "its users, synapse.rs and membrane.rs, arrive next"
)]
mod wire;

pub use config::{Config, TransportChoice, WaitPolicy};
