//! Clients outlive their server: what was in flight is unknown and never repeated, what comes next finds the new one.

#[path = "own_page/mod.rs"]
mod own_page;
mod server;

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use server::{Server, WATCHDOG};
use transport::error::{ConnectError, RequestError, Step};
use transport::reconnect::ReconnectError;
use transport::{Backoff, Config, Membrane, Reconnecting, TransportChoice};

const PATIENT: Backoff = Backoff {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(20),
    patience: WATCHDOG,
};

fn config(dir: &std::path::Path, transport: TransportChoice) -> Config {
    Config {
        transport,
        request_timeout: WATCHDOG,
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    }
}

const BOTH: [TransportChoice; 2] = [TransportChoice::Shm, TransportChoice::Socket];

/// Where a server listens, and the next one after it.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn config(&self, transport: TransportChoice) -> Config {
        config(self.0.path(), transport)
    }

    fn server(&self) -> Server {
        Server::start(&self.0.path().join("s"))
    }

    fn client(&self, config: &Config, backoff: Backoff) -> Reconnecting {
        Reconnecting::connect(self.0.path().join("s"), config, backoff).expect("a server")
    }
}

/// Lets a connection be idle for as long as a look whether its server lives takes.
fn stay_idle(since: Instant) {
    while since.elapsed() < Duration::from_millis(60) {
        std::thread::yield_now();
    }
}

#[test]
fn a_restarted_server_gets_its_clients_back_and_no_request_twice() {
    for transport in BOTH {
        let place = Place::new();
        let mut server = place.server();
        let mut client = place.client(&place.config(transport), PATIENT);
        for round in 1..=3 {
            assert_eq!(client.fire_bytes(b"on").expect("a reply"), b"on");
            let synapse = client.synapse().expect("alive");
            synapse.submit(b"hold").expect("room");
            synapse.submit(b"behind it").expect("room");
            server.signal(Signal::SIGKILL);
            match synapse.receive() {
                Err(RequestError::Disconnected { in_flight: 2, .. }) => {}
                other => panic!("{other:?}"),
            }
            drop(server);
            server = place.server();
            // Were `hold` repeated, this would wait behind it until the timeout.
            let begun = Instant::now();
            assert_eq!(client.fire_bytes(b"back").expect("a reply"), b"back");
            assert!(begun.elapsed() < WATCHDOG / 2);
            assert_eq!(client.reconnects(), round);
        }
    }
}

#[test]
fn the_call_that_meets_the_crash_says_unknown_and_is_not_repeated() {
    let place = Place::new();
    let server = place.server();
    let mut client = place.client(&place.config(TransportChoice::Auto), PATIENT);
    let id = client.synapse().expect("alive").connection_id();
    let killer = std::thread::spawn(move || {
        // Killed before that, it would be found to have gone, and the next one asked.
        let begun = Instant::now();
        while own_page::slot_of(id).req.requests == 0 {
            assert!(begun.elapsed() < WATCHDOG, "nothing is asked");
            std::thread::yield_now();
        }
        server.signal(Signal::SIGKILL);
        drop(server);
        (place.server(), place)
    });
    match client.fire_bytes(b"hold") {
        Err(ReconnectError::Request(RequestError::Disconnected { in_flight: 1, .. })) => {}
        other => panic!("{other:?}"),
    }
    let _server_and_place = killer.join().expect("no panic");
    assert_eq!(client.fire_bytes(b"back").expect("a reply"), b"back");
}

#[test]
fn a_server_that_died_while_nothing_was_asked_costs_no_unknown_outcome() {
    for transport in BOTH {
        let place = Place::new();
        let server = place.server();
        let mut client = place.client(&place.config(transport), PATIENT);
        assert_eq!(client.fire_bytes(b"on").expect("a reply"), b"on");
        let idle_since = Instant::now();
        drop(server);
        let _server = place.server();
        stay_idle(idle_since);
        assert_eq!(client.fire_bytes(b"back").expect("no loss"), b"back");
        assert_eq!(client.reconnects(), 1);
    }
}

#[test]
fn a_server_that_died_while_something_was_in_flight_is_reported_before_the_next_one_is_asked() {
    for transport in BOTH {
        let place = Place::new();
        let server = place.server();
        let mut client = place.client(&place.config(transport), PATIENT);
        for _ in 0..2 {
            let synapse = client.synapse().expect("alive");
            synapse.submit(b"hold").expect("room");
        }
        let idle_since = Instant::now();
        drop(server);
        let _server = place.server();
        stay_idle(idle_since);
        match client.synapse().expect("the old one").receive() {
            Err(RequestError::Disconnected { in_flight: 2, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(client.fire_bytes(b"back").expect("a reply"), b"back");
        assert_eq!(client.reconnects(), 1);
    }
}

#[test]
fn a_restarted_server_gets_clients_back_that_give_each_request_a_millisecond() {
    for transport in BOTH {
        let place = Place::new();
        let server = place.server();
        let config = Config {
            request_timeout: Duration::from_millis(1),
            ..place.config(transport)
        };
        let once = Backoff {
            patience: Duration::ZERO,
            ..PATIENT
        };
        let mut client = place.client(&config, once);
        drop(server);
        // Without a pause between them. Each takes a millisecond at least.
        let lost = (0..60).any(|_| match client.fire_bytes(b"on?") {
            Err(ReconnectError::Request(RequestError::Timeout { .. })) => false,
            Err(ReconnectError::Request(RequestError::Disconnected { .. })) => true,
            // There was a pause, as long as a server took to die.
            Err(ReconnectError::Connect(_)) => true,
            other => panic!("{transport:?}: {other:?}"),
        });
        assert!(lost, "{transport:?}");
        let _server = place.server();
        let begun = Instant::now();
        // It may well take longer to answer.
        while client.fire_bytes(b"back?").is_err() {
            assert!(begun.elapsed() < WATCHDOG, "{transport:?}");
        }
        assert_eq!(client.reconnects(), 1, "{transport:?}");
    }
}

#[test]
fn a_path_that_is_missing_for_a_while_is_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("later").join("s");
    let config = config(dir.path(), TransportChoice::Auto);
    let hasty = Backoff {
        patience: Duration::from_millis(5),
        ..PATIENT
    };
    match Reconnecting::connect(&path, &config, hasty) {
        Err(ConnectError::NoServer { .. }) => {}
        other => panic!("{other:?}"),
    }
    let waiting = std::thread::spawn({
        let path = path.clone();
        move || {
            let mut client = Reconnecting::connect(&path, &config, PATIENT).expect("it comes");
            client.fire_bytes(b"at last").map(<[u8]>::to_vec)
        }
    });
    std::fs::create_dir(dir.path().join("later")).expect("a directory");
    let _server = Server::start(&path);
    let reply = waiting.join().expect("no panic").expect("a reply");
    assert_eq!(reply, b"at last");
}

#[test]
fn what_patience_can_not_mend_is_said_at_once() {
    let config = Config {
        ring_bytes: 5000,
        ..Config::default()
    };
    let begun = Instant::now();
    match Reconnecting::connect("/nowhere", &config, PATIENT) {
        Err(ConnectError::Config(_)) => {}
        other => panic!("{other:?}"),
    }
    // Shared memory demanded of a server that has none.
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let without = self::config(dir.path(), TransportChoice::Socket);
    let _server = Membrane::bind(&path, &without, |_, _| {}).expect("a server");
    let demanded = self::config(dir.path(), TransportChoice::Shm);
    match Reconnecting::connect(&path, &demanded, PATIENT) {
        Err(ConnectError::NoSharedMemory(why)) => assert_eq!(why.step, Step::Disabled),
        other => panic!("{other:?}"),
    }
    assert!(begun.elapsed() < WATCHDOG / 2);
}

#[test]
fn an_id_of_a_connection_that_was_lost_names_no_request_of_the_next() {
    for transport in BOTH {
        let place = Place::new();
        let mut server = place.server();
        let mut client = place.client(&place.config(transport), PATIENT);
        let mut unknown = Vec::new();
        for _ in 0..3 {
            let synapse = client.synapse().expect("alive");
            let first = synapse.submit(b"first").expect("room");
            // Late, as far as this side knows.
            unknown.iter().for_each(|id| synapse.cancel(*id));
            assert_eq!(synapse.receive().expect("a reply"), (first, &b"first"[..]));
            assert!(
                unknown.iter().all(|id| *id < first),
                "{unknown:?} {first:?}"
            );
            unknown.push(synapse.submit(b"hold").expect("room"));
            unknown.push(synapse.submit(b"behind it").expect("room"));
            drop(server);
            assert!(synapse.receive().is_err());
            server = place.server();
        }
    }
}
