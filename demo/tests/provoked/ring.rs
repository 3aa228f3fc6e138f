//! Rings that are full, too small, too large; messages and timeouts that don't fit; handlers that take all the time.

use crate::common::Place;
use crate::connection::{root, start};
use crate::doctor::{ask, is_well, names, well_without};
use crate::{Look, Outcome, Provocation, alone, alone_at_first, in_pairs, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    together("ring-full", ring_full),
    together("near-max-message", near_max_message),
    together("ring-leaked", ring_leaked),
    together("late-replies", late_replies),
    together("handler-bound", handler_bound),
    in_pairs("shm-no-win", shm_no_win),
    alone_at_first("wrap-waste", wrap_waste),
    alone("tail-spread", tail_spread),
];

/// A client that pipelines into a handler that takes its time.
fn ring_full(place: &Place) -> Outcome {
    let exchange = place.exchange("--work 5ms --ring-size 1MiB");
    let trader = place.start(
        "trader",
        "1 bytes 100000 --depth 100 --ring-size 1MiB --duration forever",
    );
    let pid = exchange.pid();
    names(place, pid, "ring-full", "crit")
        .says("requests blocked")
        .fix(format!("perf top -p {pid}"))
        .number("occupancy", |n| n > 40.0)
        .number("blocked", |n| n > 1.0);
    drop(trader);
    let _client = start(place, "client plain");
    is_well(place, pid, "ring-full");
    Ok(())
}

/// Requests one byte above the limit.
fn near_max_message(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let client = start(place, "client too-large");
    names(place, exchange.pid(), "near-max-message", "warn")
        .says("requests of 16 KiB refused within a minute (max 16 KiB)")
        .fix("--max-message 32768")
        .number("size of the last", |n| n == 16385.0);
    drop(client);
    let _client = start(place, "client plain");
    is_well(place, exchange.pid(), "near-max-message");
    Ok(())
}

/// A third process has the rings open.
fn ring_leaked(place: &Place) -> Outcome {
    root()?;
    let exchange = place.exchange("");
    let _client = start(place, "client plain");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", exchange.pid())).expect("ours");
    let ring = maps
        .lines()
        .find(|l| l.contains("shm-ring"))
        .expect("rings");
    let range = ring.split(' ').next().expect("a range");
    let file = format!("/proc/{}/map_files/{range}", exchange.pid());
    let holder = start(place, &format!("holder {file}"));
    names(place, exchange.pid(), "ring-leaked", "warn")
        .says(format!(
            "(pid {}) inherited the ring of client 1",
            holder.pid()
        ))
        // To look first, and not to kill: it may be a process that should have closed the ring.
        .fix(format!("ls -l /proc/{}/fd", holder.pid()));
    drop(holder);
    is_well(place, exchange.pid(), "ring-leaked");
    Ok(())
}

/// A timeout of 2 ms and a handler of 10 ms.
fn late_replies(place: &Place) -> Outcome {
    let exchange = place.exchange("--work 10ms");
    let client = start(place, "client impatient");
    names(place, exchange.pid(), "late-replies", "warn")
        .says(format!("client 1 (pid {})", client.pid()))
        .fix("request_timeout")
        .number("late replies", |n| n > 1.0);
    drop(client);
    let _client = start(place, "client plain");
    is_well(place, exchange.pid(), "late-replies");
    Ok(())
}

/// A handler of 2 ms.
fn handler_bound(place: &Place) -> Outcome {
    let exchange = place.exchange("--work 2ms");
    let trader = place.start("trader", "1 ping --duration forever");
    let pid = exchange.pid();
    names(place, pid, "handler-bound", "info")
        .says("of the round trip is the handler")
        .fix(format!("perf top -p {pid}"))
        .number("handler p50", |n| n > 2e6);
    drop((trader, exchange));
    let exchange = place.exchange("");
    let _client = start(place, "client plain");
    is_well(place, exchange.pid(), "handler-bound");
    Ok(())
}

/// A client on shared memory that queues behind another's handler; one on the socket has a server thread of its own. The other,
/// with two requests in flight, is not compared. With a longer handler that would be the first thing to say.
fn shm_no_win(place: &Place) -> Outcome {
    let exchange = place.exchange("--wait park --work 20us");
    let seldom = "1 ping --rate 200 --duration forever --wait park";
    let _before_it = place.start("trader", "1 ping --depth 2 --duration forever --wait park");
    let _ring = place.start("trader", seldom);
    let socket = place.start("trader", &format!("{seldom} --transport socket"));
    ask(place, &format!("-p {} --for 10s", exchange.pid()))
        .first("shm-no-win", "info")
        .fix("--transport socket")
        .number("p50 shm", |n| n > 20_000.0)
        .number("p50 socket", |n| n > 20_000.0);
    drop(socket);
    ask(place, &format!("-p {}", exchange.pid())).well("shm-no-win");
    Ok(())
}

/// Messages of a third of the ring and one byte; one at a time, since the third of two in flight finds no room, which would be the first thing to say.
/// A debug build copies them for as long as a wait is spun: that some of them end in a sleep would come first, too.
fn wrap_waste(place: &Place) -> Result<Look, String> {
    let exchange = place.exchange("--ring-size 64KiB --max-message 32000");
    let trader = place.start(
        "trader",
        "1 bytes 21900 --ring-size 64KiB --max-message 32000 --wait spin --duration forever",
    );
    names(place, exchange.pid(), "wrap-waste", "info")
        .says("don't divide 64 KiB")
        .fix("--ring-size 262144")
        .number("padding", |n| n > 10.0)
        .number("wraps", |n| n > 1000.0);
    drop(trader);
    Ok(Box::new(move |place| {
        let _client = start(place, "client plain");
        is_well(place, exchange.pid(), "wrap-waste");
    }))
}

/// One request in 200 meets a pause of the handler.
fn tail_spread(place: &Place) -> Outcome {
    let server = start(place, "server tail");
    let _trader = place.start(
        "trader",
        "1 bytes 100 --duration forever --wait spin --verify sample",
    );
    names(place, server.pid(), "tail-spread", "info")
        .says("p99.9 is")
        .fix(format!("shmtop -p {}", server.pid()))
        .number("requests", |n| n >= 10_000.0);
    well_without("tail-spread");
    Ok(())
}
