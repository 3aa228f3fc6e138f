//! Many connections driven from one thread: a window of requests on each, and one wait for all of them. The server is in the same
//! process, to have it all in one place.

use std::time::Duration;

use transport::{Config, Group, Membrane, Synapse};

const CONNECTIONS: usize = 16;
const WINDOW: usize = 32;
const REQUESTS: u32 = 100_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("group-{}.sock", std::process::id()));
    let config = Config::default();
    let server = Membrane::bind(&path, &config, |request, reply| {
        if let Err(too_large) = reply.extend_from_slice(request) {
            reply.fail(too_large);
        }
    })?;
    let mut connections = (0..CONNECTIONS)
        .map(|_| Synapse::connect(server.path(), &config))
        .collect::<Result<Vec<_>, _>>()?;
    let mut group = Group::new(config.wait);
    let (mut sent, mut received) = (0, 0);
    while received < REQUESTS {
        for synapse in &mut connections {
            while sent < REQUESTS && synapse.in_flight() < WINDOW {
                synapse.submit(&sent.to_le_bytes())?;
                sent += 1;
            }
        }
        // Asleep if need be, until any of them has a reply (or has lost its server, which the next call tells).
        if group
            .wait(&mut connections, Duration::from_secs(5))?
            .is_none()
        {
            return Err("no reply for five seconds".into());
        }
        for synapse in &mut connections {
            while synapse.try_receive()?.is_some() {
                received += 1;
            }
        }
    }
    println!("{received} replies over {CONNECTIONS} connections, one thread");
    Ok(())
}
