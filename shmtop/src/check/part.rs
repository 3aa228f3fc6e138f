//! What one stretch between two samples says: growth of counters, and rates. A watch is a row of them.

use std::collections::{BTreeMap, HashMap, HashSet};

use transport::stats::{Histogram, Role, Slot, Via};

use crate::model::build_client::no_client;
use crate::model::join::is_connection;
use crate::model::measure::percentiles;
use crate::model::{Client, Model, Percentiles};
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::sample::Sample;

/// A stretch, of what was left in its model.
#[derive(Default)]
pub(super) struct Part {
    pub(super) seconds: f64,
    pub(super) grown: Grown,
    /// Figures by name that are not sums.
    pub(super) values: BTreeMap<&'static str, Reading<f64>>,
}

/// What was counted in a stretch, or in several.
#[derive(Clone, Default)]
pub(super) struct Grown {
    /// Rows that there were, and those that could be compared with what they were before.
    rows: u64,
    counted: u64,
    requests: u64,
    bytes: u64,
    pub(super) errors: u64,
    timeouts: u64,
    late_replies: u64,
    /// Connections whose client's own page had them, those where it was not there, and those that stayed and were not in it: it was full.
    told: HashSet<u64>,
    untold: HashSet<u64>,
    no_place: HashSet<u64>,
    /// Round trips by connection.
    pub(super) rtt: HashMap<u64, Histogram>,
}

impl Grown {
    pub(super) fn add(&mut self, more: &Self) {
        for (sum, n) in [
            (&mut self.rows, more.rows),
            (&mut self.counted, more.counted),
            (&mut self.requests, more.requests),
            (&mut self.bytes, more.bytes),
            (&mut self.errors, more.errors),
            (&mut self.timeouts, more.timeouts),
            (&mut self.late_replies, more.late_replies),
        ] {
            *sum = sum.saturating_add(n);
        }
        self.told.extend(&more.told);
        self.untold.extend(&more.untold);
        self.no_place.extend(&more.no_place);
        for (id, h) in &more.rtt {
            self.rtt.entry(*id).or_default().merge(h);
        }
    }

    /// Requests given up, and replies that came after that: what no server can count. A client that was seen once and is gone at the
    /// end was seen.
    pub(super) fn given_up(&self) -> Reading<(u64, u64)> {
        let all_told = |ids: &HashSet<u64>| ids.is_subset(&self.told);
        match (all_told(&self.untold), all_told(&self.no_place)) {
            (true, true) => Ok((self.timeouts, self.late_replies)),
            (false, _) => Err(no_client()),
            (true, false) => Err(Why::not_visible(
                "a client's own page has no place left for it",
            )),
        }
    }

    /// Requests per second.
    pub(super) fn rps(&self, seconds: f64) -> Reading<f64> {
        self.rate(self.requests, seconds)
    }

    /// Payload in both directions.
    pub(super) fn mib_per_s(&self, seconds: f64) -> Reading<f64> {
        Ok(self.rate(self.bytes, seconds)? / 1_048_576.0)
    }

    fn rate(&self, n: u64, seconds: f64) -> Reading<f64> {
        match (self.rows, self.counted) {
            (0, _) => Err(Why::not_there("no client")),
            (_, 0) => Err(Why::not_yet("needs a second sample of the connections")),
            _ if seconds <= 0.0 => Err(Why::gap("no time passed between two samples")),
            _ => Ok(n as f64 / seconds),
        }
    }
}

/// Of two samples and the model of the later one, without what is not wanted.
pub(super) fn between(before: &Sample, now: &Sample, model: &Model) -> Part {
    let span_ns = now
        .time
        .monotonic_ns
        .saturating_sub(before.time.monotonic_ns);
    let mut part = Part {
        seconds: span_ns as f64 / 1e9,
        grown: grown(before, now, model),
        ..Part::default()
    };
    rates(&mut part.values, model);
    part
}

/// The sides of all connections, by id and role.
fn sides(sample: &Sample) -> HashMap<(u64, Role), &Slot> {
    let pages = sample.pages.iter().filter_map(|p| p.snapshot());
    pages
        .flat_map(|s| s.slots.iter().map(move |slot| (s.role, slot)))
        .filter(|(_, slot)| is_connection(slot))
        .map(|(role, slot)| ((slot.info.connection_id, role), slot))
        .collect()
}

fn grown(before: &Sample, now: &Sample, model: &Model) -> Grown {
    let (old, new) = (sides(before), sides(now));
    let start_ns = before.time.monotonic_ns;
    let pages = now
        .pages
        .iter()
        .filter_map(|p| p.snapshot().map(|s| (p, s)));
    let clients: HashSet<u32> = (pages.filter(|(_, s)| s.role == Role::Client))
        .map(|(p, _)| p.pid)
        .collect();
    // Who came meanwhile began at 0; of whom nothing is known before, nothing is known of the growth.
    let growth = |id: u64, role: Role, of: &dyn Fn(&Slot) -> u64| -> Option<u64> {
        let slot = *new.get(&(id, role))?;
        let was = match old.get(&(id, role)) {
            Some(old) => of(old),
            None if slot.info.opened_ns >= start_ns => 0,
            None => return None,
        };
        delta(was, of(slot)).ok()
    };
    let mut sum = Grown::default();
    for (_, c) in model.rows() {
        let id = c.connection_id;
        sum.rows += 1;
        if let Some(n) = growth(id, c.role, &|s| s.req.requests) {
            sum.counted += 1;
            sum.requests = sum.requests.saturating_add(n);
        }
        let both = |s: &Slot| s.tx.tx_bytes.saturating_add(s.rx.rx_bytes);
        let more = |of, role| growth(id, role, of).unwrap_or(0);
        sum.bytes = sum.bytes.saturating_add(more(&both, c.role));
        // Both sides count those that went from one to the other.
        let errors = more(&|s| s.req.errors, c.role);
        sum.errors = sum.errors.saturating_add(errors);
        let timeouts = more(&|s| s.req.timeouts, Role::Client);
        sum.timeouts = sum.timeouts.saturating_add(timeouts);
        let late = more(&|s| s.req.late_replies, Role::Client);
        sum.late_replies = sum.late_replies.saturating_add(late);
        // The client's own page carries the round trips, wherever the row stands.
        let Some(slot) = new.get(&(id, Role::Client)) else {
            if !clients.contains(&c.peer_pid) {
                sum.untold.insert(id);
            } else if old.contains_key(&(id, c.role)) && !old.contains_key(&(id, Role::Client)) {
                // One that came or went between the looks at both pages is not in either twice.
                sum.no_place.insert(id);
            }
            continue;
        };
        sum.told.insert(id);
        let rtt = match old.get(&(id, Role::Client)) {
            Some(old) => slot.rtt.since(&old.rtt),
            None => (slot.info.opened_ns >= start_ns).then(|| slot.rtt.clone()),
        };
        if let Some(rtt) = rtt.filter(|h| h.count() > 0) {
            sum.rtt.entry(id).or_default().merge(&rtt);
        }
    }
    sum
}

fn rates(out: &mut BTreeMap<&'static str, Reading<f64>>, model: &Model) {
    let rows: Vec<&Client> = model.rows().map(|(_, c)| c).collect();
    let count = |f: fn(&Client) -> bool| Ok(rows.iter().filter(|c| f(c)).count() as f64);
    out.insert("clients", count(|_| true));
    out.insert("shm_clients", count(|c| c.transport == Via::Shm));
    out.insert("socket_clients", count(|c| c.transport == Via::Socket));
    let known = |values: Vec<f64>, why: Why| (!values.is_empty()).then_some(values).ok_or(why);
    let hits = rows
        .iter()
        .filter_map(|c| c.request_ring().cached_index_hit_ratio.clone().ok());
    let hits = known(hits.collect(), Why::not_yet("no message over a ring"));
    let mean = hits.map(|h| h.iter().sum::<f64>() / h.len() as f64);
    out.insert("hit_ratio", mean);
    let largest = |v: Vec<f64>| v.into_iter().fold(0.0, f64::max);
    let blocked = rows
        .iter()
        .flat_map(|c| [c.tx.blocked_ratio.clone(), c.rx.blocked_ratio.clone()]);
    let blocked = known(
        blocked.flatten().collect(),
        Why::not_there("no producer is visible"),
    );
    out.insert("blocked_ratio", blocked.map(largest));
    let threads = rows
        .iter()
        .flat_map(|c| [&c.thread, &c.server_thread])
        .flatten();
    let delays = threads.filter_map(|t| t.run_delay.clone().ok()).collect();
    let delays = known(delays, Why::no_permission("no thread is visible"));
    out.insert("run_delay_ratio", delays.map(largest));
    // A process may have several pages.
    let cpu: BTreeMap<u32, f64> = (model.endpoints.iter())
        .filter_map(|e| Some((e.pid, e.process.cpu.clone().ok()?)))
        .collect();
    let cpu = known(
        cpu.into_values().collect(),
        Why::no_permission("no process is visible"),
    );
    out.insert("cpus", cpu.map(|c| c.iter().sum()));
}

/// The figures of round trips.
pub(super) fn latencies(grown: &Grown, mut set: impl FnMut(&'static str, Reading<f64>)) {
    let mut all = Histogram::default();
    let mut worst: Option<u64> = None;
    for h in grown.rtt.values() {
        worst = worst.max(h.quantile(0.99));
        all.merge(h);
    }
    let p = percentiles(&all, true)
        .ok_or_else(|| Why::not_yet("no round trip was timed (or no client's page is visible)"));
    let us = |f: fn(&Percentiles) -> u64| p.clone().map(|p| f(&p) as f64 / 1e3);
    set("p50_us", us(|p| p.p50));
    set("p90_us", us(|p| p.p90));
    set("p99_us", us(|p| p.p99));
    set("p999_us", us(|p| p.p999));
    set("max_us", us(|p| p.max));
    let worst = worst.ok_or_else(|| Why::not_yet("no round trip was timed"));
    set("worst_p99_us", worst.map(|w| w as f64 / 1e3));
}
