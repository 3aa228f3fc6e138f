//! The single refusals, each with its reason. The machines against each other are [`super::channel_tests`]'s.

use super::world::{Bytes, hello, layout, offer, terms};
use super::*;
use crate::error::Step;
use crate::wire::messages::{Hello, Name, Welcome};

/// A client that was welcomed and asked for shared memory.
fn awaiting_offer() -> ClientHandshake {
    let (mut client, first) = ClientHandshake::start(hello(), layout());
    let mut server = ServerHandshake::new(terms());
    let ServerAction::Admit(welcome, ..) = server.on_message(&first.encode(), 0) else {
        panic!("not admitted");
    };
    client.on_message(&welcome.encode(), 0);
    client.upgrade().unwrap();
    client
}

#[test]
fn an_offer_of_impossible_sizes_closes_the_connection() {
    let good = offer(1 << 16, 4096);
    let refused = |change: fn(&mut Offer)| {
        let mut bad = good;
        change(&mut bad);
        let bytes = Message::Offer(bad).encode(1);
        match awaiting_offer().on_message(&bytes, 1) {
            ClientAction::Close(Ending::Broken { reject, what }) => {
                assert_eq!(reject, Reject::Layout);
                what
            }
            other => panic!("{bad:?} gave {other:?}"),
        }
    };
    let bytes = Message::Offer(good).encode(1);
    assert_eq!(
        awaiting_offer().on_message(&bytes, 1),
        ClientAction::Map(good)
    );

    for change in [
        (|o| o.client_to_server_bytes = 0) as fn(&mut Offer),
        |o| o.client_to_server_bytes = 3 << 14,
        |o| o.server_to_client_bytes = u64::MAX,
        |o| o.server_to_client_bytes = 1 << 63,
        |o| o.server_to_client_bytes = 2048,
    ] {
        assert_eq!(refused(change), "ring capacity");
    }
    assert_eq!(
        refused(|o| o.client_to_server_bytes = 1 << 17),
        "ring above what was asked for"
    );
    for change in [
        (|o| o.max_message = 4097) as fn(&mut Offer),
        |o| o.max_message = 4095,
        |o| o.max_message = u64::MAX,
        // A ring that can't take the message agreed on.
        |o| o.server_to_client_bytes = 4096,
    ] {
        assert_eq!(refused(change), "largest message");
    }
    for change in [
        (|o| o.total_bytes -= 1) as fn(&mut Offer),
        |o| o.total_bytes += 4096,
        |o| o.total_bytes = 0,
        |o| o.total_bytes = u64::MAX,
    ] {
        assert_eq!(refused(change), "size of the ring memory");
    }
    let huge_pages = Offer {
        total_bytes: 2 << 20,
        ..good
    };
    let bytes = Message::Offer(huge_pages).encode(1);
    assert_eq!(
        awaiting_offer().on_message(&bytes, 1),
        ClientAction::Map(huge_pages)
    );
}

#[test]
fn another_ring_layout_is_declined_with_both_versions_and_the_socket_serves_on() {
    let mut client = awaiting_offer();
    let other = Offer {
        layout_version: 4,
        ..offer(1 << 16, 4096)
    };
    let ClientAction::Decline(_, why) = client.on_message(&Message::Offer(other).encode(1), 1)
    else {
        panic!("not declined");
    };
    assert_eq!((why.step, why.limit, why.used), (Step::Layout, 3, 4));
    assert_eq!(client.mode(), Mode::Socket);
}

#[test]
fn a_largest_message_that_was_not_asked_for_is_no_welcome() {
    for max_message in [0, 4097, u64::MAX] {
        let (mut client, _) = ClientHandshake::start(hello(), layout());
        let welcome = Message::Welcome(Welcome {
            client_number: 1,
            features: 0,
            connection_id: 1,
            max_message,
            name: Name::new("x"),
        });
        assert!(matches!(
            client.on_message(&welcome.encode(0), 0),
            ClientAction::Close(Ending::Broken { .. })
        ));
    }
}

#[test]
fn sizes_agreed_are_the_smaller_of_both_sides_and_fit_the_ring() {
    for (ring, wish, expected) in [
        (1 << 16, 4096, 4096),
        (1 << 16, 1 << 40, (1 << 15) - 64),
        (1 << 30, 1 << 40, 1 << 16),
        (4096, 1 << 20, 1984),
    ] {
        let asked = Hello {
            ring_bytes: ring,
            max_message: wish,
            ..hello()
        };
        let mut server = ServerHandshake::new(terms());
        match server.on_message(&Message::Hello(asked).encode(0), 0) {
            ServerAction::Admit(_, _, agreed) => assert_eq!(agreed, expected),
            other => panic!("{other:?}"),
        }
        match server.on_message(&Message::Upgrade.encode(1), 0) {
            ServerAction::MakeOffer { ring_bytes, .. } => {
                assert_eq!(ring_bytes, u64::min(ring, 1 << 20));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a server says to a first message, and how it counts it.
fn refusal(bytes: &Bytes) -> (Refused, Option<Reject>) {
    let mut server = ServerHandshake::new(terms());
    match server.on_message(bytes, 0) {
        ServerAction::Refuse(said, ending) => {
            assert_eq!(server.mode(), Mode::Closed);
            let (message, _) = Message::decode(&said.encode()).unwrap();
            match message {
                Message::Refused(refused) => (refused, ending.reject()),
                other => panic!("{other:?}"),
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refused_client_is_told_why() {
    let good = Message::Hello(hello()).encode(0);
    let mut foreign = good;
    foreign[22] = 9;
    let (r, counted) = refusal(&foreign);
    assert_eq!(
        r.to_string(),
        "it speaks protocol version 1.0, we speak 9.0"
    );
    assert_eq!(counted, Some(Reject::Version));

    let (r, counted) = refusal(&[b'G'; HANDSHAKE_BYTES]);
    assert_eq!(r.reason, Reject::Magic as u32);
    assert_eq!(counted, Some(Reject::Magic));

    let mut newer_and_odd = good;
    newer_and_odd[20] = 3;
    newer_and_odd[56] = 9;
    let (r, counted) = refusal(&newer_and_odd);
    assert_eq!((r.client.major, r.client.minor), (1, 3));
    assert_eq!(counted, Some(Reject::Layout));

    let (r, counted) = refusal(&Message::Commit.encode(0));
    assert_eq!(r.client, Version::OURS);
    assert_eq!(counted, Some(Reject::Layout));

    for (ring_bytes, max_message) in [(0, 1), (5000, 1), (1 << 31, 1), (4096, 0)] {
        let odd = Hello {
            ring_bytes,
            max_message,
            ..hello()
        };
        let (_, counted) = refusal(&Message::Hello(odd).encode(0));
        assert_eq!(counted, Some(Reject::Layout));
    }
}

#[test]
fn who_finds_no_memory_at_the_server_is_told_so_instead_of_welcomed() {
    let (mut client, first) = ClientHandshake::start(hello(), layout());
    let mut server = ServerHandshake::new(terms());
    let admitted = server.on_message(&first.encode(), 0);
    assert!(matches!(admitted, ServerAction::Admit(..)));
    let ServerAction::Refuse(message, Ending::NoRoom) = server.no_room() else {
        panic!("{server:?}");
    };
    assert_eq!(server.mode(), Mode::Closed);
    match client.on_message(&message.encode(), 0) {
        ClientAction::Close(Ending::Refused(r)) => assert_eq!(r.reason, Reject::Resources as u32),
        other => panic!("{other:?}"),
    }
    // Nobody is there whom it could be told.
    let closed = ServerHandshake::new(terms()).no_room();
    assert_eq!(closed, ServerAction::Close(Ending::NoRoom));
}

#[test]
fn a_server_for_the_socket_only_says_so_and_serves_on() {
    let only_socket = ServerTerms {
        shm: false,
        ..terms()
    };
    let mut server = ServerHandshake::new(only_socket);
    server.on_message(&Message::Hello(hello()).encode(0), 0);
    match server.on_message(&Message::Upgrade.encode(1), 0) {
        ServerAction::NoOffer(_, why) => assert_eq!(why.step, Step::Disabled),
        other => panic!("{other:?}"),
    }
    assert_eq!(server.mode(), Mode::Socket);
}

#[test]
fn a_message_of_an_earlier_attempt_is_never_taken_for_one_of_this() {
    let e = StepError::new(Step::MemfdCreate, libc::EMFILE);
    let second_attempt = || {
        let mut client = awaiting_offer();
        client.on_message(&Message::NoOffer(e).encode(1), 0);
        client.upgrade().unwrap();
        client
    };
    let good = offer(1 << 16, 4096);
    for (late, fds) in [(Message::NoOffer(e), 0), (Message::Offer(good), 1)] {
        let mut client = second_attempt();
        client.on_message(&late.encode(1), fds);
        assert_eq!(client.mode(), Mode::Closed, "{late:?}");
        let mut client = second_attempt();
        client.on_message(&late.encode(2), fds);
        assert_ne!(client.mode(), Mode::Closed, "{late:?}");
    }

    let second_attempt = || {
        let mut server = ServerHandshake::new(terms());
        server.on_message(&Message::Hello(hello()).encode(0), 0);
        server.on_message(&Message::Upgrade.encode(1), 0);
        server.made(Err(e));
        server
    };
    for (late, mode) in [(1, Mode::Closed), (2, Mode::Waiting), (3, Mode::Closed)] {
        let mut server = second_attempt();
        server.on_message(&Message::Upgrade.encode(late), 0);
        assert_eq!(server.mode(), mode, "upgrade {late}");
    }
    for (said, then) in [
        (Message::Commit, Mode::Shm),
        (Message::Decline(e), Mode::Socket),
    ] {
        for (late, mode) in [(1, Mode::Closed), (2, then)] {
            let mut server = second_attempt();
            server.on_message(&Message::Upgrade.encode(2), 0);
            server.made(Ok(good));
            server.offer_sent(Ok(()));
            server.on_message(&said.encode(late), 0);
            assert_eq!(server.mode(), mode, "{said:?} {late}");
        }
    }
}

#[test]
fn a_descriptor_where_none_belongs_ends_the_connection() {
    let mut client = awaiting_offer();
    let e = StepError::new(Step::MemfdCreate, libc::EMFILE);
    client.on_message(&Message::NoOffer(e).encode(1), 1);
    assert_eq!(client.mode(), Mode::Closed);
    let mut server = ServerHandshake::new(terms());
    server.on_message(&Message::Hello(hello()).encode(0), 1);
    assert_eq!(server.mode(), Mode::Closed);
}
