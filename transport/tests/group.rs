//! `Group`: one thread waits for many connections, whatever carries them, and learns which one has something.

#[path = "own_page/mod.rs"]
mod own_page;
mod server;

use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use server::{Server, WATCHDOG};
use transport::error::RequestError;
use transport::{Config, Group, Membrane, Synapse, TransportChoice, WaitPolicy};

const POLICIES: [WaitPolicy; 4] = [
    WaitPolicy::Adaptive,
    WaitPolicy::Park,
    WaitPolicy::Spin,
    WaitPolicy::DOCUMENT,
];

struct World {
    dir: tempfile::TempDir,
    /// A handler answers when told to.
    go: mpsc::Sender<()>,
    server: Membrane,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (go, gone) = mpsc::channel();
        let gone = Arc::new(Mutex::new(gone));
        let config = Self::config(dir.path(), TransportChoice::Auto);
        let server = Membrane::bind(dir.path().join("s"), &config, move |request, reply| {
            if request == b"held" {
                let told = gone.lock().expect("no panic").recv_timeout(WATCHDOG);
                told.expect("the test goes on");
            }
            reply.extend_from_slice(request).expect("as large");
        })
        .expect("a server");
        Self { dir, go, server }
    }

    fn config(dir: &std::path::Path, transport: TransportChoice) -> Config {
        Config {
            ring_bytes: 64 << 10,
            max_message_bytes: 16 << 10,
            transport,
            request_timeout: WATCHDOG,
            stats_dir: Some(dir.join("stats")),
            ..Config::default()
        }
    }

    fn members(&self) -> Vec<Synapse> {
        assert_eq!(self.server.clients(), 0);
        members(self.dir.path())
    }
}

/// Two in shared memory, two on the socket.
fn members(dir: &std::path::Path) -> Vec<Synapse> {
    [
        TransportChoice::Shm,
        TransportChoice::Socket,
        TransportChoice::Shm,
        TransportChoice::Socket,
    ]
    .map(|transport| {
        Synapse::connect(dir.join("s"), &World::config(dir, transport)).expect("a client")
    })
    .into()
}

#[test]
fn the_member_that_has_a_reply_is_found() {
    for policy in POLICIES {
        let world = World::new();
        let mut members = world.members();
        let mut group = Group::new(policy);
        for round in 0..200usize {
            // Backwards: behind the one that was found last, and before it.
            let which = round * 3 % members.len();
            let request = (round as u64).to_le_bytes();
            members[which].submit(&request).expect("room");
            loop {
                let found = group.wait(&mut members, WATCHDOG).expect("in flight");
                assert_eq!(found, Some(which), "{policy:?}");
                if let Some((_, reply)) = members[which].try_receive().expect("a reply") {
                    break assert_eq!(reply, request);
                }
            }
        }
    }
}

#[test]
fn a_sleeping_wait_is_woken_by_a_reply_through_either_transport() {
    for which in 0..4 {
        let world = World::new();
        let mut members = world.members();
        members[which].submit(b"held").expect("room");
        let mut group = Group::new(WaitPolicy::Park);
        // Nothing comes before the handler is told to answer. Every policy yields first, which on a busy machine takes longer than that, so that
        // more than one wait may pass without a sleep.
        let brief = Duration::from_millis(5);
        let (id, begun) = (members[which].connection_id(), Instant::now());
        loop {
            assert_eq!(group.wait(&mut members, brief).expect("in flight"), None);
            if !members[which].is_shm() || own_page::slot_of(id).wait.sleeps > 0 {
                break;
            }
            assert!(begun.elapsed() < WATCHDOG, "it never sleeps");
        }
        // For nobody any more: it would look as if they waited for ever, and their servers ring for each reply.
        for (n, member) in members.iter().enumerate() {
            let wait = own_page::slot_of(member.connection_id()).wait;
            assert_eq!(wait.waiting_since_ns, 0, "{which}");
            // Nor has one that owes nothing been waited for.
            if member.is_shm() {
                assert_eq!(wait.sleeps > 0, n == which, "{which}");
            }
        }
        let go = world.go.clone();
        let teller = std::thread::spawn(move || go.send(()).expect("a handler waits"));
        let found = group.wait(&mut members, WATCHDOG).expect("in flight");
        assert_eq!(found, Some(which));
        teller.join().expect("no panic");
        assert_eq!(
            members[which].receive().expect("a reply").1,
            b"held",
            "{which}"
        );

        // And it sleeps again the next time.
        members[which].submit(b"held").expect("room");
        let limit = Duration::from_millis(100);
        let before = cpu_time();
        assert_eq!(group.wait(&mut members, limit).expect("in flight"), None);
        let used = cpu_time() - before;
        assert!(used < limit / 2, "{which}: {used:?} of CPU in {limit:?}");
        world.go.send(()).expect("a handler waits");
    }
}

/// CPU time that this thread has used.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let ns = stat.split(' ').next().expect("a number");
    Duration::from_nanos(ns.parse().expect("nanoseconds"))
}

#[test]
fn a_member_that_always_has_something_does_not_hide_the_others() {
    let world = World::new();
    let mut members = world.members();
    for member in &mut members {
        member.submit(b"left lying").expect("room");
    }
    let mut group = Group::new(WaitPolicy::Adaptive);
    let mut found = [false; 4];
    let begun = std::time::Instant::now();
    while found != [true; 4] {
        // Nothing is received: what was found once is found again and again.
        let which = group.wait(&mut members, WATCHDOG).expect("in flight");
        found[which.expect("a reply")] = true;
        assert!(begun.elapsed() < WATCHDOG, "{found:?}");
    }
}

#[test]
fn a_server_that_is_killed_is_found_by_every_policy() {
    for policy in POLICIES {
        let dir = tempfile::tempdir().expect("a directory");
        let server = Server::start(&dir.path().join("s"));
        let mut members = members(dir.path());
        members[0].submit(b"hold").expect("room");
        members[3].submit(b"hold").expect("room");
        server.signal(Signal::SIGKILL);
        let mut group = Group::new(policy);
        let mut ended = [false; 4];
        // One whose end was received is no longer waited for.
        while !(ended[0] && ended[3]) {
            let mut rest: Vec<_> = members
                .iter_mut()
                .zip(&mut ended)
                .filter(|(_, ended)| !**ended)
                .map(|(member, ended)| Ender(member, ended))
                .collect();
            let found = group.wait(&mut rest, WATCHDOG).expect("in flight");
            let Ender(synapse, ended) = &mut rest[found.expect("the end is noticed")];
            match synapse.try_receive() {
                Err(RequestError::Disconnected { .. }) => **ended = true,
                Ok(None) => {}
                other => panic!("{policy:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_server_that_is_killed_is_found_by_waits_of_any_limit() {
    for policy in POLICIES {
        for limit in [Duration::ZERO, Duration::from_millis(1)] {
            let dir = tempfile::tempdir().expect("a directory");
            let server = Server::start(&dir.path().join("s"));
            let mut members = members(dir.path());
            members[2].submit(b"hold").expect("room");
            drop(server);
            // In shared memory: of the others the kernel says at once that they have ended.
            let member = &mut members[2..3];
            let mut group = Group::new(policy);
            let begun = Instant::now();
            let mut waits = 0;
            while group.wait(member, limit).expect("in flight").is_none() {
                waits += 1;
                // Each lasts as long as it may at least.
                let more = begun.elapsed() < WATCHDOG && (limit.is_zero() || waits < 60);
                assert!(more, "{policy:?} {limit:?}");
            }
            match member[0].try_receive() {
                Err(RequestError::Disconnected { in_flight: 1, .. }) => {}
                other => panic!("{policy:?} {limit:?}: {other:?}"),
            }
        }
    }
}

struct Ender<'a>(&'a mut Synapse, &'a mut bool);

impl AsMut<Synapse> for Ender<'_> {
    fn as_mut(&mut self) -> &mut Synapse {
        self.0
    }
}

/// The rungs of a ladder look at no clock: without a bound on them this wait would last minutes.
#[test]
fn a_ladder_of_any_length_keeps_the_limit() {
    let world = World::new();
    let mut members = world.members();
    members[0].submit(b"held").expect("room");
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut group = Group::new(WaitPolicy::Ladder {
            spins: u32::MAX,
            yields: u32::MAX,
            sleep: Duration::ZERO,
        });
        tell.send(group.wait(&mut members[..1], Duration::from_millis(5)))
    });
    let found = told.recv_timeout(WATCHDOG).expect("the limit is kept");
    world.go.send(()).expect("a handler waits");
    assert_eq!(found.expect("in flight"), None);
}

#[test]
fn a_group_that_waits_for_nothing_says_so() {
    let world = World::new();
    let mut members = world.members();
    let mut group = Group::new(WaitPolicy::Adaptive);
    match group.wait(&mut members, WATCHDOG) {
        Err(RequestError::NothingInFlight) => {}
        other => panic!("{other:?}"),
    }
    // And the connections work on as ever after having been armed.
    for member in &mut members {
        assert_eq!(member.fire_bytes(b"on").expect("a reply"), b"on");
        member.check_alive().expect("alive");
    }
}
