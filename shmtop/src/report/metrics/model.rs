//! What the model knows beyond the pages: states, rings, limits, processes, findings, and the viewer itself.

use super::{Exposition, Labelled, MAX_CLIENTS, Type, escape};
use crate::model::{Client, Model, Subject};
use crate::reading::Reading;

/// All of them.
pub(super) fn write(out: &mut Exposition, endpoints: &[Labelled<'_>], model: &Model) {
    clients(out, endpoints);
    rings(out, endpoints);
    processes(out, endpoints);
    findings(out, model);
    viewer(out, model);
}

/// Each client of each endpoint with its labels.
fn each<'l, 'm>(
    endpoints: &'l [Labelled<'m>],
) -> impl Iterator<Item = (&'m Client, &'l str)> + use<'l, 'm> {
    endpoints
        .iter()
        .flat_map(|e| e.clients.iter().map(|(c, labels)| (*c, labels.as_str())))
}

fn clients(out: &mut Exposition, endpoints: &[Labelled<'_>]) {
    out.family(
        "shmtop_client",
        Type::Info,
        "who is at the other end of a connection, and how it travels",
        each(endpoints).map(|(c, labels)| {
            let more = format!(
                "{labels},peer_pid=\"{}\",peer=\"{}\",transport=\"{}\"",
                match c.peer_pid {
                    // In another pid namespace.
                    0 => String::new(),
                    pid => pid.to_string(),
                },
                escape(&c.peer_comm),
                c.transport.name()
            );
            ("", more, 1)
        }),
    );
    out.family(
        "shmtop_client_state",
        Type::Gauge,
        "1 for the state the connection is in: active, idle, stalled, stopped or dead",
        each(endpoints)
            .map(|(c, labels)| ("", format!("{labels},state=\"{}\"", c.state.name()), 1)),
    );
    out.family(
        "shmtop_clients",
        Type::Gauge,
        "connections by transport",
        endpoints.iter().flat_map(|e| {
            let t = &e.endpoint.totals;
            [("shm", t.shm), ("socket", t.socket)]
                .map(|(name, n)| ("", format!("{},transport=\"{name}\"", e.labels), n))
        }),
    );
    out.family(
        "shmtop_clients_without_series",
        Type::Gauge,
        "connections beyond the first 128, which have no series of their own",
        endpoints.iter().map(|e| {
            let n = e.endpoint.clients.len().saturating_sub(MAX_CLIENTS);
            ("", &e.labels, n)
        }),
    );
}

fn rings(out: &mut Exposition, endpoints: &[Labelled<'_>]) {
    // Once per connection, at the server if it is visible.
    let rows = || {
        each(endpoints)
            .filter(|(c, _)| !c.shown_at_server)
            .flat_map(|(c, labels)| {
                [("request", c.request_ring()), ("reply", c.reply_ring())]
                    .map(|(ring, view)| (format!("{labels},ring=\"{ring}\""), view))
            })
    };
    out.family(
        "shmtop_ring_capacity_bytes",
        Type::Gauge,
        "size of a ring",
        rows().filter_map(|(labels, r)| Some(("", labels, *r.capacity_bytes.as_ref().ok()?))),
    );
    out.family(
        "shmtop_ring_occupancy_bytes",
        Type::Gauge,
        "bytes in a ring, padding not counted",
        rows().filter_map(|(labels, r)| Some(("", labels, *r.occupancy_bytes.as_ref().ok()?))),
    );
}

fn processes(out: &mut Exposition, endpoints: &[Labelled<'_>]) {
    out.family(
        "shmtop_endpoint",
        Type::Info,
        "an endpoint's user, library and build",
        endpoints.iter().map(|e| {
            let build = if e.endpoint.debug_build {
                "debug"
            } else {
                "release"
            };
            let more = format!(
                "{},uid=\"{}\",library=\"{}\",build=\"{build}\"",
                e.labels,
                e.endpoint.uid,
                escape(&e.endpoint.library)
            );
            ("", more, 1)
        }),
    );
    let known = |value: &Reading<f64>| value.as_ref().ok().copied();
    out.family(
        "shmtop_process_cpu_ratio",
        Type::Gauge,
        "CPU time of the process per time, in CPUs",
        endpoints
            .iter()
            .filter_map(|e| Some(("", &e.labels, known(&e.endpoint.process.cpu)?))),
    );
    out.family(
        "shmtop_run_delay_ratio",
        Type::Gauge,
        "share of time that the client's thread waited for a core",
        each(endpoints).filter_map(|(c, labels)| {
            let thread = c.thread.as_ref().ok()?;
            Some(("", labels, known(&thread.run_delay)?))
        }),
    );
    out.family(
        "shmtop_fds",
        Type::Gauge,
        "descriptors: used, and the soft limit",
        endpoints.iter().flat_map(|e| {
            let l = &e.endpoint.limits;
            [("used", &l.fds_used), ("soft", &l.fds_soft)]
                .into_iter()
                .filter_map(|(kind, value)| {
                    let labels = format!("{},kind=\"{kind}\"", e.labels);
                    Some(("", labels, *value.as_ref().ok()?))
                })
        }),
    );
}

fn findings(out: &mut Exposition, model: &Model) {
    let line = |id: &str, severity: &str, s: &Subject| {
        format!(
            "id=\"{id}\",severity=\"{severity}\",endpoint=\"{}\",pid=\"{}\",client=\"{}\"",
            escape(s.endpoint.as_deref().unwrap_or("")),
            s.pid.map_or(String::new(), |p| p.to_string()),
            s.client.map_or(String::new(), |c| c.to_string()),
        )
    };
    // One that speaks for many has what they share for labels: else its series, and its alert, would go from one to the next with the
    // worst case. Two subjects may look alike from outside (two pages of one name in one process): one series then.
    let firing: std::collections::BTreeSet<String> = model
        .findings
        .iter()
        .map(|f| line(f.id, f.severity.name(), &f.whom()))
        .collect();
    out.family(
        "shmtop_finding",
        Type::Gauge,
        "1 for each hint that fires; shmtop explain ID says more",
        firing.iter().map(|labels| ("", labels, 1)),
    );
    let count = |s| model.findings.iter().filter(|f| f.severity == s).count();
    out.family(
        "shmtop_findings",
        Type::Gauge,
        "hints that fire, by severity",
        [
            crate::model::Severity::Info,
            crate::model::Severity::Warn,
            crate::model::Severity::Crit,
        ]
        .map(|s| ("", format!("severity=\"{}\"", s.name()), count(s))),
    );
    out.family(
        "shmtop_unknown_rules",
        Type::Gauge,
        "rules that could not be checked",
        [("", "", model.unknown.len())],
    );
}

fn viewer(out: &mut Exposition, model: &Model) {
    out.family(
        "shmtop_viewer",
        Type::Info,
        "the shmtop that serves this",
        [("", format!("version=\"{}\"", env!("CARGO_PKG_VERSION")), 1)],
    );
    out.family(
        "shmtop_unreadable_pages",
        Type::Gauge,
        "stats pages that were found and can't be read",
        [("", "", model.unreadable.len())],
    );
    out.family(
        "shmtop_sample_timestamp_seconds",
        Type::Gauge,
        "when shmtop last looked, in Unix time",
        [("", "", model.at_realtime_ns as f64 / 1e9)],
    );
    if let Ok(cpu) = model.viewer_cpu {
        out.family(
            "shmtop_viewer_cpu_ratio",
            Type::Gauge,
            "CPU time of shmtop itself per time",
            [("", "", cpu)],
        );
    }
}
