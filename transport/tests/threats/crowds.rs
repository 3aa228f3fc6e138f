//! Threat 32: more clients than a server takes, and those who come and go meanwhile. The rest are served, and told from those who are refused.

use nix::sys::signal::Signal;
use transport::Synapse;
use transport::error::{CloseReason, ConnectError};
use transport::stats::{SlotKind, SlotState};

use crate::rogue::{REFUSED, Raw, WELCOME, hello};
use crate::role::WATCHDOG;
use crate::watch::{held, within};
use crate::world::{Ended, RING_BYTES, World, mix, ready};

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
fn of_clients_with_a_thread_each_all_can_be_seen() {
    const CLIENTS: usize = 80;
    let world = World::new();
    let server = ready(
        world
            .server()
            .with("MAX_CLIENTS", CLIENTS.to_string())
            .with("THREAD_PER_CLIENT", ""),
    );
    let clients: Vec<Synapse> = (0..CLIENTS).map(|_| world.connect()).collect();
    let page = world.page(&server);
    let of = |kind| page.slots.iter().filter(|s| s.info.kind == kind).count();
    let seen = (of(SlotKind::Connection), of(SlotKind::Poller));
    assert_eq!(seen, (CLIENTS, CLIENTS));
    drop(clients);
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
fn who_leaves_while_a_handler_is_busy_is_gone_from_the_page() {
    let world = World::new();
    let server = ready(world.server());
    let [mut busy, other] = std::array::from_fn(|_| world.connect());
    let id = other.connection_id();
    // The only poller is in the handler, for longer than we wait.
    let ms = 2 * WATCHDOG.as_millis();
    busy.submit(format!("wait {ms}").as_bytes()).expect("room");
    within(WATCHDOG, "the handler is busy", || {
        let page = world.page(&server);
        let served: u64 = page.slots.iter().map(|s| s.req.requests).sum();
        (served == 1).then_some(()).ok_or(served)
    });
    drop(other);
    within(WATCHDOG, "gone", || {
        let page = world.page(&server);
        let slot = page.slots.iter().find(|s| s.info.connection_id == id);
        match slot.map(|s| (s.info.state, s.info.close_reason)) {
            Some((SlotState::Closed, why)) if why == CloseReason::PeerGone as u32 => Ok(()),
            other => Err(other),
        }
    });
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
