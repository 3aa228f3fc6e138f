//! An event loop of the caller's waits for a connection's descriptor beside others: no reply is missed, and nothing rings for nothing.

#[path = "own_page/mod.rs"]
mod own_page;
mod server;

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::signal::Signal;
use server::{Server, WATCHDOG};
use transport::error::{CloseReason, RequestError};
use transport::{Config, Group, Membrane, RequestId, Synapse, TransportChoice, WaitPolicy};

const BOTH: [TransportChoice; 2] = [TransportChoice::Shm, TransportChoice::Socket];

fn connect(dir: &std::path::Path, transport: TransportChoice) -> Synapse {
    let config = Config {
        transport,
        request_timeout: WATCHDOG,
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    };
    Synapse::connect(dir.join("s"), &config).expect("a client")
}

/// A server that holds each request until it is told to go on, or until nobody is left who could tell it.
fn gated(dir: &std::path::Path) -> (mpsc::Sender<()>, Membrane) {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let config = Config {
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    };
    let server = Membrane::bind(dir.join("s"), &config, move |request, reply| {
        let _told_or_alone = gate.lock().expect("no panic").recv_timeout(WATCHDOG);
        reply.extend_from_slice(request).expect("as large");
    });
    (open, server.expect("a server"))
}

/// What the caller's loop waits for.
struct Loop(Epoll);

impl Loop {
    fn new<'a>(fds: impl IntoIterator<Item = &'a dyn AsFd>) -> Self {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        for (n, fd) in fds.into_iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, n as u64);
            epoll.add(fd, event).expect("a descriptor");
        }
        Self(epoll)
    }

    /// Which are readable, by their place.
    fn wait(&self, limit: Duration) -> Vec<u64> {
        let mut events = [EpollEvent::empty(); 8];
        let limit = EpollTimeout::try_from(limit).expect("a time");
        let n = self.0.wait(&mut events, limit).expect("no signal");
        events[..n].iter().map(EpollEvent::data).collect()
    }
}

#[test]
fn every_reply_wakes_the_loop_or_is_there_before_it_sleeps_whoever_disarms() {
    let dir = tempfile::tempdir().expect("a directory");
    let _server = Server::start(&dir.path().join("s"));
    for disarms in [true, false] {
        let mut clients = BOTH.map(|transport| connect(dir.path(), transport));
        let bells = clients.each_ref().map(|c| c.doorbell().expect("ours"));
        let [shm, socket] = bells.map(|fd| fd.try_clone_to_owned().expect("a descriptor"));
        let other = EventFd::new().expect("a descriptor");
        let all = Loop::new([&shm as &dyn AsFd, &socket, &other]);
        // Beside replies, something else comes at any time.
        let (more, rounds) = mpsc::channel();
        let noise = std::thread::spawn({
            let other = other.as_fd().try_clone_to_owned().expect("a descriptor");
            move || {
                while rounds.recv().is_ok() {
                    nix::unistd::write(&other, &1u64.to_ne_bytes()).expect("a count");
                }
            }
        });
        let mut waiting: [VecDeque<(RequestId, usize)>; 2] = Default::default();
        let (mut sent, mut slept) = (0, 0);
        while sent < 4000 || waiting.iter().any(|w| !w.is_empty()) {
            for (client, waiting) in clients.iter_mut().zip(&mut waiting) {
                // One to three at a time.
                while sent < 4000 && waiting.len() <= sent % 3 {
                    let id = client.submit(&sent.to_ne_bytes()).expect("room");
                    waiting.push_back((id, sent));
                    sent += 1;
                }
                while let Some((id, reply)) = client.try_receive().expect("alive") {
                    let expected = waiting.pop_front().expect("asked for");
                    assert_eq!((id, reply), (expected.0, &expected.1.to_ne_bytes()[..]));
                }
            }
            if sent % 7 == 0 {
                more.send(()).expect("it listens");
            }
            let mut quiet = true;
            for client in &mut clients {
                quiet &= client.arm_doorbell().expect("alive");
            }
            if quiet && waiting.iter().any(|w| !w.is_empty()) {
                let found = all.wait(WATCHDOG);
                assert!(!found.is_empty(), "a reply that rang for nobody");
                slept += 1;
                if found.contains(&2) {
                    other.read().expect("a count");
                }
            }
            if disarms {
                clients.iter_mut().for_each(Synapse::disarm_doorbell);
            }
        }
        assert!(slept > 0, "nothing was ever waited for");
        drop(more);
        noise.join().expect("no panic");
    }
}

#[test]
fn nothing_rings_that_was_heard_and_an_idle_loop_sleeps() {
    for transport in BOTH {
        let dir = tempfile::tempdir().expect("a directory");
        let (open, server) = gated(dir.path());
        let mut client = connect(dir.path(), transport);
        let fd = client.doorbell().expect("ours").try_clone_to_owned();
        let all = Loop::new([&fd.expect("a descriptor") as &dyn AsFd]);
        let moment = Duration::from_millis(50);
        for _ in 0..10 {
            client.submit(b"one").expect("room");
            assert!(client.arm_doorbell().expect("alive"));
            open.send(()).expect("a handler waits");
            assert_eq!(all.wait(WATCHDOG), [0]);
            client.disarm_doorbell();
            // A socket has its reply until that is received.
            if client.is_shm() {
                assert!(all.wait(Duration::ZERO).is_empty());
            }
            assert_eq!(client.receive().expect("a reply").1, b"one");
        }
        // With nothing in flight it waits for the end alone, and viewers see nobody who waits for a reply.
        assert!(client.arm_doorbell().expect("alive"));
        assert!(all.wait(moment).is_empty(), "{transport:?}");
        let wait = own_page::slot_of(client.connection_id()).wait;
        assert_eq!(wait.waiting_since_ns, 0, "{transport:?}");
        client.submit(b"held").expect("room");
        assert!(client.arm_doorbell().expect("alive"));
        assert!(all.wait(moment).is_empty(), "{transport:?}");
        // Before the server, whose handler waits.
        drop(open);
        drop(server);
    }
}

#[test]
fn the_end_of_the_server_rings_armed_or_not() {
    for transport in BOTH {
        for (asks, disarms) in [(true, true), (true, false), (false, true), (false, false)] {
            let dir = tempfile::tempdir().expect("a directory");
            let server = Server::start(&dir.path().join("s"));
            let mut client = connect(dir.path(), transport);
            let fd = client.doorbell().expect("ours").try_clone_to_owned();
            let all = Loop::new([&fd.expect("a descriptor") as &dyn AsFd]);
            if asks {
                client.submit(b"hold").expect("room");
            }
            assert!(client.arm_doorbell().expect("alive"));
            server.signal(Signal::SIGKILL);
            assert_eq!(all.wait(WATCHDOG), [0]);
            if disarms {
                client.disarm_doorbell();
            } else {
                let armed = client.arm_doorbell().expect("to be looked for");
                assert!(!armed || transport == TransportChoice::Socket);
            }
            match client.try_receive() {
                Err(RequestError::Disconnected { in_flight, .. }) => {
                    assert_eq!(in_flight, usize::from(asks));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(
                all.wait(WATCHDOG),
                [0],
                "still: nobody waits for it in vain"
            );
        }
    }
}

#[test]
fn a_loop_that_armed_and_then_waited_otherwise_arms_anew() {
    for transport in BOTH {
        let dir = tempfile::tempdir().expect("a directory");
        let (open, _server) = gated(dir.path());
        let mut client = connect(dir.path(), transport);
        let fd = client.doorbell().expect("ours").try_clone_to_owned();
        let all = Loop::new([&fd.expect("a descriptor") as &dyn AsFd]);
        let id = client.submit(b"held").expect("room");
        assert!(client.arm_doorbell().expect("alive"));
        // In shared memory it sleeps where no descriptor is looked at.
        let moment = Duration::from_millis(5);
        match client.receive_within(moment) {
            Err(RequestError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(client.arm_doorbell().expect("alive"));
        open.send(()).expect("a handler waits");
        assert_eq!(all.wait(WATCHDOG), [0], "{transport:?}");
        let reply = client.receive().expect("a reply");
        assert_eq!(reply, (id, &b"held"[..]));
    }
}

#[test]
fn a_loop_that_has_given_all_up_is_woken_to_make_room_for_the_late_replies() {
    const REQUESTS: usize = 20;
    const LARGE: usize = 16_000;
    for transport in BOTH {
        let dir = tempfile::tempdir().expect("a directory");
        let (open, gate) = mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let config = |transport| Config {
            transport,
            ring_bytes: 64 << 10,
            max_message_bytes: LARGE,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let path = dir.path().join("s");
        let served = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&served);
        let _server = Membrane::bind(&path, &config(TransportChoice::Auto), move |_, reply| {
            // Once for all: then the sender is gone.
            let _ = gate.lock().expect("no panic").recv_timeout(WATCHDOG);
            reply.extend_from_slice(&[0; LARGE]).expect("as large");
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .expect("a server");
        let mut client = Synapse::connect(&path, &config(transport)).expect("a client");
        let fd = client.doorbell().expect("ours").try_clone_to_owned();
        let all = Loop::new([&fd.expect("a descriptor") as &dyn AsFd]);
        for _ in 0..REQUESTS {
            client.submit(b"").expect("room");
        }
        assert_eq!(client.cancel_all(), REQUESTS);
        let mut open = Some(open);
        // The replies are several times what the ring holds.
        while served.load(Ordering::Relaxed) < REQUESTS {
            assert_eq!(client.try_receive().expect("alive"), None);
            if client.arm_doorbell().expect("alive") {
                open.take();
                assert_eq!(all.wait(WATCHDOG), [0], "{transport:?}");
            }
        }
    }
}

#[test]
fn an_end_that_an_idle_loop_met_is_told_by_the_page_whatever_is_called_next() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_open, server) = gated(dir.path());
    let mut client = connect(dir.path(), TransportChoice::Shm);
    server.shutdown();
    let ends = Loop::new([&client.doorbell().expect("a descriptor") as &dyn AsFd]);
    assert_eq!(ends.wait(WATCHDOG), [0]);
    client.disarm_doorbell();
    client.submit(b"more?").expect_err("nobody is there");
    let slot = own_page::slot_of(client.connection_id());
    assert_eq!(slot.info.close_reason, CloseReason::PeerGone as u32);
}

#[test]
fn a_loop_is_never_kept_by_a_server_that_stands_still_and_is_woken_once_there_is_room() {
    const LENGTH: usize = 4_000;
    for transport in BOTH {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let server = Server::start(&path);
        let config = Config {
            transport,
            ring_bytes: 64 << 10,
            max_message_bytes: LENGTH,
            request_timeout: WATCHDOG,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let mut client = Synapse::connect(&path, &config).expect("a client");
        let fd = client.doorbell().expect("ours").try_clone_to_owned();
        let all = Loop::new([&fd.expect("a descriptor") as &dyn AsFd]);
        server.signal(Signal::SIGSTOP);
        let begun = Instant::now();
        let mut sent = 0;
        let told = loop {
            match client.try_submit(&[7; LENGTH]) {
                Ok(_) => sent += 1,
                Err(RequestError::Full { in_flight, .. }) => break in_flight,
                Err(other) => panic!("{transport:?}: {other:?}"),
            }
        };
        assert!(begun.elapsed() < WATCHDOG, "{transport:?}");
        assert_eq!((told, sent > 3), (sent, true), "{transport:?}");
        server.signal(Signal::SIGCONT);
        // As many again, without one call that waits.
        let (mut left, mut received) = (sent, 0);
        while received < 2 * sent {
            while left > 0 && client.try_submit(&[7; LENGTH]).is_ok() {
                left -= 1;
            }
            while let Some((_, reply)) = client.try_receive().expect("alive") {
                assert_eq!(reply, [7; LENGTH]);
                received += 1;
            }
            if client.in_flight() > 0 && client.arm_doorbell().expect("alive") {
                assert_eq!(all.wait(WATCHDOG), [0], "{transport:?}");
                client.disarm_doorbell();
            }
        }
    }
}

const LARGE: &[u8] = &[7; 1 << 20];

fn until_answered(client: &mut Synapse, wait: impl Fn(&mut Synapse)) {
    let begun = Instant::now();
    loop {
        if let Some((_, reply)) = client.try_receive().expect("alive") {
            return assert_eq!(reply, LARGE);
        }
        assert!(begun.elapsed() < WATCHDOG);
        wait(client);
    }
}

#[test]
fn a_request_larger_than_the_kernels_buffer_goes_out_whoever_waits_for_its_reply() {
    type Await = fn(&mut Synapse);
    let ways: [(&str, Await); 3] = [
        ("a loop", |client| {
            until_answered(client, |client| {
                let mut events = PollFlags::POLLIN;
                events.set(PollFlags::POLLOUT, client.wants_write());
                let mut fds = [PollFd::new(client.doorbell().expect("ours"), events)];
                let limit = PollTimeout::try_from(WATCHDOG).expect("a limit");
                assert_eq!(poll(&mut fds, limit), Ok(1));
            });
        }),
        ("receive", |client| {
            assert_eq!(client.receive().expect("a reply").1, LARGE);
        }),
        ("a group", |client| {
            until_answered(client, |client| {
                let found = Group::new(WaitPolicy::Park).wait(&mut [client], WATCHDOG);
                assert_eq!(found.expect("in flight"), Some(0));
            });
        }),
    ];
    for (way, await_reply) in ways {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(&dir.path().join("s"));
        let mut client = connect(dir.path(), TransportChoice::Socket);
        server.signal(Signal::SIGSTOP);
        client.try_submit(LARGE).expect("room");
        assert!(client.wants_write(), "{way}");
        server.signal(Signal::SIGCONT);
        await_reply(&mut client);
        assert!(!client.wants_write(), "{way}");
    }
}
