//! Processes that die: the others notice, say so, and go on or end with the right code.

mod common;

use common::{Place, wait_until};
use nix::sys::signal::Signal;
use transport::stats::{PageReader, Slot, SlotKind, SlotState, Snapshot, registry};

/// Reads until a second has been reported, so that requests are under way.
fn until_busy(trader: &mut common::Running) {
    while !trader.line().starts_with("--> RPS") {}
}

/// The page of the process with this pid.
fn page_of(place: &Place, pid: i32) -> Option<Snapshot> {
    let found = registry::discover(place.dir()).expect("the pages' links");
    let page = found.iter().find(|f| f.pid == pid as u32)?;
    PageReader::open(&page.link).ok()?.snapshot().ok()
}

/// Sum of the `N client(s)` of the lines with these words: what happens together is said together, but not always
/// in one line.
fn clients(stderr: &str, words: &str) -> u32 {
    let number = |line: &str| {
        let (before, _) = line.split_once(" client(s)")?;
        before.rsplit(' ').next()?.parse::<u32>().ok()
    };
    stderr
        .lines()
        .filter(|line| line.contains(words))
        .filter_map(number)
        .sum()
}

#[test]
fn an_exchange_outlives_a_killed_trader_and_serves_the_next() {
    let place = Place::new();
    let _exchange = place.exchange("");
    for args in ["4 bytes 20000 --depth 4", "4 bytes 20000 --processes"] {
        let mut trader = place.start("trader", args);
        until_busy(&mut trader);
        trader.kill();
    }
    let next = place.run("trader", "4 bytes 20000 --requests 20 --verify full --json");
    assert_eq!(next.json()["requests"], 80);
    place.wait_for_processes(1);
}

#[test]
fn a_trader_reports_a_killed_exchange_and_ends_with_code_6() {
    for args in [
        "4 bytes 20000",
        "4 ping --depth 8",
        "4 ping --threads 1",
        "4 ping --transport socket",
        "4 ping --processes",
    ] {
        let place = Place::new();
        let exchange = place.exchange("");
        let mut trader = place.start(
            "trader",
            &format!("{args} --duration forever --reconnect 0s"),
        );
        until_busy(&mut trader);
        exchange.kill();
        let trader = trader.finish();
        assert_eq!(trader.code(), 6, "{args}: {trader:?}");
        assert!(trader.stderr.contains("connection lost"), "{trader:?}");
        assert_eq!(clients(&trader.stderr, "connection lost"), 4, "{trader:?}");
        assert!(trader.stderr.contains("unknown"), "{trader:?}");
        assert!(
            trader.stdout.contains("  requests   "),
            "a summary: {trader:?}"
        );
    }
}

#[test]
fn a_trader_finds_back_to_an_exchange_that_was_started_again() {
    let place = Place::new();
    let exchange = place.exchange("");
    let args = "4 bytes 20000 --duration forever --reconnect 60s --verify full";
    let mut trader = place.start("trader", args);
    until_busy(&mut trader);
    exchange.kill();
    // It has another way than before, and the summary is of that.
    let again = place.exchange("--transport socket");
    // By its own page: the trader's lines may be older than it is.
    wait_until("answers to all four", || {
        let page = page_of(&place, again.pid());
        let served = |s: &&Slot| s.info.kind == SlotKind::Connection && s.tx.tx_messages > 0;
        page.is_some_and(|p| p.slots.iter().filter(served).count() == 4)
    });
    trader.signal(Signal::SIGTERM);
    let trader = trader.finish();
    assert!(trader.stderr.contains("connection lost"), "{trader:?}");
    assert_eq!(clients(&trader.stderr, "connected again"), 4, "{trader:?}");
    assert!(trader.stdout.contains("0 corrupt, "), "{trader:?}");
    let now = "4 (0 on shared memory, 4 on the socket)";
    assert!(trader.stdout.contains(now), "{trader:?}");
    // Requests with an unknown outcome are errors.
    assert_eq!(trader.code(), 1, "{trader:?}");
}

#[test]
fn a_killed_worker_process_is_reported_and_the_others_finish() {
    let place = Place::new();
    let _exchange = place.exchange("");
    let mut trader = place.start("trader", "3 ping --processes --duration forever");
    until_busy(&mut trader);
    let victim = place
        .processes()
        .into_iter()
        .find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.contains("--worker\x001\x00"))
        })
        .expect("worker number 1");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim), Signal::SIGKILL).expect("killed");
    trader.signal(Signal::SIGINT);
    let trader = trader.finish();
    assert_eq!(trader.code(), 1, "{trader:?}");
    assert!(
        trader
            .stderr
            .contains(&format!("trader: client 2: worker process {victim} died\n")),
        "{trader:?}"
    );
    assert!(trader.stdout.contains("  requests   "), "{trader:?}");
    place.wait_for_processes(1);
}

#[test]
fn workers_end_when_their_trader_is_killed() {
    let place = Place::new();
    let exchange = place.exchange("");
    let mut trader = place.start("trader", "3 ping --processes --duration forever");
    until_busy(&mut trader);
    trader.kill();
    place.wait_for_processes(1);
    drop(exchange);
}

#[test]
fn a_stopped_exchange_is_not_a_dead_one() {
    let place = Place::new();
    let exchange = place.exchange("");
    let mut trader = place.start("trader", "2 ping --duration forever --reconnect 0s");
    until_busy(&mut trader);
    exchange.signal(Signal::SIGSTOP);
    // A whole second without an answer …
    wait_until("silence", || trader.line().contains("RPS:      0"));
    exchange.signal(Signal::SIGCONT);
    // … and on it goes, on the same connections.
    wait_until("answers", || !trader.line().contains("RPS:      0"));
    trader.signal(Signal::SIGINT);
    let trader = trader.finish();
    assert_eq!(trader.code(), 0, "{trader:?}");
    assert!(!trader.stderr.contains("connection lost"), "{trader:?}");
}

/// A reader that leaves is no failure, and hides none: one of the two clients is refused.
#[test]
fn a_trader_whose_reader_leaves_ends_with_the_verdict_of_what_was_run() {
    for (clients, code) in [("1", 0), ("2", 1)] {
        let place = Place::new();
        let _exchange = place.exchange("--max-clients 1");
        let trader = place.start("trader", &format!("{clients} ping --duration forever"));
        let trader = trader.finish_unread();
        assert_eq!(trader.code(), code, "{clients}: {trader:?}");
    }
}

/// With --json the lines on stderr are for people, and the object is what a script waits for.
#[test]
fn with_json_nobody_has_to_read_the_lines_for_people() {
    let place = Place::new();
    let _exchange = place.exchange("");
    let mut command = place.command("trader", "1 ping --think 1ms --duration 1500ms --json");
    let mut child = command.spawn().expect("it starts");
    drop(child.stderr.take());
    let trader = child.wait_with_output().expect("a child");
    assert_eq!(trader.status.code(), Some(0), "{trader:?}");
    let summary: serde_json::Value = serde_json::from_slice(&trader.stdout).expect("one object");
    let seconds = summary["seconds"].as_f64().expect("a number");
    assert!(seconds >= 1.5, "all that was asked for: {summary}");
}

#[test]
fn a_trader_works_on_with_the_clients_that_the_exchange_admits() {
    let place = Place::new();
    let exchange = place.exchange("--max-clients 10");
    for args in ["", "--threads 1", "--processes"] {
        // A place is free once the exchange has seen who left it, which may be after he has ended. Its number of clients is told ten times a second only.
        let is_open = |slot: &Slot| {
            slot.info.kind == SlotKind::Connection && slot.info.state == SlotState::Open
        };
        wait_until("ten free places", || {
            page_of(&place, exchange.pid()).is_some_and(|page| !page.slots.iter().any(is_open))
        });
        let trader = place.run("trader", &format!("16 ping --requests 50 --json {args}"));
        assert_eq!(trader.code(), 1, "{args}: {trader:?}");
        let summary: serde_json::Value = serde_json::from_str(&trader.stdout).expect("one object");
        assert_eq!(summary["clients"], 16);
        assert_eq!(summary["shm_clients"], 10, "{args}: {trader:?}");
        assert_eq!(summary["requests"], 500, "{args}: {trader:?}");
        assert_eq!(summary["errors"], 0);
        let says = "6 of 16 clients could not connect: server refused";
        assert!(trader.stderr.contains(says), "{args}: {trader:?}");
        place.wait_for_processes(1);
    }
}
