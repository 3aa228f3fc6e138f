//! What fails, is given up or ends: the error says which, and the connection is as good as before, or over for everybody.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{WATCHDOG, World, echo, everywhere, pattern};
use crate::own_page::slot_of;
use transport::error::{ConnectError, RequestError};
use transport::{Synapse, TransportChoice, WaitPolicy};

#[test]
fn a_message_above_the_limit_is_refused_before_anything_is_sent() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let mut client = world.client();
        for size in [100_001, 1 << 20] {
            match client.fire_bytes(&vec![0; size]) {
                Err(RequestError::TooLarge {
                    size: s,
                    limit: 100_000,
                    ..
                }) => assert_eq!(s, size),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            client.fire_bytes(b"still fine").expect("a reply"),
            b"still fine"
        );
        // Nor is it taken for a matter of room, which receiving replies would make.
        let mut in_flight = 0;
        while client.submit(&[7; 50_000]).is_ok() {
            in_flight += 1;
        }
        assert!(in_flight > 0);
        assert!(matches!(
            client.submit(&[0; 100_001]),
            Err(RequestError::TooLarge { .. })
        ));
        for _ in 0..in_flight {
            client.receive().expect("a reply");
        }
    });
}

#[test]
fn a_panic_or_error_in_the_handler_is_an_error_reply_and_the_connection_lives() {
    everywhere(|world| {
        /// What a handler panics with is its own, down to how it is dropped.
        struct PanicsAgain;
        impl Drop for PanicsAgain {
            fn drop(&mut self) {
                resume_unwind(Box::new("on purpose, while dropped"));
            }
        }
        // Panics as any others, but without a message, whose backtrace can take seconds where the CPUs are busy.
        let _server = world.serve(|request, reply| match request {
            b"panic" => resume_unwind(Box::new("on purpose")),
            b"twice" => resume_unwind(Box::new(PanicsAgain)),
            b"error" => reply.fail("no such order"),
            _ => echo(request, reply),
        });
        let mut client = world.client();
        for _ in 0..3 {
            for panic in [b"panic", b"twice"] {
                assert!(matches!(
                    client.fire_bytes(panic),
                    Err(RequestError::Remote { .. })
                ));
            }
            match client.fire_bytes(b"error") {
                Err(RequestError::Remote { message, .. }) => assert_eq!(message, "no such order"),
                other => panic!("{other:?}"),
            }
            assert_eq!(client.fire_bytes(b"fine").expect("a reply"), b"fine");
        }
    });
}

#[test]
fn a_request_not_answered_in_time_is_given_up_and_its_late_reply_never_delivered() {
    everywhere(|mut world| {
        world.config.request_timeout = Duration::from_millis(50);
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let _server = world.serve(move |request, reply| {
            if request == b"wait" {
                let _ = gate.lock().expect("one at a time").recv();
            }
            echo(request, reply);
        });
        let mut client = world.client();
        assert!(matches!(
            client.fire_bytes(b"wait"),
            Err(RequestError::Timeout { .. })
        ));
        release.send(()).expect("the handler waits");
        let reply = loop {
            match client.fire_bytes(b"next") {
                Ok(reply) => break reply.to_vec(),
                Err(RequestError::Timeout { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        };
        assert_eq!(reply, b"next");
    });
}

#[test]
fn when_the_server_goes_the_client_learns_it_and_is_not_answered_from_the_grave() {
    everywhere(|mut world| {
        world.config.request_timeout = Duration::from_secs(60);
        let server = world.serve(echo);
        let mut client = world.client();
        client.fire_bytes(b"hello").expect("a reply");
        server.shutdown();
        assert!(matches!(
            client.fire_bytes(b"anybody?"),
            Err(RequestError::Disconnected { .. })
        ));
        assert!(matches!(
            client.fire_bytes(b"anybody?"),
            Err(RequestError::Disconnected { .. })
        ));
        assert!(matches!(
            Synapse::connect(world.path(), &world.config),
            Err(ConnectError::NoServer { .. })
        ));
    });
}

#[test]
fn a_client_learns_of_the_servers_end_while_another_ones_handler_still_runs() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let mut world = World::new(transport, WaitPolicy::Adaptive);
        world.config.workers = 2;
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = std::sync::mpsc::channel();
        let gate = std::sync::Mutex::new(gate);
        let server = world.serve(move |request, reply| {
            if request == b"hold" {
                started.send(()).expect("the test waits");
                gate.lock()
                    .expect("one")
                    .recv_timeout(WATCHDOG)
                    .expect("released");
            }
            echo(request, reply);
        });
        let mut holding = {
            let config = transport::Config {
                transport: TransportChoice::Shm,
                ..world.config.clone()
            };
            Synapse::connect(world.path(), &config).expect("a client")
        };
        let mut other = world.client();
        std::thread::scope(|scope| {
            let held = scope.spawn(move || holding.fire_bytes(b"hold").map(<[u8]>::to_vec));
            has_started
                .recv_timeout(WATCHDOG)
                .expect("the handler runs");
            let ends = scope.spawn(move || server.shutdown());
            let end = loop {
                match other.fire_bytes(b"on?") {
                    Ok(_) => {}
                    Err(end) => break end,
                }
            };
            assert!(!ends.is_finished(), "a handler runs");
            assert!(
                matches!(end, RequestError::Disconnected { .. }),
                "{transport:?}: {end:?}"
            );
            release.send(()).expect("the handler waits");
            assert_eq!(held.join().expect("no panic").expect("answered"), b"hold");
        });
    }
}

#[test]
fn no_handler_runs_once_shutdown_has_returned() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let world = World::new(transport, WaitPolicy::Adaptive);
        let (started, has_started) = std::sync::mpsc::channel();
        let finished = std::sync::Arc::new(AtomicUsize::new(0));
        let finishing = std::sync::Arc::clone(&finished);
        let server = world.serve(move |_, _| {
            started.send(()).expect("the test waits");
            // The handler's work: longer than a shutdown that does not wait for it.
            std::thread::sleep(Duration::from_millis(300));
            finishing.fetch_add(1, Ordering::Relaxed);
        });
        std::thread::scope(|scope| {
            let mut client = world.client();
            // Answered or not, depending on when the server ends.
            scope.spawn(move || client.fire_bytes(b"work").map(drop));
            has_started.recv().expect("the handler runs");
            server.shutdown();
            assert_eq!(finished.load(Ordering::Relaxed), 1, "{transport:?}");
        });
    }
}

#[test]
fn after_everything_was_given_up_the_connection_takes_requests_again() {
    for (transport, length) in [
        (TransportChoice::Shm, 10),
        (TransportChoice::Shm, 20_000),
        (TransportChoice::Socket, 10),
        (TransportChoice::Socket, 20_000),
    ] {
        let world = World::new(transport, WaitPolicy::Adaptive);
        let (open, gate) = std::sync::mpsc::sync_channel::<()>(0);
        let gate = std::sync::Mutex::new(gate);
        let _server = world.serve(move |request, reply| {
            // Until the gate is gone.
            let _ = gate.lock().expect("no panic").recv();
            // More than was asked, so that the replies fill their ring first.
            for _ in 0..4 {
                echo(request, reply);
            }
        });
        let mut patient = world.config.clone();
        patient.request_timeout = Duration::from_secs(60);
        let mut client = Synapse::connect(world.path(), &patient).expect("a client");
        // As much as goes without waiting for the gate.
        for _ in 0..if length == 10 { 4096 } else { 8 } {
            if client.in_flight() == 64 && transport == TransportChoice::Socket {
                break;
            }
            if transport == TransportChoice::Socket && client.in_flight() * length > 40_000 {
                break;
            }
            client.submit(&pattern(1, length)).expect("room");
        }
        assert!(client.cancel_all() > 0);
        drop(open);
        for i in 0..100 {
            let request = pattern(i, length);
            client.submit(&request).expect("room, sooner or later");
            let (_, reply) = client.receive().expect("a reply");
            assert_eq!(reply, request.repeat(4));
        }
    }
}

#[test]
fn a_call_that_failed_is_not_in_flight_on_the_page_either() {
    everywhere(|mut world| {
        world.config.request_timeout = Duration::from_millis(5);
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = std::sync::Mutex::new(gone);
        let _server = world.serve(move |_, _| {
            // Until the test has looked; its end is as good.
            let _ = gone.lock().expect("no panic").recv();
        });
        let mut client = world.client();
        let id = client.connection_id();
        match client.fire_bytes(b"no answer") {
            Err(RequestError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(slot_of(id).req.in_flight, 0, "{:?}", world.config.wait);
        let mut draft = client.draft(8).expect("room");
        draft.extend_from_slice(b"nor here").expect("room");
        match draft.fire() {
            Err(RequestError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(slot_of(id).req.in_flight, 0, "{:?}", world.config.wait);
        drop(go);
    });
}

#[test]
fn a_large_request_behind_one_that_timed_out_waits_its_turn_or_is_full_and_the_connection_lives() {
    const LARGE: usize = 1 << 20;
    for released_before in [true, false] {
        let mut world = World::new(TransportChoice::Socket, WaitPolicy::Adaptive);
        world.config.ring_bytes = 8 << 20;
        world.config.max_message_bytes = 2 * LARGE;
        world.config.request_timeout = Duration::from_millis(50);
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let _server = world.serve(move |request, reply| {
            if request == b"wait" {
                let _ = gate.lock().expect("one at a time").recv();
                // Far more than the kernel takes: the server reads nothing more before somebody has read this.
                return reply.send(&vec![7; 2 * LARGE]).expect("within the limit");
            }
            echo(request, reply);
        });
        let mut client = world.client();
        assert!(matches!(
            client.fire_bytes(b"wait"),
            Err(RequestError::Timeout { .. })
        ));
        let large = pattern(1, LARGE);
        if !released_before {
            match client.fire_bytes(&large) {
                Err(RequestError::Full { in_flight: 0, .. }) => {}
                other => panic!("{:?}", other.map(<[u8]>::len)),
            }
        }
        release.send(()).expect("the handler waits");
        let mut request = &large[..];
        loop {
            match client.fire_bytes(request) {
                Ok(reply) => break assert!(reply == request),
                // Where the CPUs are busy.
                Err(RequestError::Full { .. } | RequestError::Timeout { .. }) => request = b"next",
                Err(e) => panic!("{e}"),
            }
        }
    }
}
