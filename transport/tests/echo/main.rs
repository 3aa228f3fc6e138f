//! One suite, every transport and wait policy: what a user of `Synapse` and `Membrane` relies on.

mod ending;
mod failures;
mod into;
#[path = "../own_page/mod.rs"]
mod own_page;
mod turns;
mod waits;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use transport::error::RequestError;
use transport::{Config, Membrane, Reply, Synapse, TransportChoice, WaitPolicy};

/// Ends a hang; nothing here takes a tenth of it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);

static COUNTER: AtomicUsize = AtomicUsize::new(0);

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Config,
}

impl World {
    pub(crate) fn new(transport: TransportChoice, wait: WaitPolicy) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            name: format!("echo-{}", COUNTER.fetch_add(1, Ordering::Relaxed)),
            ring_bytes: 256 << 10,
            max_message_bytes: 100_000,
            transport,
            wait,
            request_timeout: WATCHDOG,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        Self { dir, config }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("s")
    }

    pub(crate) fn serve(
        &self,
        handler: impl Fn(&[u8], &mut Reply<'_>) + Send + Sync + 'static,
    ) -> Membrane {
        // The server offers both; what is used is the client's choice.
        let config = Config {
            transport: TransportChoice::Auto,
            ..self.config.clone()
        };
        Membrane::bind(self.path(), &config, handler).expect("a server")
    }

    pub(crate) fn client(&self) -> Synapse {
        let synapse = Synapse::connect(self.path(), &self.config).expect("a client");
        assert_eq!(
            synapse.is_shm(),
            self.config.transport != TransportChoice::Socket
        );
        synapse
    }
}

pub(crate) fn echo(request: &[u8], reply: &mut Reply<'_>) {
    reply
        .extend_from_slice(request)
        .expect("as large as the request");
}

pub(crate) fn everywhere(test: impl Fn(World)) {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        for wait in [
            WaitPolicy::Adaptive,
            WaitPolicy::Park,
            WaitPolicy::Spin,
            WaitPolicy::DOCUMENT,
        ] {
            test(World::new(transport, wait));
        }
    }
}

pub(crate) fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (seed * 31 + i * 7) as u8).collect()
}

#[test]
fn every_size_comes_back_whole_and_in_turn() {
    everywhere(|world| {
        let server = world.serve(echo);
        let mut client = world.client();
        for (i, n) in [
            0, 1, 7, 8, 64, 4096, 12_287, 12_288, 20_000, 65_536, 99_999, 100_000,
        ]
        .into_iter()
        .cycle()
        .take(200)
        .enumerate()
        {
            let request = pattern(i, n);
            assert_eq!(
                client.fire_bytes(&request).expect("a reply"),
                &request[..],
                "{n} bytes"
            );
        }
        drop(client);
        server.shutdown();
    });
}

#[test]
fn pipelined_replies_come_in_order_and_name_their_request() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let mut client = world.client();
        let mut expected = std::collections::VecDeque::new();
        for i in 0..2000 {
            let request = pattern(i, i * 13 % 3000);
            loop {
                match client.submit(&request) {
                    Ok(id) => break expected.push_back((id, request)),
                    Err(RequestError::Full { .. }) => {
                        let (id, reply) = client.receive().expect("a reply");
                        let (want, bytes) = expected.pop_front().expect("submitted");
                        assert_eq!((id, reply), (want, &bytes[..]));
                    }
                    Err(e) => panic!("{e}"),
                }
            }
        }
        while let Some((want, bytes)) = expected.pop_front() {
            let (id, reply) = client.receive().expect("a reply");
            assert_eq!((id, reply), (want, &bytes[..]));
        }
        assert!(matches!(
            client.receive(),
            Err(RequestError::NothingInFlight)
        ));
    });
}

#[test]
fn a_batch_is_answered_in_order() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let mut client = world.client();
        let requests: Vec<Vec<u8>> = (0..500).map(|i| pattern(i, 1000)).collect();
        let mut seen = 0;
        client
            .fire_batch(&requests, |i, reply| {
                assert_eq!((i, reply.expect("a reply")), (seen, &requests[i][..]));
                seen += 1;
            })
            .expect("a batch");
        assert_eq!(seen, 500);
    });
}

#[test]
fn a_request_of_a_batch_that_fails_hides_the_fate_of_no_other() {
    everywhere(|world| {
        let _server = world.serve(|request, reply| match request {
            b"no" => reply.fail("as asked"),
            other => reply.extend_from_slice(other).expect("room"),
        });
        let mut client = world.client();
        let mut seen = Vec::new();
        client
            .fire_batch(&["a", "no", "b", "no", "c"], |i, answer| {
                seen.push(match answer {
                    Ok(reply) => (i, String::from_utf8_lossy(reply).into_owned()),
                    Err(RequestError::Remote { message, .. }) => (i, message),
                    Err(other) => panic!("{other:?}"),
                });
            })
            .expect("a batch");
        let seen: Vec<_> = seen.iter().map(|(i, said)| (*i, &said[..])).collect();
        let all = ["a", "as asked", "b", "as asked", "c"];
        assert!(seen.into_iter().eq(all.into_iter().enumerate()));
        assert_eq!(client.fire_bytes(b"on").expect("a reply"), b"on");
    });
}

#[test]
fn a_client_can_ask_who_serves_it() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let peer = world.client().peer();
        let own = nix::unistd::geteuid().as_raw();
        assert_eq!((peer.pid, peer.uid), (std::process::id(), own));
    });
}

#[test]
fn a_panic_in_the_middle_of_a_batch_leaves_none_of_its_replies_to_the_next_call() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let mut client = world.client();
        let requests: Vec<Vec<u8>> = (0..50).map(|i| pattern(i, 1000)).collect();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            client.fire_batch(&requests, |i, _| {
                if i == 3 {
                    // A panic as any other, but without a message on standard error.
                    resume_unwind(Box::new("on purpose"));
                }
            })
        }));
        assert!(panicked.is_err());
        assert_eq!(client.in_flight(), 0);
        assert_eq!(client.fire_bytes(b"its own").expect("a reply"), b"its own");
    });
}

#[test]
fn many_clients_at_once_each_get_their_own_replies() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let world = World::new(transport, WaitPolicy::Adaptive);
        let server = world.serve(echo);
        std::thread::scope(|scope| {
            for t in 0..16 {
                let world = &world;
                scope.spawn(move || {
                    let mut client = world.client();
                    for i in 0..200 {
                        let request = pattern(t * 1000 + i, (t * 997 + i * 31) % 5000);
                        assert_eq!(client.fire_bytes(&request).expect("a reply"), &request[..]);
                    }
                });
            }
        });
        server.shutdown();
    }
}

#[test]
fn a_client_that_asked_for_the_socket_can_upgrade_later() {
    let world = World::new(TransportChoice::Socket, WaitPolicy::Adaptive);
    let _server = world.serve(echo);
    let mut client = world.client();
    assert_eq!(
        client.fire_bytes(b"by socket").expect("a reply"),
        b"by socket"
    );
    client.try_upgrade_to_shm().expect("shared memory");
    assert!(client.is_shm());
    assert_eq!(client.fire_bytes(b"by ring").expect("a reply"), b"by ring");
}

#[test]
fn a_client_in_a_log_is_a_line() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let shown = format!("{:?}", world.client());
        assert!(
            shown.starts_with("Synapse { transport: S") && shown.len() < 200,
            "{shown}"
        );
    });
}

#[test]
fn a_second_server_is_refused_and_a_dead_ones_path_taken_over() {
    let world = World::new(TransportChoice::Shm, WaitPolicy::Adaptive);
    let first = world.serve(echo);
    let second = Membrane::bind(world.path(), &world.config, echo);
    assert!(
        matches!(second, Err(transport::error::BindError::InUse { .. })),
        "{second:?}"
    );
    first.shutdown();
    assert!(!world.path().exists());
    // A socket file nobody listens on, as after kill -9.
    drop(std::os::unix::net::UnixListener::bind(world.path()).expect("a stale socket"));
    let third = world.serve(echo);
    assert_eq!(world.client().fire_bytes(b"x").expect("a reply"), b"x");
    drop(third);
    std::fs::write(world.path(), "precious").expect("a file");
    assert!(matches!(
        Membrane::bind(world.path(), &world.config, echo),
        Err(transport::error::BindError::NotASocket { .. })
    ));
    assert_eq!(
        std::fs::read(world.path()).expect("still there"),
        b"precious"
    );
}

#[test]
fn replies_that_outgrow_what_was_expected_arrive_whole_and_in_order() {
    everywhere(|world| {
        // The reply's size is the request's number; written in pieces, so that it grows while it is written.
        let _server = world.serve(|request, reply| {
            let size = u32::from_le_bytes(request[..4].try_into().expect("4 bytes")) as usize;
            for (i, piece) in pattern(size, size).chunks(999).enumerate() {
                assert_eq!(reply.len(), i * 999);
                reply.extend_from_slice(piece).expect("within the limit");
            }
        });
        let mut client = world.client();
        let sizes = [
            0, 100_000, 1, 99_999, 8, 50_000, 0, 0, 70_000, 12, 100_000, 100_000, 100_000,
        ];
        let mut expected = std::collections::VecDeque::new();
        for size in sizes.into_iter().cycle().take(400) {
            while let Err(e) = client.submit(&(size as u32).to_le_bytes()) {
                assert!(matches!(e, RequestError::Full { .. }), "{e}");
                let want: usize = expected.pop_front().expect("submitted");
                assert_eq!(
                    client.receive().expect("a reply").1,
                    &pattern(want, want)[..]
                );
            }
            expected.push_back(size);
        }
        while let Some(want) = expected.pop_front() {
            assert_eq!(
                client.receive().expect("a reply").1,
                &pattern(want, want)[..]
            );
        }
    });
}
