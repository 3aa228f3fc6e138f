//! OpenMetrics text, for `snapshot -f prom` and `export`: every counter of the stats page by its schema, and what the
//! model adds (percentiles, states, limits, findings).

use std::fmt::Write as _;

use transport::stats::schema::{Descriptor, Kind, Unit, descriptors};
use transport::stats::{Histogram, Slot, Snapshot};

use super::json::{role, via};
use crate::model::{Client, Endpoint, Model};
use crate::sample::Sample;

/// The exposition, `# EOF` included.
pub fn open_metrics(model: &Model, sample: &Sample) -> String {
    let mut out = String::new();
    let pages: Vec<(&Endpoint, &Snapshot)> = model
        .endpoints
        .iter()
        .filter_map(|e| {
            sample
                .pages
                .iter()
                .filter_map(|p| p.snapshot().map(|s| (p.pid, s)))
                .find(|(pid, s)| {
                    *pid == e.pid
                        && s.created_monotonic_ns == e.key.created_ns
                        && s.name == e.key.name
                })
                .map(|(_, s)| (e, s))
        })
        .collect();
    for d in descriptors() {
        from_page(&mut out, d, &pages);
    }
    histogram(
        &mut out,
        "rtt",
        "round trip: submit to reply received",
        &pages,
        |s| &s.rtt,
    );
    histogram(
        &mut out,
        "handler_time",
        "time in the handler",
        &pages,
        |s| &s.handler,
    );
    from_model(&mut out, model);
    out.push_str("# EOF\n");
    out
}

/// Metric name without the suffix of counters: unit at the end, as OpenMetrics wants it.
fn metric_name(d: &Descriptor) -> String {
    let base = d.name.trim_end_matches("_ns").trim_end_matches("_bytes");
    match d.unit {
        Unit::Nanoseconds => format!("shmtop_{base}_seconds"),
        Unit::MonotonicNs => format!("shmtop_{base}_monotonic_seconds"),
        Unit::Bytes | Unit::Index => format!("shmtop_{base}_bytes"),
        Unit::Count => format!("shmtop_{}", d.name),
    }
}

fn from_page(out: &mut String, d: &Descriptor, pages: &[(&Endpoint, &Snapshot)]) {
    let name = metric_name(d);
    let (kind, suffix) = match d.kind {
        Kind::Counter => ("counter", "_total"),
        Kind::Gauge | Kind::Histogram => ("gauge", ""),
    };
    let mut lines = String::new();
    for (e, page) in pages {
        if let Some(v) = of_process(page, d) {
            let _ = writeln!(
                lines,
                "{name}{suffix}{{{}}} {}",
                endpoint_labels(e),
                number(d, v)
            );
        }
        for c in &e.clients {
            let slot = page.slots.iter().find(|s| s.index == c.slot);
            if let Some(v) = slot.and_then(|s| of_slot(s, d)) {
                let _ = writeln!(
                    lines,
                    "{name}{suffix}{{{}}} {}",
                    client_labels(e, c),
                    number(d, v)
                );
            }
        }
    }
    if lines.is_empty() {
        return;
    }
    head(out, &name, kind, d.help);
    out.push_str(&lines);
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# TYPE {name} {kind}");
    if let Some(unit) = ["seconds", "bytes"].into_iter().find(|u| name.ends_with(u)) {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    let _ = writeln!(out, "# HELP {name} {}", escape(help));
}

fn number(d: &Descriptor, v: u64) -> String {
    match d.unit {
        Unit::Nanoseconds | Unit::MonotonicNs => format!("{}", v as f64 / 1e9),
        _ => v.to_string(),
    }
}

fn of_process(page: &Snapshot, d: &Descriptor) -> Option<u64> {
    use transport::stats::ProcessCounters as P;
    let at = P::DESCRIPTORS.iter().position(|x| x.name == d.name)?;
    page.process.values().get(at).copied()
}

fn of_slot(s: &Slot, d: &Descriptor) -> Option<u64> {
    use transport::stats::{HouseCounters, ReqCounters, RxCounters, TxCounters, WaitCounters};
    let groups: [(&[Descriptor], Vec<u64>); 5] = [
        (TxCounters::DESCRIPTORS, s.tx.values()),
        (RxCounters::DESCRIPTORS, s.rx.values()),
        (WaitCounters::DESCRIPTORS, s.wait.values()),
        (ReqCounters::DESCRIPTORS, s.req.values()),
        (HouseCounters::DESCRIPTORS, s.house.values()),
    ];
    groups.iter().find_map(|(list, values)| {
        let at = list.iter().position(|x| x.name == d.name)?;
        values.get(at).copied()
    })
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
    out: &mut String,
    what: &str,
    help: &str,
    pages: &[(&Endpoint, &Snapshot)],
    of: fn(&Slot) -> &Histogram,
) {
    let name = format!("shmtop_{what}_seconds");
    let mut lines = String::new();
    for (e, page) in pages {
        for c in &e.clients {
            let Some(h) = page.slots.iter().find(|s| s.index == c.slot).map(of) else {
                continue;
            };
            let total = h.count();
            if total == 0 {
                continue;
            }
            let labels = client_labels(e, c);
            for bound in BOUNDS_NS {
                let n: u64 = h
                    .buckets
                    .iter()
                    .filter(|(i, _)| {
                        transport::stats::histogram::lower_bound(usize::from(*i) + 1) <= bound
                    })
                    .map(|(_, n)| *n)
                    .fold(0, u64::saturating_add);
                let _ = writeln!(
                    lines,
                    "{name}_bucket{{{labels},le=\"{}\"}} {n}",
                    bound as f64 / 1e9
                );
            }
            let _ = writeln!(lines, "{name}_bucket{{{labels},le=\"+Inf\"}} {total}");
            let _ = writeln!(lines, "{name}_sum{{{labels}}} {}", h.sum_ns as f64 / 1e9);
            let _ = writeln!(lines, "{name}_count{{{labels}}} {total}");
        }
    }
    if lines.is_empty() {
        return;
    }
    head(out, &name, "histogram", help);
    out.push_str(&lines);
}

fn from_model(out: &mut String, model: &Model) {
    head(
        out,
        "shmtop_client_state",
        "gauge",
        "1 for the state the connection is in",
    );
    for e in &model.endpoints {
        for c in &e.clients {
            let labels = client_labels(e, c);
            let _ = writeln!(
                out,
                "shmtop_client_state{{{labels},state=\"{}\"}} 1",
                c.state.name()
            );
        }
    }
    head(
        out,
        "shmtop_fds",
        "gauge",
        "descriptors: used and soft limit",
    );
    for e in &model.endpoints {
        for (kind, value) in [("used", &e.limits.fds_used), ("soft", &e.limits.fds_soft)] {
            if let Ok(v) = value {
                let _ = writeln!(
                    out,
                    "shmtop_fds{{{},kind=\"{kind}\"}} {v}",
                    endpoint_labels(e)
                );
            }
        }
    }
    head(out, "shmtop_finding", "gauge", "1 for each hint that fires");
    for f in &model.findings {
        let s = &f.subject;
        let _ = writeln!(
            out,
            "shmtop_finding{{id=\"{}\",severity=\"{}\",endpoint=\"{}\",pid=\"{}\",client=\"{}\"}} 1",
            f.id,
            f.severity.name(),
            escape(s.endpoint.as_deref().unwrap_or("")),
            s.pid.map_or(String::new(), |p| p.to_string()),
            s.client.map_or(String::new(), |c| c.to_string()),
        );
    }
}

fn endpoint_labels(e: &Endpoint) -> String {
    format!(
        "endpoint=\"{}\",pid=\"{}\",role=\"{}\"",
        escape(&e.name),
        e.pid,
        role(e.role)
    )
}

fn client_labels(e: &Endpoint, c: &Client) -> String {
    format!(
        "{},client=\"{}\",peer_pid=\"{}\",transport=\"{}\"",
        endpoint_labels(e),
        c.number,
        c.peer_pid,
        via(c.transport)
    )
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
