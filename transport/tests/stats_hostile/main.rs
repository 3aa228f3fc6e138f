//! A reader survives whatever another process puts into a page, and shows nothing that could harm its terminal.

mod descriptors;
#[path = "../common/skipped.rs"]
mod skipped;

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use transport::stats::page::{PageDescription, PageWriter};
use transport::stats::reader::{parse, parse_live};
use transport::stats::schema::{self, header, info};
use transport::stats::slot::SlotFacts;
use transport::stats::{
    PageReader, RawPage, ReadError, ReqCounters, Role, RxCounters, SlotKind, Snapshot, TxCounters,
};

/// The bytes of a small page in use.
fn valid() -> Vec<u8> {
    let page = PageWriter::create(&PageDescription {
        name: "n",
        role: Role::Server,
        socket_path: Path::new("/s"),
        slots: 2,
    });
    let slots = [SlotKind::Poller, SlotKind::Connection].map(|kind| page.slot(kind).unwrap());
    slots[1].publish_info(&SlotFacts {
        open: true,
        connection_id: 9,
        ..SlotFacts::default()
    });
    slots[1].rtt().record(300, 4);
    slots[1].sent().tx_ring_bytes.store(77, Relaxed);
    slots[1].house().house_ns.store(78, Relaxed);
    let link = format!("/proc/self/fd/{}", page.fd().unwrap().as_raw_fd());
    PageReader::open(link).unwrap().raw().bytes
}

fn word(bytes: &[u8], index: usize) -> u64 {
    u64::from_le_bytes(bytes[index * 8..][..8].try_into().unwrap())
}

fn put(bytes: &mut [u8], index: usize, value: u64) {
    bytes[index * 8..][..8].copy_from_slice(&value.to_le_bytes());
}

/// Ends a hang; nothing here takes a tenth of it.
const WATCHDOG: Duration = Duration::from_secs(30);

/// Our own version, as it stands in a header.
const NOW: u64 = (schema::VERSION_MAJOR as u64) << 32 | schema::VERSION_MINOR as u64;

/// What a viewer relies on, whatever the page was.
fn is_sane(result: &Result<Snapshot, ReadError>) {
    let Ok(seen) = result else { return };
    assert!(seen.slots.len() <= schema::MAX_SLOTS);
    let texts = [&seen.name, &seen.socket_path, &seen.library].into_iter();
    let names = seen.slots.iter().flat_map(|s| {
        assert!(s.unknown.len() <= 128);
        for h in [&s.rtt, &s.handler, &s.park] {
            assert!(h.buckets.iter().is_sorted_by(|a, b| a.0 < b.0));
            for q in [0.0, 0.5, 0.99, 1.0] {
                let _ = h.quantile(q);
            }
        }
        s.unknown
            .iter()
            .map(|(name, _)| name)
            .chain([&s.info.peer_name])
    });
    for text in texts
        .chain(names)
        .chain(seen.unknown.iter().map(|(name, _)| name))
    {
        assert!(
            !text
                .chars()
                .any(|c| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c)),
            "{text:?}"
        );
    }
}

#[test]
fn any_single_wrong_word_is_survived() {
    let good = valid();
    let interesting = |old: u64| [0, 1, old ^ 1, old.wrapping_sub(1), 7, 1 << 32, u64::MAX];
    let base = word(&good, header::SLOTS_OFFSET) as usize / 8;
    // Buckets and help texts are all treated alike: a sample of them is enough.
    let table = schema::DESCRIPTORS_OFFSET / 8;
    let alike = |index: usize| match index.checked_sub(base) {
        Some(in_slots) => in_slots % (schema::SLOT_STRIDE / 8) > (schema::RTT_OFFSET + 64) / 8,
        None => index >= table && (index - table) % 16 > 6,
    };
    for index in (0..good.len() / 8).filter(|index| !alike(*index) || index % 37 == 0) {
        for value in interesting(word(&good, index)) {
            let mut bad = good.clone();
            put(&mut bad, index, value);
            is_sane(&parse(&bad));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..20_000), magic: bool) {
        if magic && bytes.len() >= 16 {
            put(&mut bytes, header::MAGIC, schema::MAGIC);
            put(&mut bytes, header::VERSION, NOW);
        }
        is_sane(&parse(&bytes));
    }

    #[test]
    fn many_wrong_words_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u64>(), 0u64..70_000]), 1..40),
        header_only: bool,
    ) {
        let mut bytes = valid();
        let range = if header_only { 1..64 } else { 1..bytes.len() / 8 };
        for (index, value) in changes {
            put(&mut bytes, range.start + index.index(range.len()), value);
        }
        put(&mut bytes, header::VERSION, NOW);
        is_sane(&parse(&bytes));
    }
}

#[test]
fn a_page_cut_short_anywhere_is_an_error() {
    let good = valid();
    assert!(parse(&good).is_ok());
    for len in (0..good.len()).step_by(61).chain([good.len() - 1]) {
        let cut = RawPage {
            bytes: good[..len].to_vec(),
        };
        assert!(
            matches!(cut.parse(), Err(ReadError::Truncated { .. })),
            "{len} bytes"
        );
    }
}

#[test]
fn a_page_that_changes_under_the_reader_is_survived() {
    let good = valid();
    let words: Vec<AtomicU64> = (0..good.len() / 8)
        .map(|i| AtomicU64::new(word(&good, i)))
        .collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 1u64;
            while !stop.load(Relaxed) {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                // Mostly where it hurts: the header, and the facts of the slots.
                let at = (random >> 33) as usize % if random & 7 == 0 { words.len() } else { 64 };
                let value = if random & 8 == 0 {
                    random
                } else {
                    random >> 50
                };
                words[at].store(value, Relaxed);
                words[at].store(word(&good, at), Relaxed);
            }
        });
        let (mut looks, mut read) = (0, 0);
        let begun = Instant::now();
        // More, if all of them fell into one turn of ours on a busy machine, with the scribbler stopped half way.
        while looks < 3_000 || (read == 0 && begun.elapsed() < WATCHDOG) {
            let seen = parse_live(&words);
            looks += 1;
            read += u32::from(seen.is_ok());
            is_sane(&seen);
        }
        stop.store(true, Relaxed);
        assert!(read > 0, "some looks fell on the page as it should be");
    });
}

#[test]
fn a_slot_that_is_always_being_written_is_counted_as_torn() {
    let mut bytes = valid();
    let base = word(&bytes, header::SLOTS_OFFSET) as usize / 8;
    put(&mut bytes, base + info::SEQUENCE, 5);
    let seen = parse(&bytes).unwrap();
    assert_eq!((seen.torn, seen.slots.len()), (1, 1));
    assert_eq!(seen.slots[0].info.connection_id, 9);
}

#[test]
fn another_major_version_is_refused_with_both_numbers() {
    let mut bytes = valid();
    put(&mut bytes, header::VERSION, 3 << 32 | 3);
    // Whatever else a later layout has there.
    put(&mut bytes, header::SLOT_STRIDE, 12);
    let e = parse(&bytes).unwrap_err();
    assert!(matches!(
        e,
        ReadError::Version {
            found: (3, 3),
            ours: (2, 2)
        }
    ));
    assert_eq!(
        e.to_string(),
        "stats page has layout 3.3, this reader understands 1 to 2.x"
    );
    put(&mut bytes, header::VERSION, 7);
    assert!(matches!(parse(&bytes), Err(ReadError::Version { .. })));
}

#[test]
fn counters_of_a_newer_minor_version_are_shown_under_their_own_name() {
    let mut bytes = valid();
    put(&mut bytes, header::VERSION, 2 << 32 | 9);
    // The first two counters of a process and of a slot get other names.
    let rename = |bytes: &mut [u8], name: &str, new: &[u8]| {
        let at = bytes
            .windows(name.len() + 1)
            .position(|w| w == [name.as_bytes(), b"\0"].concat())
            .unwrap();
        bytes[at..at + 40].fill(0);
        bytes[at..at + new.len()].copy_from_slice(new);
    };
    rename(&mut bytes, "max_clients", b"brand_new");
    rename(&mut bytes, "house_ns", "evil\u{202e}\x1b[2J".as_bytes());
    let seen = parse(&bytes).unwrap();
    assert_eq!(seen.version, (2, 9));
    assert_eq!(seen.unknown, [("brand_new".to_owned(), 0)]);
    assert_eq!(
        seen.slots[1].unknown,
        [("evil\u{fffd}\u{fffd}[2J".to_owned(), 78)]
    );
    assert_eq!(seen.slots[1].house.house_ns, 0);
    assert_eq!(
        seen.missing,
        ["max_clients", "house_ns"],
        "a field that says 0 is told apart from a real 0"
    );
    assert_eq!(seen.slots[1].tx.tx_bytes, 77);
    // Without one of those that others are made of, none of them can be.
    rename(&mut bytes, "tx_looked", b"later");
    let seen = parse(&bytes).unwrap();
    for name in ["tx_messages", "requests", "rx_index", "in_flight"] {
        assert!(seen.missing.iter().any(|missing| missing == name), "{name}");
    }
    assert_eq!(seen.slots[1].tx.tx_bytes, 0);
}

#[test]
fn names_out_of_a_page_cannot_steer_a_terminal() {
    let mut bytes = valid();
    let name = "\x1b]0;x\x07\u{202e}\u{9b}2J";
    bytes[header::NAME * 8..][..name.len()].copy_from_slice(name.as_bytes());
    let seen = parse(&bytes);
    is_sane(&seen);
    assert_eq!(seen.unwrap().name, "\u{fffd}]0;x\u{fffd}\u{fffd}\u{fffd}2J");
}

/// A page as layout 1.0 had it, which stored what is derived now.
#[test]
fn a_page_of_the_layout_before_is_read_as_it_was() {
    let mut bytes = include_bytes!("../../../fuzz/corpus/stats_page/older").to_vec();
    let row = |name: &str| {
        let table = schema::DESCRIPTORS_OFFSET / 8;
        let rows = word(&bytes, header::DESCRIPTOR_COUNT) as usize;
        let padded = [name.as_bytes(), &[0; 40]].concat()[..40].to_vec();
        (0..rows)
            .map(|i| table + i * schema::DESCRIPTOR_BYTES / 8)
            .find(|at| bytes[at * 8..][..40] == padded)
            .map(|at| (word(&bytes, at + 5) >> 32) as usize / 8)
    };
    let derived: Vec<_> = schema::descriptors()
        .filter(|d| d.offset.is_none())
        .map(|d| row(d.name).expect(d.name))
        .collect();
    let second = word(&bytes, header::SLOTS_OFFSET) as usize / 8 + schema::SLOT_STRIDE / 8;
    for (n, at) in (1..).zip(&derived) {
        put(&mut bytes, second + at, n * 1000);
    }
    let seen = parse(&bytes).unwrap();
    assert_eq!(seen.version, (1, 0));
    // What was counted first after it.
    let since = ["rejected_resources", "stopping_since_ns", "long_handler_ns"];
    assert_eq!(seen.missing, since);
    assert!(seen.slots[1].unknown.is_empty());
    let slot = &seen.slots[1];
    let found: Vec<u64> = [
        (TxCounters::DESCRIPTORS, slot.tx.values()),
        (RxCounters::DESCRIPTORS, slot.rx.values()),
        (ReqCounters::DESCRIPTORS, slot.req.values()),
    ]
    .into_iter()
    .flat_map(|(rows, values)| rows.iter().zip(values))
    .filter(|(d, _)| d.offset.is_none())
    .map(|(_, value)| value)
    .collect();
    let put: Vec<u64> = (1..=derived.len() as u64).map(|n| n * 1000).collect();
    assert_eq!(found, put);
}

/// Seeds of the fuzz target: pages small and large, without anything of the machine they were made on.
fn seeds() -> [(&'static str, Vec<u8>); 3] {
    let mut full = valid();
    for (index, value) in [
        (header::PID, 4242),
        (header::START_TICKS, 77),
        (header::UID, 1000),
        (header::BUILD_FLAGS, 3),
        (header::CREATED_MONOTONIC_NS, 5_000_000_000),
        (header::CREATED_REALTIME_NS, 1_700_000_000_000_000_000),
        (header::PID_NS_INODE, 4_026_531_836),
        (header::BOOT_ID, 1),
        (header::BOOT_ID + 1, 2),
    ] {
        put(&mut full, index, value);
    }
    let base = word(&full, header::SLOTS_OFFSET) as usize / 8;
    for slot in 0..2 {
        put(
            &mut full,
            base + slot * schema::SLOT_STRIDE / 8 + info::OPENED_NS,
            6_000_000_000,
        );
    }
    // The smallest page there can be: no descriptors, one slot of facts alone.
    let facts = full[base * 8..][..schema::INFO_WORDS * 8].to_vec();
    let mut least = [&full[..schema::DESCRIPTORS_OFFSET], &facts].concat();
    put(
        &mut least,
        header::PAGE_BYTES,
        (schema::DESCRIPTORS_OFFSET + facts.len()) as u64,
    );
    put(
        &mut least,
        header::SLOTS_OFFSET,
        schema::DESCRIPTORS_OFFSET as u64,
    );
    put(&mut least, header::SLOT_STRIDE, facts.len() as u64);
    put(&mut least, header::SLOT_COUNT, 1);
    put(&mut least, header::DESCRIPTOR_COUNT, 0);
    let mut newer = full.clone();
    put(&mut newer, header::VERSION, NOW + 1);
    newer[schema::DESCRIPTORS_OFFSET..][..4].copy_from_slice(b"new_");
    [("full", full), ("least", least), ("newer", newer)]
}

#[test]
fn the_seeds_of_the_fuzz_target_are_pages() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/stats_page");
    for (name, bytes) in seeds() {
        let path = dir.join(name);
        if std::env::var_os("UPDATE").is_some_and(|v| v == "1") {
            std::fs::write(&path, &bytes).unwrap();
        }
        let stored = std::fs::read(&path).unwrap();
        let seen = parse(&stored);
        is_sane(&seen);
        assert_eq!(
            seen.unwrap(),
            parse(&bytes).unwrap(),
            "{name}: run with UPDATE=1"
        );
    }
}
