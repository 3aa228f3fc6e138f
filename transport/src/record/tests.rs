//! What a viewer derives is what a plain book-keeper would have counted, one `+= 1` for each thing that happened.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::mem::mapping::Mapping;
use crate::mem::memfd::{RING_NAME, create_rings};
use crate::ring::plan::{Kind, record_bytes};
use crate::ring::producer::NoSlot;
use crate::ring::storage::connection_bytes;
use crate::shm::Rings;
use crate::stats::page::{PageDescription, PageWriter};
use crate::stats::{PageReader, ReqCounters, Role, RxCounters, Slot, SlotKind, TxCounters};

const CAPACITY: usize = 4 << 10;
const MAX_MESSAGE: usize = 1000;

/// One side of a connection: its end of the rings, its page, and what the book-keeper says of it.
struct Side {
    rings: Rings,
    slot: SlotWriter,
    reader: PageReader,
    tx: TxCounters,
    rx: RxCounters,
    req: ReqCounters,
    loaded: bool,
}

impl Side {
    fn new(rings: Rings, role: Role) -> Self {
        let page = PageWriter::create(&PageDescription {
            name: "n",
            role,
            socket_path: Path::new("/s"),
            slots: 1,
        });
        let fd = page.fd().expect("published").as_raw_fd();
        Self {
            rings,
            slot: page.slot(SlotKind::Connection).expect("a slot"),
            reader: PageReader::open(format!("/proc/self/fd/{fd}")).expect("a page"),
            tx: TxCounters::default(),
            rx: RxCounters::default(),
            req: ReqCounters::default(),
            loaded: false,
        }
    }

    /// Sends, if there is room.
    fn send(&mut self, length: usize) -> bool {
        let payload = vec![1; length];
        if let Err(NoSlot::Full { occupancy }) = self.rings.tx.push(Kind::Request, 1, &payload) {
            full(self.slot.tx(), occupancy);
            self.tx.tx_full += 1;
            return false;
        }
        let has_looked = self.rings.tx.has_looked();
        sent(&self.slot, &mut self.rings.tx, length);
        self.tx.tx_messages += 1;
        self.tx.tx_bytes += length as u64;
        self.tx.tx_record_bytes += record_bytes(length);
        self.tx.tx_index = self.rings.tx.index();
        self.tx.tx_index_hits += u64::from(!has_looked);
        self.tx.tx_largest_bytes = self.tx.tx_largest_bytes.max(length as u64);
        true
    }

    /// Takes the next message, if there is one.
    fn take(&mut self, what: Taken) -> bool {
        let mut buffer = [0; MAX_MESSAGE];
        let Some(record) = self.rings.rx.peek().expect("honest") else {
            return false;
        };
        assert!(self.rings.rx.read(&record, &mut buffer).expect("honest"));
        let gone = self.rings.rx.release(&record);
        taken(&self.slot, &mut self.rings.rx, what);
        released(&self.slot, &self.rings.rx, gone, record.length);
        self.rx.rx_messages += 1;
        self.rx.rx_bytes += record.length as u64;
        self.rx.rx_record_bytes += record_bytes(record.length);
        self.rx.rx_index = self.rings.rx.index();
        self.rx.rx_index_hits += u64::from(!std::mem::take(&mut self.loaded));
        self.rx.rx_largest_bytes = self.rx.rx_largest_bytes.max(record.length as u64);
        true
    }

    fn look(&mut self) {
        self.rings.rx.cross_check().expect("honest");
        self.loaded = true;
    }

    /// The page says of each derived counter what the book-keeper does.
    fn check(&self) -> Result<(), TestCaseError> {
        let seen = self.reader.snapshot().expect("a page").slots.remove(0);
        fn derived<T: Copy>(
            rows: &[crate::stats::schema::Descriptor],
            values: Vec<T>,
        ) -> Vec<(&'static str, T)> {
            let pairs = rows.iter().zip(values);
            pairs
                .filter(|(d, _)| d.offset.is_none())
                .map(|(d, value)| (d.name, value))
                .collect()
        }
        let all = |slot: &Slot| {
            [
                derived(TxCounters::DESCRIPTORS, slot.tx.values()),
                derived(RxCounters::DESCRIPTORS, slot.rx.values()),
                derived(ReqCounters::DESCRIPTORS, slot.req.values()),
            ]
            .concat()
        };
        let counted = Slot {
            tx: self.tx,
            rx: self.rx,
            req: self.req,
            ..Slot::default()
        };
        prop_assert_eq!(all(&seen), all(&counted));
        prop_assert_eq!(seen.tx.tx_full, self.tx.tx_full);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Request(usize),
    /// Answered by this many bytes; or given up before the reply is there.
    Reply {
        length: usize,
        late: bool,
    },
    ClientLooks,
    ServerLooks,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || prop_oneof![0..=MAX_MESSAGE, 0usize..20];
    let reply = (length(), prop::bool::weighted(0.2));
    let step = prop_oneof![
        4 => length().prop_map(Step::Request),
        4 => reply.prop_map(|(length, late)| Step::Reply { length, late }),
        1 => Just(Step::ClientLooks),
        1 => Just(Step::ServerLooks),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_derived_is_what_would_have_been_counted(steps in steps()) {
        let bytes = connection_bytes(CAPACITY);
        let (fd, _) = create_rings(RING_NAME, bytes, false).expect("memory");
        let mapping = Arc::new(Mapping::shared(fd.as_fd(), bytes).expect("mapped"));
        let mut client = Side::new(Rings::client(&mapping, CAPACITY, MAX_MESSAGE), Role::Client);
        let mut server = Side::new(Rings::server(&mapping, CAPACITY, MAX_MESSAGE), Role::Server);
        for step in steps {
            match step {
                Step::Request(length) => if client.send(length) {
                    client.req.requests += 1;
                    client.req.in_flight += 1;
                },
                Step::Reply { length, late } => if server.take(Taken::Live) {
                    server.req.requests += 1;
                    if late {
                        bump(&client.slot.taken().given_up, 1);
                        client.req.in_flight -= 1;
                    }
                    // The client takes each reply at once, so there is room.
                    prop_assert!(server.send(length));
                    server.req.replies += 1;
                    if late {
                        client.take(Taken::Void);
                    } else {
                        client.take(Taken::Live);
                        client.req.replies += 1;
                        client.req.in_flight -= 1;
                    }
                },
                Step::ClientLooks => client.look(),
                Step::ServerLooks => server.look(),
            }
            client.check()?;
            server.check()?;
        }
    }
}

/// Whenever a reader comes, also between the stores of one message: no counter is ever less than it was.
#[test]
fn no_look_finds_less_than_the_one_before() {
    let page = PageWriter::create(&PageDescription {
        name: "n",
        role: Role::Client,
        socket_path: Path::new("/s"),
        slots: 1,
    });
    let fd = page.fd().expect("published").as_raw_fd();
    let slot = page.slot(SlotKind::Connection).expect("a slot");
    let reader = PageReader::open(format!("/proc/self/fd/{fd}")).expect("a page");
    let words = [slot.sent().all(), slot.taken().all()].concat();
    let counters = |slot: &Slot| {
        [
            (TxCounters::DESCRIPTORS, slot.tx.values()),
            (RxCounters::DESCRIPTORS, slot.rx.values()),
            (ReqCounters::DESCRIPTORS, slot.req.values()),
        ]
        .into_iter()
        .flat_map(|(rows, values)| rows.iter().zip(values))
        .filter(|(d, _)| d.kind == crate::stats::schema::Kind::Counter)
        .collect::<Vec<_>>()
    };
    let mut before = reader.snapshot().expect("a page").slots.remove(0);
    let mut last = counters(&before);
    // A reader between any two stores, of words that grow in any order.
    let mut random = 1u64;
    for _ in 0..2_000 {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bump(words[(random >> 33) as usize % words.len()], random >> 50);
        assert!(reader.refresh(&mut before));
        let now = counters(&before);
        for ((d, old), (_, new)) in last.iter().zip(&now) {
            assert!(new >= old, "{}: {old}, then {new}", d.name);
        }
        last = now;
    }
}
