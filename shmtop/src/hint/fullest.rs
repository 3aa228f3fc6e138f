//! How full the two rings of a connection were of late: worked out for all connections in one walk through ten seconds of samples.

use std::collections::HashMap;

use transport::stats::{Role, Slot};

use super::Context;
use crate::model::join::is_connection;
use crate::model::{Client, Endpoint};
use crate::sample::Sample;

/// How long "of late" is.
const LATELY_NS: u64 = 10_000_000_000;

/// What names a page for the length of a look back: its holder, and when it was made.
type PageId = (u32, u64);

/// What one page said of the rings of one connection: the fullest, in bytes.
#[derive(Clone, Copy, Default)]
struct Seen {
    requests: u64,
    replies: u64,
    /// Looks of its producer until the sample before.
    looks: Option<u64>,
}

impl Seen {
    /// One more sample, which counts if it `is_recent`. Housekeeping looks ten times a second; a producer looks where it runs out of room,
    /// and what it saw then stands in the page until it looks again, be that hours.
    fn add(&mut self, role: Role, slot: &Slot, is_recent: bool) {
        let looks = slot.tx.tx_index_loads;
        let has_looked = self.looks.replace(looks).is_some_and(|old| old < looks);
        if !is_recent {
            return;
        }
        let produced = if has_looked {
            slot.tx.tx_occupancy_bytes
        } else {
            0
        };
        let (requests, replies) = match role {
            Role::Server => (
                slot.house.house_rx_occupancy_bytes,
                produced.max(slot.house.house_tx_occupancy_bytes),
            ),
            Role::Client => (produced, 0),
        };
        self.requests = self.requests.max(requests);
        self.replies = self.replies.max(replies);
    }
}

/// Of all connections.
#[derive(Default)]
pub(super) struct Fullest {
    seen: HashMap<(PageId, u64), Seen>,
    /// The page that the model takes for this side of a connection.
    sides: HashMap<(u64, Role), PageId>,
}

impl Fullest {
    /// From samples, oldest first; the last one is now.
    pub(super) fn of<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Self {
        let mut all = Self::default();
        let Some(now) = samples.clone().last() else {
            return all;
        };
        let now_ns = now.time.monotonic_ns;
        for sample in samples {
            let age_ns = now_ns.saturating_sub(sample.time.monotonic_ns);
            let pages = sample.pages.iter();
            for (pid, page) in pages.filter_map(|p| Some((p.pid, p.snapshot()?))) {
                let id = (pid, page.created_monotonic_ns);
                for slot in page.slots.iter().filter(|s| is_connection(s)) {
                    let connection = slot.info.connection_id;
                    let seen = all.seen.entry((id, connection)).or_default();
                    seen.add(page.role, slot, age_ns < LATELY_NS);
                    if std::ptr::eq(sample, now) {
                        all.sides.entry((connection, page.role)).or_insert(id);
                    }
                }
            }
        }
        all
    }

    /// The fullest that (requests, replies) were, as this page and the one of the other side saw them.
    fn of_row(&self, own: PageId, role: Role, connection: u64) -> (u64, u64) {
        let across = match role {
            Role::Server => Role::Client,
            Role::Client => Role::Server,
        };
        let other = self.sides.get(&(connection, across)).copied();
        let pages = [Some(own), other].into_iter().flatten();
        let seen = pages.filter_map(|id| self.seen.get(&(id, connection)));
        seen.fold((0, 0), |(requests, replies), s| {
            (requests.max(s.requests), replies.max(s.replies))
        })
    }
}

impl Context<'_> {
    /// The most bytes that were seen within ten seconds in the rings for (requests, replies) of a row.
    pub(super) fn fullest(&self, e: &Endpoint, c: &Client) -> (u64, u64) {
        let all = self.once.fullest.get_or_init(|| {
            let before = self.windows.iter().map(|s| &**s);
            Fullest::of(before.chain([self.sample]))
        });
        all.of_row((e.key.pid, e.key.created_ns), e.role, c.connection_id)
    }
}

#[cfg(test)]
mod tests {
    use transport::stats::{HouseCounters, Role, Slot, SlotInfo, SlotState, Snapshot, TxCounters};

    use super::Fullest;
    use crate::sample::{Clocks, Page, Sample};

    const CLIENT: (u32, u64) = (20, 1);
    const SERVER: (u32, u64) = (10, 1);

    /// A page of connection 7: after so many looks its producer saw so much.
    fn page(pid: u32, role: Role, looks: u64, produced: u64, house: u64) -> Page {
        let slot = Slot {
            info: SlotInfo {
                state: SlotState::Open,
                connection_id: 7,
                ..SlotInfo::default()
            },
            tx: TxCounters {
                tx_index_loads: looks,
                tx_occupancy_bytes: produced,
                ..TxCounters::default()
            },
            house: HouseCounters {
                house_rx_occupancy_bytes: house,
                ..HouseCounters::default()
            },
            ..Slot::default()
        };
        let snapshot = Snapshot {
            role,
            created_monotonic_ns: 1,
            slots: vec![slot],
            ..Snapshot::default()
        };
        Page::read(pid, snapshot)
    }

    fn at(s: u64, pages: Vec<Page>) -> Sample {
        Sample {
            time: Clocks {
                monotonic_ns: (100 + s) * 1_000_000_000,
                ..Clocks::default()
            },
            pages,
            ..Sample::default()
        }
    }

    /// The fullest that the ring for requests was, to the server's row and to the client's.
    fn requests(samples: &[Sample]) -> [u64; 2] {
        let all = Fullest::of(samples.iter());
        let rows = [(SERVER, Role::Server), (CLIENT, Role::Client)];
        rows.map(|(page, role)| all.of_row(page, role, 7).0)
    }

    #[test]
    fn a_producer_is_believed_what_it_saw_since_the_sample_before_only() {
        let pages = |looks| vec![page(20, Role::Client, looks, 900, 0)];
        assert_eq!(requests(&[at(0, pages(5)), at(1, pages(5))]), [0, 0]);
        assert_eq!(requests(&[at(0, pages(5)), at(1, pages(6))]), [900, 900]);
    }

    #[test]
    fn ten_seconds_are_no_more_where_the_windows_are_long() {
        let pages = |house| vec![page(10, Role::Server, 0, 0, house)];
        let seen = |last_s| [at(0, pages(900)), at(5, pages(40)), at(last_s, pages(2))];
        assert_eq!(requests(&seen(9)), [900, 900]);
        assert_eq!(requests(&seen(10)), [40, 40]);
        assert_eq!(requests(&seen(100)), [2, 2]);
    }

    #[test]
    fn a_third_page_that_claims_the_connection_has_no_say() {
        let pages = |looks| {
            vec![
                page(10, Role::Server, 0, 0, 30),
                page(20, Role::Client, looks, 40, 0),
                page(30, Role::Client, looks, u64::MAX, 0),
            ]
        };
        assert_eq!(requests(&[at(0, pages(1)), at(1, pages(2))]), [40, 40]);
    }
}
