//! Threat 14 as a client meets it once it is connected: a server that answers requests which nobody made, for ever. It costs each kind of caller
//! a bounded number of looks.

use std::io::Read;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use transport::error::{Lost, RequestError};
use transport::{Config, Group, Synapse, TransportChoice, WaitPolicy};

use crate::rogue::server::{REQUEST_TIMEOUT, SEALS, against, memfd, offer, on_shm, welcome};
use crate::rogue::{
    COMMIT, DATA, EMPTY, HELLO, Memory, READY, REPLIES, REPLY, REPLY_RECORD, Raw, Rings, STREAMED,
    TAIL, UPGRADE, WELCOME, commit, header, message,
};
use crate::role::WATCHDOG;
use crate::watch::own_page;

#[test]
fn a_server_that_answers_nobodys_requests_for_ever_does_not_keep_a_caller_beyond_its_timeout() {
    // Over the rings: as fast as memory goes.
    on_shm(
        |raw, mut rings| {
            rings.await_record();
            while !raw.is_closed_within(Duration::ZERO) {
                for _ in 0..10_000 {
                    rings.flood(1 << 40);
                }
            }
        },
        |mut client| {
            let id = client.connection_id();
            let begun = std::time::Instant::now();
            assert!(matches!(
                client.fire_bytes(b"anybody"),
                Err(RequestError::Timeout { .. })
            ));
            assert!(begun.elapsed() < WATCHDOG);
            let page = own_page().expect("our page");
            let slot = page
                .slots
                .iter()
                .filter(|s| s.info.connection_id == id)
                .max_by_key(|s| s.info.opened_ns);
            assert!(slot.expect("our slot").rx.rx_invalid > 0, "counted");
        },
    );
}

#[test]
fn one_look_discards_a_bounded_number_of_replies_to_nobody() {
    let (flooded, is_flooded) = std::sync::mpsc::channel();
    on_shm(
        |raw, mut rings| {
            rings.await_record();
            rings.flood(1 << 40);
            flooded.send(()).expect("the client waits");
            raw.is_closed();
        },
        |mut client| {
            let id = client.connection_id();
            client.submit(b"anybody").expect("room");
            is_flooded.recv().expect("the server floods");
            assert!(matches!(client.try_receive(), Ok(None)));
            let page = own_page().expect("our page");
            let slot = page
                .slots
                .iter()
                .find(|s| s.info.connection_id == id && s.rx.rx_invalid > 0);
            let discarded = slot.expect("our slot").rx.rx_invalid;
            assert!(
                (1..1000).contains(&discarded),
                "{discarded} of some 4000 in one look"
            );
        },
    );
}

/// Were they copied, the looks of one call, which have no clock in between, would copy 4,096 of them.
#[test]
fn large_replies_to_nobodys_requests_are_not_copied() {
    const RING: u64 = 256 << 20;
    // Four records are a lap.
    const LENGTH: u64 = RING / 4 - 16;
    const TOTAL: u64 = DATA as u64 + 2 * RING;
    let script = |mut raw: Raw| {
        let mut rings = Rings::server(Memory::map(memfd(TOTAL, SEALS), RING));
        raw.expect(HELLO);
        let welcome = [(24, 1), (40, 1 << 50), (48, LENGTH)];
        raw.say(&message(WELCOME, 0, &welcome));
        raw.expect(UPGRADE);
        let sizes = offer(&[(32, TOTAL), (40, RING), (48, RING), (56, LENGTH)]);
        raw.say_with(&sizes, &[rings.memory.fd.as_fd()]);
        raw.expect(COMMIT);
        rings.flood_large(1 << 40, LENGTH);
        raw.say(&message(READY, 1, &[]));
        rings.await_record();
        raw.is_closed();
        // Nobody wrote their payloads: memory is taken where somebody reads them.
        let stat = nix::sys::stat::fstat(&rings.memory.fd).expect("a file");
        let touched = stat.st_blocks as u64 * 512;
        assert!(touched < LENGTH, "{touched} bytes of it");
    };
    against(script, |path, config| {
        let config = Config {
            ring_bytes: RING as usize,
            max_message_bytes: LENGTH as usize,
            request_timeout: Duration::from_millis(200),
            ..config
        };
        let mut client = Synapse::connect(path, &config).expect("a client");
        assert!(client.is_shm());
        let ended = client.fire_bytes(b"anybody").map(<[u8]>::len);
        assert!(
            matches!(ended, Err(RequestError::Timeout { .. })),
            "{ended:?}"
        );
        let page = own_page().expect("our page");
        let mut slots = page.slots.iter();
        let slot = slots.find(|s| s.info.connection_id == 1 << 50);
        assert_eq!(slot.expect("our slot").rx.rx_invalid, 3, "all that came");
    });
}

/// Were they followed, as one that somebody waits for is, each would take 1000 looks and more, and those of one call millions.
#[test]
fn a_reply_to_nobodys_request_that_creeps_in_is_not_followed() {
    const LENGTH: usize = 12_000;
    let (begin, has_begun) = std::sync::mpsc::channel();
    let (look, has_looked) = std::sync::mpsc::channel();
    let has_looked = std::sync::Mutex::new(has_looked);
    on_shm(
        |raw, mut rings| {
            rings.await_record();
            let bytes = rings.prepare(1 << 40, &[0; LENGTH]);
            let word = commit(REPLY_RECORD, LENGTH as u64) | STREAMED;
            let place = rings.place();
            rings.memory.word(place).store(word, Ordering::Release);
            for part in [16 + 4096, bytes] {
                let tail = rings.tail + part;
                rings.out(TAIL).store(tail, Ordering::Release);
                begin.send(()).expect("the client waits");
                let has_looked = has_looked.lock().expect("one server");
                has_looked.recv().expect("the client looks");
            }
            raw.is_closed();
        },
        |mut client| {
            let id = client.connection_id();
            client.submit(b"anybody").expect("room");
            for _ in ["a part of it", "all of it"] {
                has_begun.recv().expect("the server sends");
                for _ in 0..3 {
                    assert!(matches!(client.try_receive(), Ok(None)));
                }
                look.send(()).expect("the server waits");
            }
            let page = own_page().expect("our page");
            let slot = page
                .slots
                .iter()
                .find(|s| s.info.connection_id == id && s.rx.rx_invalid == 1);
            let looks = slot.expect("our slot, and one reply").rx.rx_follow_loads;
            assert!(looks < 10, "{looks}");
        },
    );
}

/// A call of a service on tokio that meets a flood of replies to nobody must end with the connection, after few of them: its thread is
/// everybody's. How many were counted on that connection.
fn meets_a_flood(client: Synapse) -> u64 {
    let id = client.connection_id();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let ended = runtime.block_on(async {
        let client = transport::AsyncSynapse::new(client).expect("a descriptor");
        client.fire_bytes(b"anybody").await
    });
    assert!(
        matches!(
            ended,
            Err(RequestError::Disconnected {
                reason: Lost::BadFrame(_),
                ..
            })
        ),
        "{ended:?}"
    );
    let page = own_page().expect("our page");
    let slots = page.slots.iter();
    slots
        .filter(|s| s.info.connection_id == id)
        .map(|s| s.rx.rx_invalid)
        .max()
        .expect("our slot")
}

#[test]
fn a_server_that_answers_nobodys_requests_for_ever_does_not_hold_a_runtime_up() {
    on_shm(
        |raw, mut rings| {
            while !raw.is_closed_within(Duration::ZERO) {
                // And rings the doorbell, as often as it is asked to.
                let bell = rings.memory.flag(REPLIES + EMPTY);
                if bell.swap(0, Ordering::Relaxed) != 0 {
                    rings.flood(1 << 40);
                    raw.say(&[0]);
                }
            }
        },
        |client| {
            let counted = meets_a_flood(client);
            assert!((1..1000).contains(&counted), "{counted}");
        },
    );
    // Over the socket, faster than they can be read; given up only so that a client that never ends shows.
    against(
        |mut raw| {
            raw.expect(HELLO);
            raw.say(&welcome());
            let mut request = [0; 24 + b"anybody".len()];
            raw.0.read_exact(&mut request).expect("a request");
            let flood = header(REPLY, 1 << 40, 0, 0).repeat(4096);
            let begun = std::time::Instant::now();
            while begun.elapsed() < 2 * REQUEST_TIMEOUT && raw.say(&flood) {}
        },
        |path, config| {
            let config = Config {
                transport: TransportChoice::Socket,
                ..config
            };
            let client = Synapse::connect(path, &config).expect("a client");
            let counted = meets_a_flood(client);
            assert!((1..5000).contains(&counted), "{counted}");
        },
    );
}

/// A thread that waits for many connections has no clock in between: a flood of replies to nobody on one of them must end that one.
fn group_meets_a_flood(mut client: Synapse) {
    client.submit(b"anybody").expect("room");
    let mut group = Group::new(WaitPolicy::Adaptive);
    let begun = std::time::Instant::now();
    loop {
        let found = group.wait(std::slice::from_mut(&mut client), WATCHDOG);
        assert!(matches!(found, Ok(Some(0))), "{found:?}");
        match client.try_receive() {
            Ok(None) => assert!(begun.elapsed() < WATCHDOG, "found again and again"),
            Err(RequestError::Disconnected {
                reason: Lost::BadFrame(_),
                in_flight: 1,
                ..
            }) => break,
            other => panic!("{other:?}"),
        }
    }
    // Who asks later is told the same: that is not a server that has gone.
    let later = client.submit(b"anybody");
    assert!(
        matches!(
            later,
            Err(RequestError::Disconnected {
                reason: Lost::BadFrame(_),
                in_flight: 0,
                ..
            })
        ),
        "{later:?}"
    );
}

#[test]
fn a_server_that_answers_nobodys_requests_for_ever_does_not_keep_a_group_busy() {
    on_shm(
        |raw, mut rings| {
            rings.await_record();
            while !raw.is_closed_within(Duration::ZERO) {
                rings.flood(1 << 40);
            }
        },
        group_meets_a_flood,
    );
    against(
        |mut raw| {
            raw.expect(HELLO);
            raw.say(&welcome());
            let flood = header(REPLY, 1 << 40, 0, 0).repeat(4096);
            while raw.say(&flood) {}
        },
        |path, config| {
            let config = Config {
                transport: TransportChoice::Socket,
                ..config
            };
            group_meets_a_flood(Synapse::connect(path, &config).expect("a client"));
        },
    );
}
