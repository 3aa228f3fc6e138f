//! [`ModelBuilder`]: samples in, models out. It holds what one pair of samples can't know: histories, since when a state
//! lasts, one-second windows for the hints, ten seconds for rare latencies. `judge` runs it and lets the rules look at each window.
//!
//! Pure: time comes from the samples, so a recording gives the same models as the live world.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use transport::stats::{Histogram, Role};

use super::build::build;
use super::glance::{glanced, wanted};
use super::join::{is_connection, key};
use super::past::{Past, Remembered, Windows, sums};
use super::slow::carry;
use super::{Client, Endpoint, EndpointKey, Model};
use crate::history::HeatColumn;
use crate::reading::Why;
use crate::sample::{EARLY_NS, Glance, Sample, WINDOW_NS};

/// Windows whose samples are kept: the longest look back of a rule is ten seconds.
pub(super) const KEPT_WINDOWS: usize = 11;
/// After a longer hole between two samples nothing earlier is comparable. The slowest refresh is 10 s, 5 % more or less, and a look.
pub(crate) const HOLE_NS: u64 = 12_000_000_000;
/// The longest wanted time between two looks that leaves no hole.
pub(crate) const LONGEST_NS: u64 = 10_000_000_000;

/// Makes a [`Model`] of each [`Sample`], without findings.
#[derive(Default)]
pub(crate) struct ModelBuilder {
    last: Option<Arc<Sample>>,
    /// Whether `last` had one before it.
    has_rates: bool,
    /// Samples at window borders, oldest first.
    windows: VecDeque<Arc<Sample>>,
    past: HashMap<EndpointKey, Past>,
    /// The model over the last window.
    window: Option<Model>,
}

/// What does not connect with what was before: another boot, time running backwards, a suspend or a long hole.
pub(crate) struct Gap {
    /// Whether the machine slept.
    pub(crate) suspended: bool,
}

/// What is known with one more sample.
pub(crate) struct Built<'a> {
    /// Everything, without findings.
    pub(crate) model: Model,
    /// Whether a second is full with it, or the first one begins.
    pub(crate) closes: bool,
    /// The second that is full with it: its model, and the samples at the borders before its end.
    pub(crate) window: Option<(&'a Model, &'a VecDeque<Arc<Sample>>)>,
}

impl ModelBuilder {
    /// Says what is known with the next sample, which [`Self::keep`] is to be called with before the one after it. Samples that
    /// are not later than the last one give a model without rates and leave no trace.
    pub(crate) fn build(&mut self, sample: &Arc<Sample>) -> Built<'_> {
        let mut model = build(self.last.as_deref(), sample);
        let closes = self.closes_window(sample);
        let start = self.windows.back().filter(|_| closes).cloned();
        let full = start.is_some();
        match (start, &self.last) {
            // Nothing lies between the window's start and its end: its model is this one.
            (Some(start), Some(last)) if Arc::ptr_eq(last, &start) => {
                self.remember(&mut model, sample, closes);
                self.window = Some(model.clone());
            }
            (start, _) => {
                if let Some(start) = start {
                    let mut window = build(Some(&start), sample);
                    self.date(&mut window);
                    self.window = Some(window);
                }
                if let Some(window) = &self.window {
                    carry(&mut model, window);
                }
                self.remember(&mut model, sample, closes);
            }
        }
        self.has_rates = model.interval_ns.is_ok();
        let window = self.window.as_ref().filter(|_| full);
        Built {
            model,
            closes,
            window: window.map(|w| (w, &self.windows)),
        }
    }

    /// Takes the sample that was built from: the next one is compared with it.
    pub(crate) fn keep(&mut self, sample: Arc<Sample>) {
        if self.closes_window(&sample) {
            self.windows.push_back(Arc::clone(&sample));
            if self.windows.len() > KEPT_WINDOWS {
                self.windows.pop_front();
            }
        }
        self.last = Some(sample);
    }

    /// What a glance that continues the last sample has to read: `on_screen` are connection ids. `None` before the first
    /// two samples, which make the first rates.
    pub(crate) fn glance(&self, on_screen: &HashSet<u64>) -> Option<Glance> {
        let last = self.last.as_deref()?;
        self.has_rates.then(|| wanted(last, on_screen))
    }

    /// The last model as of a glance; `None` if that is not later. Nothing that rules look at changes.
    pub(crate) fn glanced(&mut self, last: &Model, glance: &Glance) -> Option<Model> {
        let (mut model, changed) = glanced(last, self.last.as_deref()?, glance)?;
        let at_ns = model.at_ns;
        for (e, c) in changed.rows {
            let endpoint: &mut Endpoint = &mut model.endpoints[e];
            let client: &mut Client = &mut endpoint.clients[c];
            let past = self.past.get_mut(&endpoint.key);
            let id = (client.slot, client.connection_id);
            if let Some(r) = past.and_then(|p| p.clients.get_mut(&id)) {
                r.update(client, at_ns);
                client.history = r.history.clone();
            }
        }
        for e in changed.totals {
            let endpoint = &mut model.endpoints[e];
            if let Some(past) = self.past.get_mut(&endpoint.key) {
                past.totals.push(sums(endpoint, at_ns));
                endpoint.totals.history = past.totals.clone();
            }
        }
        Some(model)
    }

    /// Forgets what is not comparable with the next sample, if there is a gap before it: windows would span it and mean nothing.
    pub(crate) fn forget_at_gap(&mut self, sample: &Sample) -> Option<Gap> {
        let last = self.last.as_ref()?;
        let (a, b) = (&last.time, &sample.time);
        let asleep = |c: &crate::sample::Clocks| c.boottime_ns.saturating_sub(c.monotonic_ns);
        let suspended = b.boottime_ns != 0 && asleep(b).saturating_sub(asleep(a)) > WINDOW_NS;
        let backwards = b.monotonic_ns < a.monotonic_ns;
        let rebooted = match (last.host.boot_id.known(), sample.host.boot_id.known()) {
            (Some(x), Some(y)) => x != y,
            _ => false,
        };
        let hole = b.monotonic_ns.saturating_sub(a.monotonic_ns) > HOLE_NS;
        if suspended || backwards || rebooted || hole {
            self.windows.clear();
            self.window = None;
            for r in self.past.values_mut().flat_map(|p| p.clients.values_mut()) {
                r.rtt = Windows::default();
                r.handler = Windows::default();
            }
            if backwards || rebooted {
                self.last = None;
            }
            return Some(Gap { suspended });
        }
        None
    }

    /// Whether a second is full with this sample, or the first one begins.
    fn closes_window(&self, sample: &Sample) -> bool {
        self.windows.back().is_none_or(|start| {
            let full = start.time.monotonic_ns.saturating_add(WINDOW_NS - EARLY_NS);
            sample.time.monotonic_ns >= full
        })
    }

    /// How long each client has been in its state: a rule may say so.
    fn date(&self, window: &mut Model) {
        let at_ns = window.at_ns;
        for e in &mut window.endpoints {
            let Some(past) = self.past.get(&e.key) else {
                continue;
            };
            for c in &mut e.clients {
                let r = past.clients.get(&(c.slot, c.connection_id));
                if let Some(r) = r.filter(|r| r.state == c.state) {
                    c.state_for_ns = at_ns.saturating_sub(r.state_since_ns);
                }
            }
        }
    }

    /// Adds what a pair of samples can't know, and takes down what the next models will need.
    fn remember(&mut self, model: &mut Model, sample: &Sample, closed: bool) {
        let at_ns = model.at_ns;
        for endpoint in &mut model.endpoints {
            let past = match self.past.get_mut(&endpoint.key) {
                Some(past) => past,
                None => self.past.entry(endpoint.key.clone()).or_default(),
            };
            past.seen_ns = at_ns;
            for client in &mut endpoint.clients {
                let id = (client.slot, client.connection_id);
                let r = past.clients.entry(id);
                r.or_insert_with(|| Remembered::new(client, at_ns))
                    .update(client, at_ns);
            }
            past.clients.retain(|_, r| r.seen_ns == at_ns);
            past.totals.push(sums(endpoint, at_ns));
        }
        self.past.retain(|_, p| p.seen_ns == at_ns);
        if closed {
            self.take_histograms(sample);
        }
        for endpoint in &mut model.endpoints {
            let Some(past) = self.past.get(&endpoint.key) else {
                continue;
            };
            for client in &mut endpoint.clients {
                if let Some(r) = past.clients.get(&(client.slot, client.connection_id)) {
                    client.history = r.history.clone();
                }
            }
            endpoint.totals.history = past.totals.clone();
        }
    }

    /// Copies the latency histograms at a window's border: ten seconds of them carry a p99.9, and each second is a heat column.
    fn take_histograms(&mut self, sample: &Sample) {
        let at_ns = sample.time.monotonic_ns;
        let mut rtt_of: HashMap<u64, &Histogram> = HashMap::new();
        let snapshots = || sample.pages.iter().filter_map(|p| p.snapshot());
        for s in snapshots().filter(|s| s.role == Role::Client) {
            for slot in s.slots.iter().filter(|s| is_connection(s)) {
                rtt_of.insert(slot.info.connection_id, &slot.rtt);
            }
        }
        let served: HashSet<u64> = snapshots()
            .filter(|s| s.role == Role::Server)
            .flat_map(|s| s.slots.iter().map(|slot| slot.info.connection_id))
            .collect();
        for page in &sample.pages {
            let Some(snapshot) = page.snapshot() else {
                continue;
            };
            let Some(past) = self.past.get_mut(&key(page, snapshot)) else {
                continue;
            };
            for slot in snapshot.slots.iter().filter(|s| is_connection(s)) {
                let id = (slot.index, slot.info.connection_id);
                if snapshot.role == Role::Client && served.contains(&slot.info.connection_id) {
                    // The server's row has the latencies of both.
                    continue;
                }
                let Some(r) = past.clients.get_mut(&id) else {
                    continue;
                };
                if let Some(rtt) = rtt_of.get(&slot.info.connection_id) {
                    if let Some((from_ns, old)) = r.rtt.kept.back()
                        && let Some(grown) = rtt.since(old)
                    {
                        r.history.push_heat(HeatColumn {
                            from_ns: *from_ns,
                            at_ns,
                            buckets: grown.buckets,
                        });
                    }
                    r.rtt.keep(at_ns, rtt);
                }
                r.handler.keep(at_ns, &slot.handler);
            }
        }
    }
}

/// The reason for everything that waits for more windows.
pub(crate) fn needs(seconds: u64) -> Why {
    Why::not_yet(format!("needs {seconds} s more"))
}
