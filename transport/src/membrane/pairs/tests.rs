use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::membrane::testing::{server, server_that, until};
use crate::stats::{PageReader, Role, SlotState, registry};
use crate::{Config, Membrane, Synapse};

/// Ends the clients, also when a test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const CLIENTS: usize = 4;
const ROUNDS: u32 = 20;

/// The places of the pollers that serve somebody.
fn serving(inboxes: &[Arc<Inbox>], table: &Table) -> BTreeSet<usize> {
    let place = |shm: &ShmPart| inboxes.iter().position(|inbox| shm.ends.is_at(inbox));
    on_shm(table).filter_map(|(_, shm)| place(shm)).collect()
}

#[test]
fn clients_are_given_pollers_of_their_own_and_lose_them_again_without_losing_a_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, config) = server(dir.path());
    let (shared, over) = (&server.shared, AtomicBool::new(false));
    let mut pairs = Pairs::default();
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut synapse = Synapse::connect(server.path(), &config).expect("a connection");
                for n in 0u64.. {
                    let reply = synapse.fire_bytes(&n.to_le_bytes()).expect("an answer");
                    assert_eq!(reply, n.to_le_bytes());
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    if n.is_multiple_of(16) {
                        // Long enough for its poller to take it for one that thinks.
                        std::thread::sleep(Duration::from_micros(500));
                    }
                }
            });
        }
        until("they come", || shared.clients.on_shm() == CLIENTS);
        for _ in 0..ROUNDS {
            pairs.begin(shared, CLIENTS);
            until("each has its own", || {
                // At the next look, if a poller has not quite let go of the one it had.
                let table = shared.clients.lock();
                pairs.pair(&table);
                serving(&pairs.inboxes, &table).len() == CLIENTS
            });
            let inboxes = pairs.inboxes.clone();
            pairs.end(&shared.clients.lock());
            until("all have one", || {
                serving(&inboxes, &shared.clients.lock()) == BTreeSet::from([0])
            });
        }
    });
}

#[test]
fn the_poller_of_a_client_that_has_gone_is_the_next_ones_and_who_comes_later_gets_one_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, config) = server(dir.path());
    let shared = &server.shared;
    let connect = || Synapse::connect(server.path(), &config).expect("a connection");
    let mut pairs = Pairs::default();
    let settle = |pairs: &mut Pairs, clients: usize| {
        until("they are there", || shared.clients.on_shm() == clients);
        pairs.begin(shared, clients);
        pairs.pair(&shared.clients.lock());
        let is_given = |(key, _)| pairs.of.contains_key(&key);
        assert!(on_shm(&shared.clients.lock()).all(is_given));
        until("each has its own", || {
            serving(&pairs.inboxes, &shared.clients.lock()).len() == clients
        });
    };
    let (first, mut second) = (connect(), connect());
    settle(&mut pairs, 2);
    drop(first);
    until("one is gone", || shared.clients.on_shm() == 1);
    let (mut third, mut fourth) = (connect(), connect());
    settle(&mut pairs, 3);
    assert_eq!(pairs.inboxes.len(), 3, "the first one's is used again");
    for client in [&mut second, &mut third, &mut fourth] {
        assert_eq!(client.fire_bytes(b"hello").expect("an answer"), b"hello");
    }
}

#[test]
fn clients_that_think_for_a_while_are_each_served_by_a_poller_of_their_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let (server, config) = server(dir.path());
    let over = AtomicBool::new(false);
    // As a viewer sees it.
    let pollers = || -> BTreeSet<u32> {
        let pages = registry::discover(dir.path()).expect("pages");
        let pages = pages
            .iter()
            .filter_map(|found| PageReader::open(&found.link).ok());
        let pages = pages.filter_map(|page| page.snapshot().ok());
        let slots = pages
            .filter(|page| page.role == Role::Server)
            .flat_map(|page| page.slots);
        let open = slots
            .map(|slot| slot.info)
            .filter(|info| info.state == SlotState::Open);
        open.filter_map(|info| info.poller_slot).collect()
    };
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut synapse = Synapse::connect(server.path(), &config).expect("a connection");
                while !over.load(Ordering::Relaxed) {
                    synapse.fire_bytes(b"hello").expect("an answer");
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
        }
        // Where `futex_waitv` is missing there are no pairs, and that is as it should be.
        until("each has its own", || {
            pollers().len() == CLIENTS || futex::is_one_word_only()
        });
    });
}

#[test]
fn who_leaves_and_comes_back_is_not_put_behind_the_handler_it_left() {
    let dir = tempfile::tempdir().expect("a directory");
    let gate = Arc::new(Mutex::new(()));
    let entered = Arc::new(AtomicBool::new(false));
    let work = {
        let (gate, entered) = (Arc::clone(&gate), Arc::clone(&entered));
        move |request: &[u8]| {
            if request == b"long" {
                entered.store(true, Ordering::Relaxed);
                drop(gate.lock());
            }
        }
    };
    // Its control thread pairs nobody then.
    let (server, config) = server_that(dir.path(), WaitPolicy::Park, work);
    let closed = gate.lock().expect("nobody yet");
    let shared = &server.shared;
    let connect = || Synapse::connect(server.path(), &config).expect("a connection");
    let there = |clients| until("they are there", || shared.clients.on_shm() == clients);
    let mut pairs = Pairs::default();
    let pair = |pairs: &mut Pairs, clients, places: &[usize]| {
        pairs.begin(shared, clients);
        pairs.pair(&shared.clients.lock());
        assert!(pairs.of.values().eq(places), "{:?}", pairs.of);
        until("each is in its place", || {
            serving(&pairs.inboxes, &shared.clients.lock()) == places.iter().copied().collect()
        });
    };
    let _first = connect();
    there(1);
    let mut second = connect();
    there(2);
    pair(&mut pairs, 2, &[0, 1]);
    second.submit(b"long").expect("room");
    until("it is in the handler", || entered.load(Ordering::Relaxed));
    drop(second);
    there(1);
    let mut again = connect();
    there(2);
    pair(&mut pairs, 2, &[0]);
    assert_eq!(pairs.stuck(), 1);
    pair(&mut pairs, 3, &[0, 2]);
    assert_eq!(again.fire_bytes(b"hello").expect("an answer"), b"hello");
    drop(closed);
    until("it is let go of", || pairs.stuck() == 0);
    let _third = connect();
    there(3);
    pair(&mut pairs, 3, &[0, 2, 1]);
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
    let mut pairs = Pairs::default();
    let wanted = pairs.keep(&server.shared, &Table::default(), Load::default(), false, 7);
    assert_eq!((wanted, pairs.last_ns), (None, 0), "nothing is looked at");
}
