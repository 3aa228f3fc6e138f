//! What is left of a sample when it is recorded for some processes only (-p, --name). Called by `record`.

use std::collections::{BTreeSet, HashSet};

use transport::stats::{Role, SlotInfo, SlotKind};

use crate::model::Choice;
use crate::sample::{Page, Sample};

/// What a recording leaves of each sample.
pub(super) struct Thin<'c> {
    choice: &'c Choice,
    /// Connections in the last sample that was left. Of one that has ended since, no page may have kept the id.
    before: HashSet<u64>,
}

impl<'c> Thin<'c> {
    pub(super) fn new(choice: &'c Choice) -> Self {
        Self {
            choice,
            before: HashSet::new(),
        }
    }

    /// Leaves the pages that are wanted, the other ends of their connections, and all other clients of those servers: rules compare
    /// clients, and count who competes for CPUs. Of everything else it leaves what belongs to these.
    pub(super) fn thin(&mut self, sample: &mut Sample) {
        if self.choice.is_everything() {
            return;
        }
        let wants = |p: &Page| {
            let name = p.snapshot().map_or(&p.link, |s| &s.name);
            self.choice.wants(p.pid, name)
        };
        let mut wanted: Vec<bool> = sample.pages.iter().map(wants).collect();
        reach(&sample.pages, &mut wanted, |_| true);
        reach(&sample.pages, &mut wanted, |p| {
            p.snapshot().is_some_and(|s| s.role == Role::Server)
        });
        let mut left = wanted.into_iter();
        sample.pages.retain(|_| left.next().unwrap_or(false));
        let ids = sample.pages.iter().flat_map(slots).map(|i| i.connection_id);
        let ids: HashSet<u64> = ids.filter(|id| *id != 0).collect();
        sample.ended.retain(|e| {
            let ours = |id| ids.contains(id) || self.before.contains(id);
            e.connections.iter().any(ours) || self.choice.wants(e.pid, &e.name)
        });
        self.before = ids;
        let peers = sample.pages.iter().flat_map(slots);
        let peers = peers.map(|info| info.peer_pid);
        let pids: BTreeSet<u32> = sample.pages.iter().map(|p| p.pid).chain(peers).collect();
        sample.processes.retain(|p| pids.contains(&p.pid));
        sample.listeners.retain(|l| pids.contains(&l.pid));
        let threads: BTreeSet<u32> = sample
            .processes
            .iter()
            .flat_map(|p| p.threads.iter().map(|t| t.tid))
            .collect();
        sample.perf.retain(|p| threads.contains(&p.tid));
    }
}

/// Of connections: pollers have a number where those have an id, and every server has the same numbers.
fn slots(p: &Page) -> impl Iterator<Item = &SlotInfo> {
    p.snapshot()
        .into_iter()
        .flat_map(|s| s.slots.iter().map(|slot| &slot.info))
        .filter(|info| info.kind == SlotKind::Connection)
}

/// Adds the pages that share a connection with one that is wanted, and `leads` on.
fn reach(pages: &[Page], wanted: &mut [bool], leads: impl Fn(&Page) -> bool) {
    let from = pages.iter().zip(wanted.iter()).filter(|(_, w)| **w);
    let connections: HashSet<u64> = from
        .filter(|(p, _)| leads(p))
        .flat_map(|(p, _)| slots(p))
        .map(|info| info.connection_id)
        .filter(|id| *id != 0)
        .collect();
    for (page, wanted) in pages.iter().zip(wanted) {
        *wanted |= slots(page).any(|info| connections.contains(&info.connection_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{Ended, Process};
    use transport::stats::{Slot, Snapshot};

    fn page(pid: u32, role: Role, connections: &[(u64, u32)]) -> Page {
        let slots = connections.iter().map(|&(connection_id, peer_pid)| {
            let mut slot = Slot::default();
            slot.info = SlotInfo {
                kind: SlotKind::Connection,
                connection_id,
                peer_pid,
                ..slot.info
            };
            slot
        });
        let mut poller = Slot::default();
        poller.info.kind = SlotKind::Poller;
        poller.info.connection_id = 1;
        let slots = slots.chain([poller]);
        let snapshot = Snapshot {
            name: format!("process-{pid}"),
            role,
            slots: slots.collect(),
            ..Snapshot::default()
        };
        Page::read(pid, snapshot)
    }

    #[test]
    fn a_recording_of_one_client_has_all_that_its_server_serves_and_nothing_of_another() {
        let process = |pid| Process {
            pid,
            ..Process::default()
        };
        let whole = Sample {
            pages: vec![
                page(1, Role::Server, &[(11, 2), (12, 3), (13, 4)]),
                page(2, Role::Client, &[(11, 1)]),
                page(3, Role::Client, &[(12, 1), (22, 6)]),
                page(6, Role::Server, &[(21, 7), (22, 3)]),
                page(7, Role::Client, &[(21, 6)]),
            ],
            processes: (1..=9).map(process).collect(),
            ..Sample::default()
        };
        let left = |pids: &[u32], name: Option<&str>| {
            let mut sample = whole.clone();
            let choice = Choice {
                pids: pids.to_vec(),
                name: name.map(str::to_owned),
            };
            Thin::new(&choice).thin(&mut sample);
            let pages: Vec<u32> = sample.pages.iter().map(|p| p.pid).collect();
            (pages, sample.processes.len())
        };
        // 4 has no page, 6 is known to 3's page.
        assert_eq!(left(&[2], None), (vec![1, 2, 3], 5));
        assert_eq!(left(&[1], None), (vec![1, 2, 3], 5));
        assert_eq!(left(&[], Some("CESS-7")), (vec![3, 6, 7], 4));
        assert_eq!(left(&[9], None), (vec![], 0));
        assert_eq!(left(&[], None), (vec![1, 2, 3, 6, 7], 9));
    }

    #[test]
    fn whoever_ended_since_the_last_look_is_recorded_though_the_other_side_has_closed_the_connection()
     {
        let choice = Choice {
            pids: vec![1],
            name: None,
        };
        let look = |server: &[(u64, u32)], ended: &[(u32, u64)]| Sample {
            pages: vec![
                page(1, Role::Server, server),
                page(6, Role::Server, &[(21, 7)]),
            ],
            ended: (ended.iter())
                .map(|&(pid, connection)| Ended {
                    pid,
                    name: format!("process-{pid}"),
                    role: Role::Client,
                    connections: vec![connection],
                })
                .collect(),
            ..Sample::default()
        };
        let mut recorded = Thin::new(&choice);
        let mut left = |mut sample: Sample| {
            recorded.thin(&mut sample);
            sample.ended.iter().map(|e| e.pid).collect::<Vec<_>>()
        };
        assert_eq!(left(look(&[(11, 2)], &[])), [0; 0]);
        // 7 was connected to another server.
        assert_eq!(left(look(&[], &[(2, 11), (7, 21)])), [2]);
        assert_eq!(left(look(&[], &[])), [0; 0]);
    }
}
