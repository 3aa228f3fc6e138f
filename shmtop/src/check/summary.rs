//! The figures of a watch: what `check` asserts on and `diff` compares.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use transport::stats::{Histogram, Role, Slot};

use crate::model::join::is_connection;
use crate::model::measure::percentiles;
use crate::model::{Client, ClientState, EndpointKey, Model, ModelBuilder, Severity, Subject};
use crate::rate::Span;
use crate::reading::{Reading, Why};
use crate::sample::Sample;

/// A figure's name and meaning.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name in an assertion; ends in the unit.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether more is better (+1), worse (−1) or neither (0): colours the diff.
    pub good: i8,
}

macro_rules! figures {
    ($($name:literal $good:literal $help:literal;)*) => {
        /// Every figure, in the order of display.
        pub const FIGURES: &[Figure] = &[$(Figure { name: $name, help: $help, good: $good },)*];
    };
}

figures! {
    "rps" 1 "requests per second, all clients";
    "mib_per_s" 1 "payload in both directions, MiB per second";
    "p50_us" -1 "median round trip of all clients, µs";
    "p90_us" -1 "90th percentile, µs";
    "p99_us" -1 "99th percentile, µs";
    "p999_us" -1 "99.9th percentile, µs";
    "max_us" -1 "longest round trip, µs (to its histogram bucket)";
    "worst_p99_us" -1 "99th percentile of the slowest client, µs";
    "clients" 0 "connections at the end";
    "shm_clients" 0 "of them on shared memory";
    "socket_clients" 0 "of them on the socket";
    "stalls" -1 "times a client was seen to stall or to be stopped";
    "deaths" -1 "times a client was seen dead";
    "errors" -1 "error replies";
    "timeouts" -1 "requests given up";
    "late_replies" -1 "replies that came after their timeout";
    "hit_ratio" 1 "pointer-cache hits, mean over the clients (0..1)";
    "blocked_ratio" -1 "largest share of time a producer waited for room (0..1)";
    "fill_ratio" -1 "fullest ring seen (0..1)";
    "cpus" -1 "CPU time of all watched processes, in CPUs";
    "run_delay_ratio" -1 "largest share of time a ring thread waited for a core (0..1)";
    "crits" -1 "crit findings seen";
    "warns" -1 "warn findings seen";
    "infos" -1 "info findings seen";
}

/// Looks at models as they come and sums up at the end.
#[derive(Default)]
pub struct Watch {
    first: Option<Sample>,
    last: Option<Sample>,
    states: HashMap<(EndpointKey, u64), ClientState>,
    stalls: u64,
    deaths: u64,
    fill: Option<f64>,
    found: BTreeSet<(&'static str, Subject, Severity)>,
    seen: BTreeMap<&'static str, Seen>,
    samples: u64,
}

/// A hint that fired during a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The gravest it was.
    pub severity: Severity,
    /// What it said first at that severity.
    pub says: String,
    /// How many it concerned.
    pub subjects: usize,
}

/// The figures.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    values: BTreeMap<String, Reading<f64>>,
    findings: BTreeMap<&'static str, Seen>,
}

impl Summary {
    /// A figure by name.
    pub fn get(&self, name: &str) -> Reading<f64> {
        self.values
            .get(name)
            .cloned()
            .unwrap_or_else(|| Err(Why::not_applicable("not among the figures")))
    }

    /// The hints that fired, by id.
    pub fn findings(&self) -> &BTreeMap<&'static str, Seen> {
        &self.findings
    }

    /// Sets a figure.
    pub fn set(&mut self, name: &str, value: Reading<f64>) {
        self.values.insert(name.to_owned(), value);
    }
}

impl Watch {
    /// Takes the next sample and what the builder made of it (of the endpoints that are watched).
    pub fn look(&mut self, sample: &Sample, model: &Model) {
        if self.first.is_none() {
            self.first = Some(sample.clone());
        }
        self.last = Some(sample.clone());
        self.samples += 1;
        for (e, c) in model.rows() {
            let old = self
                .states
                .insert((e.key.clone(), c.connection_id), c.state);
            if old != Some(c.state) {
                self.stalls += u64::from(matches!(
                    c.state,
                    ClientState::Stalled | ClientState::Stopped
                ));
                self.deaths += u64::from(c.state == ClientState::Dead);
            }
            for fill in [c.tx.fill(), c.rx.fill()].into_iter().flatten() {
                self.fill = Some(self.fill.map_or(fill, |f| f.max(fill)));
            }
        }
        for f in &model.findings {
            self.found.insert((f.id, f.subject.clone(), f.severity));
            let seen = self.seen.entry(f.id).or_insert_with(|| Seen {
                severity: f.severity,
                says: f.says.clone(),
                subjects: 0,
            });
            if f.severity > seen.severity {
                seen.severity = f.severity;
                seen.says.clone_from(&f.says);
            }
        }
    }

    /// How many samples were looked at.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// The figures over the whole watch, of what `keep` leaves in a model.
    pub fn summary(&self, keep: impl Fn(&mut Model)) -> Summary {
        let mut out = Summary::default();
        let (Some(first), Some(last)) = (&self.first, &self.last) else {
            for f in FIGURES {
                out.set(f.name, Err(Why::not_yet("nothing was seen")));
            }
            return out;
        };
        let mut builder = ModelBuilder::new();
        builder.push(first.clone());
        let mut model = builder.push(last.clone());
        keep(&mut model);
        rates(&mut out, &model);
        latencies(&mut out, first, last, &model);
        let seen = |s: Severity| self.found.iter().filter(|(.., f)| *f == s).count() as f64;
        out.findings.clone_from(&self.seen);
        for (id, seen) in &mut out.findings {
            let subjects: BTreeSet<&Subject> = self
                .found
                .iter()
                .filter(|(found, ..)| found == id)
                .map(|(_, subject, _)| subject)
                .collect();
            seen.subjects = subjects.len();
        }
        out.set("stalls", Ok(self.stalls as f64));
        out.set("deaths", Ok(self.deaths as f64));
        out.set(
            "fill_ratio",
            self.fill.ok_or_else(|| Why::not_applicable("no ring")),
        );
        out.set("crits", Ok(seen(Severity::Crit)));
        out.set("warns", Ok(seen(Severity::Warn)));
        out.set("infos", Ok(seen(Severity::Info)));
        let ids: HashSet<u64> = model.rows().map(|(_, c)| c.connection_id).collect();
        let totals = |pick: fn(&Slot) -> u64, role: Role| -> Reading<f64> {
            let sum = |s: &Sample| {
                sides(s, role)
                    .filter(|slot| ids.contains(&slot.info.connection_id))
                    .map(pick)
                    .fold(0u64, u64::saturating_add)
            };
            Span::between(first.time.monotonic_ns, last.time.monotonic_ns)?;
            // Only connections that are still there count, so that one that left is no negative number of errors.
            Ok(sum(last).saturating_sub(sum(first)) as f64)
        };
        out.set("errors", totals(|s| s.req.errors, Role::Server));
        out.set("timeouts", totals(|s| s.req.timeouts, Role::Client));
        out.set("late_replies", totals(|s| s.req.late_replies, Role::Client));
        out
    }
}

/// One side of every connection, wherever it is seen. The clients' carries round trips and timeouts.
fn sides(sample: &Sample, role: Role) -> impl Iterator<Item = &Slot> {
    sample
        .pages
        .iter()
        .filter_map(|p| p.snapshot())
        .filter(move |s| s.role == role)
        .flat_map(|s| &s.slots)
        .filter(|slot| is_connection(slot))
}

fn rates(out: &mut Summary, model: &Model) {
    let rows: Vec<&Client> = model.rows().map(|(_, c)| c).collect();
    let nobody = || Why::not_there("no client");
    let sum = |f: fn(&Client) -> &Reading<f64>| -> Reading<f64> {
        let known: Vec<f64> = rows.iter().filter_map(|c| f(c).clone().ok()).collect();
        match (rows.first(), known.is_empty()) {
            (None, _) => Err(nobody()),
            (Some(c), true) => f(c).clone(),
            _ => Ok(known.iter().sum()),
        }
    };
    out.set("rps", sum(|c| &c.requests_per_s));
    out.set(
        "mib_per_s",
        sum(|c| &c.bytes_per_s).map(|b| b / 1_048_576.0),
    );
    let count = |f: fn(&Client) -> bool| Ok(rows.iter().filter(|c| f(c)).count() as f64);
    out.set("clients", count(|_| true));
    out.set(
        "shm_clients",
        count(|c| c.transport == transport::stats::Via::Shm),
    );
    out.set(
        "socket_clients",
        count(|c| c.transport == transport::stats::Via::Socket),
    );
    let hits: Vec<f64> = rows
        .iter()
        .filter_map(|c| c.request_ring().cached_index_hit_ratio.clone().ok())
        .collect();
    out.set(
        "hit_ratio",
        if hits.is_empty() {
            Err(Why::not_yet("no message over a ring"))
        } else {
            Ok(hits.iter().sum::<f64>() / hits.len() as f64)
        },
    );
    let largest = |values: Vec<f64>, why: Why| values.into_iter().reduce(f64::max).ok_or(why);
    out.set(
        "blocked_ratio",
        largest(
            rows.iter()
                .flat_map(|c| [c.tx.blocked_ratio.clone(), c.rx.blocked_ratio.clone()])
                .flatten()
                .collect(),
            Why::not_there("no producer is visible"),
        ),
    );
    let threads = rows
        .iter()
        .flat_map(|c| [&c.thread, &c.server_thread])
        .flatten();
    out.set(
        "run_delay_ratio",
        largest(
            threads.filter_map(|t| t.run_delay.clone().ok()).collect(),
            Why::no_permission("no thread is visible"),
        ),
    );
    let mut by_pid: BTreeMap<u32, Reading<f64>> = BTreeMap::new();
    for e in &model.endpoints {
        by_pid.insert(e.pid, e.process.cpu.clone());
    }
    let cpu: Vec<f64> = by_pid.values().filter_map(|r| r.clone().ok()).collect();
    out.set(
        "cpus",
        if cpu.is_empty() {
            Err(Why::no_permission("no process is visible"))
        } else {
            Ok(cpu.iter().sum())
        },
    );
}

fn latencies(out: &mut Summary, first: &Sample, last: &Sample, model: &Model) {
    let before: HashMap<u64, &Histogram> = sides(first, Role::Client)
        .map(|s| (s.info.connection_id, &s.rtt))
        .collect();
    let mut all = Histogram::default();
    let mut worst: Option<u64> = None;
    // The clients' own pages carry the round trips, whether or not their row stands at the server.
    let ids: HashSet<u64> = model.rows().map(|(_, c)| c.connection_id).collect();
    for slot in sides(last, Role::Client).filter(|s| ids.contains(&s.info.connection_id)) {
        let grown = match before.get(&slot.info.connection_id) {
            Some(old) => slot.rtt.since(old),
            None => Some(slot.rtt.clone()),
        };
        let Some(grown) = grown else { continue };
        if let Some(p99) = grown.quantile(0.99) {
            worst = Some(worst.map_or(p99, |w| w.max(p99)));
        }
        all.merge(&grown);
    }
    let p = percentiles(&all, true)
        .ok_or_else(|| Why::not_yet("no round trip was timed (or no client's page is visible)"));
    let us = |f: fn(&crate::model::Percentiles) -> u64| p.clone().map(|p| f(&p) as f64 / 1e3);
    out.set("p50_us", us(|p| p.p50));
    out.set("p90_us", us(|p| p.p90));
    out.set("p99_us", us(|p| p.p99));
    out.set("p999_us", us(|p| p.p999));
    out.set("max_us", us(|p| p.max));
    out.set(
        "worst_p99_us",
        worst
            .map(|w| w as f64 / 1e3)
            .ok_or_else(|| Why::not_yet("no round trip was timed")),
    );
}
