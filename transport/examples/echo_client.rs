//! A client in ten lines: connects, moves to shared memory if it can, and sends one request after the other.
//!
//! Needs `cargo run --example echo_server` in another terminal.

use transport::stats::registry::default_dir;
use transport::{Config, Synapse};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut synapse = Synapse::connect(default_dir().join("echo.sock"), &Config::default())?;
    match synapse.fallback() {
        None => println!("shared memory: {}", synapse.is_shm()),
        Some(why) => println!("on the socket, because {why}"),
    }
    for greeting in ["hello", "again", "goodbye"] {
        let reply = synapse.fire_bytes(greeting.as_bytes())?;
        println!("{}", String::from_utf8_lossy(reply));
    }
    Ok(())
}
