//! What the demo prints where there is no terminal: shmtop's model of its last moments as one table.
//!
//! Pure: a model in, text out. The views of a terminal are shmtop's.

use std::fmt::Write;

use shmtop::model::{Client, Model};
use shmtop::text::{bytes, count, ns};
use shmtop::ui::State;
use shmtop::ui::rows::{groups, via_name};

/// A cell that is missing; why, only the dashboard has room to say.
const NONE: &str = "–";

/// A line per client, and below it what shmtop has found.
pub(super) fn table(model: &Model) -> String {
    let mut text = String::new();
    for group in groups(model, &State::default()) {
        let endpoint = group.endpoint;
        let totals = &endpoint.totals;
        // Writing to a String can't fail.
        _ = writeln!(
            text,
            "{} ({})   {} clients: {} shm, {} socket",
            endpoint.name, endpoint.pid, totals.clients, totals.shm, totals.socket
        );
        let head = ["CLIENT", "PEER", "VIA", "REQ/S", "BYTES/S", "P50", "P99"];
        text.push_str(&line(head));
        for client in group.clients {
            let cells = cells(client);
            text.push_str(&line(cells.each_ref().map(String::as_str)));
        }
    }
    for finding in &model.findings {
        _ = writeln!(
            text,
            "{} {}: {}",
            finding.severity.name(),
            finding.id,
            finding.says
        );
    }
    text
}

fn cells(client: &Client) -> [String; 7] {
    let rtt = &client.rtt;
    // A short run has nothing but what it began with.
    let rtt = rtt
        .interval
        .as_ref()
        .or(rtt.recent.as_ref())
        .or(rtt.since_start.as_ref())
        .ok();
    let none = || NONE.to_owned();
    [
        client.number.to_string(),
        client.peer_pid.to_string(),
        via_name(client.transport).to_owned(),
        client
            .requests_per_s
            .as_ref()
            .map_or_else(|_| none(), |v| count(*v)),
        client
            .bytes_per_s
            .as_ref()
            .map_or_else(|_| none(), |v| bytes(*v as u64)),
        rtt.map_or_else(none, |p| ns(p.p50)),
        rtt.map_or_else(none, |p| ns(p.p99)),
    ]
}

fn line(cells: [&str; 7]) -> String {
    let [client, peer, via, requests, throughput, p50, p99] = cells;
    format!("{client:>6} {peer:>8} {via:<6} {requests:>8} {throughput:>9} {p50:>8} {p99:>8}\n")
}
