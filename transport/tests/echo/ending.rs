//! Servers that end on purpose, or can't begin: what becomes of the requests that stand in the rings, and what clients are told.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use transport::error::{BindError, ConnectError, Lost, RequestError};
use transport::reconnect::{Backoff, Reconnecting};
use transport::{Config, Membrane, Synapse, TransportChoice, UpgradeError, WaitPolicy};

use super::{WATCHDOG, World, echo, everywhere};

/// Keeps handlers waiting for as long as it exists.
struct Held(#[expect(dead_code, reason = "dropped to let go")] mpsc::Sender<()>);

/// A server whose handlers wait, and what tells that one does.
fn serve_held(world: &World) -> (Membrane, Held, mpsc::Receiver<()>) {
    let (hold, held) = mpsc::channel::<()>();
    let (begin, begun) = mpsc::channel();
    let both = Arc::new(Mutex::new((held, begin)));
    let server = world.serve(move |request, reply| {
        let both = both.lock().expect("no panic");
        // Nobody may care any more.
        let _ = both.1.send(());
        // An error is the sender's end.
        let _ = both.0.recv_timeout(WATCHDOG);
        drop(both);
        echo(request, reply);
    });
    (server, Held(hold), begun)
}

fn submitted(world: &World, count: u8) -> Synapse {
    let mut client = world.client();
    for n in 0..count {
        client.submit(&[n]).expect("room");
    }
    client
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < WATCHDOG, "{what}");
        std::thread::yield_now();
    }
}

/// The replies there still were, and the end.
fn rest(client: &mut Synapse) -> (usize, RequestError) {
    let mut answered = 0;
    let error = loop {
        match client.receive() {
            Ok(_) => answered += 1,
            Err(RequestError::NothingInFlight) => {
                // Served for as long as nobody told it to end.
                match client.fire_bytes(b"more?") {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            }
            Err(error) => break error,
        }
    };
    (answered, error)
}

#[test]
fn a_server_that_drains_serves_what_was_sent_and_lets_another_one_take_its_path() {
    everywhere(|world| {
        let (server, held, begun) = serve_held(&world);
        let mut client = submitted(&world, 40);
        begun.recv_timeout(WATCHDOG).expect("a handler runs");
        let draining = std::thread::spawn(move || server.drain(WATCHDOG));
        until("the path is free", || !world.path().exists());
        match Synapse::connect(world.path(), &world.config) {
            Err(ConnectError::NoServer { .. }) => {}
            other => panic!("{other:?}"),
        }
        // The lock goes right after the socket.
        let mut next = None;
        until("the path can be taken", || {
            next = Membrane::bind(world.path(), &world.config, echo).ok();
            next.is_some()
        });
        drop(held);
        let (answered, error) = rest(&mut client);
        assert_eq!(answered, 40, "{error}");
        assert!(draining.join().expect("no panic"), "all was served");
        match error {
            RequestError::Disconnected {
                reason: Lost::Closed,
                ..
            } => {}
            other => panic!("{other:?}"),
        }
        assert!(world.path().exists(), "the socket is the other one's");
        assert_eq!(
            world.client().fire_bytes(b"next").expect("a reply"),
            b"next"
        );
    });
}

#[test]
fn a_drain_has_a_limit() {
    everywhere(|world| {
        let (server, held, begun) = serve_held(&world);
        let mut client = submitted(&world, 40);
        begun.recv_timeout(WATCHDOG).expect("a handler runs");
        let draining = std::thread::spawn(move || server.drain(Duration::ZERO));
        until("the path is free", || !world.path().exists());
        drop(held);
        let (answered, error) = rest(&mut client);
        let all = draining.join().expect("no panic");
        assert!(!all || answered == 40, "{answered}, then {error}");
    });
}

#[test]
fn an_end_on_purpose_can_be_told_from_a_crash() {
    everywhere(|world| {
        let (server, held, begun) = serve_held(&world);
        let mut client = submitted(&world, 8);
        let mut idle = world.client();
        begun.recv_timeout(WATCHDOG).expect("a handler runs");
        let ending = std::thread::spawn(move || server.shutdown());
        until("it ends", || !world.path().exists());
        drop(held);
        let (answered, error) = rest(&mut client);
        match error {
            RequestError::Disconnected {
                reason: Lost::Closed,
                in_flight,
                ..
            } => assert!(answered + in_flight == 8 || (answered, in_flight) == (8, 1)),
            other => panic!("{answered}, then {other:?}"),
        }
        match rest(&mut idle) {
            (
                0,
                RequestError::Disconnected {
                    reason: Lost::Closed,
                    ..
                },
            ) => {}
            other => panic!("{:?}: {other:?}", world.config.transport),
        }
        ending.join().expect("no panic");
    });
}

#[test]
fn who_is_idle_when_the_server_ends_is_told_before_a_request_is_lost() {
    everywhere(|world| {
        let server = world.serve(echo);
        let mut idle = world.client();
        let backoff = Backoff::default();
        let mut lasting =
            Reconnecting::connect(world.path(), &world.config, backoff).expect("a server");
        lasting.fire_bytes(b"first").expect("a reply");
        server.shutdown();
        match idle.check_alive() {
            Err(RequestError::Disconnected {
                reason: Lost::Closed,
                ..
            }) => {}
            other => panic!("{:?}: {other:?}", world.config.transport),
        }
        let _server = world.serve(echo);
        // So long without a request that the connection is looked at: what is promised depends on time.
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!(lasting.fire_bytes(b"next").expect("a reply"), b"next");
    });
}

#[test]
fn an_upgrade_that_meets_the_end_says_which_end_it_was() {
    let world = World::new(TransportChoice::Socket, WaitPolicy::Adaptive);
    let server = world.serve(echo);
    let mut client = world.client();
    server.shutdown();
    match client.try_upgrade_to_shm() {
        Err(UpgradeError::Lost(_)) => {}
        other => panic!("{other:?}"),
    }
    match client.fire_bytes(b"there?") {
        Err(RequestError::Disconnected {
            reason: Lost::Closed,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_path_is_refused_by_name_on_either_side() {
    let config = Config::default();
    for path in ["", "\0abstract", "a\0b"] {
        match Membrane::bind(path, &config, |_, _| ()) {
            Err(BindError::NoPath { path: named, .. }) => assert_eq!(named.as_os_str(), path),
            other => panic!("{path:?}: {other:?}"),
        }
        match Synapse::connect(path, &config) {
            Err(ConnectError::NoPath { path: named, .. }) => assert_eq!(named.as_os_str(), path),
            other => panic!("{path:?}: {other:?}"),
        }
    }
}
