//! Threats 13, 15 and 17 as a client meets them: a server that speaks another version, falls silent, refuses, or says what nobody expects. The
//! client ends with a typed error, or goes on over the socket and says why.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use transport::error::ConnectError;
use transport::{Backoff, Config, Reconnecting, Synapse, UpgradeError};

use crate::rogue::server::{
    LARGEST, RING, TOTAL, against, echo, ends_the_upgrade, good, offer, until_upgrade, welcome,
    works_over_the_socket,
};
use crate::rogue::{
    COMMIT, HELLO, MESSAGE, NO_OFFER, OFFER, READY, REFUSED, REPLY, Raw, UPGRADE, VERSION, WELCOME,
    header, message,
};
use crate::role::WATCHDOG;

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
        ends_the_upgrade(what, |raw| {
            raw.say(&bytes);
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

#[test]
fn who_reconnects_tries_again_only_what_may_pass() {
    let backoff = Backoff {
        first: Duration::from_millis(1),
        longest: Duration::from_millis(1),
        // What ends it is an answer.
        patience: WATCHDOG,
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
                // A second one is enough to know: it is refused for good.
                for answer in [&answer, &refused(1)] {
                    let mut raw = Raw::over(listener.accept().expect("somebody").0);
                    let mut hello = [0; MESSAGE];
                    if raw.0.read_exact(&mut hello).is_err() {
                        // The test itself: all is over.
                        break;
                    }
                    raw.say(answer);
                    came += 1;
                }
                came
            });
            Reconnecting::connect(&path, &config, backoff).expect_err("no server");
            // Nobody may be there to accept it.
            let _ = std::os::unix::net::UnixStream::connect(&path);
            server.join().expect("no panic")
        });
        assert_eq!(came, attempts, "{:?}", answer.get(..32));
    }
}
