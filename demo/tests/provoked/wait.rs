//! Waiters that burn, oversleep, or pass the CPU around.

use crate::common::Place;
use crate::connection::start;
use crate::cpu::two_cpus;
use crate::doctor::{names, well_without};
use crate::{Outcome, Provocation, alone, in_pairs};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    in_pairs("idle-burn", idle_burn),
    in_pairs("oversleep", oversleep),
    in_pairs("sleep-on-path", sleep_on_path),
    alone("yield-storm", yield_storm),
];

/// A ladder that never leaves its first rung, for a request now and then.
fn idle_burn(place: &Place) -> Outcome {
    // Its sleep, should a pause outlast the spin, is long enough not to be an overslept one.
    let exchange = place.exchange("--spin 100000 --yield 0 --sleep 1ms");
    let pid = exchange.pid();
    let _client = start(place, "client plain");
    names(place, pid, "idle-burn", "warn")
        .says(format!("(pid {pid}) thread"))
        .says("policy ladder")
        .fix(format!("restart pid {pid} with Config::wait = Adaptive"))
        .number("CPU", |n| n > 50.0)
        .number("messages", |n| n < 1000.0);
    well_without("idle-burn");
    Ok(())
}

/// Sleeps of a microsecond, with the kernel's usual slack.
fn oversleep(place: &Place) -> Outcome {
    let exchange = place.exchange("--spin 0 --yield 0 --sleep 1us");
    let pid = exchange.pid();
    let _trader = place.start("trader", "1 ping --wait park --rate 500 --duration forever");
    names(place, pid, "oversleep", "warn")
        .says(format!("(pid {pid}) asks for sleeps of 1.0 µs"))
        .fix(format!("restart pid {pid}"))
        .number("asked for", |n| n == 1000.0)
        .number("sleep, median", |n| n > 3000.0);
    well_without("oversleep");
    Ok(())
}

/// Replies that come when the spinning is over: the server has to be woken for each, and computes for a while. On one CPU it would
/// do so in the place of its client, which would find the answer without any wait.
fn sleep_on_path(place: &Place) -> Outcome {
    let [a, b] = two_cpus()?;
    let exchange = place.exchange(&format!("--wait park --work-spin 50us --pin={a}"));
    let _trader = place.start(
        "trader",
        &format!(
            "1 ping --pin={b} --rate 500 --spin 100 --yield 0 --sleep 100us --duration forever"
        ),
    );
    names(place, exchange.pid(), "sleep-on-path", "info")
        .says("end in a sleep")
        .fix("--spin")
        .number("waits ended by a sleep", |n| n > 5.0);
    well_without("sleep-on-path");
    Ok(())
}

/// Six workers that do nothing but yield, and two CPUs: a third of a core each. With half of one, `idle-burn` would be as right.
fn yield_storm(place: &Place) -> Outcome {
    let exchange = place.exchange("--workers 6 --spin 0 --yield 100000 --sleep 1ms");
    let pid = exchange.pid();
    let _trader = place.start(
        "trader",
        "6 ping --wait park --rate 1000 --duration forever",
    );
    names(place, pid, "yield-storm", "warn")
        .says(format!("(pid {pid})"))
        .fix(format!("{pid}"))
        .number("yields", |n| n > 100_000.0);
    well_without("yield-storm");
    Ok(())
}
