//! The way into the dashboard, and the choice of what is looked at.

use std::collections::{BTreeSet, HashSet};
use std::io::BufReader;

use transport::stats::{SlotInfo, SlotKind};

use super::settings::Settings;
use super::{Failure, Outcome};
use crate::recording::Recording;
use crate::runtime::{self, Ending, SampleSource};
use crate::sample::{Glance, Page, Sample};

/// Shows the dashboard.
pub(super) fn live(settings: &Settings, source: Box<dyn SampleSource>) -> Outcome {
    let source = Box::new(Selected::new(source, settings));
    let ending = runtime::run(
        source,
        runtime::Settings {
            interval: settings.delay.unwrap_or(runtime::DEFAULT_INTERVAL),
            state: settings.state.clone(),
            duration: None,
        },
    )?;
    match ending {
        Ending::Quit | Ending::Elapsed => Ok(()),
        other => Err(Failure::Code(other.exit_code())),
    }
}

/// A source that leaves out what is not wanted (-p, --name), so that it is neither shown nor recorded.
pub(super) struct Selected {
    source: Box<dyn SampleSource>,
    pids: Vec<u32>,
    name: Option<String>,
}

impl Selected {
    pub(super) fn new(source: Box<dyn SampleSource>, settings: &Settings) -> Self {
        Self {
            source,
            pids: settings.pids.clone(),
            name: settings.name.as_ref().map(|n| n.to_lowercase()),
        }
    }

    fn wants(&self, page: &Page) -> bool {
        let name = page
            .snapshot()
            .map_or(page.link.to_lowercase(), |s| s.name.to_lowercase());
        (self.pids.is_empty() || self.pids.contains(&page.pid))
            && self.name.as_ref().is_none_or(|n| name.contains(n))
    }

    /// Leaves the pages that are wanted and the other ends of their connections, and of everything else what belongs to these.
    fn select(&self, sample: &mut Sample) {
        if self.pids.is_empty() && self.name.is_none() {
            return;
        }
        // Not of pollers: those have a number where a connection has an id, and every server has the same numbers.
        fn slots(p: &Page) -> impl Iterator<Item = &SlotInfo> {
            p.snapshot()
                .into_iter()
                .flat_map(|s| s.slots.iter().map(|slot| &slot.info))
                .filter(|info| info.kind == SlotKind::Connection)
        }
        let wanted = sample.pages.iter().filter(|p| self.wants(p));
        let connections: HashSet<u64> = wanted
            .flat_map(slots)
            .map(|info| info.connection_id)
            .filter(|id| *id != 0)
            .collect();
        sample.pages.retain(|p| {
            self.wants(p) || slots(p).any(|info| connections.contains(&info.connection_id))
        });
        let peers = sample
            .pages
            .iter()
            .flat_map(slots)
            .map(|info| info.peer_pid);
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

impl SampleSource for Selected {
    fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        let mut sample = self.source.next_sample()?;
        if let Some(sample) = &mut sample {
            self.select(sample);
        }
        Ok(sample)
    }

    fn recording(&self) -> Option<String> {
        self.source.recording()
    }

    fn look_closely(&mut self, pids: &std::collections::BTreeSet<u32>) {
        self.source.look_closely(pids);
    }

    fn glance(&mut self, glance: &mut Glance) -> bool {
        self.source.glance(glance)
    }
}

impl SampleSource for Recording<BufReader<std::fs::File>> {
    fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        Recording::next_sample(self)
    }

    fn recording(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::PageContent;
    use transport::stats::{Slot, Snapshot};

    /// A page with slots of (kind, connection or number of the poller).
    fn page(pid: u32, slots: &[(SlotKind, u64)]) -> Page {
        let slot = |&(kind, id)| {
            let mut slot = Slot::default();
            slot.info.kind = kind;
            slot.info.connection_id = id;
            slot
        };
        let snapshot = Snapshot {
            pid,
            slots: slots.iter().map(slot).collect(),
            ..Snapshot::default()
        };
        Page {
            pid,
            content: PageContent::Read(Box::new(snapshot)),
            ..Page::default()
        }
    }

    struct Once(Option<Sample>);
    impl SampleSource for Once {
        fn next_sample(&mut self) -> Result<Option<Sample>, String> {
            Ok(self.0.take())
        }
    }

    #[test]
    fn a_server_comes_with_its_clients_and_without_another_server_that_has_as_many_pollers() {
        use SlotKind::{Connection, Poller};
        let pollers = [(Poller, 0), (Poller, 1)];
        let sample = Sample {
            pages: vec![
                page(1, &[pollers[0], pollers[1], (Connection, 77)]),
                page(2, &[(Connection, 77)]),
                page(3, &[pollers[0], pollers[1], (Connection, 78)]),
                page(4, &[(Connection, 78)]),
            ],
            ..Sample::default()
        };
        let mut source = Selected {
            source: Box::new(Once(Some(sample))),
            pids: vec![1],
            name: None,
        };
        let sample = source.next_sample().unwrap().unwrap();
        let pids: Vec<u32> = sample.pages.iter().map(|p| p.pid).collect();
        assert_eq!(pids, [1, 2]);
    }
}
