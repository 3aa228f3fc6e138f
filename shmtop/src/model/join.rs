//! Who belongs to whom in a sample: pages by identity, the two sides of a connection, pids across namespaces.
//!
//! Used by the model builder and by rules that go back to the sample. Identity is never the pid alone: pids are
//! used again, and a page of another namespace speaks of other pids.

use std::collections::HashMap;

use transport::stats::{Role, Slot, SlotKind, SlotState, Snapshot};

use super::EndpointKey;
use crate::rate::Span;
use crate::sample::{Page, Process, Sample};

/// One side of a connection, with its past if there is one.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    /// Its page.
    pub(crate) page: &'a Page,
    /// What the page says.
    pub(crate) snapshot: &'a Snapshot,
    /// Its slot.
    pub(crate) slot: &'a Slot,
    /// The same slot in the sample before, and the time since.
    pub(crate) before: Option<(&'a Slot, Span)>,
}

/// A sample and the one before it, indexed.
pub(crate) struct Pair<'a> {
    /// The later sample.
    pub(crate) now: &'a Sample,
    /// The earlier one.
    pub(crate) before: Option<&'a Sample>,
    /// Time between them.
    pub(crate) span: Option<Span>,
    sides: HashMap<(u64, Role), (usize, usize)>,
    earlier: HashMap<EndpointKey, &'a Snapshot>,
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

/// A connection that is in use.
pub(crate) fn is_connection(slot: &Slot) -> bool {
    slot.info.kind == SlotKind::Connection
        && matches!(slot.info.state, SlotState::Open | SlotState::Handshaking)
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
        let earlier = before
            .iter()
            .flat_map(|b| &b.pages)
            .filter_map(|page| page.snapshot().map(|s| (key(page, s), s)))
            .collect();
        Self {
            now,
            before,
            span,
            sides,
            earlier,
        }
    }

    /// The page's own past.
    pub(crate) fn earlier(&self, key: &EndpointKey) -> Option<(&'a Snapshot, Span)> {
        Some((*self.earlier.get(key)?, self.span?))
    }

    /// A slot with its past: the same index, kind and connection in the same page.
    pub(crate) fn side(&self, page: &'a Page, snapshot: &'a Snapshot, slot: &'a Slot) -> Side<'a> {
        let before = self.earlier(&key(page, snapshot)).and_then(|(old, span)| {
            old.slots
                .iter()
                .find(|o| {
                    o.index == slot.index
                        && o.info.kind == slot.info.kind
                        && o.info.connection_id == slot.info.connection_id
                })
                .map(|o| (o, span))
        });
        Side {
            page,
            snapshot,
            slot,
            before,
        }
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
        Some(self.side(page, snapshot, &snapshot.slots[s]))
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

    /// Whether the pids in a page mean here what they mean there. What neither says is taken as the same.
    pub(crate) fn same_namespace(&self, snapshot: &Snapshot) -> bool {
        snapshot.pid_ns_inode == 0
            || self
                .now
                .viewer
                .pid_ns_inode
                .known()
                .is_none_or(|ours| *ours == snapshot.pid_ns_inode)
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
