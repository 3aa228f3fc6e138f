//! What a client with little time for each call learns of a server that has died: that it has, as those with much time do.

use std::time::{Duration, Instant};

use super::tests::connected;
use super::*;
use crate::calls::MAX_IN_FLIGHT;
use crate::config::WaitPolicy;

/// Ends a hang; nothing here takes a hundredth of it.
const WATCHDOG: Duration = Duration::from_secs(30);
const BRIEF: Duration = Duration::from_millis(1);
/// Calls that have waited 50 ms by then: each as long as it may at least.
const ENOUGH: usize = 60;

/// Brings a client to where its next call waits, while its server lives.
type Prepare = fn(&mut ShmClient, &mut Rings);
/// The call.
type Call = fn(&mut ShmClient) -> Result<(), RequestError>;

fn no_id_is_free(client: &mut ShmClient, server: &mut Rings) {
    for _ in 0..MAX_IN_FLIGHT {
        client.submit(b"").expect("room");
        let record = server.rx.peek().expect("whole").expect("sent");
        server.rx.release(&record);
    }
    client.cancel_all();
}

const WAITS: [(&str, Prepare, Call); 7] = [
    (
        "a request",
        |_, _| {},
        |client| client.fire_bytes(b"?").map(drop),
    ),
    (
        "a request within",
        |client, _| client.timeout = WATCHDOG,
        |client| client.fire_bytes_within(b"?", BRIEF).map(drop),
    ),
    (
        "a reply within",
        |client, _| {
            client.submit(b"?").expect("room");
        },
        |client| client.receive_within(BRIEF).map(drop),
    ),
    (
        "a look for a reply",
        |client, _| {
            client.submit(b"?").expect("room");
        },
        |client| client.receive_within(Duration::ZERO).map(drop),
    ),
    (
        "room",
        |client, _| {
            while client.submit(&[0; 64]).is_ok() {}
            client.cancel_all();
        },
        |client| client.submit(&[0; 64]).map(drop),
    ),
    ("a free id", no_id_is_free, |client| {
        client.submit(b"").map(drop)
    }),
    ("a look for a free id", no_id_is_free, |client| {
        client.fire_bytes_within(b"", Duration::ZERO).map(drop)
    }),
];

#[test]
fn a_dead_server_is_met_by_calls_however_little_time_each_of_them_has() {
    for policy in [
        WaitPolicy::Adaptive,
        WaitPolicy::Spin,
        WaitPolicy::Park,
        WaitPolicy::DOCUMENT,
    ] {
        for (what, prepare, call) in WAITS {
            let (mut client, mut server, theirs) = connected();
            client.waiter = Waiter::of_client(policy);
            client.timeout = BRIEF;
            prepare(&mut client, &mut server);
            drop(theirs);
            let begun = Instant::now();
            for calls in 1.. {
                match call(&mut client) {
                    Err(RequestError::Timeout { .. } | RequestError::Full { .. }) => {}
                    Err(RequestError::Disconnected {
                        reason: Lost::PeerGone,
                        ..
                    }) => break,
                    other => panic!("{policy:?}, {what}: {other:?}"),
                }
                let more = match what {
                    "a look for a reply" | "a look for a free id" => begun.elapsed() < WATCHDOG,
                    _ => calls < ENOUGH,
                };
                assert!(more, "{policy:?}, {what}");
            }
        }
    }
}
