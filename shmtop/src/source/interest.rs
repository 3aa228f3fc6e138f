//! Which processes and threads a sample is about: what the pages name.

use std::collections::{BTreeMap, BTreeSet};

use transport::stats::SlotState;

use super::{World, pages};
use crate::sample::{Page, lost};

/// Processes looked at, at most: a page may name any pids it likes.
const MAX_PROCESSES: usize = 1024;

impl World {
    /// The processes that matter and, of each, the threads that own a slot. Peers of a page from another pid namespace have numbers
    /// that mean others here, so they are left out; its threads are known by what their process says of them.
    pub(super) fn interest(&self, pages: &[Page]) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut interest: BTreeMap<u32, BTreeSet<u32>> =
            // A link that leads to no process has no pid.
            pages
                .iter()
                .filter(|p| p.pid != 0)
                .map(|p| (p.pid, BTreeSet::new()))
                .collect();
        for page in pages {
            let Some(snapshot) = page.snapshot() else {
                continue;
            };
            if self.own_pid_ns != Ok(snapshot.pid_ns_inode) {
                let Some(watch) = self.processes.get(&page.pid) else {
                    continue;
                };
                let inner = snapshot.slots.iter().map(|s| s.info.tid);
                let here = inner.filter_map(|tid| watch.thread_inside(tid));
                interest.entry(page.pid).or_default().extend(here);
                continue;
            }
            // Whether the server that a client is without has died.
            if let Some(slot) = lost(snapshot, |_| false)
                && slot.info.peer_pid != 0
                && interest.len() < MAX_PROCESSES
            {
                interest.entry(slot.info.peer_pid).or_default();
            }
            for slot in &snapshot.slots {
                let info = &slot.info;
                if !matches!(info.state, SlotState::Handshaking | SlotState::Open) {
                    continue;
                }
                if info.tid != 0
                    && let Some(threads) = interest.get_mut(&page.pid)
                {
                    threads.insert(info.tid);
                }
                if info.peer_pid != 0 && interest.len() < MAX_PROCESSES {
                    interest.entry(info.peer_pid).or_default();
                }
            }
        }
        interest
    }

    /// The processes whose page says that connections came or went since the last sample.
    pub(super) fn changed(&mut self, pages: &[Page]) -> BTreeSet<u32> {
        let mut now: BTreeMap<u32, [u64; 5]> = BTreeMap::new();
        for page in pages {
            if let Some(snapshot) = page.snapshot() {
                let sums = now.entry(page.pid).or_default();
                for (sum, n) in sums.iter_mut().zip(pages::admissions(&snapshot.process)) {
                    *sum = sum.wrapping_add(n);
                }
            }
        }
        let before = std::mem::replace(&mut self.admitted, now);
        let known = self
            .admitted
            .iter()
            .filter(|(pid, _)| before.contains_key(pid));
        known
            .filter(|(pid, now)| before.get(pid) != Some(now))
            .map(|(pid, _)| *pid)
            .collect()
    }
}
