//! `snapshot -f csv`: one line per client, RFC 4180, an empty field for what is missing.

use super::json::role;
use crate::model::listing::{Listing, of_interval};
use crate::model::{Client, Endpoint, Model};
use crate::reading::Reading;

const HEAD: &str = "endpoint,pid,role,client,peer_pid,peer_comm,transport,state,requests_per_s,bytes_per_s,\
request_ring_capacity_bytes,request_ring_occupancy_bytes,reply_ring_capacity_bytes,reply_ring_occupancy_bytes,\
cached_index_hit_ratio,blocked_ratio,rtt_p50_ns,rtt_p99_ns,rtt_p999_ns,in_flight,timeouts,errors,bound,at_realtime_ns";

/// The clients that `listing` lists, in its order. Each line says of which moment it is: rows of several samples stand below each other.
pub fn csv(model: &Model, listing: Listing<'_>) -> String {
    let mut out = format!("{HEAD}\r\n");
    for group in of_interval(model, listing) {
        for c in &group.clients {
            out += &line(model.at_realtime_ns, group.endpoint, c);
            out += "\r\n";
        }
    }
    out
}

fn line(at_realtime_ns: u64, e: &Endpoint, c: &Client) -> String {
    let float = |r: &Reading<f64>| r.as_ref().map_or(String::new(), |v| format!("{v:.3}"));
    let int = |r: &Reading<u64>| r.as_ref().map_or(String::new(), u64::to_string);
    let rtt = |f: fn(&crate::model::Percentiles) -> u64| {
        c.rtt
            .interval
            .as_ref()
            .map_or(String::new(), |p| f(p).to_string())
    };
    let (requests, replies) = (c.request_ring(), c.reply_ring());
    [
        quoted(&e.name),
        e.pid.to_string(),
        role(e.role).into(),
        c.number.to_string(),
        match c.peer_pid {
            0 => String::new(),
            pid => pid.to_string(),
        },
        quoted(&c.peer_comm),
        c.transport.name().into(),
        c.state.name().into(),
        float(&c.requests_per_s),
        float(&c.bytes_per_s),
        int(&requests.capacity_bytes),
        int(&requests.occupancy_bytes),
        int(&replies.capacity_bytes),
        int(&replies.occupancy_bytes),
        float(&requests.cached_index_hit_ratio),
        float(&requests.blocked_ratio),
        rtt(|p| p.p50),
        rtt(|p| p.p99),
        rtt(|p| p.p999),
        int(&c.in_flight),
        int(&c.timeouts),
        c.errors.to_string(),
        c.verdict.bound.name().into(),
        // What came later comes last: scripts count columns.
        at_realtime_ns.to_string(),
    ]
    .join(",")
}

/// A name from a stranger: always quoted, and a leading sign that a spreadsheet takes for a formula is preceded by an
/// apostrophe.
fn quoted(text: &str) -> String {
    let guard = if text.starts_with(['=', '+', '-', '@']) {
        "'"
    } else {
        ""
    };
    format!("\"{guard}{}\"", text.replace('"', "\"\""))
}
