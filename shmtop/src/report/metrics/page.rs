//! The counters, gauges and histograms of the stats pages, named after the schema.

use transport::stats::schema::{Descriptor, Kind, Unit, descriptors};
use transport::stats::{Histogram, Role, Slot, Snapshot};

use super::{Exposition, Labelled, Type};
use crate::sample::Sample;

/// All of them.
pub(super) fn write(out: &mut Exposition, endpoints: &[Labelled<'_>], sample: &Sample) {
    let pages: Vec<(&Labelled<'_>, &Snapshot)> = endpoints
        .iter()
        .filter_map(|e| Some((e, page_of(e, sample)?)))
        .collect();
    for d in descriptors() {
        counters(out, d, &pages);
    }
    histogram(
        out,
        "shmtop_rtt_seconds",
        "round trip: submit to reply received",
        &pages,
        |s| &s.rtt,
    );
    histogram(
        out,
        "shmtop_handler_time_seconds",
        "time in the handler",
        &pages,
        |s| &s.handler,
    );
}

fn page_of<'s>(e: &Labelled<'_>, sample: &'s Sample) -> Option<&'s Snapshot> {
    let e = e.endpoint;
    sample
        .pages
        .iter()
        .filter(|p| p.pid == e.pid)
        .filter_map(|p| p.snapshot())
        .find(|s| s.created_monotonic_ns == e.key.created_ns && s.name == e.key.name)
}

/// Name without the suffix of counters: unit at the end, as OpenMetrics wants it.
fn metric_name(d: &Descriptor) -> String {
    let base = d.name.trim_end_matches("_ns").trim_end_matches("_bytes");
    match d.unit {
        Unit::Nanoseconds => format!("shmtop_{base}_seconds"),
        Unit::MonotonicNs => format!("shmtop_{base}_monotonic_seconds"),
        Unit::Bytes | Unit::Index => format!("shmtop_{base}_bytes"),
        Unit::Count => format!("shmtop_{}", d.name),
    }
}

fn counters(out: &mut Exposition, d: &Descriptor, pages: &[(&Labelled<'_>, &Snapshot)]) {
    let kind = match d.kind {
        Kind::Counter => Type::Counter,
        Kind::Gauge | Kind::Histogram => Type::Gauge,
    };
    let mut samples = Vec::new();
    for (e, page) in pages.iter().filter(|(_, page)| counts(page.role, d)) {
        if let Some(v) = of_process(page, d) {
            samples.push(("", &e.labels, number(d, v)));
        }
        let slot = |index: u32| page.slots.iter().find(|s| s.index == index);
        for (c, labels) in &e.clients {
            if let Some(v) = slot(c.slot).and_then(|s| of_slot(s, d)) {
                samples.push(("", labels, number(d, v)));
            }
        }
        // A poller waits; whatever else its slot has is its clients'.
        for (index, labels) in e.pollers.iter().filter(|_| is_wait(d)) {
            if let Some(v) = slot(*index).and_then(|s| of_slot(s, d)) {
                samples.push(("", labels, number(d, v)));
            }
        }
    }
    out.family(&metric_name(d), kind, d.help, samples);
}

/// What only one side counts: at the other side it is a 0 that means nothing.
const OF_CLIENTS: [&str; 4] = ["in_flight", "oldest_ns", "timeouts", "late_replies"];
const OF_SERVERS: [&str; 3] = ["panics", "handler_since_ns", "handler_ns"];

fn counts(role: Role, d: &Descriptor) -> bool {
    let others = match role {
        Role::Server => &OF_CLIENTS[..],
        Role::Client => &OF_SERVERS,
    };
    !others.contains(&d.name)
}

fn number(d: &Descriptor, v: u64) -> String {
    match d.unit {
        Unit::Nanoseconds | Unit::MonotonicNs => seconds(v),
        _ => v.to_string(),
    }
}

fn seconds(ns: u64) -> String {
    format!("{}", ns as f64 / 1e9)
}

/// A bound as OpenMetrics and Prometheus write it (`1.0`, `0.0001`, `1e-05`), so that a series is the same by whichever way it came.
fn canonical(bound_ns: u64) -> String {
    let text = format!("{:?}", bound_ns as f64 / 1e9);
    text.replace("e-", "e-0")
}

fn is_wait(d: &Descriptor) -> bool {
    let list = transport::stats::WaitCounters::DESCRIPTORS;
    list.iter().any(|x| x.name == d.name)
}

fn of_process(page: &Snapshot, d: &Descriptor) -> Option<u64> {
    use transport::stats::ProcessCounters as P;
    let at = P::DESCRIPTORS.iter().position(|x| x.name == d.name)?;
    page.process.values().get(at).copied()
}

fn of_slot(s: &Slot, d: &Descriptor) -> Option<u64> {
    use transport::stats::{HouseCounters, ReqCounters, RxCounters, TxCounters, WaitCounters};
    let of = |list: &[Descriptor], values: fn(&Slot) -> Vec<u64>| {
        let at = list.iter().position(|x| x.name == d.name)?;
        values(s).get(at).copied()
    };
    of(TxCounters::DESCRIPTORS, |s| s.tx.values())
        .or_else(|| of(RxCounters::DESCRIPTORS, |s| s.rx.values()))
        .or_else(|| of(WaitCounters::DESCRIPTORS, |s| s.wait.values()))
        .or_else(|| of(ReqCounters::DESCRIPTORS, |s| s.req.values()))
        .or_else(|| of(HouseCounters::DESCRIPTORS, |s| s.house.values()))
}

/// Upper bounds of the exposed buckets, in ns: a 1-2-5 ladder from 100 ns to 10 s.
const BOUNDS_NS: [u64; 25] = [
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    200_000_000,
    500_000_000,
    1_000_000_000,
    2_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

fn histogram(
    out: &mut Exposition,
    name: &str,
    help: &str,
    pages: &[(&Labelled<'_>, &Snapshot)],
    of: fn(&Slot) -> &Histogram,
) {
    let mut samples = Vec::new();
    for (e, page) in pages {
        for (c, labels) in &e.clients {
            let Some(h) = page.slots.iter().find(|s| s.index == c.slot).map(of) else {
                continue;
            };
            let total = h.count();
            if total == 0 {
                continue;
            }
            for bound in BOUNDS_NS {
                let n: u64 = h
                    .buckets
                    .iter()
                    .filter(|(i, _)| {
                        transport::stats::histogram::lower_bound(usize::from(*i) + 1) <= bound
                    })
                    .map(|(_, n)| *n)
                    .fold(0, u64::saturating_add);
                let labels = format!("{labels},le=\"{}\"", canonical(bound));
                samples.push(("_bucket", labels, n.to_string()));
            }
            let end = format!("{labels},le=\"+Inf\"");
            samples.push(("_bucket", end, total.to_string()));
            samples.push(("_sum", labels.clone(), seconds(h.sum_ns)));
            samples.push(("_count", labels.clone(), total.to_string()));
        }
    }
    out.family(name, Type::Histogram, help, samples);
}
