//! Request/response over shared memory between processes of one host.
#![cfg(target_os = "linux")]

mod clock;
pub mod config;
pub mod error;
mod ring;
pub mod stats;

pub use config::{Config, TransportChoice, WaitPolicy};
