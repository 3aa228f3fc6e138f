//! What many rules ask about all clients, worked out once per window: with a thousand clients, a rule that goes through all of
//! them for each of them is a million looks.

use std::cell::OnceCell;
use std::collections::HashMap;

use transport::config::PolicyKind;
use transport::stats::{Role, Slot, Snapshot};

use super::Context;
use super::fullest::Fullest;
use super::outlier::Timed;
use super::outsiders;
use super::sched::SPINNER;
use crate::model::join::is_of;
use crate::model::{Endpoint, EndpointKey};
use crate::reading::{Reading, Why};
use crate::sample::{Page, Sample};

/// By connection id.
type Slots<'a> = HashMap<u64, &'a Slot>;

/// Answers so far.
#[derive(Default)]
pub struct Once<'a> {
    pages: OnceCell<Pages<'a>>,
    old_pages: OnceCell<Pages<'a>>,
    /// By thread: the largest share of wall time that a waiter on it spins.
    spins: OnceCell<HashMap<u32, f64>>,
    slots: OnceCell<Slots<'a>>,
    old_slots: OnceCell<Slots<'a>>,
    handlers: OnceCell<HashMap<(u32, u32), u64>>,
    spinning: OnceCell<Vec<Spinning>>,
    third_p99: OnceCell<HashMap<&'a EndpointKey, u64>>,
    timed: OnceCell<HashMap<&'a EndpointKey, Vec<Timed<'a>>>>,
    pub(super) fullest: OnceCell<Fullest>,
    pub(super) outsiders: outsiders::Known,
}

/// A thread that spins much.
pub(super) struct Spinning {
    pub(super) pid: u32,
    /// CPUs that it spins and yields away (0..=1).
    pub(super) takes: f64,
    /// CPUs that it may take by its policy (0..=1).
    pub(super) may_take: f64,
    /// Where it may run.
    pub(super) cpus: Vec<u32>,
}

/// By process; it may have several.
type Pages<'a> = HashMap<u32, Vec<(&'a Page, &'a Snapshot)>>;

fn pages_of(sample: &Sample) -> Pages<'_> {
    let mut pages: Pages<'_> = HashMap::new();
    for page in &sample.pages {
        if let Some(snapshot) = page.snapshot() {
            pages.entry(page.pid).or_default().push((page, snapshot));
        }
    }
    pages
}

fn page_in<'a>(pages: &Pages<'a>, wanted: &EndpointKey) -> Reading<&'a Snapshot> {
    let mut mine = pages.get(&wanted.pid).into_iter().flatten();
    mine.find(|(p, s)| is_of(wanted, p, s))
        .map(|(_, s)| *s)
        .ok_or_else(|| Why::not_yet("needs a second sample of its page"))
}

/// The clients' own slots.
fn slots_of(sample: &Sample) -> Slots<'_> {
    let mut slots = HashMap::new();
    for page in sample.pages.iter().filter_map(|p| p.snapshot()) {
        for slot in page.slots.iter().filter(|_| page.role == Role::Client) {
            slots.entry(slot.info.connection_id).or_insert(slot);
        }
    }
    slots
}

impl<'a> Context<'a> {
    /// The page of an endpoint.
    pub(super) fn page_now(&self, key: &EndpointKey) -> Reading<&'a Snapshot> {
        page_in(self.once.pages.get_or_init(|| pages_of(self.sample)), key)
    }

    /// The page of an endpoint at the window's start.
    pub(super) fn page_before(&self, key: &EndpointKey) -> Reading<&'a Snapshot> {
        let pages = || self.windows.back().map(|s| pages_of(s)).unwrap_or_default();
        page_in(self.once.old_pages.get_or_init(pages), key)
    }

    /// The largest share of wall time that a waiter on this thread spins.
    pub(super) fn spin_on(&self, tid: u32) -> f64 {
        let spins = self.once.spins.get_or_init(|| {
            let mut spins: HashMap<u32, f64> = HashMap::new();
            for w in self.waiters() {
                let most = spins.entry(w.tid).or_default();
                *most = most.max(w.spin);
            }
            spins
        });
        spins.get(&tid).copied().unwrap_or(0.0)
    }

    /// The client's own slot of a connection, now and at the window's start.
    pub(super) fn client_slots(&self, connection_id: u64) -> (Option<&'a Slot>, Option<&'a Slot>) {
        let now = self.once.slots.get_or_init(|| slots_of(self.sample));
        let old = self
            .once
            .old_slots
            .get_or_init(|| self.windows.back().map(|s| slots_of(s)).unwrap_or_default());
        let of = |slots: &Slots<'a>| slots.get(&connection_id).copied();
        (of(now), of(old))
    }

    /// Age of the oldest handler run on a thread of a server, ns.
    pub(super) fn handler_on(&self, pid: u32, tid: u32) -> Option<u64> {
        let handlers = self.once.handlers.get_or_init(|| {
            let mut oldest: HashMap<(u32, u32), u64> = HashMap::new();
            for e in &self.model.endpoints {
                for c in &e.clients {
                    if let (Ok(thread), Ok(age)) = (&c.server_thread, &c.handler_running_ns) {
                        let seen = oldest.entry((e.pid, thread.tid)).or_default();
                        *seen = (*seen).max(*age);
                    }
                }
            }
            oldest
        });
        handlers.get(&(pid, tid)).copied()
    }

    /// Every thread that is a spinner.
    pub(super) fn spinning(&self) -> &[Spinning] {
        self.once.spinning.get_or_init(|| {
            let online = || self.model.host.cpus.iter().map(|c| c.id).collect();
            let all = self.waiters().into_iter().filter(|w| w.spin > SPINNER);
            all.map(|w| Spinning {
                pid: w.endpoint.pid,
                takes: (w.spin + w.yielding).min(1.0),
                may_take: if w.policy == PolicyKind::Adaptive {
                    w.spin
                } else {
                    1.0
                },
                cpus: w
                    .thread
                    .and_then(|t| t.allowed_cpus.clone().ok())
                    .unwrap_or_else(online),
            })
            .collect()
        })
    }

    /// The third smallest p99 of an endpoint's clients in the window, ns.
    pub(super) fn third_p99(&self, e: &Endpoint) -> Option<u64> {
        let third = self.once.third_p99.get_or_init(|| {
            let of = |e: &'a Endpoint| {
                let rtt = e.clients.iter().map(|c| c.rtt.interval.as_ref());
                let mut all: Vec<u64> = rtt.flatten().map(|p| p.p99).collect();
                all.sort_unstable();
                Some((&e.key, *all.get(2)?))
            };
            self.model.endpoints.iter().filter_map(|e| of(e)).collect()
        });
        third.get(&e.key).copied()
    }

    /// The clients of an endpoint of which enough requests were timed in the window.
    pub(super) fn timed(&self, e: &Endpoint) -> &[Timed<'a>] {
        let timed = self.once.timed.get_or_init(|| {
            let timed = |e: &'a Endpoint| {
                let clients = e.clients.iter().map(|c| &**c);
                clients.filter_map(|c| Timed::new(self, c)).collect()
            };
            let endpoints = self.model.endpoints.iter();
            endpoints.map(|e| (&e.key, timed(e))).collect()
        });
        timed.get(&e.key).map_or(&[][..], Vec::as_slice)
    }
}
