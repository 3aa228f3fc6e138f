//! The list of promises.

use super::{Bound, Check, Family, Figure, Measured, Medians, ratio};
use super::{cpu, cpus, fairness, p50, p99, p999, rate, thousands};
use Bound::{AtLeast, AtMost};

const ICEORYX2: Family = &[
    ("iceoryx2", "request-response"),
    ("iceoryx2-events", "request-response, events"),
    ("iceoryx2-pubsub", "publish-subscribe"),
];
const SHMIPC: Family = &[
    ("shmipc", "eventfd"),
    ("shmipc-default", "default protocol"),
];
const OLD: &str = "old-design";
const OLD_AT_ITS_BEST: &str = "old-design-yield";

/// A figure that means something in the near regime only.
fn absolute(what: &str, measured: Option<Measured>, bound: Bound) -> Check {
    Check {
        what: what.into(),
        measured,
        bound,
        relative: false,
    }
}

fn relative(what: impl Into<String>, measured: Option<Measured>, bound: Bound) -> Check {
    Check {
        what: what.into(),
        measured,
        bound,
        relative: true,
    }
}

/// Our throughput at the first of these kinds of work for each of the library's best at any of them.
fn times_best(
    m: &Medians<'_>,
    work: &[(&str, &str)],
    library: &str,
    family: Family,
    bound: Bound,
) -> Check {
    let best = m.best(work, family);
    let name = best
        .as_ref()
        .map_or_else(String::new, |(_, name)| format!(" ({name})"));
    let ours = work
        .first()
        .and_then(|(workload, _)| m.ours(workload, rate));
    relative(
        format!("× {library}'s best{name}"),
        ratio(ours, best.map(|(measured, _)| measured)),
        bound,
    )
}

/// What is promised of each kind of work.
pub(super) fn checks(m: &Medians<'_>) -> Vec<(&'static str, Vec<Check>)> {
    let ours = |what: &str, workload: &str, figure: Figure, bound: Bound| {
        absolute(what, m.ours(workload, figure), bound)
    };
    let in_ns = |measured: Measured| Measured {
        value: measured.value * 1e3,
        ..measured
    };
    let lines = ratio(m.ours("64-1", p50).map(in_ns), m.line("64-1"));
    let cpu_of_one = |workload: &str| ratio(m.ours(workload, cpu), m.ours("64-1c", cpu));
    let of_std = |workload: &str| ratio(m.ours(workload, p50), m.of(workload, "unix", p50));
    vec![
        (
            "64 B, 1 client",
            vec![
                ours("p50, µs", "64-1", p50, AtMost(0.30)),
                absolute("p50, line round trips", lines, AtMost(4.0)),
                relative(
                    "× iceoryx2 request-response",
                    m.times("64-1", "iceoryx2"),
                    AtLeast(3.0),
                ),
                times_best(m, &[("64-1", "")], "iceoryx2", ICEORYX2, Bound::None),
            ],
        ),
        (
            "20,000 B, 1 client",
            vec![
                ours("k/s", "20000-1", thousands, AtLeast(380.0)),
                times_best(m, &[("20000-1", "")], "iceoryx2", ICEORYX2, AtLeast(2.3)),
                relative(
                    "× rtrb in one process",
                    m.times("20000-1", "rtrb"),
                    AtLeast(1.2),
                ),
            ],
        ),
        (
            "20,000 B, 16 processes",
            vec![
                ours("k/s", "20000-16p", thousands, AtLeast(340.0)),
                ours("p99, µs", "20000-16p", p99, AtMost(130.0)),
                ours("fairness", "20000-16p", fairness, AtLeast(0.7)),
                times_best(m, &[("20000-16p", "")], "shmipc", SHMIPC, AtLeast(2.8)),
            ],
        ),
        (
            "20,000 B, 16 threads",
            vec![
                ours("k/s", "20000-16t", thousands, AtLeast(420.0)),
                times_best(m, &[("20000-16t", "")], "shmipc", SHMIPC, AtLeast(1.2)),
            ],
        ),
        (
            "64 B, 16 processes",
            vec![
                ours("k/s", "64-16p", thousands, AtLeast(850.0)),
                ours("fairness", "64-16p", fairness, AtLeast(0.9)),
                ours("p99.9, µs", "64-16p", p999, AtMost(100.0)),
                times_best(
                    m,
                    &[("64-16p", ", 16 processes"), ("64-16t", ", 16 threads")],
                    "shmipc",
                    SHMIPC,
                    AtLeast(1.7),
                ),
            ],
        ),
        (
            "64 B, 16 connections of one thread",
            vec![ours("k/s", "64-16c", thousands, AtLeast(10_000.0))],
        ),
        (
            "64 B, 1 to 1,000 connections of one thread",
            vec![
                relative(
                    "CPU per request, 100 × 1",
                    cpu_of_one("64-100c"),
                    AtMost(1.5),
                ),
                relative(
                    "CPU per request, 1,000 × 1",
                    cpu_of_one("64-1000c"),
                    AtMost(1.5),
                ),
            ],
        ),
        (
            "16 processes that think, 64 B",
            vec![
                relative("p50, 1 ms, × std sockets", of_std("think-1ms"), AtMost(1.0)),
                relative(
                    "p50, 50 µs, × std sockets",
                    of_std("think-50us"),
                    AtMost(1.0),
                ),
            ],
        ),
        (
            "16 idle clients",
            vec![
                ours("CPUs", "idle", cpus, AtMost(0.01)),
                relative(
                    "first request, × a futex round trip",
                    ratio(m.ours("idle", p50), m.of("idle", "futex", p50)),
                    AtMost(1.2),
                ),
            ],
        ),
        (
            "against the old design, 20,000 B, 16 processes",
            vec![
                relative("× throughput", m.times("20000-16p", OLD), AtLeast(5.0)),
                relative(
                    "× throughput of the one that yields at once",
                    m.times("20000-16p", OLD_AT_ITS_BEST),
                    Bound::None,
                ),
                relative(
                    "× better p99",
                    ratio(m.of("20000-16p", OLD, p99), m.ours("20000-16p", p99)),
                    AtLeast(10.0),
                ),
                relative(
                    "CPU per request, share of the old",
                    ratio(m.ours("20000-16p", cpu), m.of("20000-16p", OLD, cpu)),
                    AtMost(0.4),
                ),
            ],
        ),
    ]
}
