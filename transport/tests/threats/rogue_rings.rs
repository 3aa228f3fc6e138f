//! Threat 1 as a client meets it: a server on shared memory that writes nonsense into the rings, lies about its sleep, or sleeps until it is
//! woken. The client ends with a typed error, or is served.

use std::sync::atomic::Ordering;
use std::time::Duration;

use transport::error::{CloseReason, Lost, RequestError};
use transport::{Group, Synapse, WaitPolicy};

use crate::payload;
use crate::rogue::server::{LARGEST, REQUEST_TIMEOUT, RING, answers, on_shm};
use crate::rogue::{
    EMPTY, ERROR_RECORD, FULL, HEAD, PADDING, REPLIES, REPLY_RECORD, STREAMED, TAIL, commit,
};
use crate::role::WATCHDOG;
use crate::watch::{own_page, within};

/// The client's next request must end in this; and its page says that it was the server's nonsense. Returns the client: it is its word
/// that ends the connection for the server, and not that it is dropped.
fn is_poisoned(mut client: Synapse, what: &str) -> Synapse {
    let id = client.connection_id();
    match client.fire_bytes(&payload::request(9, 12_000, 12_000)) {
        Err(RequestError::Disconnected {
            reason: Lost::Poisoned(_),
            in_flight: 1,
            ..
        }) => {}
        other => panic!("{what}: {other:?}"),
    }
    assert!(
        matches!(
            client.fire_bytes(b"again"),
            Err(RequestError::Disconnected {
                reason: Lost::Poisoned(_),
                in_flight: 0,
                ..
            })
        ),
        "{what}"
    );
    within(WATCHDOG, what, || {
        let page = own_page().expect("our page");
        let of_ours = |s: &&transport::stats::Slot| s.info.connection_id == id;
        let slot = page
            .slots
            .iter()
            .filter(of_ours)
            .max_by_key(|s| s.info.opened_ns)
            .ok_or("no slot")?;
        (slot.info.close_reason == CloseReason::Poisoned as u32)
            .then_some(())
            .ok_or("not closed as poisoned")
    });
    client
}

#[test]
fn a_well_behaved_server_made_of_the_documents_bytes_is_used() {
    on_shm(
        |raw, mut rings| {
            answers(&mut rings, 300);
            raw.is_closed();
        },
        |mut client| {
            for number in 1..=300u64 {
                let (length, reply) = (16 + number as usize * 66, number as usize * 61);
                let got = client
                    .fire_bytes(&payload::request(number, length, reply))
                    .expect("a reply");
                assert!(got == payload::expected(number, reply), "{number}");
            }
        },
    );
}

/// The first part of a reply is there, and its header: enough to read all of it, most of which is not written yet.
#[test]
fn a_reply_that_is_half_there_is_not_read_where_it_lies() {
    on_shm(
        |raw, mut rings| {
            let (_, id, request) = rings.await_record();
            let answer = payload::answer(&request).expect("whole");
            let bytes = rings.prepare(id, &vec![0; answer.len()]);
            let (at, begin) = (rings.place(), rings.tail + 16);
            rings.memory.write(at + 16, &answer[..4096]);
            let word = commit(REPLY_RECORD, answer.len() as u64) | STREAMED;
            rings.memory.word(at).store(word, Ordering::Release);
            rings.out(TAIL).store(begin + 4096, Ordering::Release);
            rings.wake();
            // Until the client sleeps for the rest, or has ended.
            let begun = std::time::Instant::now();
            let asleep = rings.memory.flag(REPLIES + EMPTY);
            while asleep.load(Ordering::Acquire) == 0 && begun.elapsed() < REQUEST_TIMEOUT {
                std::thread::yield_now();
            }
            rings.memory.write(at + 16, &answer);
            rings.tail += bytes;
            rings.out(TAIL).store(rings.tail, Ordering::Release);
            rings.wake();
            raw.is_closed();
        },
        |mut client| {
            // SAFETY: of the script above, which writes to no reply that is whole.
            let trusted = unsafe { transport::TrustedServer::promise() };
            let request = payload::request(1, 100, 12_000);
            let reply = client.fire_in_place(&request, trusted).expect("a reply");
            assert!(
                *reply == *payload::expected(1, 12_000),
                "bytes of its future"
            );
        },
    );
}

#[test]
fn nonsense_in_the_rings_is_a_typed_error_and_the_end_of_the_connection() {
    let words = [
        ("kind 9", commit(9, 8)),
        ("a request from a server", commit(2, 8)),
        ("all ones", u64::MAX),
        ("a length of 4 GiB", commit(REPLY_RECORD, u32::MAX.into())),
        (
            "a length above the largest message",
            commit(REPLY_RECORD, LARGEST + 1),
        ),
        ("an error's text of 1,025 bytes", commit(ERROR_RECORD, 1025)),
        ("padding at the start", commit(PADDING, 0)),
        ("an unknown flag", commit(REPLY_RECORD, 8) | 1 << 44),
        (
            "a streamed record of 4 GiB",
            commit(REPLY_RECORD, u32::MAX.into()) | STREAMED,
        ),
    ];
    for (what, word) in words {
        on_shm(
            |raw, mut rings| {
                let (_, id, _) = rings.await_record();
                rings.prepare(id, &[0; 8]);
                let at = rings.place();
                rings.memory.word(at).store(word, Ordering::Release);
                rings.wake();
                raw.is_closed();
            },
            |client| is_poisoned(client, what),
        );
    }
    for tail in [u64::MAX, 1 << 63, RING + 8, 24, 8u64.wrapping_neg()] {
        on_shm(
            |raw, mut rings| {
                rings.await_record();
                rings.out(TAIL).store(tail, Ordering::Release);
                raw.is_closed();
            },
            |client| is_poisoned(client, &format!("tail {tail:#x}")),
        );
    }
    for head in [u64::MAX, 1 << 63, 1, RING * 4] {
        on_shm(
            |raw, mut rings| {
                answers(&mut rings, 2);
                rings.back(HEAD).store(head, Ordering::Release);
                // Never answered: the client looks at head when it sees no room.
                raw.is_closed();
            },
            |mut client| {
                for number in 1..3 {
                    client
                        .fire_bytes(&payload::request(number, 12_000, 8))
                        .expect("a reply");
                }
                let lost =
                    (0..20).find_map(|n| client.submit(&payload::request(n, 12_000, 8)).err());
                assert!(
                    matches!(
                        lost,
                        Some(RequestError::Disconnected {
                            reason: Lost::Poisoned(_),
                            ..
                        })
                    ),
                    "head {head:#x}: {lost:?}"
                );
                client
            },
        );
    }
}

#[test]
fn a_server_asleep_is_woken_for_queued_requests_by_a_group_of_every_policy() {
    for policy in [
        WaitPolicy::Adaptive,
        WaitPolicy::Park,
        WaitPolicy::Spin,
        WaitPolicy::DOCUMENT,
    ] {
        let (asleep, is_asleep) = std::sync::mpsc::channel();
        on_shm(
            |_, mut rings| {
                // One that does nothing before it is woken, as the protocol allows.
                let memory = std::sync::Arc::clone(&rings.memory);
                let flag = memory.flag(EMPTY);
                flag.store(1, Ordering::SeqCst);
                asleep.send(()).expect("the client waits");
                let begun = std::time::Instant::now();
                while flag.load(Ordering::SeqCst) == 1 && begun.elapsed() < 2 * REQUEST_TIMEOUT {
                    std::thread::sleep(Duration::from_micros(100));
                }
                answers(&mut rings, 1);
                rings.wake();
            },
            |mut client| {
                is_asleep.recv().expect("the server sleeps");
                let request = payload::request(1, 16, 8);
                client.queue(&request).expect("room");
                let mut group = Group::new(policy);
                let found = group.wait(&mut [client], REQUEST_TIMEOUT);
                assert_eq!(found.expect("in flight"), Some(0), "{policy:?}");
            },
        );
    }
}

#[test]
fn a_server_that_waits_for_room_is_told_of_the_last_of_it_by_a_client_that_only_looks() {
    let (over, is_over) = std::sync::mpsc::channel();
    on_shm(
        |_, mut rings| {
            let flag = std::sync::Arc::clone(&rings.memory);
            let flag = flag.flag(REPLIES + FULL);
            // Too little of it to be told at once: an eighth of the ring.
            answers(&mut rings, 1);
            flag.store(1, Ordering::SeqCst);
            within(WATCHDOG, "woken", || match flag.load(Ordering::SeqCst) {
                0 => Ok(()),
                flag => Err(flag),
            });
            over.send(()).expect("the client looks");
        },
        |mut client| {
            client.submit(&payload::request(1, 16, 8)).expect("room");
            while is_over.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                client.try_receive().expect("nothing amiss");
            }
        },
    );
}

#[test]
fn a_server_asleep_is_woken_for_a_draft() {
    let (asleep, is_asleep) = std::sync::mpsc::channel();
    on_shm(
        |_, rings| {
            let flag = rings.memory.flag(EMPTY);
            flag.store(1, Ordering::SeqCst);
            asleep.send(()).expect("the client waits");
            within(WATCHDOG, "woken", || match flag.load(Ordering::SeqCst) {
                0 => Ok(()),
                flag => Err(flag),
            });
        },
        |mut client| {
            is_asleep.recv().expect("the server sleeps");
            let mut draft = client.draft(8).expect("room");
            draft.extend_from_slice(b"wake up!").expect("room");
            draft.submit().expect("sent");
            client
        },
    );
}

#[test]
fn flags_that_lie_cost_time_and_nothing_else() {
    on_shm(
        |raw, mut rings| {
            for round in 0..200u32 {
                let (_, id, request) = rings.await_record();
                for flag in [EMPTY, 0x400 + EMPTY, 0x80, 0x480] {
                    rings
                        .memory
                        .flag(flag)
                        .store(round.wrapping_mul(0x9e37_79b9), Ordering::Relaxed);
                }
                rings.send(id, &payload::answer(&request).expect("whole"));
            }
            raw.is_closed();
        },
        |mut client| {
            for number in 1..=200u64 {
                let got = client
                    .fire_bytes(&payload::request(number, 100, 100))
                    .expect("a reply");
                assert!(got == payload::expected(number, 100));
            }
        },
    );
}

/// Waits for a reply that does not come until the connection has ended.
fn waits_for_the_end(mut client: Synapse) -> Synapse {
    client.submit(b"anybody").expect("room");
    let mut group = Group::new(WaitPolicy::Park);
    loop {
        let found = group.wait(std::slice::from_mut(&mut client), WATCHDOG);
        assert!(matches!(found, Ok(Some(0))), "{found:?}");
        match client.try_receive() {
            // Found because of the zeros.
            Ok(None) => {}
            Err(RequestError::Disconnected {
                reason: Lost::PeerGone,
                in_flight: 1,
                ..
            }) => return client,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_no_doorbell_ends_a_connection_that_waits_for_one() {
    on_shm(
        |raw, mut rings| {
            rings.await_record();
            raw.say(&[0, 0, 7]);
            raw.is_closed();
        },
        waits_for_the_end,
    );
}

#[test]
fn doorbells_that_nobody_asked_for_end_a_connection_and_do_not_keep_its_loop_busy() {
    on_shm(
        |raw, mut rings| {
            rings.await_record();
            // Each wakes it once more.
            while raw.say(&[0]) {}
        },
        waits_for_the_end,
    );
}
