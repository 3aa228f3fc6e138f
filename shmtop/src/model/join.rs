//! Who belongs to whom in a sample: pages by identity, the two sides of a connection, pids across namespaces.
//!
//! Used by the model builder and by rules that go back to the sample. Identity is never the pid alone: pids are
//! used again, and a page of another namespace speaks of other pids.

use std::cell::RefCell;
use std::collections::HashMap;

use transport::stats::{Role, Slot, SlotKind, SlotState, Snapshot};

use super::measure::past;
use super::{EndpointKey, PerfView, Shared, ThreadView};
use crate::rate::{Span, delta};
use crate::reading::Reading;
use crate::sample::{Page, Process, Sample};

/// One side of a connection, with its past if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    /// Number of its page in the sample.
    pub(crate) number: usize,
    /// Its page.
    pub(crate) page: &'a Page,
    /// What the page says.
    pub(crate) snapshot: &'a Snapshot,
    /// Its slot.
    pub(crate) slot: &'a Slot,
    /// The same slot in the sample before, and the time since.
    pub(crate) before: Option<(&'a Slot, Span)>,
}

/// A thread, in common to all rows that it serves.
type Thread = Reading<Shared<ThreadView>>;

/// A sample and the one before it, indexed.
pub(crate) struct Pair<'a> {
    /// The later sample.
    pub(crate) now: &'a Sample,
    /// The earlier one.
    pub(crate) before: Option<&'a Sample>,
    /// Time between them.
    pub(crate) span: Option<Span>,
    sides: HashMap<(u64, Role), (usize, usize)>,
    /// By number of the page in `now`.
    earlier: Vec<Option<&'a Snapshot>>,
    /// By number of the page: messages moved on each of its threads, counted when first asked for.
    moved: RefCell<HashMap<usize, HashMap<u32, Reading<u64>>>>,
    /// By number of the page: how long the connections of each of its threads spun.
    spun: RefCell<HashMap<usize, HashMap<u32, f64>>>,
    /// By process and thread: a thread that serves a thousand connections is looked at once.
    threads: RefCell<HashMap<(u32, u32), Thread>>,
    /// By number of the page and thread: what was counted per message of all its connections.
    perf: RefCell<HashMap<(usize, u32), Shared<PerfView>>>,
}

/// What names a page for good.
pub(crate) fn key(page: &Page, snapshot: &Snapshot) -> EndpointKey {
    EndpointKey {
        pid: page.pid,
        start_ticks: snapshot.start_ticks,
        name: snapshot.name.clone(),
        created_ns: snapshot.created_monotonic_ns,
    }
}

/// Whether it is this page's name.
pub(crate) fn is_of(key: &EndpointKey, page: &Page, snapshot: &Snapshot) -> bool {
    key.pid == page.pid
        && key.created_ns == snapshot.created_monotonic_ns
        && key.start_ticks == snapshot.start_ticks
        && key.name == snapshot.name
}

/// A connection that is in use.
pub(crate) fn is_connection(slot: &Slot) -> bool {
    slot.info.kind == SlotKind::Connection
        && matches!(slot.info.state, SlotState::Open | SlotState::Handshaking)
}

/// The slot with this index: a page lists its slots by it, and as long as none was given back it stands at that very place.
pub(crate) fn slot_at(snapshot: &Snapshot, index: u32) -> Option<&Slot> {
    let direct = snapshot.slots.get(index as usize);
    if let Some(slot) = direct.filter(|s| s.index == index) {
        return Some(slot);
    }
    let at = snapshot.slots.binary_search_by_key(&index, |s| s.index);
    at.ok().map(|i| &snapshot.slots[i])
}

impl<'a> Pair<'a> {
    /// Indexes both. A `before` that is not earlier is ignored.
    pub(crate) fn new(before: Option<&'a Sample>, now: &'a Sample) -> Self {
        let span =
            before.and_then(|b| Span::between(b.time.monotonic_ns, now.time.monotonic_ns).ok());
        let before = before.filter(|_| span.is_some());
        let mut sides = HashMap::new();
        for (p, page) in now.pages.iter().enumerate() {
            let Some(snapshot) = page.snapshot() else {
                continue;
            };
            for (s, slot) in snapshot.slots.iter().enumerate() {
                if is_connection(slot) {
                    sides
                        .entry((slot.info.connection_id, snapshot.role))
                        .or_insert((p, s));
                }
            }
        }
        let known: HashMap<EndpointKey, &Snapshot> = before
            .iter()
            .flat_map(|b| &b.pages)
            .filter_map(|page| page.snapshot().map(|s| (key(page, s), s)))
            .collect();
        let earlier = now.pages.iter();
        let earlier = earlier
            .map(|page| known.get(&key(page, page.snapshot()?)).copied())
            .collect();
        Self {
            now,
            before,
            span,
            sides,
            earlier,
            moved: RefCell::default(),
            spun: RefCell::default(),
            threads: RefCell::default(),
            perf: RefCell::default(),
        }
    }

    /// A slot of page `number` with its past: the same index, kind and connection in the same page.
    pub(crate) fn side(
        &self,
        number: usize,
        page: &'a Page,
        snapshot: &'a Snapshot,
        slot: &'a Slot,
    ) -> Side<'a> {
        let before = || {
            let old = slot_at(self.earlier.get(number).copied().flatten()?, slot.index)?;
            let same = old.info.kind == slot.info.kind
                && old.info.connection_id == slot.info.connection_id;
            same.then_some((old, self.span?))
        };
        Side {
            number,
            page,
            snapshot,
            slot,
            before: before(),
        }
    }

    /// Messages that all slots of this side's thread moved, both ways.
    pub(crate) fn messages_of_thread(&self, side: &Side<'a>) -> Reading<u64> {
        let mut moved = self.moved.borrow_mut();
        let by_thread = moved.entry(side.number).or_insert_with(|| {
            let mut sums: HashMap<u32, Reading<u64>> = HashMap::new();
            for slot in &side.snapshot.slots {
                let sum = sums.entry(slot.info.tid).or_insert(Ok(0));
                let both = sum.clone().and_then(|sum| {
                    let s = self.side(side.number, side.page, side.snapshot, slot);
                    let (old, _) = past(&s)?;
                    Ok(sum
                        .saturating_add(delta(old.tx.tx_messages, slot.tx.tx_messages)?)
                        .saturating_add(delta(old.rx.rx_messages, slot.rx.rx_messages)?))
                });
                *sum = both;
            }
            sums
        });
        match by_thread.get(&side.slot.info.tid) {
            None => Ok(0),
            Some(sum) => sum.clone(),
        }
    }

    /// Share of wall time that all slots of this side's thread say they spun; above 1 if they are those of several threads.
    pub(crate) fn spin_of_thread(&self, side: &Side<'a>) -> f64 {
        let mut spun = self.spun.borrow_mut();
        let by_thread = spun.entry(side.number).or_insert_with(|| {
            let mut sums: HashMap<u32, f64> = HashMap::new();
            for slot in side.snapshot.slots.iter().filter(|s| is_connection(s)) {
                let s = self.side(side.number, side.page, side.snapshot, slot);
                let share = past(&s)
                    .and_then(|(old, span)| span.share(old.wait.spin_ns, slot.wait.spin_ns));
                *sums.entry(slot.info.tid).or_default() += share.unwrap_or(0.0);
            }
            sums
        });
        by_thread.get(&side.slot.info.tid).copied().unwrap_or(0.0)
    }

    /// The thread of a process, as `make` sees it when first asked for.
    pub(crate) fn thread(
        &self,
        pid: u32,
        tid: u32,
        make: impl FnOnce() -> Reading<ThreadView>,
    ) -> Thread {
        let mut threads = self.threads.borrow_mut();
        let thread = threads.entry((pid, tid));
        thread.or_insert_with(|| make().map(Shared::new)).clone()
    }

    /// What was counted per message on this side's thread, as `make` says when first asked.
    pub(crate) fn perf(
        &self,
        side: &Side<'_>,
        make: impl FnOnce() -> PerfView,
    ) -> Shared<PerfView> {
        let id = (side.number, side.slot.info.tid);
        if let Some(known) = self.perf.borrow().get(&id) {
            return known.clone();
        }
        let made = Shared::new(make());
        self.perf.borrow_mut().insert(id, made.clone());
        made
    }

    /// The other side of a connection, if its page is visible.
    pub(crate) fn other(&self, side: &Side<'_>) -> Option<Side<'a>> {
        let role = match side.snapshot.role {
            Role::Server => Role::Client,
            Role::Client => Role::Server,
        };
        let &(p, s) = self.sides.get(&(side.slot.info.connection_id, role))?;
        let page = &self.now.pages[p];
        let snapshot = page.snapshot()?;
        Some(self.side(p, page, snapshot, &snapshot.slots[s]))
    }

    /// The peer's process as this viewer sees it: through its own page, or by pid when the writer of the page
    /// lives in our pid namespace and the start time is the peer's.
    pub(crate) fn peer_process(
        &self,
        side: &Side<'_>,
        other: Option<&Side<'_>>,
    ) -> Option<&'a Process> {
        if let Some(other) = other {
            return self.now.process(other.page.pid);
        }
        if !self.same_namespace(side.snapshot) || side.slot.info.peer_pid == 0 {
            return None;
        }
        self.now.process(side.slot.info.peer_pid)
    }

    /// The peer's pid as this viewer sees it; 0 where nobody here knows: the page of it that is visible speaks of another pid namespace.
    pub(crate) fn peer_pid(&self, side: &Side<'_>, other: Option<&Side<'_>>) -> u32 {
        match other {
            Some(other) => other.page.pid,
            None if self.same_namespace(side.snapshot) => side.slot.info.peer_pid,
            None => 0,
        }
    }

    /// Whether the pids in a page mean here what they mean there.
    pub(crate) fn same_namespace(&self, snapshot: &Snapshot) -> bool {
        self.now.is_here(snapshot)
    }

    /// A process and its past.
    pub(crate) fn process(&self, pid: u32) -> Option<(&'a Process, Option<&'a Process>)> {
        let now = self.now.process(pid)?;
        let before = self.before.and_then(|b| b.process(pid)).filter(|b| {
            match (b.start_ticks.known(), now.start_ticks.known()) {
                (Some(a), Some(b)) => a == b,
                _ => true,
            }
        });
        Some((now, before))
    }
}
