//! What a process counts is what a viewer reads, and nobody but the owner can change it.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;
use transport::WaitPolicy;
use transport::config::PolicyKind;
use transport::error::{CloseReason, Fallback, Step};
use transport::stats::page::{PageDescription, PageWriter};
use transport::stats::recorder::{bump, raise, set};
use transport::stats::slot::{SlotFacts, SlotWriter};
use transport::stats::{
    Histogram, HouseCounters, PageReader, ProcessCounters, ReqCounters, Role, RxCounters, SlotKind,
    SlotState, Snapshot, TxCounters, Via, WaitCounters, histogram, schema,
};

fn page(slots: usize) -> Arc<PageWriter> {
    PageWriter::create(&PageDescription {
        name: "exchange",
        role: Role::Server,
        socket_path: Path::new("/run/x/exchange.sock"),
        slots,
    })
}

fn link(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn reader(page: &PageWriter) -> PageReader {
    PageReader::open(link(page.fd().unwrap())).unwrap()
}

fn look(page: &PageWriter) -> Snapshot {
    reader(page).snapshot().unwrap()
}

fn facts(id: u64) -> SlotFacts {
    let mut fallback = Fallback::of(Step::MemfdCreate);
    (fallback.errno, fallback.at_peer) = (24, true);
    (fallback.limit, fallback.used) = (64, 63);
    SlotFacts {
        open: true,
        connection_id: id,
        client_number: 7,
        transport: Via::Socket,
        wanted: Via::Shm,
        fallback: Some(fallback),
        peer_pid: 4242,
        peer_uid: 1000,
        peer_start_ticks: 99,
        peer_name: "trader\x1b[31m".into(),
        tid: 4243,
        wait_policy: WaitPolicy::Park,
        tx_capacity: 1 << 25,
        rx_capacity: 1 << 24,
        max_message: 1 << 21,
        poller_slot: Some(0),
        huge_pages: 2,
        ring_inode: 77,
    }
}

#[test]
fn a_viewer_learns_whose_page_it_is() {
    let page = page(4);
    let seen = look(&page);
    assert_eq!(page.unpublished(), None);
    assert_eq!(seen.version, (schema::VERSION_MAJOR, schema::VERSION_MINOR));
    assert_eq!(seen.pid, std::process::id());
    assert_eq!(seen.role, Role::Server);
    assert_eq!(seen.name, "exchange");
    assert_eq!(seen.socket_path, "/run/x/exchange.sock");
    assert_eq!(seen.library, env!("CARGO_PKG_VERSION"));
    assert_eq!(seen.debug_build, cfg!(debug_assertions));
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let start = stat.rsplit_once(')').unwrap().1.split(' ').nth(20).unwrap();
    assert_eq!(seen.start_ticks.to_string(), start);
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(seen.boot_id, boot.trim().replace('-', ""));
    assert!(seen.created_monotonic_ns > 0 && seen.created_realtime_ns > 0);
    assert!(seen.missing.is_empty() && seen.unknown.is_empty());
    assert!(seen.slots.is_empty());
}

#[test]
fn a_viewer_learns_every_fact_of_a_connection() {
    let page = page(4);
    let slot = page.slot(SlotKind::Connection).unwrap();
    assert_eq!(look(&page).slots[0].info.state, SlotState::Handshaking);
    slot.publish_info(&facts(5));
    let info = look(&page).slots.remove(0).info;
    assert_eq!(
        (info.state, info.kind),
        (SlotState::Open, SlotKind::Connection)
    );
    assert_eq!((info.connection_id, info.client_number), (5, 7));
    assert_eq!((info.transport, info.wanted), (Via::Socket, Via::Shm));
    let fallback = info.fallback.unwrap();
    assert_eq!(
        (fallback.step, fallback.errno),
        (Step::MemfdCreate as u32, 24)
    );
    assert_eq!(
        (fallback.limit, fallback.used, fallback.at_peer),
        (64, 63, true)
    );
    assert_eq!(
        (info.peer_pid, info.peer_uid, info.peer_start_ticks),
        (4242, 1000, 99)
    );
    assert_eq!(info.peer_name, "trader\u{fffd}[31m", "made safe to show");
    assert_eq!((info.tid, info.wait_policy), (4243, PolicyKind::Park));
    assert_eq!(
        (info.tx_capacity, info.rx_capacity, info.max_message),
        (1 << 25, 1 << 24, 1 << 21)
    );
    assert_eq!(
        (info.poller_slot, info.huge_pages, info.ring_inode),
        (Some(0), 2, 77)
    );
    assert!(info.opened_ns > 0);
    assert_eq!((info.closed_ns, info.close_reason), (0, 0));

    slot.close(CloseReason::Poisoned);
    slot.close(CloseReason::Local);
    slot.publish_info(&facts(6));
    let info = look(&page).slots.remove(0).info;
    assert_eq!(info.state, SlotState::Closed);
    assert_eq!(
        info.close_reason,
        CloseReason::Poisoned as u32,
        "the first reason stays"
    );
    assert_eq!(info.connection_id, 5);
    assert!(info.closed_ns >= info.opened_ns);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_counter_arrives_as_it_was_written(
        values in prop::collection::vec(any::<u64>(), schema::DESCRIPTOR_COUNT),
        times in prop::collection::vec((0u64..1 << 40, 1u64..64), 0..40),
    ) {
        let page = page(3);
        let slot = page.slot(SlotKind::Connection).unwrap();
        let groups = [
            page.process().all(), slot.tx().all(), slot.rx().all(), slot.wait().all(), slot.req().all(), slot.house().all(),
        ];
        for (word, value) in groups.into_iter().flatten().zip(&values) {
            set(word, *value);
        }
        // Since when the handler runs counts while a request is with it.
        bump(&slot.taken().rx_straight, 1);
        for (ns, weight) in &times {
            slot.rtt().record(*ns, *weight);
            slot.park().record(*weight, 1);
        }
        let seen = look(&page);
        let s = &seen.slots[0];
        let read: Vec<u64> = [
            (ProcessCounters::DESCRIPTORS, seen.process.values()),
            (TxCounters::DESCRIPTORS, s.tx.values()),
            (RxCounters::DESCRIPTORS, s.rx.values()),
            (WaitCounters::DESCRIPTORS, s.wait.values()),
            (ReqCounters::DESCRIPTORS, s.req.values()),
            (HouseCounters::DESCRIPTORS, s.house.values()),
        ].into_iter()
            .flat_map(|(group, values)| group.iter().zip(values))
            .filter(|(d, _)| d.offset.is_some())
            .map(|(_, value)| value)
            .collect();
        prop_assert_eq!(&read, &values[..read.len()]);
        prop_assert_eq!(s.rtt.count(), times.iter().map(|(_, weight)| weight).sum::<u64>());
        prop_assert_eq!(s.rtt.sum_ns, times.iter().map(|(ns, weight)| (*ns).max(1) * weight).sum::<u64>());
        prop_assert_eq!(s.rtt.max_ns, times.iter().map(|(ns, _)| (*ns).max(1)).max().unwrap_or(0));
        prop_assert_eq!(s.park.count(), times.len() as u64);
        prop_assert_eq!(&s.handler, &Histogram::default());
        for (index, n) in &s.rtt.buckets {
            let truth: u64 = times.iter()
                .filter(|(ns, _)| histogram::bucket_of((*ns).max(1)) == usize::from(*index))
                .map(|(_, weight)| weight).sum();
            prop_assert_eq!(*n, truth);
        }
        prop_assert_eq!(reader(&page).raw().parse().unwrap(), seen, "a recorded page says the same");
        bump(&slot.sent().tx_straight, 1);
        prop_assert_eq!(look(&page).slots[0].req.handler_since_ns, 0, "it is answered");
    }
}

#[test]
fn counters_add_set_and_rise() {
    let slot = SlotWriter::private(SlotKind::Connection);
    let word = &slot.sent().tx_ring_bytes;
    bump(word, 5);
    bump(word, 6);
    raise(word, 3);
    assert_eq!(word.load(Relaxed), 11);
    raise(word, 30);
    assert_eq!(word.load(Relaxed), 30);
    bump(word, u64::MAX);
    assert_eq!(
        word.load(Relaxed),
        29,
        "wraps, as a free-running index must"
    );
}

#[test]
fn nobody_else_can_write_to_or_truncate_a_page() {
    let page = page(2);
    let fd = page.fd().unwrap();
    for len in [0, 4096, 1 << 30] {
        assert!(nix::unistd::ftruncate(fd, len).is_err());
    }
    let reopened = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(link(fd));
    // Root may open it, but neither write nor map it writable.
    if let Ok(file) = reopened {
        use std::os::unix::fs::FileExt;
        assert!(file.write_at(b"x", 0).is_err());
        // SAFETY: the mapping is expected to fail; if it does not, nothing is done with it.
        let map = unsafe { memmap2::MmapMut::map_mut(&file) };
        assert!(map.is_err());
        let hole = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
            | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
        assert!(nix::fcntl::fallocate(&file, hole, 0, 4096).is_err());
    }
    let more = nix::fcntl::FcntlArg::F_ADD_SEALS(nix::fcntl::SealFlag::F_SEAL_WRITE);
    assert!(nix::fcntl::fcntl(fd, more).is_err(), "the seals are final");
    bump(&page.process().accepted, 1);
    assert_eq!(look(&page).process.accepted, 1, "the owner still writes");
}

#[test]
fn a_slot_used_again_starts_from_zero_and_looks_like_another() {
    let page = page(1);
    let first = page.slot(SlotKind::Connection).unwrap();
    first.publish_info(&facts(1));
    let words = [
        first.tx().all(),
        first.sent().all(),
        first.taken().all(),
        first.house().all(),
    ];
    for word in words.concat() {
        set(word, 9);
    }
    first.rtt().record(1_000_000, 3);
    first.handler().record(1 << 50, 3);
    let before = look(&page).slots.remove(0);
    assert!(page.slot(SlotKind::Connection).is_none(), "in use");
    drop(first);
    assert_eq!(
        look(&page).slots[0].info.close_reason,
        CloseReason::Local as u32
    );

    let second = page.slot(SlotKind::Connection).unwrap();
    second.publish_info(&facts(2));
    let after = look(&page).slots.remove(0);
    assert_eq!(after.index, before.index);
    assert_ne!(after.info.connection_id, before.info.connection_id);
    assert!(after.info.opened_ns > before.info.opened_ns);
    assert_eq!((after.tx, after.house), Default::default());
    assert_eq!((after.rx, after.req), Default::default());
    assert_eq!((after.rtt.count(), after.handler.count()), (0, 0));
    second.rtt().record(1_000_000, 1);
    assert_eq!(
        look(&page).slots[0].rtt.count(),
        1,
        "nothing old shows through"
    );
}

#[test]
fn a_closed_connection_stays_readable_while_there_are_other_slots() {
    let page = page(3);
    for id in [1, 2, 3] {
        page.slot(SlotKind::Connection)
            .unwrap()
            .publish_info(&facts(id));
    }
    let ids = |page| {
        look(page)
            .slots
            .iter()
            .map(|s| s.info.connection_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), [1, 2, 3]);
    let fourth = page.slot(SlotKind::Connection).unwrap();
    fourth.publish_info(&facts(4));
    assert_eq!(ids(&page), [4, 2, 3], "the longest closed goes first");
}

#[test]
fn a_full_page_does_not_stop_a_connection_from_counting() {
    let page = page(0);
    assert!(page.slot(SlotKind::Connection).is_none());
    let slot = SlotWriter::private(SlotKind::Connection);
    slot.publish_info(&facts(1));
    bump(&slot.sent().tx_straight, 1);
    slot.rtt().record(5, 1);
    slot.close(CloseReason::PeerGone);
    assert_eq!(slot.index(), None);
}

#[test]
fn names_longer_than_their_field_are_cut_at_a_character() {
    let long = "ü".repeat(100);
    let page = PageWriter::create(&PageDescription {
        name: &long,
        role: Role::Client,
        socket_path: Path::new(&long),
        slots: 1,
    });
    let slot = page.slot(SlotKind::Poller).unwrap();
    slot.publish_info(&SlotFacts {
        peer_name: format!("x{long}"),
        ..facts(1)
    });
    let seen = look(&page);
    assert_eq!(seen.name, "ü".repeat(31));
    assert_eq!(seen.socket_path, "ü".repeat(63));
    assert_eq!(seen.slots[0].info.peer_name, format!("x{}", "ü".repeat(31)));
}

#[test]
fn unused_slots_cost_no_memory_even_when_looked_at() {
    use std::os::unix::fs::MetadataExt;
    let page = page(1056);
    let slots: Vec<_> = (0..10)
        .map(|_| page.slot(SlotKind::Connection).unwrap())
        .collect();
    for slot in &slots {
        slot.rtt().record(900, 1);
    }
    let reader = reader(&page);
    assert_eq!(reader.snapshot().unwrap().slots.len(), 10);
    assert_eq!(reader.raw().parse().unwrap().slots.len(), 10);
    let blocks = std::fs::metadata(link(page.fd().unwrap()))
        .unwrap()
        .blocks()
        * 512;
    assert_eq!(
        blocks as usize,
        schema::SLOTS_OFFSET + 10 * 4096,
        "one 4 KiB page each"
    );
}

#[test]
fn a_snapshot_used_again_shows_nothing_of_the_one_before() {
    let full = page(4);
    let slots: Vec<_> = (0..4)
        .map(|_| full.slot(SlotKind::Connection).unwrap())
        .collect();
    for (slot, id) in slots.iter().zip(1..) {
        slot.publish_info(&facts(id));
        slot.rtt().record(5_000, 2);
        bump(&slot.sent().tx_ring_bytes, 7);
    }
    bump(&full.process().accepted, 4);
    let other = page(2);
    let _slot = other.slot(SlotKind::Poller).unwrap();
    for (first, second) in [(&full, &other), (&other, &full)] {
        let mut again = look(first);
        reader(second).snapshot_into(&mut again).unwrap();
        assert_eq!(again, look(second));
    }
}

#[test]
fn a_slot_read_again_has_the_counters_of_a_new_copy_until_it_is_another_connection() {
    let page = page(2);
    let slot = page.slot(SlotKind::Connection).unwrap();
    slot.publish_info(&facts(1));
    let reader = reader(&page);
    let mut kept = reader.snapshot().unwrap().slots.remove(0);
    bump(&slot.sent().tx_ring_bytes, 7);
    bump(&slot.req().errors, 3);
    bump(&page.process().accepted, 1);
    assert!(reader.refresh(&mut kept));
    assert_eq!(kept, reader.snapshot().unwrap().slots[0]);
    assert_eq!(reader.process(), reader.snapshot().unwrap().process);
    slot.publish_info(&facts(2));
    bump(&slot.sent().tx_ring_bytes, 7);
    let before = kept.clone();
    assert!(!reader.refresh(&mut kept), "another connection");
    assert_eq!(kept, before);
    kept.index = 77;
    assert!(!reader.refresh(&mut kept), "no such slot");
}
