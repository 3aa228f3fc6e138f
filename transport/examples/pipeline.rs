//! Several requests in flight: fill the window, then send one more for every reply. Server and client in one
//! process, to have it all in one place; across processes it is the same code.

use std::collections::HashMap;

use transport::{Config, Membrane, Synapse};

const REQUESTS: u64 = 100_000;
const WINDOW: usize = 32;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("pipeline-{}.sock", std::process::id()));
    let config = Config::default();
    let server = Membrane::bind(&path, &config, |request, reply| {
        // A handler that panics or fails answers with an error; this one doubles a number.
        match <[u8; 8]>::try_from(request) {
            Ok(number) => {
                let doubled = u64::from_le_bytes(number).wrapping_mul(2);
                if let Err(too_large) = reply.extend_from_slice(&doubled.to_le_bytes()) {
                    reply.fail(too_large);
                }
            }
            Err(_) => reply.fail("a request is a number of 8 bytes"),
        }
    })?;

    let mut synapse = Synapse::connect(server.path(), &config)?;
    let mut sent = HashMap::new();
    let mut next = 0u64;
    let mut received = 0;
    while received < REQUESTS {
        while next < REQUESTS && synapse.in_flight() < WINDOW {
            sent.insert(synapse.submit(&next.to_le_bytes())?, next);
            next += 1;
        }
        let (id, reply) = synapse.receive()?;
        let number = sent.remove(&id).ok_or("a reply nobody asked for")?;
        assert_eq!(reply, (2 * number).to_le_bytes());
        received += 1;
    }
    println!(
        "{received} replies, {WINDOW} requests in flight, shared memory: {}",
        synapse.is_shm()
    );
    Ok(())
}
