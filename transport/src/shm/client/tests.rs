//! What a client finds once its server has ended: all that was committed before, and then the end.

mod model;

use std::cell::{Cell, RefCell};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::calls::{Calls, RequestId};
use crate::config::WaitPolicy;
use crate::mem::buffer::Buffer;
use crate::mem::mapping::Mapping;
use crate::mem::memfd::{RING_NAME, create_rings};
use crate::ring::plan::{Commit, Kind};
use crate::ring::storage::{Bell, Flag, Storage, connection_bytes};
use crate::shm::{Rings, says_farewell};
use crate::stats::SlotKind;
use crate::stats::slot::SlotWriter;
use crate::wait::policy::Waiter;
use crate::wire::drive;

/// A client, and the server's end of its rings and of its socket.
pub(super) fn connected() -> (ShmClient, Rings, UnixStream) {
    const CAPACITY: usize = 4 << 10;
    let bytes = connection_bytes(CAPACITY);
    let (fd, _) = create_rings(RING_NAME, bytes, false).expect("memory");
    let mapping = Arc::new(Mapping::shared(fd.as_fd(), bytes).expect("mapped"));
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let client = ShmClient::new(
        Rings::client(&mapping, CAPACITY, 64),
        ours,
        Calls::new(),
        Buffer::zeroed(64).expect("memory"),
        Waiter::new(WaitPolicy::Adaptive),
        Duration::from_secs(20),
        Arc::new(SlotWriter::private(SlotKind::Connection)),
    );
    (client, Rings::server(&mapping, CAPACITY, 64), theirs)
}

/// As long as that is so the socket is read, and not only looked at.
fn a_bell_is_late(client: &mut ShmClient, server: &mut Rings) {
    assert!(client.arm().expect("lives"));
    assert_eq!(server.tx.must_wake(), Some(Bell::Socket));
    client.disarm();
}

#[test]
fn a_farewell_that_was_read_before_the_last_reply_is_told_after_it() {
    let (mut client, mut server, theirs) = connected();
    let socket = UnixStream::from(client.line.fd().try_clone_to_owned().expect("a descriptor"));
    a_bell_is_late(&mut client, &mut server);
    let RequestId(id) = client.submit(b"last").expect("room");
    drive::bye(&theirs);
    drop(theirs);
    // The server commits its reply between the look that finds none and the look at the socket.
    let server = RefCell::new(Some(server));
    let reply = client.await_reply(|client| {
        if !says_farewell(&socket)
            && let Some(mut server) = server.borrow_mut().take()
        {
            server.tx.push(Kind::Reply, id, b"last").expect("room");
        }
        client.arrived()
    });
    assert_eq!(reply.expect("a reply").id, id);
    match client.fire_bytes(b"more?").map(|_| ()) {
        Err(RequestError::Disconnected {
            reason: Lost::Closed,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_that_came_before_the_end_is_received_before_the_end_is_told() {
    let (mut client, mut server, theirs) = connected();
    let RequestId(id) = client.submit(b"last").expect("room");
    assert!(client.try_receive().expect("lives").is_none());
    server.tx.push(Kind::Reply, id, b"last").expect("room");
    drive::bye(&theirs);
    drop(theirs);
    client.check_alive().expect("a reply is there");
    let reply = client.try_receive().expect("a reply");
    assert_eq!(reply.expect("a reply"), (RequestId(id), &b"last"[..]));
    match client.check_alive() {
        Err(RequestError::Disconnected {
            reason: Lost::Closed,
            ..
        }) => {}
        other => panic!("{other:?}"),
    }
}

/// A look for the next reply, as the callers of the library have it.
type Look = fn(&mut ShmClient) -> Result<Option<RequestId>, RequestError>;

const LOOKS: &[(&str, Look)] = &[
    ("receive", |client| client.receive().map(|(id, _)| Some(id))),
    ("receive_into", |client| {
        client.receive_into(&mut Vec::new()).map(Some)
    }),
    ("receive_within", |client| {
        let reply = client.receive_within(Duration::from_secs(20));
        reply.map(|(id, _)| Some(id))
    }),
    ("try_receive", |client| {
        Ok(client.try_receive()?.map(|(id, _)| id))
    }),
    #[cfg(feature = "tokio")]
    ("next_reply", |client| {
        let reply = client.next_reply()?;
        Ok(reply.map(|(id, _)| RequestId(id)))
    }),
];

/// Submits so many requests, and gives all up but the last.
fn given_up_but_the_last(client: &mut ShmClient, requests: u64) -> RequestId {
    let mut last = RequestId(0);
    for _ in 0..requests {
        client.abandon(last.0);
        last = client.submit(b"").expect("room");
    }
    last
}

fn answer_all(server: &mut Rings) {
    while let Some(record) = server.rx.peek().expect("whole") {
        server.rx.release(&record);
        let sent = server.tx.push(Kind::Reply, record.id, b"");
        sent.expect("room");
    }
}

/// More than one look discards, three times over.
const MANY: u64 = 3 * arrive::MAX_DISCARDED as u64 + 7;

#[test]
fn late_replies_do_not_hide_a_live_one_from_a_look_that_comes_after_the_end() {
    for (name, look) in LOOKS {
        let (mut client, mut server, theirs) = connected();
        let last = given_up_but_the_last(&mut client, MANY);
        assert!(client.arm().expect("lives"));
        answer_all(&mut server);
        drive::bye(&theirs);
        drop((theirs, server));
        client.disarm();
        assert!(client.line.has_ended());
        assert_eq!(look(&mut client).expect("a reply"), Some(last), "{name}");
        match client.check_alive() {
            Err(RequestError::Disconnected {
                reason: Lost::Closed,
                in_flight: 0,
            }) => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn late_replies_do_not_hide_a_live_one_from_the_wait_that_meets_the_end() {
    let (mut client, mut server, theirs) = connected();
    let socket = UnixStream::from(client.line.fd().try_clone_to_owned().expect("a descriptor"));
    let last = given_up_but_the_last(&mut client, MANY);
    a_bell_is_late(&mut client, &mut server);
    drive::bye(&theirs);
    drop(theirs);
    // All at once, between the look that finds nothing and the one after the end was read.
    let server = RefCell::new(Some(server));
    let reply = client.await_reply(|client| {
        if !says_farewell(&socket)
            && let Some(mut server) = server.borrow_mut().take()
        {
            answer_all(&mut server);
        }
        client.arrived()
    });
    assert_eq!(reply.expect("a reply").id, last.0);
}

#[test]
fn who_got_the_last_reply_of_a_server_that_has_ended_sends_it_nothing_more() {
    let (mut client, server, theirs) = connected();
    let last = client.submit(b"last").expect("room");
    drop(theirs);
    let server = RefCell::new(server);
    let looks = Cell::new(0);
    let reply = client.await_reply(|client| {
        looks.set(looks.get() + 1);
        // Those that come before the wait are over: it has met the end by the time at which it looks again.
        if looks.get() > 64 {
            let mut server = server.borrow_mut();
            let sent = server.tx.push(Kind::Reply, last.0, b"last");
            sent.expect("room");
        }
        client.arrived()
    });
    assert_eq!(reply.expect("a reply").id, last.0);
    let record = server.borrow_mut().rx.peek().expect("whole").expect("sent");
    server.borrow_mut().rx.release(&record);
    match client.fire_bytes(b"more?") {
        Err(RequestError::Disconnected { in_flight: 0, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(server.borrow_mut().rx.peek().expect("whole"), None);
}

#[test]
fn an_end_that_was_met_is_not_waited_for_again() {
    let (mut client, mut server, theirs) = connected();
    let first = client.submit(b"first").expect("room");
    client.submit(b"second").expect("room");
    server.tx.push(Kind::Reply, first.0, b"").expect("room");
    drop(theirs);
    client.check_alive().expect("a reply is there");
    assert_eq!(client.receive().expect("a reply").0, first);
    let slot = Arc::clone(&client.slot);
    let waits = || slot.wait().waits.load(Ordering::Relaxed);
    let before = waits();
    match client.receive() {
        Err(RequestError::Disconnected {
            reason: Lost::PeerGone,
            in_flight: 1,
        }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(waits(), before);
}

/// A loop of the caller's learns that the server has said farewell.
fn meets_the_end(client: &mut ShmClient, theirs: UnixStream) {
    drive::bye(&theirs);
    drop(theirs);
    client.disarm();
    assert!(client.line.has_ended());
}

/// Nothing is sent after that: the outcome is known.
fn sends_nothing_more(client: &mut ShmClient, server: &mut Rings, who: &str) {
    assert!(!client.is_usable(), "{who}");
    for _ in 0..2 {
        match client.submit(b"more?") {
            Err(RequestError::Disconnected {
                reason: Lost::Closed,
                in_flight: 0,
            }) => {}
            other => panic!("{who}: {other:?}"),
        }
    }
    assert_eq!(server.rx.peek().expect("whole"), None, "{who}");
}

#[test]
fn who_met_the_end_sends_nothing_more_and_is_sent_to_the_replies_that_are_left_first() {
    for (name, look) in LOOKS {
        let (mut client, mut server, theirs) = connected();
        let first = client.submit(b"first").expect("room");
        let last = client.submit(b"last").expect("room");
        assert!(client.arm().expect("lives"));
        answer_all(&mut server);
        meets_the_end(&mut client, theirs);
        assert_eq!(look(&mut client).expect("a reply"), Some(first), "{name}");
        assert!(client.is_usable(), "{name}: one is left");
        match client.submit(b"more?") {
            Err(RequestError::Full { in_flight: 1 }) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(look(&mut client).expect("a reply"), Some(last), "{name}");
        sends_nothing_more(&mut client, &mut server, name);
    }
}

#[test]
fn who_met_the_end_while_nothing_was_in_flight_sends_nothing_more() {
    let (mut client, mut server, theirs) = connected();
    meets_the_end(&mut client, theirs);
    sends_nothing_more(&mut client, &mut server, "idle");

    let (mut client, mut server, theirs) = connected();
    client.submit(b"given up").expect("room");
    assert!(client.arm().expect("lives"));
    answer_all(&mut server);
    meets_the_end(&mut client, theirs);
    assert_eq!(client.cancel_all(), 1);
    sends_nothing_more(&mut client, &mut server, "all given up");
}

#[test]
fn what_was_queued_is_heard_though_an_earlier_reply_is_found_at_once() {
    for (name, look) in LOOKS {
        // Tasks queue nothing.
        if *name == "next_reply" {
            continue;
        }
        let (mut client, mut server, _theirs) = connected();
        let first = client.submit(b"first").expect("room");
        answer_all(&mut server);
        server.rx.announce(Bell::Futex);
        client.queue(b"second").expect("room");
        assert_eq!(look(&mut client).expect("a reply"), Some(first), "{name}");
        assert_eq!(server.rx.storage().flag(Flag::Empty), 0, "{name}: rung for");
    }
}

#[test]
fn half_a_late_reply_keeps_nobody_from_waiting_for_room() {
    let (mut client, server, _theirs) = connected();
    client.timeout = Duration::from_millis(1);
    let first = client.submit(&[0; 64]).expect("room");
    while client.submit(&[0; 64]).is_ok() {}
    client.cancel_all();
    // The server has published its beginning, and stands still.
    let half = Commit {
        length: 64,
        kind: Kind::Reply,
        streamed: true,
    };
    server.tx.storage().set_word(8, first.0);
    server.tx.storage().commit_release(0, half.encode());
    let slot = Arc::clone(&client.slot);
    let waits = || slot.wait().waits.load(Ordering::Relaxed);
    let before = waits();
    match client.fire_bytes(b"more?") {
        Err(RequestError::Full { in_flight: 0 }) => {}
        other => panic!("{other:?}"),
    }
    assert!(waits() > before);
}
