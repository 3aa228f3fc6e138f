//! What the copies cost: the same echo with requests and replies copied, requests written in place, replies read in place, and both.
//! So many bytes of each reply are summed up, as a parser would read them. Interleaved; server and client in one process.
//!
//! `cargo run --release --example zero_copy [BYTES [BYTES-READ]]`

use std::time::{Duration, Instant};

use transport::{Config, Membrane, Synapse, TrustedServer};

const ROUNDS: usize = 9;
const EACH: Duration = Duration::from_millis(200);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Of four parts.
    let size = bytes_of(1)?.unwrap_or(20_000) / 4 * 4;
    let read = bytes_of(2)?.map_or(size, |read| read.min(size / 4));
    let expected = if read == size { 6 * (size / 4) } else { read } as u64;
    let path = std::env::temp_dir().join(format!("zero-copy-{}.sock", std::process::id()));
    let config = Config::default();
    let server = Membrane::bind(&path, &config, |request, reply| {
        if let Err(too_large) = reply.extend_from_slice(request) {
            reply.fail(too_large);
        }
    })?;
    let mut synapse = Synapse::connect(server.path(), &config)?;
    // SAFETY: the server is a `Membrane`, in this process.
    let trusted = unsafe { TrustedServer::promise() };
    // What the request is made of; put together by each way in its own place.
    let parts: Vec<Vec<u8>> = (0..4).map(|i| vec![(i + 1) % 4; size / 4]).collect();
    let mut whole = Vec::with_capacity(size);
    let mut rates = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        for (way, rates) in rates.iter_mut().enumerate() {
            let (begun, mut done) = (Instant::now(), 0u32);
            while begun.elapsed() < EACH {
                for _ in 0..64 {
                    let sum = match way {
                        0 => {
                            assemble(&parts, &mut whole);
                            sum(&synapse.fire_bytes(&whole)?[..read])
                        }
                        1 => {
                            let mut draft = synapse.draft(size)?;
                            for part in &parts {
                                draft.extend_from_slice(part)?;
                            }
                            sum(&draft.fire()?[..read])
                        }
                        2 => {
                            assemble(&parts, &mut whole);
                            sum(&synapse.fire_in_place(&whole, trusted)?[..read])
                        }
                        _ => {
                            let mut draft = synapse.draft(size)?;
                            for part in &parts {
                                draft.extend_from_slice(part)?;
                            }
                            draft.submit()?;
                            sum(&synapse.receive_in_place(trusted)?.1[..read])
                        }
                    };
                    assert_eq!(sum, expected);
                    done += 1;
                }
            }
            rates.push(f64::from(done) / begun.elapsed().as_secs_f64());
        }
    }
    for (name, rates) in ["copied", "written in place", "read in place", "both"]
        .iter()
        .zip(&mut rates)
    {
        rates.sort_by(f64::total_cmp);
        let (low, median, high) = (rates[1], rates[ROUNDS / 2], rates[ROUNDS - 2]);
        println!("{size} B, {read} read, {name:<17} {median:>9.0} /s   ({low:.0} to {high:.0})");
    }
    Ok(())
}

/// An argument, if it is given.
fn bytes_of(number: usize) -> Result<Option<usize>, String> {
    let Some(text) = std::env::args().nth(number) else {
        return Ok(None);
    };
    let bytes = text.parse();
    bytes
        .map(Some)
        .map_err(|_| format!("{text} is no number of bytes; usage: zero_copy [BYTES [BYTES-READ]]"))
}

fn assemble(parts: &[Vec<u8>], into: &mut Vec<u8>) {
    into.clear();
    for part in parts {
        into.extend_from_slice(part);
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|b| u64::from(*b)).sum()
}
