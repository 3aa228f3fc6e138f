//! Calls with a limit of their own, and replies in a vector of the caller's.

use std::time::{Duration, Instant};

use transport::Synapse;
use transport::error::RequestError;

use crate::own_page::slot_of;

use super::{WATCHDOG, World, echo, everywhere, pattern};

#[test]
fn a_reply_becomes_what_is_in_the_callers_vector_and_a_failed_call_leaves_it_alone() {
    everywhere(|world| {
        let _server = world.serve(|request, reply| match request {
            b"no" => reply.fail("as asked"),
            other => reply.send(other).expect("room"),
        });
        let mut client = world.client();
        let mut reply = b"what was in it before".to_vec();
        // Each after a longer and a shorter one; in one piece and in several.
        for size in [3, 0, 99_000, 64, 20_000, 100_000, 1] {
            let request = pattern(size, size);
            client
                .fire_bytes_into(&request, &mut reply)
                .expect("a reply");
            assert!(reply == request, "{size} bytes");
            let id = client.submit(&request).expect("room");
            reply.clear();
            assert_eq!(client.receive_into(&mut reply).expect("a reply"), id);
            assert!(reply == request, "{size} bytes");
        }
        // All of the room is given back.
        for n in 0..50 {
            client
                .fire_bytes_into(&pattern(n, 99_000), &mut reply)
                .expect("a reply");
        }
        let before = reply.clone();
        match client.fire_bytes_into(b"no", &mut reply) {
            Err(RequestError::Remote { message, .. }) => assert_eq!(message, "as asked"),
            other => panic!("{other:?}"),
        }
        assert!(reply == before);
        assert!(matches!(
            client.receive_into(&mut reply),
            Err(RequestError::NothingInFlight)
        ));
    });
}

/// With a reply that is borrowed this could not be written: the borrow of a reply that is returned would last for the next attempt as well.
fn ask_three_times(client: &mut Synapse, reply: &mut Vec<u8>) -> Result<(), RequestError> {
    let mut last = client.fire_bytes_into(b"a", reply);
    for _ in 0..2 {
        if let Err(RequestError::Timeout { .. }) = last {
            last = client.fire_bytes_into(b"a", reply);
        }
    }
    last
}

#[test]
fn a_call_may_have_a_limit_of_its_own_and_the_next_has_the_usual_one() {
    everywhere(|mut world: World| {
        world.config.request_timeout = WATCHDOG;
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let _server = world.serve(move |request, reply| {
            if request == b"hold" {
                // An error is the end of the test.
                let _ = held.lock().expect("no panic").recv_timeout(WATCHDOG);
            }
            echo(request, reply);
        });
        let mut client = world.client();
        let limit = Duration::from_millis(5);
        let begun = Instant::now();
        match client.fire_bytes_within(b"hold", limit) {
            Err(RequestError::Timeout { timeout, .. }) => assert_eq!(timeout, limit),
            other => panic!("{other:?}"),
        }
        client.submit(b"later").expect("room");
        for limit in [Duration::ZERO, limit] {
            match client.receive_within(limit) {
                Err(RequestError::Timeout { timeout, .. }) => assert_eq!(timeout, limit),
                other => panic!("{other:?}"),
            }
        }
        assert!(begun.elapsed() < WATCHDOG / 2, "{:?}", begun.elapsed());
        hold.send(()).expect("a handler");
        assert_eq!(client.receive().expect("a reply").1, b"later");
        let reply = client.fire_bytes_within(b"on", WATCHDOG).expect("a reply");
        assert_eq!(reply, b"on");
        let mut reply = Vec::new();
        ask_three_times(&mut client, &mut reply).expect("a reply");
        assert_eq!(reply, b"a");
    });
}

#[test]
fn looks_without_waiting_find_what_has_come_and_give_nothing_up() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let mut client = world.client();
        let begun = Instant::now();
        client.submit(b"one").expect("room");
        loop {
            match client.receive_within(Duration::ZERO) {
                Ok((_, reply)) => break assert_eq!(reply, b"one"),
                Err(RequestError::Timeout { .. }) if begun.elapsed() < WATCHDOG => {}
                other => panic!("{:?}: {other:?}", world.config.transport),
            }
        }
        let req = slot_of(client.connection_id()).req;
        assert_eq!(req.timeouts, 0, "looked for, and not given up");
        // More than find room if nobody reads what was given up.
        let mut sent = 0;
        while sent < 500 {
            match client.fire_bytes_within(b"more", Duration::ZERO) {
                Ok(_) | Err(RequestError::Timeout { .. }) => sent += 1,
                Err(RequestError::Full { .. }) if begun.elapsed() < WATCHDOG => {}
                other => panic!("{:?}, {sent}: {other:?}", world.config.transport),
            }
        }
        assert_eq!(client.fire_bytes(b"last").expect("a reply"), b"last");
    });
}
