use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;
use crate::membrane::testing::{WATCHDOG, server, until};
use crate::{Config, Membrane, Synapse};

/// Clients that send one request after the other, and moves in all.
const CLIENTS: usize = 4;
const MOVES: usize = 400;

#[test]
fn connections_that_are_moved_all_the_time_lose_no_request_and_are_let_go_of_when_their_client_has_gone()
 {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, config) = server(dir.path());
    let inboxes = pool::first(&server.shared, 2).expect("two pollers");
    let over = AtomicBool::new(false);
    let (mut moves, mut places) = (0, BTreeMap::new());
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (config, over, path) = (&config, &over, server.path());
            scope.spawn(move || {
                let mut n = 0u64;
                // Connections come and go while they are moved.
                while !over.load(Ordering::Relaxed) {
                    let mut synapse = Synapse::connect(path, config).expect("a connection");
                    for _ in 0..500 {
                        n += 1;
                        let request = [n.to_le_bytes(), client.to_le_bytes()].concat();
                        let reply = synapse.fire_bytes(&request).expect("an answer");
                        assert_eq!(reply, request);
                    }
                }
            });
        }
        let begun = Instant::now();
        while moves < MOVES && begun.elapsed() < WATCHDOG {
            for (key, client) in &server.shared.clients.lock().by_key {
                if let Some(shm) = &client.shm {
                    let at = usize::from(shm.ends.is_at(&inboxes[1]));
                    // Counted when it has happened.
                    let before = places.insert(*key, at);
                    moves += usize::from(before.is_some_and(|before| before != at));
                    shm.ends.move_to(&inboxes[1 - at]);
                }
            }
            std::thread::yield_now();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(moves >= MOVES, "{moves} moves");
    until("a connection is kept", || {
        server.shared.clients.lock().held() == 0
    });
    until("a place is kept", || inboxes.iter().all(|i| i.load() == 0));
}

#[test]
fn a_crowd_on_all_cpus_gets_a_poller_for_each_and_one_on_a_single_cpu_does_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, _) = server(dir.path());
    let cpus = allowed_cpus();
    let mut spread = Spread::default();
    spread.begin(&server.shared, &[cpus[0]; 100]);
    assert!(spread.seats.is_empty(), "one thread with many connections");
    let crowd = cpus.repeat(CROWD_PER_CPU);
    spread.begin(&server.shared, &crowd[1..]);
    assert!(spread.seats.is_empty(), "not enough");
    spread.begin(&server.shared, &crowd);
    let whole = std::thread::available_parallelism().is_ok_and(|n| n.get() >= cpus.len());
    if whole && (2..=MOST_CPUS).contains(&cpus.len()) {
        let seats: Vec<_> = spread.seats.iter().map(|s| s.cpu).collect();
        assert_eq!(seats, cpus);
        // Nobody is there any more: back to one, but not at once.
        let mut looks = 0;
        while !spread.seats.is_empty() {
            let crowd = spread.keep(&server.shared, &Table::default(), Load::default(), 0);
            assert_eq!(crowd, None);
            looks += 1;
        }
        assert_eq!(looks, PATIENCE);
    } else {
        assert!(spread.seats.is_empty(), "{cpus:?}");
    }
}

#[test]
fn a_server_that_was_refused_a_thread_lets_others_have_them_for_long_however_often_it_looks() {
    let mut spread = Spread {
        much: CONVINCING,
        ..Spread::default()
    };
    let second = Duration::from_secs(1);
    assert!(spread.is_time(second));
    for pause in [REFUSED, 2 * REFUSED] {
        spread.refused.begin();
        assert!((0..10_000).all(|_| !spread.is_time(Duration::from_micros(10))));
        assert!(!spread.is_time(pause - second));
        assert!(spread.is_time(second));
    }
}

#[test]
fn a_crowd_whose_requests_have_become_cheap_goes_back_to_one_poller_and_so_do_a_few_clients() {
    let seat = |cpu| Seat {
        cpu,
        inbox: Arc::default(),
    };
    let crowd = [0, 1].repeat(FEW_PER_CPU);
    for (much, clients) in [(false, &crowd[..]), (true, &crowd[1..])] {
        let mut spread = Spread {
            seats: vec![seat(0), seat(1)],
            ..Spread::default()
        };
        assert!((0..3 * PATIENCE).all(|_| !spread.is_over(true, &crowd)));
        assert!((1..PATIENCE).all(|_| !spread.is_over(much, clients)));
        assert!(!spread.is_over(true, &crowd), "in a row");
        assert!((1..PATIENCE).all(|_| !spread.is_over(much, clients)));
        assert!(spread.is_over(much, clients));
    }
}

#[test]
fn a_crowd_is_on_every_cpu_that_is_ours_and_nearly_all_of_it_on_none() {
    let on = |each: [usize; 5]| {
        let clients: Vec<usize> = (0..5).flat_map(|cpu| vec![cpu; each[cpu]]).collect();
        is_crowd(&clients, &[0, 1, 2, 3], CROWD_PER_CPU)
    };
    assert!(on([4, 4, 4, 4, 0]));
    assert!(on([8, 2, 3, 3, 0]), "as the kernel spreads them");
    assert!(!on([4, 4, 4, 3, 0]), "not enough");
    assert!(!on([8, 8, 0, 0, 0]), "others are free");
    assert!(!on([20, 2, 2, 2, 0]), "one thread with many connections");
    assert!(!on([2, 2, 2, 2, 100]), "most are on none of ours");
}

#[test]
fn those_who_think_do_not_hide_that_the_busy_ones_are_on_one_cpu() {
    // Two on one CPU, beside thinkers, and fourteen on the other.
    let clients = [
        [(0, 6_900); 2].as_slice(),
        &[(0, 20); 42],
        &[(1, 1_100); 14],
        &[(1, 20); 42],
    ];
    let clients = clients.concat();
    let crowd: Vec<usize> = clients.iter().filter_map(|c| busy(*c, 6_900)).collect();
    assert_eq!(crowd.len(), 16);
    assert!(!is_crowd(&crowd, &[0, 1], FEW_PER_CPU));
    // One who thinks beside its like is as busy as they are.
    assert_eq!(busy((1, 20), 20), Some(1));
}

#[test]
fn expensive_requests_that_keep_a_poller_busy_are_much_and_cheap_or_few_ones_are_not() {
    let much = |useful_ns: u64, requests: u64, spread| {
        let last = Work {
            at_ns: 7,
            useful_ns: 7,
            requests: 7,
        };
        let now = Work {
            at_ns: 7 + 100_000_000,
            useful_ns: 7 + useful_ns,
            requests: 7 + requests,
        };
        now.is_much(last, spread)
    };
    assert!(much(50_000_000, 25_000, false), "20,000 B");
    assert!(!much(30_000_000, 60_000, false), "64 B");
    assert!(!much(30_000_000, 60_000, true), "64 B");
    assert!(!much(3_000_000, 1_400, false), "they think");
    assert!(!much(50_000_000, 0, false), "nothing");
    // In between it stays as it is.
    assert!(!much(20_000_000, 23_000, false));
    assert!(much(20_000_000, 23_000, true));
}

#[test]
fn who_says_how_many_pollers_there_are_has_so_many() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = Config {
        workers: 1,
        stats_dir: Some(dir.path().into()),
        ..Config::default()
    };
    let server = Membrane::bind(dir.path().join("s"), &config, |_, _| ()).expect("a server");
    let mut spread = Spread {
        patience: 3,
        ..Spread::default()
    };
    assert_eq!(
        spread.keep(&server.shared, &Table::default(), Load::default(), 0),
        None
    );
    assert_eq!(spread.patience, 3, "nothing is looked at");
}
