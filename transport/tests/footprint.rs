//! What a client costs in memory: what it uses, and not what is reserved for it.

#[path = "common/skipped.rs"]
mod skipped;

use skipped::skipped;
use transport::{Config, Membrane, Synapse, TransportChoice};

/// Bytes of this process that are in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let pages = pages.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.expect("a second number") * 4096
}

/// Alone in this file, so that no other test's memory is counted. Server and client are in this process: both are counted, and each maps the
/// rings for itself.
#[test]
fn many_clients_take_the_memory_of_what_they_send_however_much_is_reserved() {
    const CLIENTS: u64 = 32;
    // The kernel may back all shared memory with huge pages, unasked: then a byte of a ring takes 2 MiB.
    let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let setting = std::fs::read_to_string(setting).unwrap_or_default();
    let unasked = ["[always]", "[within_size]", "[force]"];
    if unasked.iter().any(|choice| setting.contains(choice)) {
        return skipped(&format!("shmem_enabled is {:?} here", setting.trim()));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        transport: TransportChoice::Shm,
        stats_dir: Some(dir.path().join("stats")),
        ..Config::default()
    };
    let server = Membrane::bind(dir.path().join("s"), &config, |request, reply| {
        reply
            .extend_from_slice(request)
            .expect("as large as the request");
    })
    .expect("a server");
    let connect = || Synapse::connect(server.path(), &config).expect("a client");
    // What there is once, whoever comes.
    drop(connect());
    let before = resident();
    let mut clients: Vec<Synapse> = (0..CLIENTS).map(|_| connect()).collect();
    for client in &mut clients {
        // Some 100 KB each way: laps of 16, 32 and 64 KiB.
        for _ in 0..1_000 {
            assert_eq!(client.fire_bytes(&[7; 80]).expect("a reply"), &[7; 80]);
        }
    }
    let each = (resident() - before) / CLIENTS;
    assert!(each < 512 << 10, "{each} bytes for each client");
}
