//! What a server's page says while it ends. A program of its own: the clients of a process share one page, and where that is announced its first
//! client decides.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use transport::stats::{PageReader, Role, Snapshot, registry};
use transport::{Config, Membrane, Synapse};

fn pages(dir: &std::path::Path) -> Vec<Snapshot> {
    let found = registry::discover(dir).expect("a directory");
    let read = |link| PageReader::open(link).and_then(|r| r.snapshot());
    found
        .iter()
        .map(|f| read(&f.link).expect("a page"))
        .collect()
}

/// Until the last handler has returned, which may be long after. Who watches would else see a server that nobody can reach and whose numbers are old.
#[test]
fn a_server_that_ends_says_so_before_its_path_is_gone() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        stats_dir: Some(dir.path().join("stats")),
        long_handler: Duration::from_secs(3),
        ..Config::default()
    };
    let (started, has_started) = mpsc::channel();
    let (release, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let server = Membrane::bind(dir.path().join("s"), &config, move |_, _| {
        started.send(()).expect("the test waits");
        // Until it is released, or the test has failed.
        _ = gate.lock().expect("one at a time").recv();
    })
    .expect("a server");
    let path = server.path().to_owned();
    let of_server = || {
        let pages = pages(&dir.path().join("stats"));
        let page = pages.iter().find(|p| p.role == Role::Server);
        page.expect("it runs").process
    };
    let mut client = Synapse::connect(&path, &config).expect("a client");
    std::thread::scope(|scope| {
        // Answered or not: the connection may have ended.
        scope.spawn(move || client.fire_bytes(b"work").map(drop));
        has_started.recv().expect("the handler runs");
        let before = of_server();
        assert_eq!(before.stopping_since_ns, 0);
        assert_eq!(before.long_handler_ns, 3_000_000_000);
        let ends = scope.spawn(move || server.shutdown());
        while path.exists() {
            std::thread::yield_now();
        }
        let seen = of_server();
        drop(release);
        ends.join().expect("no panic");
        assert!(seen.stopping_since_ns >= before.heartbeat_ns.max(1));
        assert!(seen.heartbeat_ns >= seen.stopping_since_ns);
    });
}
