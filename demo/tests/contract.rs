//! What users and scripts rely on: the benchmark's commands, the lines, the JSON object.

mod common;

use common::Place;
use nix::sys::signal::Signal;

/// `--> RPS: 125000 | Throughput: 4768.37 MB/s`, taken apart.
#[track_caller]
fn rps_and_throughput(line: &str) -> (f64, f64) {
    let line = line.strip_suffix('\n').expect("a whole line");
    let rest = line.strip_prefix("--> RPS: ").expect(line);
    let (rps, rest) = rest.split_once(" | Throughput: ").expect(line);
    let throughput = rest.strip_suffix(" MB/s").expect(line);
    assert!(rps.len() >= 6, "padded to six places: {line}");
    assert_eq!(throughput.split_once('.').expect(line).1.len(), 2, "{line}");
    (
        rps.trim_start().parse().expect(line),
        throughput.parse().expect(line),
    )
}

#[test]
fn the_documents_two_commands_print_what_the_document_says() {
    let place = Place::new();
    let mut exchange = place.start("exchange", "");
    assert_eq!(
        exchange.line(),
        format!("exchange: listening on {}\n", place.socket().display())
    );
    let mut trader = place.start("trader", "16 bytes 20000");
    assert_eq!(trader.line(), "!! SHM UPGRADE SUCCESS (SPSC) !!\n");
    let mut at_work = 0;
    while at_work < 2 {
        let (rps, throughput) = rps_and_throughput(&trader.line());
        // None in a second that others had; a line that is no second's ends this.
        at_work += u32::from(rps > 0.0);
        let both_ways = rps * 2.0 * 20_000.0 / f64::from(1 << 20);
        // The printed rate is rounded to whole requests.
        assert!(
            (both_ways - throughput).abs() < 0.05,
            "{both_ways} {throughput}"
        );
    }
    trader.signal(Signal::SIGINT);
    let trader = trader.finish();
    assert_eq!(trader.code(), 0, "{trader:?}");
    assert!(trader.stdout.contains("latency    p50 "), "{trader:?}");
    assert!(trader.stdout.contains("0 corrupt, 0 errors"), "{trader:?}");
    exchange.signal(Signal::SIGTERM);
    let exchange = exchange.finish();
    assert_eq!(exchange.code(), 0, "{exchange:?}");
    assert_eq!(exchange.stdout, "", "one line on stdout, no more");
    assert!(
        exchange.stderr.contains("ended by a signal"),
        "{exchange:?}"
    );
    assert_eq!(place.files(), [""; 0], "nothing is left behind");
}

#[test]
fn a_reader_that_has_seen_enough_ends_a_run_and_is_no_failure() {
    let place = Place::new();
    let _exchange = place.exchange("");
    let mut trader = place.start("trader", "1 ping --think 1ms");
    assert_eq!(trader.line(), "!! SHM UPGRADE SUCCESS (SPSC) !!\n");
    let trader = trader.finish_unread();
    assert_eq!((trader.code(), &*trader.stderr), (0, ""), "{trader:?}");
}

#[test]
fn json_is_one_object_with_the_contracts_keys_and_all_else_is_on_stderr() {
    let place = Place::new();
    let _exchange = place.exchange("");
    let trader = place.run("trader", "2 bytes 20000 --duration 1100ms --json");
    let summary = trader.json();
    let keys: Vec<_> = summary.as_object().expect("object").keys().collect();
    let mut expected = vec![
        "clients",
        "mode",
        "size",
        "seconds",
        "requests",
        "rps",
        "mib_per_s",
        "rtt_ns",
        "shm_clients",
        "socket_clients",
        "errors",
        "corrupt",
        "cpu_seconds",
        "fairness",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let times: Vec<_> = summary["rtt_ns"]
        .as_object()
        .expect("object")
        .keys()
        .collect();
    assert_eq!(times, ["max", "p50", "p99", "p999"]);
    assert_eq!(summary["clients"], 2);
    assert_eq!(summary["mode"], "bytes");
    assert_eq!(summary["size"], 20_000);
    let number = |key: &str| summary[key].as_f64().expect(key);
    let rps = number("requests") / number("seconds");
    assert!((number("rps") - rps).abs() < 1e-6 * rps);
    let mib = rps * 40_000.0 / f64::from(1 << 20);
    assert!((number("mib_per_s") - mib).abs() < 1e-6 * mib);
    assert!(number("cpu_seconds") > 0.0);
    let ns = |key: &str| summary["rtt_ns"][key].as_u64().expect(key);
    assert!(0 < ns("p50") && ns("p50") <= ns("p99") && ns("p999") <= ns("max"));
    assert!(trader.stderr.contains("!! SHM UPGRADE SUCCESS (SPSC) !!"));
    assert!(trader.stderr.contains("--> RPS: "), "{trader:?}");
}

#[test]
fn a_run_without_answers_has_no_latency_rather_than_zero() {
    let place = Place::new();
    let _exchange = place.exchange("");
    let summary = place.run("trader", "1 ping --requests 0 --json").json();
    assert!(summary["rtt_ns"]["p50"].is_null(), "{summary}");
    assert!(summary["fairness"].is_null(), "{summary}");
}

#[test]
fn without_shared_memory_nothing_claims_success() {
    let place = Place::new();
    let _exchange = place.exchange("");
    let trader = place.run("trader", "2 ping --requests 3 --transport socket");
    assert_eq!(trader.code(), 0, "{trader:?}");
    assert!(!trader.stdout.contains("SUCCESS"), "{trader:?}");
    assert!(
        trader
            .stdout
            .contains("(2 of 2 clients on the socket: as asked)")
    );
}

#[test]
fn durations_end_both_programs() {
    let place = Place::new();
    let exchange = place.exchange("");
    let trader = place.run("trader", "1 ping --duration 50ms");
    assert_eq!(trader.code(), 0, "{trader:?}");
    drop(exchange);
    // Alone: a trader may take longer to start than this lasts.
    let exchange = place.exchange("--duration 50ms").finish();
    assert_eq!(exchange.code(), 0, "{exchange:?}");
    assert!(exchange.stderr.contains("its --duration"), "{exchange:?}");
}

#[test]
fn an_open_loop_charges_a_slow_exchange_for_the_requests_it_delays() {
    let place = Place::new();
    let _exchange = place.exchange("--work 20ms");
    // 500 a second are due and at most 50 can be served: the tenth of 20 is due after 18 ms and served after 200 at the earliest, however busy
    // the machine. Of a closed loop p50 is 20 ms.
    let open = place
        .run("trader", "1 ping --rate 500 --requests 20 --json")
        .json();
    let closed = place.run("trader", "1 ping --requests 20 --json").json();
    let p50 = |summary: &serde_json::Value| summary["rtt_ns"]["p50"].as_u64().expect("measured");
    assert!(p50(&closed) >= 19_000_000, "{closed}");
    assert!(p50(&open) >= 150_000_000, "{open} {closed}");
}

#[test]
fn the_exchange_can_be_told_to_be_busy() {
    let place = Place::new();
    let _exchange = place.exchange("--work-spin 2ms");
    let summary = place.run("trader", "1 ping --requests 5 --json").json();
    assert!(
        summary["rtt_ns"]["p50"].as_u64() >= Some(1_900_000),
        "{summary}"
    );
}
