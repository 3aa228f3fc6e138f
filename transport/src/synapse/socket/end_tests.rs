//! What a client is told of an end that it meets while it sends, whichever call meets it.

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::SocketClient;
use crate::calls::Calls;
use crate::error::{Lost, RequestError};
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
fn an_end_on_purpose_is_told_as_one_behind_replies_that_nobody_received_yet() {
    for (name, send) in SENDS {
        let (mut client, mut theirs) = connected();
        let id = client.submit(b"before").expect("room");
        reply(&mut theirs, id.0, b"reply");
        drive::bye(&theirs);
        drop(theirs);
        match send(&mut client) {
            Err(RequestError::Disconnected {
                reason: Lost::Closed,
                in_flight: 1,
            }) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_server_that_drains_ends_on_purpose_also_before_its_farewell() {
    for (name, send) in SENDS {
        let (mut client, theirs) = connected();
        client.submit(b"before").expect("room");
        // What a server does that answers what it has, and takes nothing more.
        theirs.shutdown(Shutdown::Read).expect("a socket");
        match send(&mut client) {
            Err(RequestError::Disconnected {
                reason: Lost::Closed,
                in_flight: 1,
            }) => {}
            other => panic!("{name}: {other:?}"),
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
