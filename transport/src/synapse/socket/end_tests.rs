//! What a client is told of an end that it meets while it sends, whichever call meets it.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::super::Transport;
use super::SocketClient;
use crate::calls::Calls;
use crate::error::{Lost, RequestError};
use crate::membrane::testing::{WATCHDOG, server_and_client_on_socket};
use crate::stats::SlotKind;
use crate::stats::slot::SlotWriter;
use crate::wire::drive;
use crate::wire::frame::{Decoder, Header, Kind};

const LARGEST: u32 = 1 << 20;

type Send = fn(&mut SocketClient) -> Result<(), RequestError>;

/// The calls that send, by their names.
const SENDS: [(&str, Send); 2] = [
    ("submit", |client| client.submit(b"x").map(|_| ())),
    ("try_submit", |client| client.try_submit(b"x").map(|_| ())),
];

/// A client, and its server's end.
fn connected() -> (SocketClient, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    ours.set_nonblocking(true).expect("a socket");
    let client = SocketClient::new(
        ours,
        Calls::new(),
        Decoder::new(LARGEST).expect("memory"),
        LARGEST as usize,
        Duration::from_secs(20),
        Arc::new(SlotWriter::private(SlotKind::Connection)),
    );
    (client, theirs)
}

/// The end, as one that the server meant, with nothing in flight.
#[track_caller]
fn told_of_an_end_on_purpose(name: &str, told: Result<impl std::fmt::Debug, RequestError>) {
    match told {
        Err(RequestError::Disconnected {
            reason: Lost::Closed,
            in_flight: 0,
        }) => {}
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_request_that_was_never_sent_is_not_in_flight_whichever_call_sends_it() {
    for (name, send) in SENDS {
        for before in [0, 2] {
            let (mut client, theirs) = connected();
            for _ in 0..before {
                client.submit(b"before").expect("room");
            }
            drop(theirs);
            match send(&mut client) {
                Err(RequestError::Disconnected { in_flight, .. }) if in_flight == before => {}
                other => panic!("{name} behind {before}: {other:?}"),
            }
        }
    }
}

/// A server answers.
fn reply(theirs: &mut UnixStream, id: u64, payload: &[u8]) {
    let header = Header {
        kind: Kind::Reply,
        id,
        length: payload.len() as u32,
        aux: 0,
    };
    let frame = [&header.encode()[..], payload].concat();
    theirs.write_all(&frame).expect("room");
}

#[test]
fn replies_that_nobody_received_yet_are_left_to_be_received_whichever_call_meets_the_end() {
    for (name, send) in SENDS {
        let (mut client, mut theirs) = connected();
        let ids = [0; 2].map(|_| client.submit(b"before").expect("room"));
        for id in ids {
            reply(&mut theirs, id.0, b"reply");
        }
        drive::bye(&theirs);
        drop(theirs);
        for (id, in_flight) in ids.into_iter().zip([2, 1]) {
            match send(&mut client) {
                Err(RequestError::Full { in_flight: left }) if left == in_flight => {}
                other => panic!("{name}: {other:?}"),
            }
            assert!(!client.wants_write(), "{name}");
            assert_eq!(client.receive().expect("a reply"), (id, &b"reply"[..]));
        }
        told_of_an_end_on_purpose(name, send(&mut client));
    }
}

#[test]
fn a_server_that_drains_ends_on_purpose_also_before_its_farewell() {
    for (name, send) in SENDS {
        let (mut client, theirs) = connected();
        // What a server does that answers what it has, and takes nothing more.
        theirs.shutdown(Shutdown::Read).expect("a socket");
        told_of_an_end_on_purpose(name, send(&mut client));
    }
}

#[test]
fn who_sends_on_to_a_server_that_drains_is_sent_to_the_replies_that_are_yet_to_come() {
    for (name, send) in SENDS {
        let (mut client, mut theirs) = connected();
        let id = client.submit(b"before").expect("room");
        theirs.shutdown(Shutdown::Read).expect("a socket");
        match send(&mut client) {
            Err(RequestError::Full { in_flight: 1 }) => {}
            other => panic!("{name}: {other:?}"),
        }
        reply(&mut theirs, id.0, b"reply");
        drive::bye(&theirs);
        drop(theirs);
        assert_eq!(client.receive().expect("a reply"), (id, &b"reply"[..]));
        told_of_an_end_on_purpose(name, client.check_alive());
    }
}

#[test]
fn late_replies_hide_the_end_from_nobody_who_looks_whether_the_server_lives() {
    for farewell in [false, true] {
        let (mut client, mut theirs) = connected();
        let ids = [0; 3].map(|_| client.submit(b"before").expect("room"));
        client.cancel_all();
        client.check_alive().expect("it lives");
        for id in ids {
            reply(&mut theirs, id.0, b"late");
        }
        client.check_alive().expect("it lives");
        reply(&mut theirs, ids[0].0, b"again");
        if farewell {
            drive::bye(&theirs);
        }
        drop(theirs);
        match (farewell, client.check_alive()) {
            (
                true,
                Err(RequestError::Disconnected {
                    reason: Lost::Closed,
                    in_flight: 0,
                }),
            )
            | (
                false,
                Err(RequestError::Disconnected {
                    reason: Lost::PeerGone,
                    in_flight: 0,
                }),
            ) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn replies_that_are_there_are_received_although_the_rest_of_a_request_can_go_out_no_more() {
    type Receive = fn(&mut SocketClient) -> Result<Option<u64>, RequestError>;
    let receives: [(&str, Receive); 2] = [
        ("receive", |client| {
            client.receive().map(|(id, _)| Some(id.0))
        }),
        ("try_receive", |client| {
            client.try_receive().map(|got| got.map(|(id, _)| id.0))
        }),
    ];
    for (name, receive) in receives {
        for farewell in [false, true] {
            let (mut client, mut theirs) = connected();
            // As small as the kernel makes it: less than may be unanswered.
            setsockopt(&client.stream, sockopt::SndBuf, &0).expect("a socket");
            let first = client.try_submit(b"first").expect("room").0;
            client.try_submit(&[0; 60_000]).expect("room");
            assert!(client.wants_write());
            reply(&mut theirs, first, b"reply");
            if farewell {
                drive::bye(&theirs);
            }
            drop(theirs);
            match receive(&mut client) {
                Ok(Some(id)) if id == first => {}
                other => panic!("{name}: {other:?}"),
            }
            match (farewell, client.receive()) {
                (
                    true,
                    Err(RequestError::Disconnected {
                        reason: Lost::Closed,
                        in_flight: 1,
                    }),
                )
                | (
                    false,
                    Err(RequestError::Disconnected {
                        reason: Lost::PeerGone,
                        in_flight: 1,
                    }),
                ) => {}
                (_, other) => panic!("{name}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_drain_is_told_as_one_also_to_who_has_sent_half_a_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, mut client) = server_and_client_on_socket(dir.path());
    client.submit(b"whole").expect("room");
    let Transport::Socket(SocketClient { stream, .. }) = &client.transport else {
        unreachable!("it was asked for");
    };
    // What the kernel took of a larger one.
    let header = Header {
        kind: Kind::Request,
        id: 2,
        length: 1 << 12,
        aux: 0,
    };
    let mut socket: &UnixStream = stream;
    socket.write_all(&header.encode()).expect("room");
    socket.write_all(&[0; 100]).expect("room");
    assert!(server.drain(WATCHDOG));
    assert_eq!(client.receive().expect("a reply").1, b"whole");
    match client.check_alive() {
        Err(RequestError::Disconnected {
            reason: Lost::Closed,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}
