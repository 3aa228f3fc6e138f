//! A server whose answers need to be awaited, and that ends in good order: on SIGTERM or Ctrl-C it serves what was sent, and tells its clients.
//!
//! `cargo run --example async_server`, then `cargo run --example echo_client` in another terminal.

use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use transport::stats::registry::{default_dir, ensure_dir};
use transport::{Config, Membrane};

/// What takes time elsewhere: a database, another service.
async fn look_up(key: &[u8]) -> Vec<u8> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    key.to_vec()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before there is any thread: all inherit it, and the signals are left to the `wait` below.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let handle = runtime.handle().clone();
    let dir = default_dir();
    ensure_dir(&dir)?;
    let config = Config {
        // A handler that waits holds its thread: so each client has one.
        thread_per_client: true,
        ..Config::default()
    };
    let server = Membrane::bind(dir.join("echo.sock"), &config, move |request, reply| {
        let found = handle.block_on(look_up(request));
        if let Err(too_large) = reply.send(&found) {
            reply.fail(too_large);
        }
    })?;
    println!("listening on {}", server.path().display());
    let signal = signals.wait()?;
    // Blocks: in async code, inside of `spawn_blocking`.
    let all = server.drain(Duration::from_secs(5));
    println!(
        "{signal}: {}",
        if all {
            "all is served"
        } else {
            "not all could be served"
        }
    );
    Ok(())
}
