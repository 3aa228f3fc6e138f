//! One suite, every transport and wait policy: what a user of `Synapse` and `Membrane` relies on.

mod own_page;

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use own_page::slot_of;
use transport::error::{ConnectError, RequestError};
use transport::{Config, Membrane, Reply, Synapse, TransportChoice, WaitPolicy};

/// Ends a hang; nothing here takes a tenth of it.
const WATCHDOG: Duration = Duration::from_secs(30);

static COUNTER: AtomicUsize = AtomicUsize::new(0);

struct World {
    dir: tempfile::TempDir,
    config: Config,
}

impl World {
    fn new(transport: TransportChoice, wait: WaitPolicy) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            name: format!("echo-{}", COUNTER.fetch_add(1, Ordering::Relaxed)),
            ring_bytes: 256 << 10,
            max_message_bytes: 100_000,
            transport,
            wait,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        Self { dir, config }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("s")
    }

    fn serve(&self, handler: impl Fn(&[u8], &mut Reply<'_>) + Send + Sync + 'static) -> Membrane {
        // The server offers both; what is used is the client's choice.
        let config = Config {
            transport: TransportChoice::Auto,
            ..self.config.clone()
        };
        Membrane::bind(self.path(), &config, handler).expect("a server")
    }

    fn client(&self) -> Synapse {
        let synapse = Synapse::connect(self.path(), &self.config).expect("a client");
        assert_eq!(
            synapse.is_shm(),
            self.config.transport != TransportChoice::Socket
        );
        synapse
    }
}

fn echo(request: &[u8], reply: &mut Reply<'_>) {
    reply
        .extend_from_slice(request)
        .expect("as large as the request");
}

fn everywhere(test: impl Fn(World)) {
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

fn pattern(seed: usize, length: usize) -> Vec<u8> {
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
                assert_eq!((i, reply), (seen, &requests[i][..]));
                seen += 1;
            })
            .expect("a batch");
        assert_eq!(seen, 500);
    });
}

#[test]
fn a_message_above_the_limit_is_refused_before_anything_is_sent() {
    everywhere(|world| {
        let _server = world.serve(echo);
        let mut client = world.client();
        for size in [100_001, 1 << 20] {
            match client.fire_bytes(&vec![0; size]) {
                Err(RequestError::TooLarge {
                    size: s,
                    limit: 100_000,
                }) => assert_eq!(s, size),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            client.fire_bytes(b"still fine").expect("a reply"),
            b"still fine"
        );
        // Nor is it taken for a matter of room, which receiving replies would make.
        let mut in_flight = 0;
        while client.submit(&[7; 50_000]).is_ok() {
            in_flight += 1;
        }
        assert!(in_flight > 0);
        assert!(matches!(
            client.submit(&[0; 100_001]),
            Err(RequestError::TooLarge { .. })
        ));
        for _ in 0..in_flight {
            client.receive().expect("a reply");
        }
    });
}

#[test]
fn a_panic_or_error_in_the_handler_is_an_error_reply_and_the_connection_lives() {
    everywhere(|world| {
        let _server = world.serve(|request, reply| match request {
            b"panic" => panic!("on purpose"),
            b"error" => reply.fail("no such order"),
            _ => echo(request, reply),
        });
        let mut client = world.client();
        for _ in 0..3 {
            assert!(matches!(
                client.fire_bytes(b"panic"),
                Err(RequestError::Remote { .. })
            ));
            match client.fire_bytes(b"error") {
                Err(RequestError::Remote { message }) => assert_eq!(message, "no such order"),
                other => panic!("{other:?}"),
            }
            assert_eq!(client.fire_bytes(b"fine").expect("a reply"), b"fine");
        }
    });
}

#[test]
fn a_request_not_answered_in_time_is_given_up_and_its_late_reply_never_delivered() {
    everywhere(|mut world| {
        world.config.request_timeout = Duration::from_millis(50);
        let (release, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let _server = world.serve(move |request, reply| {
            if request == b"wait" {
                let _ = gate.lock().expect("one at a time").recv();
            }
            echo(request, reply);
        });
        let mut client = world.client();
        assert!(matches!(
            client.fire_bytes(b"wait"),
            Err(RequestError::Timeout { .. })
        ));
        release.send(()).expect("the handler waits");
        let reply = loop {
            match client.fire_bytes(b"next") {
                Ok(reply) => break reply.to_vec(),
                Err(RequestError::Timeout { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        };
        assert_eq!(reply, b"next");
    });
}

#[test]
fn when_the_server_goes_the_client_learns_it_and_is_not_answered_from_the_grave() {
    everywhere(|mut world| {
        world.config.request_timeout = Duration::from_secs(60);
        let server = world.serve(echo);
        let mut client = world.client();
        client.fire_bytes(b"hello").expect("a reply");
        server.shutdown();
        assert!(matches!(
            client.fire_bytes(b"anybody?"),
            Err(RequestError::Disconnected { .. })
        ));
        assert!(matches!(
            client.fire_bytes(b"anybody?"),
            Err(RequestError::Disconnected { .. })
        ));
        assert!(matches!(
            Synapse::connect(world.path(), &world.config),
            Err(ConnectError::NoServer { .. })
        ));
    });
}

#[test]
fn no_handler_runs_once_shutdown_has_returned() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let world = World::new(transport, WaitPolicy::Adaptive);
        let (started, has_started) = std::sync::mpsc::channel();
        let finished = std::sync::Arc::new(AtomicUsize::new(0));
        let finishing = std::sync::Arc::clone(&finished);
        let server = world.serve(move |_, _| {
            started.send(()).expect("the test waits");
            // The handler's work: longer than a shutdown that does not wait for it.
            std::thread::sleep(Duration::from_millis(300));
            finishing.fetch_add(1, Ordering::Relaxed);
        });
        std::thread::scope(|scope| {
            let mut client = world.client();
            // Answered or not, depending on when the server ends.
            scope.spawn(move || client.fire_bytes(b"work").map(drop));
            has_started.recv().expect("the handler runs");
            server.shutdown();
            assert_eq!(finished.load(Ordering::Relaxed), 1, "{transport:?}");
        });
    }
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

#[test]
fn after_everything_was_given_up_the_connection_takes_requests_again() {
    for (transport, length) in [
        (TransportChoice::Shm, 10),
        (TransportChoice::Shm, 20_000),
        (TransportChoice::Socket, 10),
        (TransportChoice::Socket, 20_000),
    ] {
        let world = World::new(transport, WaitPolicy::Adaptive);
        let (open, gate) = std::sync::mpsc::sync_channel::<()>(0);
        let gate = std::sync::Mutex::new(gate);
        let _server = world.serve(move |request, reply| {
            // Until the gate is gone.
            let _ = gate.lock().expect("no panic").recv();
            // More than was asked, so that the replies fill their ring first.
            for _ in 0..4 {
                echo(request, reply);
            }
        });
        let mut patient = world.config.clone();
        patient.request_timeout = Duration::from_secs(60);
        let mut client = Synapse::connect(world.path(), &patient).expect("a client");
        // As much as goes without waiting for the gate.
        for _ in 0..if length == 10 { 4096 } else { 8 } {
            if client.in_flight() == 64 && transport == TransportChoice::Socket {
                break;
            }
            if transport == TransportChoice::Socket && client.in_flight() * length > 40_000 {
                break;
            }
            client.submit(&pattern(1, length)).expect("room");
        }
        assert!(client.cancel_all() > 0);
        drop(open);
        for i in 0..100 {
            let request = pattern(i, length);
            client.submit(&request).expect("room, sooner or later");
            let (_, reply) = client.receive().expect("a reply");
            assert_eq!(reply, request.repeat(4));
        }
    }
}

#[test]
fn a_call_that_failed_is_not_in_flight_on_the_page_either() {
    everywhere(|mut world| {
        world.config.request_timeout = Duration::from_millis(5);
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let gone = std::sync::Mutex::new(gone);
        let _server = world.serve(move |_, _| {
            // Until the test has looked; its end is as good.
            let _ = gone.lock().expect("no panic").recv();
        });
        let mut client = world.client();
        let id = client.connection_id();
        match client.fire_bytes(b"no answer") {
            Err(RequestError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(slot_of(id).req.in_flight, 0, "{:?}", world.config.wait);
        let mut draft = client.draft(8).expect("room");
        draft.extend_from_slice(b"nor here").expect("room");
        match draft.fire() {
            Err(RequestError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(slot_of(id).req.in_flight, 0, "{:?}", world.config.wait);
        drop(go);
    });
}

/// A server of one thread whose handler takes what it is told, notes what came in which order, and is held up by a request of `held`.
struct Held {
    /// First, so that a test that fails ends: the server waits for its handler.
    go: Sender<()>,
    is_held: Receiver<()>,
    _server: Membrane,
    world: World,
    order: Arc<Mutex<Vec<Vec<u8>>>>,
    holder: Synapse,
    times: usize,
}

impl Held {
    fn new(ring_bytes: usize) -> Self {
        let mut world = World::new(TransportChoice::Shm, WaitPolicy::Adaptive);
        world.config.ring_bytes = ring_bytes;
        world.config.workers = 1;
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        let (held, is_held) = channel();
        let (go, gone) = channel::<()>();
        let gone = Mutex::new((held, gone));
        let server = world.serve(move |request, _| {
            match request {
                b"held" => {
                    let gate = gone.lock().expect("no panic");
                    gate.0.send(()).expect("the test waits");
                    gate.1.recv().expect("told");
                }
                b"long" => std::thread::sleep(Duration::from_millis(1)),
                _ => {}
            }
            let note = request[..request.len().min(8)].to_vec();
            seen.lock().expect("no panic").push(note);
        });
        let holder = world.client();
        Self {
            go,
            is_held,
            _server: server,
            world,
            order,
            holder,
            times: 0,
        }
    }

    /// What is served, and in which order, of what `ask` asks for while the handler is held up, and `answered` waits for afterwards.
    fn order(&mut self, ask: impl FnOnce(), answered: impl FnOnce()) -> Vec<Vec<u8>> {
        // Rounds that serve nobody else: whose turn is first changes from one to the next, and so from time to time.
        for _ in 0..self.times % 5 {
            self.holder.fire_bytes(b"once more").expect("a reply");
        }
        self.times += 1;
        self.order.lock().expect("no panic").clear();
        self.holder.submit(b"held").expect("room");
        self.is_held.recv().expect("the handler");
        ask();
        self.go.send(()).expect("the handler waits");
        self.holder.receive().expect("a reply");
        answered();
        std::mem::take(&mut *self.order.lock().expect("no panic"))
    }
}

/// Of `count` requests like this one that a client has in flight, no more than twice `turn` may come before another client's: its turn in the
/// round of the held request may have passed before it was sent, and in the next one the other may come first again.
fn another_client_waits_for_two_turns(request: &[u8], count: usize, turn: usize) {
    let mut held = Held::new(4 << 20);
    let [slow, quick] = std::array::from_fn(|_| RefCell::new(held.world.client()));
    for _ in 0..15 {
        let order = held.order(
            || {
                for _ in 0..count {
                    slow.borrow_mut().submit(request).expect("room");
                }
                quick.borrow_mut().submit(b"quick").expect("room");
            },
            || {
                quick.borrow_mut().receive().expect("a reply");
                for _ in 0..count {
                    slow.borrow_mut().receive().expect("a reply");
                }
            },
        );
        let before = order.iter().position(|r| r == b"quick");
        let before = before.expect("served") - 1;
        assert!(before <= 2 * turn, "{before} of another client's before it");
    }
}

#[test]
fn requests_with_long_handlers_do_not_hold_up_other_clients() {
    another_client_waits_for_two_turns(b"long", 16, 1);
}

#[test]
fn many_or_large_requests_of_one_client_do_not_hold_up_others() {
    another_client_waits_for_two_turns(b"short", 1000, 16);
    // 256 KiB make a turn, and what goes beyond.
    another_client_waits_for_two_turns(&[7; 100_000], 12, 3);
}

#[test]
fn nobody_is_always_behind_the_same_neighbour() {
    let mut held = Held::new(256 << 10);
    let [first, second] = std::array::from_fn(|_| RefCell::new(held.world.client()));
    let (mut seen, begun) = ([false; 2], Instant::now());
    loop {
        let both = [&first, &second];
        let order = held.order(
            || {
                for (client, name) in both.into_iter().zip(["first", "second"]) {
                    client.borrow_mut().submit(name.as_bytes()).expect("room");
                }
            },
            || {
                for client in both {
                    client.borrow_mut().receive().expect("a reply");
                }
            },
        );
        seen[usize::from(order[1] == b"first")] = true;
        if seen == [true, true] {
            return;
        }
        assert!(
            begun.elapsed() < WATCHDOG,
            "{seen:?} after {} times",
            held.times
        );
    }
}
