//! The client for tokio: one connection, many tasks, none of which blocks a thread. Needs the feature `tokio`.
//!
//! `cargo run --example echo_server`, then `cargo run -p transport --features tokio --example async_client` in another terminal.

use transport::stats::registry::default_dir;
use transport::{AsyncSynapse, Config};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let synapse =
        AsyncSynapse::connect(default_dir().join("echo.sock"), &Config::default()).await?;
    println!("shared memory: {}", synapse.is_shm());
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let synapse = synapse.clone();
            tokio::spawn(async move { synapse.fire_bytes(format!("task {task}").as_bytes()).await })
        })
        .collect();
    for task in tasks {
        println!("{}", String::from_utf8_lossy(&task.await??));
    }
    Ok(())
}
