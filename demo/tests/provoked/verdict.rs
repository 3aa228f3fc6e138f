//! What a connection is bound by, and where its time goes, of workloads whose answer is known.

use serde_json::Value;

use crate::common::Place;
use crate::connection::start;
use crate::cpu::two_cpus;
use crate::{Outcome, Provocation, alone, in_pairs, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    in_pairs("bound-by-handler", handler),
    together("bound-by-consumer", consumer),
    in_pairs("bound-by-producer", producer),
    together("bound-by-idle", idle),
    alone("bound-by-scheduler", scheduler),
    alone("bound-by-memory", memory),
];

/// The first client of a server over two seconds, whose time adds up wherever it is known.
fn client(place: &Place, pid: i32) -> Value {
    let end = place.run("self", &format!("shmtop snapshot -f json -d 2s -p {pid}"));
    let client = end.json()["endpoints"][0]["clients"][0].clone();
    if let Some(shares) = client["time"].as_object() {
        let sum: f64 = shares.values().filter_map(Value::as_f64).sum();
        assert!((0.98..1.02).contains(&sum), "{shares:?} is {sum}, not 1");
    }
    client
}

/// A share of a client's time.
fn share(client: &Value, name: &str) -> f64 {
    client["time"][name].as_f64().unwrap_or(0.0)
}

/// What it is bound by.
#[track_caller]
fn bound(client: &Value, by: &str) {
    let verdict = &client["verdict"];
    assert_eq!(verdict["bound"], by, "{client:#}");
    assert!(verdict["says"].as_str().is_some_and(|s| !s.is_empty()));
}

fn handler(place: &Place) -> Outcome {
    let exchange = place.exchange("--work 2ms");
    let mut trader = place.start("trader", "1 ping --duration forever");
    trader.line();
    let client = client(place, exchange.pid());
    bound(&client, "handler");
    assert!(share(&client, "useful") < 0.5, "{client:#}");
    Ok(())
}

/// Nothing moves because replies are not read.
fn consumer(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let _client = start(place, "client greedy");
    let begun = std::time::Instant::now();
    crate::common::wait_until("the stall", || begun.elapsed().as_millis() > 1500);
    bound(&client(place, exchange.pid()), "consumer");
    Ok(())
}

fn producer(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let mut trader = place.start("trader", "1 ping --think 10ms --duration forever");
    trader.line();
    let client = client(place, exchange.pid());
    bound(&client, "producer");
    assert!(share(&client, "useful") < 0.5, "{client:#}");
    Ok(())
}

fn idle(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let mut trader = place.start("trader", "1 ping --think 3600s --duration forever");
    trader.line();
    bound(&client(place, exchange.pid()), "idle");
    Ok(())
}

/// Somebody else has half of the client's CPU.
fn scheduler(place: &Place) -> Outcome {
    let [a, b] = two_cpus()?;
    let exchange = place.exchange(&format!("--pin={a}"));
    let mut trader = place.start(
        "trader",
        &format!("1 ping --wait spin --pin={b} --duration forever"),
    );
    trader.line();
    let _hog = start(place, &format!("hog {b}"));
    let client = client(place, exchange.pid());
    bound(&client, "scheduler");
    assert!(share(&client, "no_core") > 0.2, "{client:#}");
    Ok(())
}

/// Copies of a mebibyte, one after the other.
fn memory(place: &Place) -> Outcome {
    let [a, b] = two_cpus()?;
    let exchange = place.exchange(&format!("--pin={a}"));
    let mut trader = place.start(
        "trader",
        &format!("1 bytes 1MiB --depth 8 --pin={b} --duration forever"),
    );
    trader.line();
    let client = client(place, exchange.pid());
    bound(&client, "memory");
    assert!(share(&client, "useful") > 0.5, "{client:#}");
    Ok(())
}
