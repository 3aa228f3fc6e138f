//! The ring in the hands of a peer that writes what it likes: an error or nothing, never a panic, and a bounded number of looks.

use proptest::prelude::*;

use super::consumer::Consumer;
use super::heap::Heap;
use super::model_tests::{pair, payload, take};
use super::plan::{Commit, Kind, Plan};
use super::producer::NoSlot;
use super::storage::{Storage, Word};
use crate::error::Poison;
use crate::limits::max_payload;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn rubbish_in_the_ring_is_an_error_or_nothing_but_never_a_panic(
        words in prop::collection::vec(any::<u64>(), 32), tail: u64, start in 0u64..32, plausible in prop::collection::vec((0u32..300, 1u32..6, 0u32..3), 0..8),
    ) {
        let heap = Heap::new(256);
        for (i, w) in words.iter().enumerate() {
            heap.set_word(i * 8, *w);
        }
        for (i, (length, kind, flags)) in plausible.iter().enumerate() {
            let at = (start as usize * 8 + i * 32) % 256;
            heap.set_word(at, u64::from(*length) | u64::from(*kind) << 32 | u64::from(*flags) << 40);
        }
        heap.store(Word::Tail, tail);
        let mut consumer = Consumer::starting_at(heap, Plan::new(256, 64), start * 8);
        let mut buffer = [0u8; 64];
        for _ in 0..100 {
            let _ = consumer.cross_check();
            match consumer.peek() {
                Err(_) | Ok(None) => break,
                Ok(Some(record)) => match consumer.read(&record, &mut buffer) {
                    Ok(true) => { consumer.release(&record); }
                    _ => break,
                },
            }
        }
    }

    #[test]
    fn a_nonsense_consumer_index_poisons_the_producer(
        found in prop_oneof![any::<u64>(), 0u64..1024, (0u64..40).prop_map(|n| 8 * n)],
    ) {
        let (mut producer, _, heap) = pair(256, 0, 0);
        heap.store(Word::Head, found);
        // Up to its first look, and what it had produced then.
        let (produced, seen) = loop {
            let produced = producer.index();
            match producer.push(Kind::Request, 1, &[1; 64]) {
                Ok(()) if !producer.has_looked() => {}
                Ok(()) | Err(NoSlot::Full { .. }) => break (produced, Ok(())),
                Err(NoSlot::Poisoned(p)) => break (produced, Err(p)),
            }
        };
        let legal = found <= produced && found % 8 == 0;
        prop_assert_eq!(legal, seen.is_ok(), "{:?}", seen);
    }
}

#[test]
fn a_record_that_creeps_in_costs_a_bounded_number_of_looks() {
    const LENGTH: usize = 1 << 20;
    let (mut producer, mut consumer, heap) = pair(1 << 22, 0, 0);
    let bytes = payload(1, LENGTH);
    producer.push(Kind::Request, 9, &bytes).expect("room");
    for step in [1, 2, 8, 32] {
        // A peer that publishes a byte whenever it is looked at would otherwise keep a poller for a look per byte.
        heap.store(Word::Tail, 16);
        heap.creep(step);
        let record = consumer.peek().expect("honest").expect("committed");
        let before = consumer.follow_loads();
        let mut buffer = vec![0; LENGTH];
        assert_eq!(
            consumer.read(&record, &mut buffer),
            Ok(false),
            "{step} bytes a look"
        );
        assert!(
            consumer.follow_loads() - before <= 2000,
            "{step} bytes a look"
        );
        // One that is to be discarded costs a single look.
        heap.store(Word::Tail, 16);
        let before = consumer.follow_loads();
        assert_eq!(consumer.is_there(&record), Ok(false));
        assert_eq!(consumer.follow_loads() - before, 1);
        assert!(!consumer.is_ready());
        heap.creep(0);
        heap.store(Word::Tail, producer.index());
        assert_eq!(consumer.is_there(&record), Ok(true));
        assert_eq!(consumer.read(&record, &mut buffer), Ok(true));
        assert!(buffer == bytes);
    }
    // Piece by piece it is followed to its end.
    heap.store(Word::Tail, 16);
    heap.creep(4096);
    assert!(take(&mut consumer) == Some((9, bytes)));
}

#[test]
fn a_hole_punched_into_the_ring_is_found_before_sleeping() {
    let (mut producer, mut consumer, heap) = pair(256, 0, 0);
    producer.push(Kind::Request, 1, b"lost").expect("room");
    heap.set_word(0, 0);
    assert_eq!(consumer.peek(), Ok(None));
    assert!(matches!(consumer.cross_check(), Err(Poison::Index { .. })));
}

#[test]
fn a_ring_of_paddings_does_not_loop_for_ever() {
    let heap = Heap::new(256);
    heap.set_word(
        0,
        Commit {
            length: 0,
            kind: Kind::Padding,
            streamed: false,
        }
        .encode(),
    );
    let mut consumer = Consumer::new(heap, Plan::new(256, 64));
    assert!(matches!(consumer.peek(), Err(Poison::RecordKind { .. })));
}

#[test]
fn a_record_that_changes_after_it_was_found_half_published_leaves_nothing_ready_behind() {
    const LENGTH: usize = 40_000;
    let streamed = Commit {
        length: LENGTH as u32,
        kind: Kind::Request,
        streamed: true,
    };
    let whole = Commit {
        streamed: false,
        ..streamed
    };
    let padding = Commit {
        length: 0,
        kind: Kind::Padding,
        streamed: false,
    };
    for word in [0, whole.encode(), padding.encode()] {
        let heap = Heap::new(1 << 20);
        let plan = Plan::new(1 << 20, max_payload(1 << 20));
        let mut consumer = Consumer::starting_at(heap.clone(), plan, 4096);
        heap.set_word(4096, streamed.encode());
        heap.store(Word::Tail, 4096 + 16);
        let record = consumer.peek().expect("honest so far").expect("committed");
        let mut buffer = vec![0; LENGTH];
        assert_eq!(consumer.read(&record, &mut buffer), Ok(false));

        heap.set_word(4096, word);
        heap.store(Word::Tail, 4096 + 16 + LENGTH as u64);
        match consumer.peek() {
            // The connection ends.
            Err(_) => continue,
            Ok(None) => {}
            Ok(Some(record)) => {
                assert_eq!(consumer.read(&record, &mut buffer), Ok(true));
                consumer.release(&record);
            }
        }
        // Ready and yet nothing there would keep the reader spinning for as long as the peer likes.
        assert_eq!(
            (consumer.is_ready(), consumer.peek()),
            (false, Ok(None)),
            "{word:#x}"
        );
    }
}
