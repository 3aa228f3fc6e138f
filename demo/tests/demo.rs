//! The demo in one command: everything starts, is shown, and is gone afterwards, however it ended.

mod common;

use common::{Place, wait_until};
use nix::sys::signal::Signal;
use transport::stats::{PageReader, Role, SlotKind, SlotState, Via, registry};

/// Clients that the exchange's page shows on shared memory.
fn on_shm(place: &Place) -> usize {
    let pages = registry::discover(place.dir()).unwrap_or_default();
    pages
        .iter()
        .filter_map(|found| PageReader::open(&found.link).ok()?.snapshot().ok())
        .filter(|page| page.role == Role::Server)
        .flat_map(|page| page.slots)
        .map(|slot| slot.info)
        .filter(|info| info.kind == SlotKind::Connection && info.state == SlotState::Open)
        .filter(|info| info.transport == Via::Shm)
        .count()
}

#[test]
fn without_a_terminal_it_prints_one_table_and_leaves_nothing_behind() {
    let place = Place::new();
    let demo = place.start("demo", "--clients 4 --duration 60s");
    // For as long as that takes: how soon they come is the machine's.
    wait_until("4 clients on shared memory", || on_shm(&place) == 4);
    demo.signal(Signal::SIGINT);
    let demo = demo.finish();
    assert_eq!(demo.code(), 0, "{demo:?}");
    assert!(
        demo.stdout.contains("4 clients: 4 shm, 0 socket"),
        "{demo:?}"
    );
    assert!(demo.stderr.contains("stdout is not a terminal"), "{demo:?}");
    assert_eq!(place.processes(), [0; 0]);
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn sixteen_traders_come_up_on_shared_memory() {
    let place = Place::new();
    let _demo = place.start("demo", "--duration 60s");
    wait_until("16 clients on shared memory", || on_shm(&place) == 16);
}

#[test]
fn every_way_to_end_it_ends_its_children() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGKILL,
    ] {
        let place = Place::new();
        let demo = place.start("demo", "--clients 3 --duration 60s");
        place.wait_for_processes(5);
        demo.signal(signal);
        let demo = demo.finish();
        let expected = if signal == Signal::SIGKILL { -1 } else { 0 };
        assert_eq!(demo.code(), expected, "{signal}: {demo:?}");
        place.wait_for_processes(0);
        assert_eq!(place.files(), [""; 0], "{signal}");
    }
}

#[test]
fn a_killed_child_ends_it_with_its_name_and_the_reason() {
    for (word, name) in [
        ("__exchange", "the exchange (pid "),
        ("__trader", "trader "),
    ] {
        let place = Place::new();
        let demo = place.start("demo", "--clients 2 --duration 60s");
        place.wait_for_processes(4);
        place.kill_one(word);
        let demo = demo.finish();
        assert_eq!(demo.code(), 1, "{demo:?}");
        assert!(demo.stderr.contains(name), "{demo:?}");
        assert!(demo.stderr.contains("signal: 9"), "{demo:?}");
        assert_eq!(place.processes(), [0; 0]);
        assert_eq!(place.files(), [""; 0]);
    }
}

#[test]
fn a_child_that_crashes_while_the_demo_ends_is_named_too() {
    for (word, name) in [
        ("__exchange", "the exchange (pid "),
        ("__trader", "trader "),
    ] {
        let place = Place::new();
        let demo = place.start("demo", "--clients 1 --duration 60s");
        // Before that its handshake ends by itself, and sooner than we kill it.
        wait_until("a client on shared memory", || on_shm(&place) == 1);
        place.doom_one(word, Signal::SIGUSR1);
        demo.signal(Signal::SIGTERM);
        let demo = demo.finish();
        assert_eq!(demo.code(), 1, "{demo:?}");
        // And nobody else: the trader of an exchange that is stopped takes so long to end that we kill it.
        let ends: Vec<_> = (demo
            .stderr
            .lines()
            .filter(|line| line.contains("ended with")))
        .collect();
        let named = ends.len() == 1 && ends[0].starts_with(&format!("demo: {name}"));
        assert!(named && ends[0].contains("signal: 10"), "{demo:?}");
        assert!(demo.stdout.contains("CLIENT"), "the table: {demo:?}");
        assert_eq!(place.processes(), [0; 0]);
        assert_eq!(place.files(), [""; 0]);
    }
}

/// To stop the exchange is one of the things to try.
#[test]
fn traders_that_only_wait_for_an_exchange_that_is_stopped_have_not_failed() {
    let place = Place::new();
    let demo = place.start("demo", "--clients 3 --duration 60s");
    wait_until("3 clients on shared memory", || on_shm(&place) == 3);
    place.stop_one("__exchange");
    demo.signal(Signal::SIGTERM);
    let demo = demo.finish();
    assert_eq!(demo.code(), 0, "{demo:?}");
    assert!(!demo.stderr.contains("ended with"), "{demo:?}");
    assert_eq!(place.processes(), [0; 0]);
    assert_eq!(place.files(), [""; 0]);
}

#[test]
fn all_workloads_start() {
    for args in [
        "--mode batch --rate 500",
        "--full",
        "--mode ping",
        "--wait park",
    ] {
        let place = Place::new();
        let demo = place.run("demo", &format!("--clients 2 --duration 500ms {args}"));
        assert_eq!(demo.code(), 0, "{args}: {demo:?}");
        assert!(
            demo.stderr.contains("printed one table"),
            "{args}: {demo:?}"
        );
    }
}

#[test]
fn a_wrong_command_line_starts_nothing() {
    let place = Place::new();
    for (args, word) in [
        ("--clients 0", "0 is not in"),
        ("--wait forever", "forever"),
        ("--full --rate 5", "--rate"),
        ("--mode pong", "pong"),
        // What its traders could not do.
        ("--rate 0", "--rate must be above zero"),
        ("--size 10", "size must be 32"),
        ("--clients 1 --mode batch --size 4MiB", "2097152"),
    ] {
        let demo = place.run("demo", args);
        assert_eq!(demo.code(), 2, "{args}: {demo:?}");
        assert_eq!(demo.stderr.lines().count(), 1, "{args}: {demo:?}");
        let said = demo.stderr.starts_with("demo: ") && demo.stderr.contains(word);
        assert!(said, "{args}: {demo:?}");
        assert_eq!(place.files(), [""; 0], "{args}");
    }
}
