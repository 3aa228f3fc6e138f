//! The ring against an obvious model: a queue of messages, under random calls, sizes, offsets and windows.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::consumer::Consumer;
use super::heap::Heap;
use super::plan::{Kind, Plan, record_bytes};
use super::producer::{NoSlot, Producer};
use super::storage::{Storage, Word};
use crate::limits::max_payload;

pub(super) fn pair(
    capacity: usize,
    start: u64,
    window: u64,
) -> (Producer<Heap>, Consumer<Heap>, Heap) {
    let heap = Heap::new(capacity).dirty(start);
    heap.store(Word::Window, window);
    let plan = Plan::new(capacity, max_payload(capacity));
    (
        Producer::starting_at(heap.clone(), plan, start),
        Consumer::starting_at(heap.clone(), plan, start),
        heap,
    )
}

pub(super) fn payload(seed: u64, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (seed as u8).wrapping_mul(31).wrapping_add(i as u8))
        .collect()
}

pub(super) fn take(consumer: &mut Consumer<Heap>) -> Option<(u64, Vec<u8>)> {
    let record = consumer.peek().expect("an honest producer")?;
    let mut bytes = vec![0; record.length];
    assert!(
        consumer
            .read(&record, &mut bytes)
            .expect("an honest producer")
    );
    consumer.release(&record);
    Some((record.id, bytes))
}

#[derive(Clone, Debug)]
enum Call {
    Push(usize),
    /// Expected size, then the pieces written.
    Grow(usize, Vec<usize>),
    Abandon(usize),
    Take,
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => any::<usize>().prop_map(Call::Push),
        1 => (any::<usize>(), prop::collection::vec(any::<usize>(), 0..4)).prop_map(|(e, w)| Call::Grow(e, w)),
        1 => any::<usize>().prop_map(Call::Abandon),
        4 => Just(Call::Take),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_message_arrives_once_in_order_and_whole(
        shift in 8u32..12, start8 in prop_oneof![any::<u64>(), (0u64..512).prop_map(|k| u64::MAX - k)],
        window in any::<u64>(), calls in prop::collection::vec(call(), 1..200),
    ) {
        let capacity = 1usize << shift;
        let (mut producer, mut consumer, _) = pair(capacity, start8 & !7, window % (2 * capacity as u64));
        let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        let most = max_payload(capacity);
        for (id, call) in calls.into_iter().enumerate() {
            let id = id as u64;
            match call {
                Call::Push(n) => {
                    let bytes = payload(id, n % (most + 1));
                    match producer.push(Kind::Request, id, &bytes) {
                        Ok(_) => model.push_back((id, bytes)),
                        Err(NoSlot::Full { .. }) => prop_assert!(!model.is_empty(), "an empty ring takes every legal message"),
                        Err(other) => prop_assert!(false, "{other:?}"),
                    }
                }
                Call::Grow(expected, writes) => {
                    let (mut bytes, mut spilled) = (Vec::new(), false);
                    match producer.reserve(expected % (most + 1)) {
                        Ok(mut slot) => {
                            for n in writes {
                                let piece = payload(id + n as u64, n % (most - bytes.len() + 1));
                                spilled = spilled || !slot.try_write(&piece);
                                if spilled {
                                    break;
                                }
                                bytes.extend_from_slice(&piece);
                            }
                            let mut back = Vec::new();
                            slot.read_back(&mut back);
                            prop_assert_eq!(&back, &bytes);
                            if !spilled {
                                slot.commit(Kind::Request, id);
                                model.push_back((id, bytes));
                            }
                        }
                        Err(NoSlot::Full { .. }) => prop_assert!(!model.is_empty()),
                        Err(other) => prop_assert!(false, "{other:?}"),
                    }
                }
                Call::Abandon(n) => {
                    if let Ok(mut slot) = producer.reserve(n % (most + 1)) {
                        prop_assert!(slot.try_write(&vec![0xff; n % (most + 1)]));
                    }
                }
                Call::Take => prop_assert_eq!(take(&mut consumer), model.pop_front()),
            }
            prop_assert!(consumer.cross_check().is_ok());
        }
        while let Some(expected) = model.pop_front() {
            prop_assert_eq!(take(&mut consumer), Some(expected));
        }
        prop_assert_eq!(take(&mut consumer), None);
    }

    #[test]
    fn occupancy_counts_records_and_never_padding(start8: u64, sizes in prop::collection::vec(0usize..400, 1..60), window in 1u64..1024) {
        let (mut producer, mut consumer, heap) = pair(1024, start8 & !7, window);
        let mut inside = VecDeque::new();
        for (i, n) in sizes.into_iter().enumerate() {
            match producer.push(Kind::Request, i as u64, &vec![7; n]) {
                Ok(()) => {
                    inside.push_back(record_bytes(n));
                    if let Some(seen) = producer.take_look() {
                        prop_assert_eq!(seen.occupancy, inside.iter().sum::<u64>());
                    }
                    prop_assert!(!producer.has_looked());
                }
                Err(NoSlot::Full { occupancy }) => {
                    prop_assert_eq!(occupancy, inside.iter().sum::<u64>());
                    take(&mut consumer);
                    inside.pop_front();
                }
                Err(other) => prop_assert!(false, "{other:?}"),
            }
            // As viewers see it.
            let seen = heap.load(Word::Produced).wrapping_sub(heap.load(Word::Consumed));
            prop_assert_eq!(seen, inside.iter().sum::<u64>());
            prop_assert!(producer.touched() <= 1024);
        }
    }
}

#[test]
fn every_size_fits_at_every_offset_of_an_empty_ring() {
    let capacity = 512;
    for start in (0..2 * capacity as u64).step_by(8) {
        for length in 0..=max_payload(capacity) {
            let (mut producer, mut consumer, _) = pair(capacity, start, 0);
            let bytes = payload(start, length);
            producer
                .push(Kind::Reply, 7, &bytes)
                .expect("an empty ring takes it");
            assert_eq!(take(&mut consumer), Some((7, bytes)));
        }
    }
}

#[test]
fn a_ring_is_filled_to_its_last_byte_and_emptied_to_its_last_record() {
    for start in (0..512).step_by(8).chain([u64::MAX - 255, u64::MAX - 7]) {
        let capacity = 256;
        // One record of every size that leaves a whole number of small ones; 8 bytes stay for the zero behind the last.
        let (mut producer, mut consumer, _) = pair(capacity, start, 0);
        let (mut used, mut sent) = (0, 0);
        // Where the ring's end is in the way, what is left before it is taken first: sizes that fit any rest.
        while used + 16 <= capacity as u64 - 8 {
            producer
                .push(Kind::Reply, sent, &[])
                .unwrap_or_else(|e| panic!("{used} of {capacity} bytes used, at {start}: {e:?}"));
            (used, sent) = (used + 16, sent + 1);
        }
        assert_eq!(
            used + 16,
            capacity as u64,
            "full but for the zero behind, and 8 bytes that no record fits in"
        );
        let full = producer.push(Kind::Reply, sent, &[]).map(|_| ());
        assert_eq!(full, Err(NoSlot::Full { occupancy: used }));
        for id in 0..sent {
            assert_eq!(take(&mut consumer), Some((id, Vec::new())));
            producer
                .push(Kind::Reply, sent + id, &[])
                .expect("as much room as was made");
        }
        for id in sent..2 * sent {
            assert_eq!(take(&mut consumer), Some((id, Vec::new())));
        }
        assert_eq!(take(&mut consumer), None, "exactly empty");
    }
    // Exactly: three records and their zero take all 256 bytes.
    let (mut producer, mut consumer, _) = pair(256, 0, 0);
    for length in [64, 64, 56, 0] {
        producer
            .push(Kind::Reply, 1, &payload(1, length))
            .expect("it fits exactly");
    }
    assert!(matches!(
        producer.push(Kind::Reply, 1, &[]),
        Err(NoSlot::Full { occupancy: 248 })
    ));
    for length in [64, 64, 56, 0] {
        assert_eq!(take(&mut consumer), Some((1, payload(1, length))));
    }
}

#[test]
fn a_large_message_goes_through_in_pieces_whole() {
    let (mut producer, mut consumer, _) = pair(1 << 18, 0, 0);
    for round in 0..20 {
        let bytes = payload(round, 20_000 + round as usize * 1111);
        producer.push(Kind::Request, round, &bytes).expect("room");
        assert_eq!(take(&mut consumer), Some((round, bytes)));
    }
}

#[test]
fn a_record_half_published_is_not_ready_and_then_is() {
    let (mut producer, mut consumer, heap) = pair(1 << 16, 0, 0);
    let bytes = payload(1, 20_000);
    producer.push(Kind::Request, 9, &bytes).expect("room");
    let whole = heap.load(Word::Tail);
    // As if the producer had been stopped after its first piece.
    heap.store(Word::Tail, 16 + 4096);
    let record = consumer.peek().expect("honest").expect("committed");
    let mut buffer = vec![0; 20_000];
    assert_eq!(consumer.read(&record, &mut buffer), Ok(false));
    assert!(!consumer.is_ready(), "a poller must be able to sleep");
    assert_eq!(consumer.read(&record, &mut buffer), Ok(false));
    heap.store(Word::Tail, whole);
    assert!(consumer.is_ready());
    assert_eq!(take(&mut consumer), Some((9, bytes)));
}
