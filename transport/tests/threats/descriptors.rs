//! Threats 24 and 25: tables of descriptors that are full, or nearly so, on either side. Who has a socket is served, who is refused is told with
//! numbers, and nothing is leaked.

use std::time::Duration;

use transport::error::{ConnectError, Refusal, Step};
use transport::{Config, Synapse};

use crate::limits::limit;
use crate::payload;
use crate::rogue::{OFFER, Raw, UPGRADE, WELCOME, hello, message};
use crate::role::{Process, WATCHDOG};
use crate::watch::{cpu_time, held, within};
use crate::world::{Ended, World, mix, ready};

fn quick(world: &World) -> Config {
    Config {
        handshake_timeout: Duration::from_millis(300),
        ..world.config()
    }
}

#[test]
fn a_server_out_of_descriptors_refuses_or_falls_back_says_why_and_leaks_nothing() {
    let world = World::new();
    let server = ready(world.server().with("HANDSHAKE_MS", "500"));
    let mut bystander = world.connect();
    assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done));
    let before = held(server.pid());
    let (mut refused, mut silent, mut on_socket, mut on_shm) = (0, 0, 0, 0);
    for descriptors in 3..=40 {
        limit(&server, libc::RLIMIT_NOFILE, descriptors);
        match Synapse::connect(world.path(), &quick(&world)) {
            Ok(mut client) => {
                assert_eq!(
                    client
                        .fire_bytes(&payload::request(1, 16, 8))
                        .expect("a reply"),
                    payload::expected(1, 8)
                );
                match client.fallback() {
                    Some(why) => {
                        assert!(
                            why.at_peer && why.errno == libc::EMFILE,
                            "{descriptors}: {why}"
                        );
                        assert_eq!(why.limit, descriptors, "{why}");
                        on_socket += 1;
                    }
                    None => on_shm += 1,
                }
            }
            Err(ConnectError::Refused { reason, .. }) => {
                assert!(
                    matches!(reason, Refusal::Descriptors { .. }),
                    "{descriptors}: {reason}"
                );
                refused += 1;
            }
            // Not one descriptor to accept with: it stays in the queue.
            Err(ConnectError::Unresponsive { .. }) => silent += 1,
            Err(e) => panic!("{descriptors}: {e}"),
        }
        assert!(
            matches!(mix(&mut bystander, 1, 0), Ended::Done),
            "{descriptors} descriptors"
        );
    }
    println!(
        "38 limits: {silent} silent, {refused} refused, {on_socket} on the socket, {on_shm} on shared memory"
    );
    assert!(silent > 0 && refused > 0 && on_socket > 0 && on_shm > 0);
    within(WATCHDOG, "all is given back", || {
        let now = held(server.pid());
        ((now.fds, now.rings) == (before.fds, before.rings))
            .then_some(())
            .ok_or((before, now))
    });
    let process = world.page(&server).process;
    assert!(
        process.accept_errors > 0 && process.fallbacks >= on_socket,
        "{process:?}"
    );
    assert_eq!(process.last_rejected_pid, u64::from(std::process::id()));
    drop(world.connect());
}

#[test]
fn a_client_out_of_descriptors_gets_an_error_or_the_socket_says_why_and_leaks_nothing() {
    let world = World::new();
    let _server = ready(world.server());
    let mut client = world.client().go();
    // Its page is made with its first connection.
    assert_eq!(client.ask("connect", "connected"), "shm");
    client.ask("drop", "dropped");
    let before = held(client.pid());
    let (mut refused, mut on_socket, mut on_shm) = (0, 0, 0);
    for descriptors in 3..=40 {
        limit(&client, libc::RLIMIT_NOFILE, descriptors);
        client.tell("connect");
        let said = client.line();
        match said.split(' ').collect::<Vec<_>>()[..] {
            ["refused", ..] => {
                assert!(
                    said.contains("Too many open files"),
                    "{descriptors}: {said}"
                );
                refused += 1;
                continue;
            }
            ["connected", "shm"] => on_shm += 1,
            ["connected", "socket", step, ..] => {
                assert_eq!(step, "fd-truncated,", "{descriptors}: {said}");
                on_socket += 1;
            }
            _ => panic!("{said}"),
        }
        client.ask("ping", "pong");
        client.ask("drop", "dropped");
        assert_eq!(held(client.pid()).fds, before.fds, "{descriptors}");
    }
    println!("38 limits: {refused} refused, {on_socket} on the socket, {on_shm} on shared memory");
    assert!(refused > 0 && on_socket > 0 && on_shm > 0);
    assert_eq!(
        (held(client.pid()).fds, held(client.pid()).rings),
        (before.fds, before.rings)
    );
}

/// Descriptors that a server without clients has open. Its threads, just started, look at files now and then: the fewest of many looks.
fn idle_descriptors(server: &Process) -> Vec<u64> {
    let looks = (0..100).filter_map(|_| {
        std::thread::sleep(Duration::from_millis(1));
        let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).ok()?;
        let numbers = open
            .flatten()
            .flat_map(|fd| fd.file_name().to_string_lossy().parse());
        Some(numbers.collect::<Vec<u64>>())
    });
    looks.min_by_key(Vec::len).expect("a running server")
}

/// Waits until a server has no more open than when it was idle.
fn given_back(server: &Process, idle: &[u64]) {
    within(WATCHDOG, "all is given back", || {
        let now = held(server.pid());
        (now.fds == idle.len() && now.rings == 0)
            .then_some(())
            .ok_or(now)
    });
}

/// The limit that leaves so many descriptors free. Of what this process was given, some may be open far above it.
fn limit_with_room(open: &[u64], free: u64) -> u64 {
    let room = |limit: u64| limit - open.iter().filter(|n| **n < limit).count() as u64;
    (0..)
        .find(|limit| room(*limit) == free)
        .expect("room grows with the limit")
}

/// How one of many clients that come at the same time was served.
enum Served {
    Shm,
    Socket(transport::error::Fallback),
    No(String),
}

#[test]
fn every_client_that_a_server_has_a_descriptor_for_is_served_however_many_come_at_once() {
    const CLIENTS: usize = 16;
    let world = World::new();
    let server = ready(world.server());
    let idle = idle_descriptors(&server);
    for spare in 0..=6 {
        let most = limit_with_room(&idle, CLIENTS as u64 + spare);
        for round in 0..4 {
            limit(&server, libc::RLIMIT_NOFILE, most);
            let start = std::sync::Barrier::new(CLIENTS);
            // All stay until all have been served.
            let all: Vec<(Option<Synapse>, Served)> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..CLIENTS)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            match Synapse::connect(world.path(), &world.config()) {
                                Ok(mut client) => {
                                    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
                                    let how = client.fallback().map_or(Served::Shm, Served::Socket);
                                    (Some(client), how)
                                }
                                Err(e) => (None, Served::No(e.to_string())),
                            }
                        })
                    })
                    .collect();
                let done = threads.into_iter().map(|t| t.join().expect("a client"));
                done.collect()
            });
            let mut on_shm = 0;
            for (_, how) in &all {
                match how {
                    Served::Shm => on_shm += 1,
                    Served::Socket(why) => assert_eq!(
                        (why.step, why.errno, why.limit, why.at_peer),
                        (Step::MemfdCreate, libc::EMFILE, most, true),
                        "{why}"
                    ),
                    Served::No(e) => panic!("{spare} to spare, round {round}: not served: {e}"),
                }
            }
            println!(
                "{spare} to spare: {on_shm} of {CLIENTS} on shared memory, the others on the socket"
            );
            drop(all);
            limit(&server, libc::RLIMIT_NOFILE, 1024);
            within(WATCHDOG, "all is given back", || {
                let now = held(server.pid());
                (now.fds == idle.len() && now.rings == 0)
                    .then_some(())
                    .ok_or(now)
            });
        }
    }
}

#[test]
fn one_who_keeps_the_last_descriptor_on_loan_keeps_nobody_out_for_long() {
    let world = World::new();
    let server = ready(world.server().with("HANDSHAKE_MS", "20000"));
    let idle = idle_descriptors(&server);
    // Its own socket, and the rings that it never maps.
    limit(&server, libc::RLIMIT_NOFILE, limit_with_room(&idle, 2));
    let mut rogue = Raw::connect(&world.path());
    rogue.say(&hello(1 << 16, 20_000));
    assert_eq!(rogue.hear().map(|h| h.kind()), Some(WELCOME));
    rogue.say(&message(UPGRADE, 1, &[]));
    assert_eq!(rogue.hear().map(|h| h.kind()), Some(OFFER));
    // Without patience it would be refused at once, with too much it would wait for the rogue's deadline of 20 s.
    let config = Config {
        handshake_timeout: WATCHDOG,
        ..world.config()
    };
    match Synapse::connect(world.path(), &config) {
        Err(ConnectError::Refused { reason, .. }) => {
            assert!(matches!(reason, Refusal::Descriptors { .. }), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let served = world.page(&server).process.heartbeat_ns;
    // One more, and it is served at once: over the socket, for the rogue still has the rings.
    limit(&server, libc::RLIMIT_NOFILE, limit_with_room(&idle, 3));
    let mut client = Synapse::connect(world.path(), &config).expect("a client");
    assert_eq!(
        client.fallback().map(|why| (why.step, why.errno)),
        Some((Step::MemfdCreate, libc::EMFILE))
    );
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
    // Nobody has waited since: the full table alone held nobody up, and counted as no error. Time enough to give such a wait up.
    within(WATCHDOG, "housekeeping", || {
        let since = world.page(&server).process.heartbeat_ns - served;
        (since > 800_000_000).then_some(()).ok_or(since)
    });
    assert_eq!(world.page(&server).process.accept_errors, 1);
}

#[test]
fn who_finds_the_last_descriptor_on_loan_gets_it_when_it_comes_back() {
    let world = World::new();
    let server = ready(world.server());
    let idle = idle_descriptors(&server);
    limit(&server, libc::RLIMIT_NOFILE, limit_with_room(&idle, 2));
    for round in 0..20 {
        let mut holder = Raw::connect(&world.path());
        holder.say(&hello(1 << 16, 20_000));
        assert_eq!(holder.hear().map(|h| h.kind()), Some(WELCOME));
        holder.say(&message(UPGRADE, 1, &[]));
        assert_eq!(holder.hear().map(|h| h.kind()), Some(OFFER));
        // In the queue, with nothing left to accept it with; then there is.
        let mut next = Raw::connect(&world.path());
        next.say(&hello(1 << 16, 20_000));
        drop(holder);
        let heard = next.hear().map(|h| h.kind());
        assert_eq!(heard, Some(WELCOME), "round {round}");
        drop(next);
        given_back(&server, &idle);
    }
}

#[test]
fn who_asks_for_rings_while_the_last_descriptor_is_on_loan_gets_them_when_it_comes_back() {
    let world = World::new();
    let server = ready(world.server());
    let idle = idle_descriptors(&server);
    // Two sockets, and the rings of one.
    limit(&server, libc::RLIMIT_NOFILE, limit_with_room(&idle, 3));
    for round in 0..20 {
        let mut both = [(); 2].map(|()| {
            let mut raw = Raw::connect(&world.path());
            raw.say(&hello(1 << 16, 20_000));
            assert_eq!(raw.hear().map(|h| h.kind()), Some(WELCOME));
            raw
        });
        both[0].say(&message(UPGRADE, 1, &[]));
        assert_eq!(both[0].hear().map(|h| h.kind()), Some(OFFER));
        both[1].say(&message(UPGRADE, 1, &[]));
        let [holder, mut next] = both;
        drop(holder);
        let heard = next.hear().map(|h| h.kind());
        assert_eq!(heard, Some(OFFER), "round {round}");
        drop(next);
        given_back(&server, &idle);
    }
}

#[test]
fn a_server_that_cannot_accept_does_not_spin() {
    let world = World::new();
    let server = ready(world.server().with("HANDSHAKE_MS", "500"));
    let mut bystander = world.connect();
    assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done));
    let full = held(server.pid()).fds as u64;
    // Without even the reserve descriptor; then with it, which refuses one after the other.
    for descriptors in [3, full] {
        limit(&server, libc::RLIMIT_NOFILE, descriptors);
        let waiting: Vec<Raw> = (0..20).map(|_| Raw::connect(&world.path())).collect();
        let (begun, used) = (std::time::Instant::now(), cpu_time(server.pid()));
        std::thread::sleep(Duration::from_millis(600));
        let (wall, used) = (begun.elapsed(), cpu_time(server.pid()) - used);
        println!("{descriptors} descriptors: {used:?} of CPU in {wall:?}");
        assert!(
            used < wall / 2,
            "{descriptors} descriptors: {used:?} of CPU in {wall:?}"
        );
        assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done));
        drop(waiting);
    }
    assert!(world.page(&server).process.accept_errors > 0);
    limit(&server, libc::RLIMIT_NOFILE, 1024);
    within(WATCHDOG, "accepting again", || {
        Synapse::connect(world.path(), &quick(&world)).map(drop)
    });
}
