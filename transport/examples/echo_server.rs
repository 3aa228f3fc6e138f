//! A server in ten lines: sends every request back. Clients on shared memory and on the socket look the same to it.
//!
//! `cargo run --example echo_server`, then `cargo run --example echo_client` in another terminal, and `shmtop` in a third.

use transport::stats::registry::{default_dir, ensure_dir};
use transport::{Config, Membrane};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = default_dir();
    ensure_dir(&dir)?;
    let server = Membrane::bind(
        dir.join("echo.sock"),
        &Config::default(),
        |request, reply| {
            if let Err(too_large) = reply.extend_from_slice(request) {
                reply.fail(too_large);
            }
        },
    )?;
    println!("listening on {}", server.path().display());
    loop {
        std::thread::park(); // The server's own threads do the work until the process is ended.
    }
}
