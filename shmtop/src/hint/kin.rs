//! Which processes belong together: those that connections join, however many are between them.

use std::collections::HashMap;

use super::unseen::connections;
use crate::sample::Sample;

/// Processes by who stands for all they belong with.
#[derive(Debug, Default)]
pub(super) struct Kin {
    /// Of each process one that it belongs with; who stands for all has itself.
    next: HashMap<u32, u32>,
}

impl Kin {
    /// Of all that a sample knows, in one pass over its connections.
    pub(super) fn of(sample: &Sample) -> Self {
        let mut kin = Self::default();
        let mut first: HashMap<u64, u32> = HashMap::new();
        for (page, _, slot) in connections(sample) {
            let id = slot.info.connection_id;
            // Some pages don't say.
            if id != 0 {
                let other = *first.entry(id).or_insert(page.pid);
                kin.join(page.pid, other);
            }
        }
        kin
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.find(a), self.find(b));
        // The smaller, so that the answer does not depend on the order.
        let (small, large) = (a.min(b), a.max(b));
        self.next.insert(large, small);
    }

    /// Who stands for the family of a process: itself, if it has none.
    pub(super) fn find(&mut self, pid: u32) -> u32 {
        let mut at = pid;
        while let Some(&next) = self.next.get(&at).filter(|next| **next != at) {
            // Halves the way for those who come after.
            let over = self.next.get(&next).copied().unwrap_or(next);
            self.next.insert(at, over);
            at = over;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Page;
    use transport::stats::{Slot, SlotKind, Snapshot};

    fn page(pid: u32, connections: &[u64]) -> Page {
        let slots = connections.iter().map(|id| {
            let mut slot = Slot::default();
            slot.info.kind = SlotKind::Connection;
            slot.info.connection_id = *id;
            slot
        });
        let snapshot = Snapshot {
            slots: slots.collect(),
            ..Snapshot::default()
        };
        Page::read(pid, snapshot)
    }

    #[test]
    fn a_family_is_all_that_connections_join_and_nobody_else() {
        let sample = Sample {
            pages: vec![
                page(9, &[1, 2]),
                page(3, &[1]),
                page(4, &[2, 3]),
                page(5, &[3]),
                page(6, &[4, 0]),
                page(7, &[4, 0]),
                page(8, &[0]),
            ],
            ..Sample::default()
        };
        let mut kin = Kin::of(&sample);
        assert_eq!([3, 4, 5, 9].map(|pid| kin.find(pid)), [3; 4]);
        assert_eq!([6, 7].map(|pid| kin.find(pid)), [6; 2]);
        assert_eq!([8, 99].map(|pid| kin.find(pid)), [8, 99]);
    }
}
