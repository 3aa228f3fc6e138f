//! Replies that are sent as a whole, requests that are queued, and who waits for them: on both transports alike.

use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use transport::error::RequestError;
use transport::stats::{PageReader, Role, Slot};
use transport::{Config, Membrane, Reply, ReplyError, Synapse, TransportChoice, WaitPolicy};

/// Ends a hang; nothing here takes a tenth of it.
const WATCHDOG: Duration = Duration::from_secs(30);

fn on_both(
    handler: fn(&[u8], &mut Reply<'_>),
    wait: WaitPolicy,
    test: impl Fn(&mut Synapse, TransportChoice),
) {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            name: "whole".into(),
            ring_bytes: 256 << 10,
            max_message_bytes: 100_000,
            wait,
            stats_dir: Some(dir.path().join("stats")),
            request_timeout: Duration::from_secs(20),
            ..Config::default()
        };
        let path = dir.path().join("s");
        let _server = Membrane::bind(&path, &config, handler).expect("a server");
        let config = Config {
            transport,
            ..config
        };
        let mut client = Synapse::connect(&path, &config).expect("a client");
        test(&mut client, transport);
    }
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (seed * 31 + i * 7) as u8).collect()
}

#[test]
fn an_answer_sent_whole_arrives_whole_whatever_its_size_and_that_of_the_last() {
    let echo = |request: &[u8], reply: &mut Reply<'_>| reply.send(request).expect("it fits");
    on_both(echo, WaitPolicy::Adaptive, |client, transport| {
        let sizes = [0, 1, 8_191, 100_000, 8, 8_192, 65_536, 20_000, 0, 99_999];
        for (n, size) in sizes.into_iter().cycle().take(300).enumerate() {
            let request = pattern(n, size);
            let reply = client.fire_bytes(&request).expect("a reply");
            assert!(reply == request, "{size} bytes over {transport:?}");
        }
    });
}

#[test]
fn of_a_long_error_the_first_kilobyte_arrives_as_whole_letters() {
    let at_length = |_: &[u8], reply: &mut Reply<'_>| reply.fail("€".repeat(2_000));
    on_both(at_length, WaitPolicy::Adaptive, |client, transport| {
        match client.fire_bytes(b"why?") {
            // Three bytes each.
            Err(RequestError::Remote { message, .. }) => assert_eq!(message, "€".repeat(341)),
            other => panic!("over {transport:?}: {other:?}"),
        }
    });
}

/// On the socket an error of more than a kilobyte would end the connection, and in a ring it would be an answer of any length.
#[test]
fn behind_an_error_nothing_else_can_stand() {
    fn handler(request: &[u8], reply: &mut Reply<'_>) {
        reply.extend_from_slice(request).expect("it fits");
        reply.fail(if request.is_empty() {
            ""
        } else {
            "no such order"
        });
        assert_eq!(reply.remaining(), 0);
        let more = [7; 20_000];
        assert_eq!(reply.extend_from_slice(&more), Err(ReplyError::Failed));
        assert_eq!(reply.send(&more), Err(ReplyError::Failed));
        assert_eq!(reply.send(&[]), Err(ReplyError::Failed));
        let written = std::io::Write::write_all(reply, &more);
        assert!(written.is_err());
        if request == b"again" {
            reply.fail("in other words");
        }
    }
    on_both(handler, WaitPolicy::Adaptive, |client, transport| {
        let says = [
            ("", ""),
            ("order 7", "no such order"),
            ("again", "in other words"),
        ];
        for (request, error) in says {
            match client.fire_bytes(request.as_bytes()) {
                Err(RequestError::Remote { message, .. }) => assert_eq!(message, error),
                other => panic!("{request:?} over {transport:?}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_handler_is_told_who_asks() {
    fn handler(_: &[u8], reply: &mut Reply<'_>) {
        let who = format!("{:?}", reply.peer());
        reply.send(who.as_bytes()).expect("it fits");
    }
    on_both(handler, WaitPolicy::Adaptive, |client, transport| {
        let (pid, uid) = (std::process::id(), nix::unistd::geteuid());
        let connection_id = client.connection_id();
        let who = format!(
            "Peer {{ pid: {pid}, uid: {uid}, connection_id: {connection_id}, client_number: 1 }}"
        );
        for _ in 0..2 {
            let says = client.fire_bytes(b"who am I?").expect("a reply");
            assert_eq!(String::from_utf8_lossy(says), who, "over {transport:?}");
        }
    });
}

#[test]
fn of_many_requests_the_one_that_failed_is_named() {
    fn handler(request: &[u8], reply: &mut Reply<'_>) {
        match request {
            b"bad" => reply.fail("no"),
            good => reply.send(good).expect("it fits"),
        }
    }
    on_both(handler, WaitPolicy::Adaptive, |client, transport| {
        let requests = [&b"good"[..], b"bad", b"fair", b"bad"];
        let ids = requests.map(|request| client.submit(request).expect("room"));
        for (id, request) in ids.into_iter().zip(requests) {
            match client.receive() {
                Ok((of, reply)) => assert_eq!((of, reply), (id, request), "over {transport:?}"),
                Err(RequestError::Remote {
                    id: of, message, ..
                }) => {
                    assert_eq!((of, request, &*message), (id, &b"bad"[..], "no"));
                }
                other => panic!("over {transport:?}: {other:?}"),
            }
        }
    });
}

#[test]
fn an_answer_sent_whole_stands_whatever_the_handler_does_next() {
    fn handler(request: &[u8], reply: &mut Reply<'_>) {
        reply.send(request).expect("it fits");
        assert_eq!(reply.remaining(), 0);
        assert_eq!(reply.len(), request.len());
        let late = reply.extend_from_slice(b"more");
        assert_eq!(late, Err(ReplyError::AlreadySent));
        assert_eq!(reply.send(b"another"), Err(ReplyError::AlreadySent));
        reply.fail("too late");
        if request.first() == Some(&1) {
            panic!("after the answer was sent");
        }
    }
    on_both(handler, WaitPolicy::Adaptive, |client, transport| {
        for size in [64, 20_000] {
            for first in [0, 1, 0] {
                let mut request = pattern(3, size);
                request[0] = first;
                let reply = client
                    .fire_bytes(&request)
                    .expect("the answer, not a failure");
                assert!(reply == request, "{size} bytes over {transport:?}");
            }
        }
    });
}

#[test]
fn an_answer_too_large_to_be_sent_can_still_be_refused() {
    fn handler(request: &[u8], reply: &mut Reply<'_>) {
        let twice = [request, request].concat();
        if let Err(too_large) = reply.send(&twice) {
            reply.fail(too_large);
        }
    }
    on_both(handler, WaitPolicy::Adaptive, |client, _| {
        let error = client.fire_bytes(&[7; 60_000]).expect_err("120,000 bytes");
        assert!(
            matches!(&error, RequestError::Remote { message, .. } if message.contains("120000")),
            "{error}"
        );
        assert_eq!(
            client
                .fire_bytes(&[7; 50_000])
                .expect("100,000 bytes")
                .len(),
            100_000
        );
    });
}

#[test]
fn what_was_queued_wakes_a_sleeping_server_with_the_next_call_that_is_not_queue() {
    let echo = |request: &[u8], reply: &mut Reply<'_>| reply.send(request).expect("it fits");
    on_both(echo, WaitPolicy::Park, |client, _| {
        for round in 0..30 {
            // The server parks at once; until somebody rings, it looks by itself ten times a second.
            let begun = Instant::now();
            let ids: Vec<_> = (0..5)
                .map(|n| client.queue(&pattern(n, 100)).expect("room"))
                .collect();
            if round % 2 == 0 {
                client.notify();
            }
            for (n, id) in ids.into_iter().enumerate() {
                let (found, reply) = client.receive().expect("a reply");
                assert_eq!((found, reply), (id, &pattern(n, 100)[..]));
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        assert!(matches!(
            client.receive(),
            Err(RequestError::NothingInFlight)
        ));
    });
}

/// A connection as this process's own page of clients has it.
fn own_slot(connection_id: u64) -> Slot {
    let fds = std::fs::read_dir("/proc/self/fd").expect("/proc");
    fds.flatten()
        .filter(|fd| {
            std::fs::read_link(fd.path())
                .is_ok_and(|to| to.to_string_lossy().contains("shmtop-stats"))
        })
        .filter_map(|fd| PageReader::open(fd.path()).ok()?.snapshot().ok())
        .filter(|page| page.role == Role::Client)
        .flat_map(|page| page.slots)
        .find(|slot| slot.info.connection_id == connection_id)
        .expect("the connection's slot")
}

/// Its run delay, its CPU and its share of the time are looked up by this number.
#[test]
fn the_thread_that_sleeps_for_a_reply_is_the_one_in_the_page_whoever_connected() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        name: "handed on".into(),
        ring_bytes: 64 << 10,
        max_message_bytes: 20_000,
        // Every wait sleeps.
        wait: WaitPolicy::Park,
        request_timeout: WATCHDOG,
        stats_dir: Some(dir.path().join("stats")),
        ..Config::default()
    };
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = Membrane::bind(dir.path().join("s"), &config, move |request, reply| {
        let told = gone.lock().expect("no panic").recv_timeout(WATCHDOG);
        told.expect("the test goes on");
        reply.send(request).expect("room");
    })
    .expect("a server");
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let config = Config {
            transport,
            ..config.clone()
        };
        let mut client = Synapse::connect(server.path(), &config).expect("a client");
        let id = client.connection_id();
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            scope.spawn(move || {
                tell.send(nix::unistd::gettid().as_raw().unsigned_abs())
                    .expect("the test waits");
                client.fire_bytes(b"held").expect("a reply");
            });
            let tid = told.recv_timeout(WATCHDOG).expect("its number");
            let begun = Instant::now();
            let seen = loop {
                let client = own_slot(id);
                let sleeps = client.wait.waiting_since_ns != 0;
                if (sleeps && client.info.tid == tid) || begun.elapsed() > WATCHDOG / 3 {
                    break client.info.tid;
                }
            };
            go.send(()).expect("a handler waits");
            assert_eq!(seen, tid, "{transport:?}");
        });
    }
}
