//! Rows 24 to 28, 32 and 38: descriptors, memory, file sizes and huge pages that run out, floods of clients, core dumps. What can't be had is
//! refused with step and numbers, others are served meanwhile, and nothing is leaked.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use transport::error::{ConnectError, Step};
use transport::{Config, Synapse};

use crate::payload;
use crate::rogue::{OFFER, REFUSED, Raw, UPGRADE, WELCOME, hello, message};
use crate::role::{Process, WATCHDOG};
use crate::watch::{cpu_time, held, within};
use crate::world::{Ended, RING_BYTES, World, mix, ready};

/// Sets a soft limit of another process.
fn limit(process: &Process, resource: libc::__rlimit_resource_t, soft: u64) {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pid = process.pid().cast_signed();
    // SAFETY: `now` is a valid struct for the kernel to fill; nothing is set.
    let got = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &mut now) };
    assert_eq!(got, 0, "prlimit");
    now.rlim_cur = soft.min(now.rlim_max);
    // SAFETY: `now` is a valid struct for the kernel to read.
    let set = unsafe { libc::prlimit(pid, resource, &now, std::ptr::null_mut()) };
    assert_eq!(set, 0, "prlimit");
}

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
                assert!(reason.contains("descriptor"), "{descriptors}: {reason}");
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
            assert!(reason.contains("descriptor"), "{reason}");
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
        within(WATCHDOG, "all is given back", || {
            let now = held(server.pid());
            (now.fds == idle.len() && now.rings == 0)
                .then_some(())
                .ok_or(now)
        });
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

#[test]
fn a_file_size_limit_is_a_fallback_and_no_signal() {
    let world = World::new();
    let server = ready(world.server());
    limit(&server, libc::RLIMIT_FSIZE, 65_536);
    let mut client = Synapse::connect(world.path(), &world.config()).expect("a client");
    let why = client.fallback().expect("rings of 132 KiB can't be had");
    assert_eq!(
        (why.step, why.errno, why.limit, why.at_peer),
        (Step::Headroom, libc::EFBIG, 65_536, true)
    );
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
    limit(&server, libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
    client.try_upgrade_to_shm().expect("now they can");
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
}

#[test]
fn an_address_space_limit_is_a_fallback() {
    let world = World::new();
    let server = ready(world.server().with("RING_BYTES", (256 << 20).to_string()));
    let used = std::fs::read_to_string(format!("/proc/{}/statm", server.pid())).expect("statm");
    let pages: u64 = used
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("pages");
    // Room for threads and their stacks, not for half a gigabyte of rings.
    limit(&server, libc::RLIMIT_AS, pages * 4096 + (200 << 20));
    let config = Config {
        ring_bytes: 256 << 20,
        ..world.config()
    };
    let mut client = Synapse::connect(world.path(), &config).expect("a client");
    let why = client.fallback().expect("no room");
    assert_eq!(
        (why.step, why.errno, why.at_peer),
        (Step::Headroom, libc::ENOMEM, true),
        "{why}"
    );
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
}

/// A memory cgroup of this limit, removed on drop; or why there is none.
struct Group(std::path::PathBuf);

impl Group {
    fn new(limit: u64) -> Result<Self, String> {
        let name = format!("transport-threats-{}", std::process::id());
        let (dir, file) = if std::path::Path::new("/sys/fs/cgroup/memory").is_dir() {
            (
                format!("/sys/fs/cgroup/memory/{name}"),
                "memory.limit_in_bytes",
            )
        } else {
            (format!("/sys/fs/cgroup/{name}"), "memory.max")
        };
        std::fs::create_dir(&dir).map_err(|e| format!("{dir}: {e}"))?;
        let group = Self(dir.into());
        let file = group.0.join(file);
        std::fs::write(&file, limit.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(group)
    }

    fn take_in(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .expect("a process for the group");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Busy until its last process has been reaped, which it was before: the group is declared before the process.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_small_memory_cgroup_costs_a_client_its_rings_and_nobody_the_server() {
    let group = match Group::new(48 << 20) {
        Ok(group) => group,
        Err(why) => return println!("SKIPPED: no memory cgroup can be made here ({why})"),
    };
    let world = World::new();
    let mut server = ready(world.server().with("RING_BYTES", (32 << 20).to_string()));
    group.take_in(server.pid());
    let config = Config {
        ring_bytes: 32 << 20,
        ..world.config()
    };
    let mut client = Synapse::connect(world.path(), &config).expect("a client");
    let why = client.fallback().expect("64 MiB of rings in a group of 48");
    assert_eq!(
        (why.step, why.limit, why.at_peer),
        (Step::Headroom, 48 << 20, true),
        "{why}"
    );
    assert!(matches!(mix(&mut client, 2, 0), Ended::Done));
    // One that asks for less gets it.
    let mut small = world.connect();
    assert!(matches!(mix(&mut small, 2, 0), Ended::Done));
    server.ask("counts", "counts");
    drop(server);
}

#[test]
fn huge_pages_that_are_not_there_become_small_ones_and_the_page_says_so() {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.as_deref().map_or("0", str::trim) != "0" {
        return println!("SKIPPED: this machine has free huge pages ({free:?})");
    }
    let world = World::new();
    let server = ready(world.server().with("HUGE", ""));
    let mut client = world.connect();
    assert!(matches!(mix(&mut client, 2, 0), Ended::Done));
    let page = world.page(&server);
    let slot = page
        .slots
        .iter()
        .find(|s| s.info.connection_id == client.connection_id());
    let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let setting = std::fs::read_to_string(setting).unwrap_or_default();
    let transparent = ["[always]", "[within_size]", "[advise]", "[force]"]
        .iter()
        .any(|choice| setting.contains(choice));
    assert_eq!(
        slot.expect("its slot").info.huge_pages,
        if transparent { 3 } else { 2 },
        "asked for and short; {setting:?}"
    );
}

#[test]
fn a_flood_of_clients_is_bounded_and_counted_and_those_there_are_served() {
    let world = World::new();
    let server = ready(
        world
            .server()
            .with("MAX_CLIENTS", "64")
            .with("HANDSHAKE_MS", "5000"),
    );
    let mut bystander = world.connect();
    assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done));
    let before = held(server.pid());
    let flood = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut there: Vec<Raw> =
                        (0..125).map(|_| Raw::connect(&world.path())).collect();
                    for raw in &mut there {
                        // It may be refused already.
                        raw.say(&hello(1 << 16, 20_000));
                    }
                    let heard: Vec<u32> = there
                        .iter_mut()
                        .map(|raw| raw.hear().map_or(0, |h| h.kind()))
                        .collect();
                    (there, heard)
                })
            })
            .collect();
        let rounds = (0..20)
            .filter(|_| matches!(mix(&mut bystander, 1, 0), Ended::Done))
            .count();
        assert_eq!(rounds, 20, "the one that was there");
        threads
            .into_iter()
            .map(|t| t.join().expect("a flooder"))
            .collect::<Vec<_>>()
    });
    let all: Vec<u32> = flood
        .iter()
        .flat_map(|(_, heard)| heard.iter().copied())
        .collect();
    let count = |kind| all.iter().filter(|k| **k == kind).count();
    let (welcome, refused, cut) = (count(WELCOME), count(REFUSED), count(0));
    println!("500 connections: {welcome} let in, {refused} refused with the reason, {cut} cut");
    assert_eq!(welcome + refused + cut, 500);
    assert!(welcome <= 63, "{welcome} let in where 64 may be");
    within(WATCHDOG, "each refusal is counted", || {
        let process = world.page(&server).process;
        let who = (process.rejected_full as usize, process.last_rejected_pid);
        let right = (refused + cut, u64::from(std::process::id()));
        (who == right).then_some(()).ok_or(who)
    });
    drop(flood);
    within(WATCHDOG, "all is given back", || {
        let now = held(server.pid());
        ((now.fds, now.rings) == (before.fds, before.rings))
            .then_some(())
            .ok_or((before, now))
    });
    assert!(matches!(mix(&mut world.connect(), 1, 0), Ended::Done));
}

#[test]
fn a_memory_budget_is_kept_and_whoever_is_above_it_goes_over_the_socket() {
    let world = World::new();
    let one = 4096 + 2 * RING_BYTES;
    let server = ready(world.server().with("BUDGET", (3 * one).to_string()));
    let mut within_it: Vec<Synapse> = (0..3).map(|_| world.connect()).collect();
    let mut above = Synapse::connect(world.path(), &world.config()).expect("a client");
    let why = above.fallback().expect("the budget is used up");
    assert_eq!(
        (why.step, why.limit, why.used),
        (Step::Headroom, 3 * one as u64, 3 * one as u64)
    );
    assert!(matches!(mix(&mut above, 1, 0), Ended::Done));
    assert_eq!(world.page(&server).process.fallbacks, 1);
    within_it.pop();
    within(WATCHDOG, "room again", || above.try_upgrade_to_shm());
    assert!(matches!(mix(&mut above, 1, 0), Ended::Done));
}

#[test]
fn clients_that_come_at_once_do_not_exceed_the_memory_budget_between_them() {
    let world = World::new();
    let one = 4096 + 2 * RING_BYTES;
    let _server = ready(world.server().with("BUDGET", (3 * one).to_string()));
    for _ in 0..10 {
        let start = std::sync::Barrier::new(12);
        let all: Vec<Synapse> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..12)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Synapse::connect(world.path(), &world.config()).expect("a client")
                    })
                })
                .collect();
            let done = threads.into_iter().map(|t| t.join().expect("a client"));
            done.collect()
        });
        let on_shm = all.iter().filter(|c| c.is_shm()).count();
        assert!(on_shm <= 3, "{on_shm} have rings where the budget is for 3");
        for client in all.iter().filter(|c| !c.is_shm()) {
            let why = client.fallback().expect("a reason");
            assert_eq!((why.step, why.limit), (Step::Headroom, 3 * one as u64));
        }
    }
}

#[test]
fn those_who_leave_while_a_handler_is_busy_count_until_their_rings_are_gone() {
    let most = 3;
    let budget = most * (4096 + 2 * RING_BYTES);
    for (limit, value) in [("BUDGET", budget), ("MAX_CLIENTS", most)] {
        let world = World::new();
        let server = ready(world.server().with(limit, value.to_string()));
        let mut busy = world.connect();
        let before = held(server.pid());
        busy.submit(b"wait 2000").expect("room");
        // The only poller is in the handler: it lets go of nothing.
        let mut come = 0;
        while come < 30 && busy.try_receive().expect("alive").is_none() {
            let _ = Synapse::connect(world.path(), &world.config());
            come += 1;
            let now = held(server.pid());
            assert!(
                now.rings <= most && now.fds <= before.fds + 8,
                "{limit}: {now:?} after {come} who came and left"
            );
        }
        println!("{limit}: {come} came and left");
        within(WATCHDOG, "room again", || {
            let client = Synapse::connect(world.path(), &world.config());
            client.is_ok_and(|c| c.is_shm()).then_some(()).ok_or(())
        });
    }
}

#[test]
fn who_has_left_before_anybody_looked_is_not_refused() {
    let world = World::new();
    let server = ready(world.server().with("MAX_CLIENTS", "2"));
    let mut client = world.connect();
    server.signal(Signal::SIGSTOP);
    // They wait in the queue of a stopped server, and give up.
    drop(
        (0..100)
            .map(|_| Raw::connect(&world.path()))
            .collect::<Vec<_>>(),
    );
    server.signal(Signal::SIGCONT);
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
    // Behind them in the queue: once it is let in, they have been looked at. Until then it may find their places taken, itself.
    let (mut next, mut told) = (None, 0);
    within(WATCHDOG, "a place is free", || {
        match Synapse::connect(world.path(), &world.config()) {
            Ok(client) => {
                next = Some(client);
                Ok(())
            }
            Err(error) => {
                told += u64::from(matches!(error, ConnectError::Refused { .. }));
                Err(error)
            }
        }
    });
    assert_eq!(world.page(&server).process.rejected_full, told);
    drop((client, next));
}

#[test]
fn those_who_are_refused_take_nobodys_place() {
    let world = World::new();
    let server = ready(world.server().with("MAX_CLIENTS", "2"));
    let mut first = world.connect();
    let second = world.connect();
    // Refused, and still there: they neither say a word nor hang up.
    let before = held(server.pid());
    let refused: Vec<Raw> = (0..50).map(|_| Raw::connect(&world.path())).collect();
    within(WATCHDOG, "all are refused", || {
        let process = world.page(&server).process;
        (process.rejected_full == 50)
            .then_some(())
            .ok_or(process.rejected_full)
    });
    let now = held(server.pid());
    assert_eq!((now.fds, now.rings), (before.fds, before.rings));
    assert!(now.threads <= before.threads, "a thread for one of them");
    drop(second);
    let mut next = None;
    within(WATCHDOG, "a place is free", || {
        Synapse::connect(world.path(), &world.config()).map(|client| next = Some(client))
    });
    assert!(matches!(
        mix(&mut next.expect("a client"), 1, 0),
        Ended::Done
    ));
    assert!(matches!(mix(&mut first, 1, 0), Ended::Done));
    drop(refused);
}

#[test]
fn a_core_dump_does_not_hold_the_rings() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() != "core" {
        return println!("SKIPPED: core dumps go to {:?} here", pattern.trim());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new();
    let big = (64 << 20).to_string();
    let server = ready(world.server().with("RING_BYTES", &big));
    let mut start = world
        .client()
        .with("RING_BYTES", &big)
        .with("TIMEOUT_MS", "100");
    start.command().current_dir(dir.path());
    let mut client = start.go();
    assert_eq!(client.ask("connect", "connected"), "shm");
    server.signal(Signal::SIGSTOP);
    client.ask("fill", "filled");
    let resident =
        std::fs::read_to_string(format!("/proc/{}/status", client.pid())).expect("status");
    let shared = resident
        .lines()
        .find_map(|l| l.strip_prefix("RssShmem:"))
        .expect("RssShmem");
    let kib: u64 = shared
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    assert!(kib > 32 << 10, "the ring is in memory: {shared}");
    limit(&client, libc::RLIMIT_CORE, libc::RLIM_INFINITY);
    client.signal(nix::sys::signal::Signal::SIGABRT);
    assert!(client.ends().core_dumped(), "no core was written");
    let core = std::fs::read_dir(dir.path())
        .expect("the directory")
        .flatten()
        .next();
    let core = core.expect("a core");
    // A sparse file's blocks are what was written.
    let meta = std::os::unix::fs::MetadataExt::blocks(&core.metadata().expect("the core")) * 512;
    println!("{kib} KiB of rings in memory, a core of {} KiB", meta >> 10);
    assert!(meta < 24 << 20, "a core of {meta} bytes");
}
