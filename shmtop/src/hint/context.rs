//! What a rule may look at: the model of the window, the samples at its borders, and ten seconds of the past.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use transport::config::PolicyKind;
use transport::stats::{ProcessCounters, Role, Slot, SlotKind, Snapshot};

use super::once::Once;
use crate::model::join::{is_connection, slot_at};
use crate::model::{Client, Endpoint, EndpointKey, Model, ThreadView, WaitView};
use crate::reading::{Reading, Why};
use crate::sample::{EARLY_NS, Listener, Process, Sample};

/// The longest look back.
pub(super) const TEN_NS: u64 = 10_000_000_000;

/// One window and what came before.
pub struct Context<'a> {
    /// The model over this window (rates are means over it).
    pub model: &'a Model,
    /// The sample at its end.
    pub sample: &'a Sample,
    /// Samples at the borders before, oldest first; the last one is this window's start.
    pub windows: &'a VecDeque<Arc<Sample>>,
    /// Admission counters of each server, one per window, for a minute.
    pub minute: &'a HashMap<EndpointKey, VecDeque<(u64, ProcessCounters)>>,
    /// Messages that were too large, for a minute.
    pub(super) refusals: &'a super::refusals::Refusals,
    /// Events of the heat limit that are not over.
    pub(super) heat: &'a super::thermal::Unfinished,
    /// The last suspend: (CLOCK_MONOTONIC ns after it, how long the machine slept in ns).
    pub suspend: Option<(u64, u64)>,
    /// What was worked out for a rule and serves the next.
    pub once: Once<'a>,
}

/// A thread that waits on rings, with the sums over all slots it serves.
#[derive(Clone)]
pub(super) struct Waiter<'a> {
    pub(super) endpoint: &'a Endpoint,
    /// 0 if nobody knows which it is.
    pub(super) tid: u32,
    pub(super) spin: f64,
    pub(super) yielding: f64,
    pub(super) yields_per_s: f64,
    pub(super) messages_per_s: f64,
    pub(super) policy: PolicyKind,
    pub(super) thread: Option<&'a ThreadView>,
}

impl Waiter<'_> {
    /// Share of wall time without a core, if known.
    pub(super) fn run_delay(&self) -> Option<f64> {
        self.thread?.run_delay.clone().ok()
    }

    /// Whether it may run on this CPU, as far as that is known.
    pub(super) fn may_run_on(&self, cpu: u32) -> bool {
        let allowed = self.thread.and_then(|t| t.allowed_cpus.as_ref().ok());
        allowed.is_none_or(|cpus| cpus.contains(&cpu))
    }

    /// Those of the CPUs online that it may run on.
    pub(super) fn cpus_of(&self, online: &[u32]) -> BTreeSet<u32> {
        let all = online.iter().copied();
        all.filter(|cpu| self.may_run_on(*cpu)).collect()
    }

    /// `exchange (pid 4711) thread 4719`.
    pub(super) fn name(&self) -> String {
        let (name, pid) = (&self.endpoint.name, self.endpoint.pid);
        match self.tid {
            0 => format!("a thread of {name} (pid {pid})"),
            tid => format!("{name} (pid {pid}) thread {tid}"),
        }
    }
}

impl<'a> Context<'a> {
    /// Why there are no CPUs to look at.
    pub(super) fn no_cpu(&self) -> Why {
        let why = self.sample.host.cpus_unknown.clone();
        why.unwrap_or_else(|| Why::not_there("no CPU could be read"))
    }

    /// The sample at the window's start.
    pub(super) fn before(&self) -> Reading<&'a Sample> {
        self.windows
            .back()
            .map(|s| &**s)
            .ok_or_else(|| Why::not_yet("needs a second sample"))
    }

    /// Length of the window.
    pub(super) fn seconds(&self) -> Reading<f64> {
        Ok(self.model.interval_ns.clone()? as f64 / 1e9)
    }

    /// The sample ten seconds ago, or the last before that: by the clock, since windows are longer where samples are rarer.
    pub(super) fn ten_ago(&self) -> Reading<&'a Sample> {
        let now_ns = self.sample.time.monotonic_ns;
        let age_ns = |s: &Sample| now_ns.saturating_sub(s.time.monotonic_ns);
        let old = |s: &&Arc<Sample>| age_ns(s) + EARLY_NS >= TEN_NS;
        if let Some(then) = self.windows.iter().rev().find(old) {
            return Ok(then);
        }
        let seen_ns = self.windows.front().map_or(0, |s| age_ns(s));
        let more = TEN_NS.saturating_sub(seen_ns).div_ceil(1_000_000_000);
        Err(Why::not_yet(format!("needs {more} s more")))
    }

    /// The page of an endpoint.
    pub(super) fn page(&self, e: &Endpoint) -> Reading<&'a Snapshot> {
        self.page_now(&e.key)
    }

    /// The page of an endpoint at the window's start.
    pub(super) fn old_page(&self, e: &Endpoint) -> Reading<&'a Snapshot> {
        self.before()?;
        self.page_before(&e.key)
    }

    /// The slot of a row.
    pub(super) fn slot(&self, e: &Endpoint, c: &Client) -> Reading<&'a Slot> {
        slot_in(self.page(e)?, c)
    }

    /// The slot of a row at the window's start.
    pub(super) fn old_slot(&self, e: &Endpoint, c: &Client) -> Reading<&'a Slot> {
        slot_in(self.old_page(e)?, c)
    }

    /// The listening socket of a server. A process may have had several at one path, so the inode decides.
    pub(super) fn listener(&self, e: &Endpoint) -> Option<&'a Listener> {
        let inode = self.page(e).ok()?.process.listener_inode;
        let mine = |l: &&Listener| {
            l.pid == e.pid && l.bound_inode == inode && crate::text::path(&l.path) == e.socket_path
        };
        self.sample.listeners.iter().find(mine)
    }

    /// A process.
    pub(super) fn process(&self, pid: u32) -> Reading<&'a Process> {
        self.sample.process(pid).ok_or_else(|| match pid {
            0 => Why::not_there("it is in another pid namespace, and its page is not visible"),
            _ => Why::not_there(format!("process {pid} was not looked at")),
        })
    }

    /// A process at the window's start.
    pub(super) fn old_process(&self, pid: u32) -> Reading<&'a Process> {
        self.before()?
            .process(pid)
            .ok_or_else(|| Why::not_yet("needs a second sample"))
    }

    /// The groups of its process that have a quota, as far as they are known, and that in CPUs.
    pub(super) fn quotas_of(&self, w: &Waiter<'_>) -> Vec<(String, f64)> {
        let process = self.process(w.endpoint.pid).ok();
        let groups = process.and_then(|p| p.cgroups.cpu.known());
        let groups = groups.into_iter().flatten();
        let quota = groups.filter_map(|g| Some((g.path.clone(), g.quota_cpus()?)));
        quota.collect()
    }

    /// Every thread that waits on rings and could be measured in this window.
    pub(super) fn waiters(&self) -> Vec<Waiter<'_>> {
        self.model
            .endpoints
            .iter()
            .flat_map(|e| self.waiters_of(e))
            .collect()
    }

    /// The waiting threads of one endpoint.
    pub(super) fn waiters_of<'b>(&'b self, e: &'b Endpoint) -> Vec<Waiter<'b>> {
        let Ok(page) = self.page(e) else {
            return Vec::new();
        };
        // By thread; and each connection by itself of which nobody knows who waits there.
        let mut waiters: BTreeMap<(u32, u32), Waiter<'b>> = BTreeMap::new();
        let threads = e.process.threads.as_ref().map_or(&[][..], Vec::as_slice);
        let thread = |tid: u32| {
            let at = threads.binary_search_by_key(&tid, |t| t.tid).ok();
            at.map(|at| &*threads[at])
        };
        let mut add = |tid: u32, apart: u32, wait: &WaitView, messages: f64| {
            let w = waiters.entry((tid, apart)).or_insert_with(|| Waiter {
                endpoint: e,
                tid: if apart == 0 { tid } else { 0 },
                spin: 0.0,
                yielding: 0.0,
                yields_per_s: 0.0,
                messages_per_s: 0.0,
                policy: wait.policy,
                thread: thread(tid).filter(|_| apart == 0),
            });
            w.spin = (w.spin + wait.spin_share.clone().unwrap_or(0.0)).min(1.0);
            w.yielding = (w.yielding + wait.yield_share.clone().unwrap_or(0.0)).min(1.0);
            w.yields_per_s += wait.yields_per_s.clone().unwrap_or(0.0);
            w.messages_per_s += messages;
        };
        let moved = |c: &Client| {
            c.tx.messages_per_s.clone().unwrap_or(0.0) + c.rx.messages_per_s.clone().unwrap_or(0.0)
        };
        match e.role {
            Role::Server => {
                let mut by_poller: BTreeMap<u32, f64> = BTreeMap::new();
                for c in &e.clients {
                    if let Some(s) = slot_at(page, c.slot).filter(|s| is_connection(s)) {
                        let poller = s.info.poller_slot.unwrap_or(s.index);
                        *by_poller.entry(poller).or_default() += moved(c);
                    }
                }
                for p in &e.pollers {
                    let messages = by_poller.get(&p.slot).copied().unwrap_or(0.0);
                    add(p.tid, 0, &p.wait, messages);
                }
            }
            Role::Client => {
                for c in &e.clients {
                    let tid = slot_at(page, c.slot)
                        .filter(|s| s.info.kind == SlotKind::Connection)
                        .map_or(0, |s| s.info.tid);
                    // The thread is there, and the model does not take it for the one that waits.
                    let is_other = c.thread.is_err() && thread(tid).is_some();
                    let apart = if is_other { c.slot + 1 } else { 0 };
                    if let Ok(wait) = &c.wait {
                        add(tid, apart, wait, moved(c));
                    }
                }
            }
        }
        waiters.into_values().collect()
    }
}

fn slot_in<'a>(page: &'a Snapshot, c: &Client) -> Reading<&'a Slot> {
    slot_at(page, c.slot)
        .filter(|s| s.info.connection_id == c.connection_id)
        .ok_or_else(|| Why::not_yet("needs a second sample of this connection"))
}
