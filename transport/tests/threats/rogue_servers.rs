//! Rows 1, 4, 5, 15, 16 and 17 as a client meets them: a server that sends the wrong descriptor, the wrong sizes, the wrong version, nothing at
//! all, or nonsense in the rings. The client ends with a typed error, or goes on over the socket and says why.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use transport::error::{CloseReason, ConnectError, Lost, RequestError, Step};
use transport::{
    Backoff, Config, Group, Reconnecting, Synapse, TransportChoice, UpgradeError, WaitPolicy,
};

use crate::payload;
use crate::rogue::{
    COMMIT, DATA, DECLINE, EMPTY, HEAD, HELLO, MESSAGE, Memory, NO_OFFER, OFFER, PADDING, READY,
    REFUSED, REPLY, REPLY_RECORD, REQUEST, Raw, Rings, STREAMED, TAIL, UPGRADE, VERSION, WELCOME,
    commit, header, message,
};
use crate::role::WATCHDOG;
use crate::watch::{own_page, within};

const RING: u64 = 1 << 16;
const TOTAL: u64 = DATA as u64 + 2 * RING;
const LARGEST: u64 = 20_000;
/// What some of the tests wait for.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// Runs `script` as the server for one client, and `client` with the settings to reach it.
fn against<T>(
    script: impl FnOnce(Raw) + Send,
    client: impl FnOnce(&std::path::Path, Config) -> T,
) -> T {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).expect("a socket");
    let config = Config {
        name: "threats".into(),
        ring_bytes: RING as usize,
        max_message_bytes: LARGEST as usize,
        handshake_timeout: Duration::from_millis(500),
        request_timeout: REQUEST_TIMEOUT,
        stats_dir: Some(dir.path().join("stats")),
        ..Config::default()
    };
    std::thread::scope(|scope| {
        scope.spawn(move || script(Raw::over(listener.accept().expect("a client").0)));
        client(&path, config)
    })
}

fn welcome() -> Vec<u8> {
    // One id per connection: tests look for theirs in the page that all clients of this process share.
    static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
    let id = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    message(WELCOME, 0, &[(24, 1), (40, id), (48, LARGEST)])
}

fn offer(fields: &[(usize, u64)]) -> Vec<u8> {
    let mut all = vec![(24, 1), (32, TOTAL), (40, RING), (48, RING), (56, LARGEST)];
    all.extend_from_slice(fields);
    message(OFFER, 1, &all)
}

/// Hears HELLO, welcomes, hears UPGRADE.
fn until_upgrade(raw: &mut Raw) {
    raw.expect(HELLO);
    raw.say(&welcome());
    raw.expect(UPGRADE);
}

fn memfd(length: u64, seals: SealFlag) -> OwnedFd {
    let fd = memfd_create(
        c"shm-ring",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )
    .expect("a memfd");
    nix::unistd::ftruncate(&fd, length as i64).expect("its size");
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).expect("its seals");
    fd
}

fn good() -> OwnedFd {
    memfd(TOTAL, SEALS)
}

/// Answers `count` requests over the socket.
fn echo(raw: &mut Raw, count: usize) {
    for _ in 0..count {
        let mut head = [0; 24];
        raw.0.read_exact(&mut head).expect("a request");
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
        assert_eq!(word(4), REQUEST);
        let mut request = vec![0; word(16) as usize];
        raw.0.read_exact(&mut request).expect("its payload");
        let reply = payload::answer(&request).expect("whole");
        raw.say(&header(REPLY, u64::from(word(8)), reply.len() as u32, 0));
        raw.say(&reply);
    }
}

fn works_over_the_socket(client: &mut Synapse) {
    assert!(!client.is_shm());
    for number in 1..4 {
        let reply = client
            .fire_bytes(&payload::request(number, 500, 100))
            .expect("a reply");
        assert_eq!(reply, payload::expected(number, 100));
    }
}

#[test]
fn a_descriptor_that_is_no_memfd_sealed_and_of_the_right_size_is_declined_and_the_socket_serves() {
    let disk = || -> OwnedFd {
        let file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).expect("a file");
        file.set_len(TOTAL).expect("its size");
        file.into()
    };
    let in_dev_shm = || -> OwnedFd {
        let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
        file.set_len(TOTAL).expect("its size");
        file.into()
    };
    let pipe = || -> OwnedFd { std::io::pipe().expect("a pipe").0.into() };
    let write_sealed = || memfd(TOTAL, SEALS | SealFlag::F_SEAL_WRITE);
    let cases: [(&str, &dyn Fn() -> OwnedFd); 9] = [
        ("a file on disk", &disk),
        ("a file in /dev/shm", &in_dev_shm),
        ("a pipe", &pipe),
        ("a short memfd", &|| memfd(TOTAL - 4096, SEALS)),
        ("a long memfd", &|| memfd(TOTAL + 4096, SEALS)),
        ("an unsealed memfd", &|| memfd(TOTAL, SealFlag::empty())),
        ("a memfd that can grow", &|| {
            memfd(TOTAL, SealFlag::F_SEAL_SHRINK)
        }),
        ("a memfd that can shrink", &|| {
            memfd(TOTAL, SealFlag::F_SEAL_GROW)
        }),
        ("a memfd sealed against writing", &write_sealed),
    ];
    for (what, make) in cases {
        let fd = make();
        let script = |mut raw: Raw| {
            until_upgrade(&mut raw);
            raw.say_with(&offer(&[]), &[fd.as_fd()]);
            let declined = raw.expect(DECLINE);
            assert_eq!(
                declined.u32(24),
                Step::Validate as u32,
                "{what}: {declined:?}"
            );
            echo(&mut raw, 3);
        };
        against(script, |path, config| {
            let mut client = Synapse::connect(path, &config).expect(what);
            let why = client.fallback().expect(what);
            assert_eq!((why.step, why.at_peer), (Step::Validate, false), "{what}");
            works_over_the_socket(&mut client);
        });
    }
}

#[test]
fn too_few_and_too_many_descriptors_are_declined_and_all_closed() {
    for count in [0, 2, 3, 253] {
        let (mut pipe, write) = std::io::pipe().expect("a pipe");
        let script = |mut raw: Raw| {
            until_upgrade(&mut raw);
            let fds: Vec<BorrowedFd<'_>> = vec![write.as_fd(); count];
            raw.say_with(&offer(&[]), &fds);
            raw.expect(DECLINE);
            echo(&mut raw, 3);
        };
        against(script, |path, config| {
            let mut client = Synapse::connect(path, &config).expect("a client");
            let why = client.fallback().expect("a reason");
            assert_eq!(
                (why.step, why.limit, why.used),
                (Step::FdTruncated, 1, count as u64)
            );
            works_over_the_socket(&mut client);
        });
        drop(write);
        assert_eq!(
            pipe.read(&mut [0]).expect("readable"),
            0,
            "all {count} are closed"
        );
    }
}

#[test]
fn demanded_shared_memory_that_cannot_be_had_is_an_error_with_the_step() {
    let fd = memfd(TOTAL, SealFlag::empty());
    let script = |mut raw: Raw| {
        until_upgrade(&mut raw);
        raw.say_with(&offer(&[]), &[fd.as_fd()]);
        raw.expect(DECLINE);
        raw.is_closed();
    };
    against(script, |path, mut config| {
        config.transport = TransportChoice::Shm;
        match Synapse::connect(path, &config) {
            Err(ConnectError::NoSharedMemory(why)) => assert_eq!(why.step, Step::Validate),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn an_offer_of_impossible_sizes_ends_the_connection() {
    let cases = [
        ("a request ring of 0", (40, 0)),
        ("a request ring larger than asked for", (40, RING * 2)),
        ("a reply ring that is no power of two", (48, RING - 4096)),
        ("a reply ring of 2^63", (48, 1 << 63)),
        ("a total that does not fit", (32, TOTAL - 1)),
        ("a total of everything", (32, u64::MAX)),
        ("another largest message", (56, LARGEST + 1)),
        ("another attempt", (8, 2)),
    ];
    for (what, field) in cases {
        let fd = good();
        let script = |mut raw: Raw| {
            until_upgrade(&mut raw);
            raw.say_with(&offer(&[field]), &[fd.as_fd()]);
            raw.is_closed();
        };
        against(script, |path, config| {
            let error = Synapse::connect(path, &config).expect_err(what);
            assert!(
                matches!(error, ConnectError::Refused { .. }),
                "{what}: {error}"
            );
        });
    }
}

/// Of what a newer server may rightly offer, nothing is taken for memory that is no ring: that would be an alarm about the peer.
#[test]
fn ring_memory_of_another_version_is_declined_as_such_and_the_socket_serves() {
    const SMALL: u64 = 10_000;
    let cases: [(&str, &[(usize, u64)], _); 2] = [
        ("a layout of tomorrow", &[(24, 9), (56, SMALL)], (1, 9)),
        (
            "rings of two sizes",
            &[(32, TOTAL - RING / 2), (48, RING / 2), (56, SMALL)],
            (RING, RING / 2),
        ),
    ];
    for (what, fields, found) in cases {
        let total = fields.iter().find(|f| f.0 == 32).map_or(TOTAL, |f| f.1);
        let fd = memfd(total, SEALS);
        let script = |mut raw: Raw| {
            raw.expect(HELLO);
            raw.say(&message(WELCOME, 0, &[(24, 1), (40, 1), (48, SMALL)]));
            raw.expect(UPGRADE);
            raw.say_with(&offer(fields), &[fd.as_fd()]);
            let declined = raw.expect(DECLINE);
            assert_eq!(declined.u32(24), Step::Layout as u32, "{what}");
            assert_eq!((declined.u64(32), declined.u64(40)), found, "{what}");
            echo(&mut raw, 3);
        };
        against(script, |path, config| {
            let mut client = Synapse::connect(path, &config).expect(what);
            let why = client.fallback().expect(what);
            assert_eq!(
                (why.step, why.limit, why.used),
                (Step::Layout, found.0, found.1)
            );
            works_over_the_socket(&mut client);
        });
    }
}

#[test]
fn another_version_is_an_error_that_names_both() {
    let cases = [
        message(
            REFUSED,
            0,
            &[
                (16, 232 | (9 << 16 | 3) << 32),
                (24, 2 | u64::from(VERSION) << 32),
            ],
        ),
        message(
            WELCOME,
            0,
            &[(16, 232 | (9 << 16 | 3) << 32), (40, 77), (48, LARGEST)],
        ),
    ];
    for bytes in cases {
        let script = |mut raw: Raw| {
            raw.expect(HELLO);
            raw.say(&bytes);
            raw.is_closed();
        };
        against(script, |path, config| {
            let text = Synapse::connect(path, &config)
                .expect_err("refused")
                .to_string();
            assert!(text.contains("9.3") && text.contains("1.0"), "{text}");
        });
    }
}

#[test]
fn a_server_that_cuts_or_falls_silent_at_any_step_is_an_error_within_the_deadline() {
    // What has been said when it stops: nothing, WELCOME, OFFER; and instead of READY.
    for silent in [false, true] {
        for said in 0..4 {
            let fd = good();
            let script = |mut raw: Raw| {
                raw.expect(HELLO);
                if said > 0 {
                    raw.say(&welcome());
                    raw.expect(UPGRADE);
                }
                if said > 1 {
                    raw.say_with(&offer(&[]), &[fd.as_fd()]);
                    raw.expect(COMMIT);
                }
                if said > 2 {
                    raw.say(&message(READY, 1, &[])[..100]);
                }
                if silent {
                    // It is the client that ends it.
                    raw.is_closed();
                }
            };
            against(script, |path, config| {
                let error = Synapse::connect(path, &config).expect_err("nobody there");
                let fits = match error {
                    ConnectError::Unresponsive { .. } => silent,
                    ConnectError::Refused { .. } => !silent,
                    _ => false,
                };
                assert!(fits, "said {said}, silent {silent}: {error}");
            });
        }
    }
}

#[test]
fn messages_nobody_expects_and_noise_end_the_connection() {
    let noise = vec![0xa5; 1 << 20];
    let cases: [(&str, Vec<u8>); 7] = [
        ("noise", noise),
        ("a second WELCOME", welcome()),
        ("READY at once", message(READY, 1, &[])),
        ("COMMIT from a server", message(COMMIT, 1, &[])),
        (
            "an OFFER of attempt 0",
            message(
                OFFER,
                0,
                &[(24, 1), (32, TOTAL), (40, RING), (48, RING), (56, LARGEST)],
            ),
        ),
        (
            "NO_OFFER of another attempt",
            message(NO_OFFER, 2, &[(24, 2)]),
        ),
        (
            "a reply",
            header(REPLY, 1, 0, 0)
                .into_iter()
                .chain(vec![0; MESSAGE - 24])
                .collect(),
        ),
    ];
    for (what, bytes) in cases {
        let script = |mut raw: Raw| {
            until_upgrade(&mut raw);
            raw.say(&bytes);
            raw.is_closed();
        };
        against(script, |path, config| {
            let error = Synapse::connect(path, &config).expect_err(what);
            assert!(
                matches!(error, ConnectError::Refused { .. }),
                "{what}: {error}"
            );
        });
    }
}

#[test]
fn a_server_that_says_no_to_the_upgrade_serves_over_the_socket_and_the_reason_is_known() {
    let script = |mut raw: Raw| {
        until_upgrade(&mut raw);
        raw.say(&message(
            NO_OFFER,
            1,
            &[(24, 2 | 24 << 32), (32, 64), (40, 64)],
        ));
        echo(&mut raw, 3);
        assert_eq!(raw.expect(UPGRADE).u64(8), 2, "the second attempt");
        raw.say(&message(NO_OFFER, 2, &[(24, 14)]));
        echo(&mut raw, 3);
    };
    against(script, |path, config| {
        let mut client = Synapse::connect(path, &config).expect("a client");
        assert_eq!(
            client.fallback().expect("a reason").to_string(),
            "memfd_create → EMFILE, 64/64 (at the peer)"
        );
        works_over_the_socket(&mut client);
        assert!(matches!(
            client.try_upgrade_to_shm(),
            Err(UpgradeError::Fallback(_))
        ));
        works_over_the_socket(&mut client);
    });
}

/// Serves a client on shared memory: `script` gets the rings once the client is on them.
fn on_shm<T>(script: impl FnOnce(&mut Raw, Rings) + Send, client: impl FnOnce(Synapse) -> T) -> T {
    let serve = |mut raw: Raw| {
        let fd = good();
        // Mapped first: once the client has it, nobody maps it for writing any more.
        let rings = Rings::server(Memory::map(fd, RING));
        until_upgrade(&mut raw);
        raw.say_with(&offer(&[]), &[rings.memory.fd.as_fd()]);
        raw.expect(COMMIT);
        raw.say(&message(READY, 1, &[]));
        script(&mut raw, rings);
    };
    against(serve, |path, config| {
        let synapse = Synapse::connect(path, &config).expect("a client");
        assert!(synapse.is_shm());
        client(synapse)
    })
}

fn answers(rings: &mut Rings, count: usize) {
    for _ in 0..count {
        let (_, id, request) = rings.await_record();
        rings.send(id, &payload::answer(&request).expect("whole"));
    }
}

/// The client's next request must end in this; and its page says that it was the server's nonsense.
fn is_poisoned(mut client: Synapse, what: &str) {
    let id = client.connection_id();
    match client.fire_bytes(&payload::request(9, 12_000, 12_000)) {
        Err(RequestError::Disconnected {
            reason: Lost::Poisoned(_),
            in_flight: 1,
        }) => {}
        other => panic!("{what}: {other:?}"),
    }
    assert!(
        matches!(
            client.fire_bytes(b"again"),
            Err(RequestError::Disconnected { .. })
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
            },
        );
    }
}

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
            rings.await_record();
            // And rings the doorbell.
            while raw.say(&[0]) {
                rings.flood(1 << 40);
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
            }) => return,
            other => panic!("{other:?}"),
        }
    }
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

#[test]
fn who_reconnects_tries_again_only_what_may_pass() {
    let backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(1),
        patience: Duration::from_millis(200),
    };
    let refused = |reason: u64| message(REFUSED, 0, &[(24, reason)]);
    let mut newer = welcome();
    newer[20..24].copy_from_slice(&(2 * VERSION).to_le_bytes());
    let noise = b"HTTP/1.1 400 Bad Request".repeat(11);
    let for_good = [1, 2, 3, 4].map(refused).into_iter().chain([newer, noise]);
    // Too slow, full, short of descriptors, a reason that we don't know; and one who ends.
    let for_now = [5, 6, 7, 77].map(refused).into_iter().chain([Vec::new()]);
    let answers = for_good.map(|answer| (answer, 1));
    for (answer, attempts) in answers.chain(for_now.map(|answer| (answer, 2))) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).expect("a socket");
        let config = Config {
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let came = std::thread::scope(|scope| {
            let server = scope.spawn(|| {
                let mut came = 0;
                // A second one is enough to know; then nobody is there.
                while came < 2 {
                    let mut raw = Raw::over(listener.accept().expect("somebody").0);
                    let mut hello = [0; MESSAGE];
                    if raw.0.read_exact(&mut hello).is_err() {
                        // The test itself: all is over.
                        break;
                    }
                    raw.say(&answer);
                    came += 1;
                }
                std::fs::remove_file(&path).expect("ours");
                came
            });
            Reconnecting::connect(&path, &config, backoff).expect_err("no server");
            // It may be gone.
            let _ = std::os::unix::net::UnixStream::connect(&path);
            server.join().expect("no panic")
        });
        assert_eq!(came, attempts, "{:?}", answer.get(..32));
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
