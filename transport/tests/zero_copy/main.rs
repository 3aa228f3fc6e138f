//! Requests written in place and replies read in place: the same bytes, nothing sent that was not meant to be, all room given back.

mod no_room;
#[path = "../own_page/mod.rs"]
mod own_page;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use transport::error::RequestError;
use transport::{Config, Membrane, Synapse, TransportChoice, TrustedServer};

/// Sizes around the headers, the pieces of a streamed record, and the largest message.
const SIZES: [usize; 11] = [
    0, 1, 7, 64, 4096, 8191, 8192, 12_288, 20_000, 99_999, 100_000,
];

struct World {
    _dir: tempfile::TempDir,
    _server: Membrane,
    client: Synapse,
    served: Arc<AtomicU64>,
}

impl World {
    fn new(transport: TransportChoice) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            ring_bytes: 256 << 10,
            max_message_bytes: 100_000,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let served = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&served);
        let server = Membrane::bind(dir.path().join("s"), &config, move |request, reply| {
            counter.fetch_add(1, Ordering::Relaxed);
            if request == b"bad" {
                return reply.fail("no such thing");
            }
            reply.extend_from_slice(request).expect("as large");
        })
        .expect("a server");
        let config = Config {
            transport,
            ..config
        };
        let client = Synapse::connect(server.path(), &config).expect("a client");
        Self {
            _dir: dir,
            _server: server,
            client,
            served,
        }
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

fn everywhere(test: impl Fn(World)) {
    test(World::new(TransportChoice::Shm));
    test(World::new(TransportChoice::Socket));
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (seed * 31 + i * 7) as u8).collect()
}

fn trusted() -> TrustedServer {
    // SAFETY: the server is a `Membrane` in this very process.
    unsafe { TrustedServer::promise() }
}

#[test]
fn what_is_written_piece_by_piece_arrives_whole() {
    everywhere(|mut world| {
        // Many times round the ring.
        for i in 0..300 {
            let request = pattern(i, SIZES[i % SIZES.len()]);
            let mut draft = world.client.draft(request.len()).expect("room");
            for piece in request.chunks(1 + i * 37) {
                draft.write_all(piece).expect("room");
            }
            assert_eq!((draft.len(), draft.remaining()), (request.len(), 0));
            assert!(draft.fire().expect("a reply") == request);
        }
    });
}

#[test]
fn less_than_the_room_may_be_sent_and_more_is_refused() {
    everywhere(|mut world| {
        let mut draft = world.client.draft(10).expect("room");
        draft.extend_from_slice(b"short").expect("room");
        match draft.extend_from_slice(b"too much") {
            Err(RequestError::DraftFull {
                size: 13, room: 10, ..
            }) => {}
            other => panic!("{other:?}"),
        }
        // Not even by one.
        match draft.extend_from_slice(b"longer") {
            Err(RequestError::DraftFull {
                size: 11, room: 10, ..
            }) => {}
            other => panic!("{other:?}"),
        }
        let id = draft.submit().expect("sent");
        assert_eq!(
            world.client.receive().expect("a reply"),
            (id, &b"short"[..])
        );
        match world.client.draft(100_001).map(|draft| draft.len()) {
            Err(RequestError::TooLarge {
                size: 100_001,
                limit: 100_000,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_draft_that_is_dropped_sends_nothing_not_even_in_a_panic() {
    everywhere(|mut world| {
        for i in 0..50 {
            let mut draft = world.client.draft(90_000).expect("room every time");
            draft.extend_from_slice(&pattern(i, 45_000)).expect("room");
            drop(draft);
            let client = &mut world.client;
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let mut draft = client.draft(20_000).expect("room");
                draft.extend_from_slice(&pattern(i, 15_000)).expect("room");
                panic!("in the middle");
            }));
            assert!(panicked.is_err());
            assert_eq!(world.client.in_flight(), 0);
            let sent = pattern(i, i * 100);
            assert!(world.client.fire_bytes(&sent).expect("a reply") == sent);
        }
        assert_eq!(world.served(), 50);
    });
}

#[test]
fn a_draft_waits_for_replies_like_any_request() {
    everywhere(|mut world| {
        let id = world.client.submit(b"first").expect("room");
        let mut draft = world.client.draft(8).expect("room");
        draft.extend_from_slice(b"second").expect("room");
        match draft.fire() {
            Err(RequestError::Full { in_flight: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(
            world.client.receive().expect("a reply"),
            (id, &b"first"[..])
        );
        assert_eq!(world.served(), 1);
    });
}

#[test]
fn a_reply_read_in_place_is_the_reply_and_its_room_is_given_back() {
    everywhere(|mut world| {
        // 30 times round the ring: one record that is not given back, and it is full.
        for i in 0..300 {
            let request = pattern(i, SIZES[i % SIZES.len()]);
            let reply = world
                .client
                .fire_in_place(&request, trusted())
                .expect("a reply");
            assert!(*reply == request[..], "{} bytes", request.len());
            drop(reply);
            if i % 3 == 0 {
                assert!(world.client.fire_bytes(&request).expect("a reply") == request);
            }
        }
        // None of them was met again, as one that is left lying would be.
        let id = world.client.connection_id();
        assert_eq!(own_page::slot_of(id).rx.rx_invalid, 0);
    });
}

#[test]
fn replies_that_nobody_waits_for_are_not_in_the_way_of_one_in_place() {
    everywhere(|mut world| {
        for i in 0..50 {
            world.client.submit(&pattern(i, 9000)).expect("room");
            world.client.submit(b"bad").expect("room");
            assert_eq!(world.client.cancel_all(), 2);
            let reply = world.client.fire_in_place(b"this", trusted());
            assert_eq!(*reply.expect("a reply"), *b"this");
        }
        // Forgotten ones are met again, and taken for nobody's; a flood they are not.
        for _ in 0..300 {
            let reply = world.client.fire_in_place(b"that", trusted());
            std::mem::forget(reply.expect("a reply"));
        }
        assert_eq!(world.client.fire_bytes(b"on").expect("a reply"), b"on");
        assert!(matches!(world.client.try_receive(), Ok(None)));
    });
}

#[test]
fn replies_in_place_come_in_order_while_others_are_in_flight() {
    everywhere(|mut world| {
        for i in 0..100 {
            let requests = [pattern(i, 9000), pattern(i + 1, 10), pattern(i + 2, 13_000)];
            let ids = requests
                .each_ref()
                .map(|r| world.client.submit(r).expect("room"));
            for (id, request) in ids.iter().zip(&requests) {
                let (got, reply) = world.client.receive_in_place(trusted()).expect("a reply");
                assert_eq!(got, *id);
                assert!(*reply == request[..]);
            }
        }
        match world.client.receive_in_place(trusted()).map(|(id, _)| id) {
            Err(RequestError::NothingInFlight) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_error_and_a_forgotten_reply_leave_the_connection_as_good_as_before() {
    everywhere(|mut world| {
        for i in 0..20 {
            match world
                .client
                .fire_in_place(b"bad", trusted())
                .map(|r| r.len())
            {
                Err(RequestError::Remote { message, .. }) => assert_eq!(message, "no such thing"),
                other => panic!("{other:?}"),
            }
            let request = pattern(i, 20_000);
            std::mem::forget(
                world
                    .client
                    .fire_in_place(&request, trusted())
                    .expect("a reply"),
            );
            assert!(world.client.fire_bytes(&request).expect("a reply") == request);
            let next = world
                .client
                .fire_in_place(b"on", trusted())
                .expect("a reply");
            assert_eq!(*next, *b"on");
        }
    });
}
