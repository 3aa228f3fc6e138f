//! What the consumer believes of the producer's index, at the edge of it, and the promises that a slot laid aside rests on.

use super::consumer::Consumer;
use super::heap::Heap;
use super::model_tests::pair;
use super::plan::{Commit, Kind, Plan};
use super::producer::Producer;
use super::storage::{Storage, Word};
use crate::error::Poison;
use crate::limits::max_payload;

const CAPACITY: usize = 1 << 16;
/// What is skipped, and where.
const SKIPPED: u64 = 1000;
const START: u64 = CAPACITY as u64 - SKIPPED;

/// A ring that is empty until near its end; its first record, of `length` bytes, has skipped that.
fn wrapped(length: usize) -> (Producer<Heap>, Consumer<Heap>, Heap) {
    let (mut producer, consumer, heap) = pair(CAPACITY, START, 0);
    let bytes = vec![2; length];
    producer.push(Kind::Request, 2, &bytes).expect("room");
    (producer, consumer, heap)
}

#[test]
fn an_index_may_lag_by_the_padding_skipped_since_the_last_record_and_by_no_more() {
    let (_, mut consumer, heap) = wrapped(2000);
    consumer.peek().expect("honest").expect("a record");
    for (tail, honest) in [(START, true), (START - 8, false), (0, false)] {
        heap.store(Word::Tail, tail);
        let found = consumer.cross_check();
        assert_eq!(found.is_ok(), honest, "{tail}: {found:?}");
    }
}

#[test]
fn an_index_may_be_a_ring_ahead_and_no_more_whatever_lies_at_our_own() {
    let (mut producer, mut consumer, heap) = pair(CAPACITY, 0, 0);
    producer.push(Kind::Request, 1, &[1]).expect("room");
    for (ahead, honest) in [
        (0, true),
        (CAPACITY as u64, true),
        (CAPACITY as u64 + 8, false),
    ] {
        heap.store(Word::Tail, ahead);
        let found = consumer.cross_check();
        assert_eq!(found.is_ok(), honest, "{ahead}: {found:?}");
    }
}

#[test]
fn before_the_first_piece_of_a_large_record_the_index_stands_before_its_padding_and_no_further_back()
 {
    let (producer, mut consumer, heap) = wrapped(10_000);
    let record = consumer.peek().expect("honest").expect("a record");
    let mut buffer = vec![0; record.length];
    heap.store(Word::Tail, START - 8);
    let found = consumer.read(&record, &mut buffer);
    assert!(matches!(found, Err(Poison::Index { .. })), "{found:?}");
    heap.store(Word::Tail, START);
    assert_eq!(consumer.read(&record, &mut buffer), Ok(false), "not yet");
    heap.store(Word::Tail, producer.index());
    assert_eq!(consumer.read(&record, &mut buffer), Ok(true));
    assert!(buffer.iter().all(|byte| *byte == 2));
}

#[test]
fn padding_is_told_of_the_record_behind_it_and_of_no_other() {
    let (mut producer, mut consumer, _) = wrapped(2000);
    producer.push(Kind::Request, 3, &[3]).expect("room");
    let mut padding = || {
        let record = consumer.peek().expect("honest").expect("a record");
        consumer.release(&record).padding
    };
    assert_eq!((padding(), padding()), (SKIPPED, 0));
}

#[test]
fn a_large_piece_buys_no_more_patience_for_the_next_one_than_two_records_have() {
    const LENGTH: usize = 250_000;
    let (mut producer, mut consumer, heap) = pair(1 << 19, 0, 0);
    producer.push(Kind::Request, 1, &[1; LENGTH]).expect("room");
    heap.store(Word::Tail, LENGTH as u64 - 1000);
    let record = consumer.peek().expect("honest").expect("a record");
    assert_eq!(consumer.read(&record, &mut [0; LENGTH]), Ok(false));
    let looks = consumer.follow_loads();
    assert!(
        looks <= 2001,
        "{looks} looks at a producer that has stopped"
    );
}

#[test]
fn padding_at_the_start_of_a_ring_leads_nowhere() {
    let heap = Heap::new(256);
    let padding = Commit {
        length: 0,
        kind: Kind::Padding,
        streamed: false,
    };
    heap.set_word(0, padding.encode());
    let mut consumer = Consumer::new(heap, Plan::new(256, max_payload(256)));
    let kind = Kind::Padding as u32;
    let found = consumer.peek();
    assert_eq!(found, Err(Poison::RecordKind { kind, index: 0 }));
}

#[test]
fn a_record_that_was_half_there_is_forgotten_once_it_was_looked_through_or_read() {
    for in_place in [false, true] {
        let (mut producer, mut consumer, heap) = pair(CAPACITY, 0, 0);
        producer.push(Kind::Request, 1, &[1; 20_000]).expect("room");
        heap.store(Word::Tail, 4096);
        let record = consumer.peek().expect("honest").expect("a record");
        let mut buffer = vec![0; 20_000];
        let mut take = |consumer: &mut Consumer<Heap>| {
            if in_place {
                consumer.is_whole(&record)
            } else {
                consumer.read(&record, &mut buffer)
            }
        };
        assert_eq!(take(&mut consumer), Ok(false));
        heap.store(Word::Tail, producer.index());
        assert_eq!(take(&mut consumer), Ok(true));
        consumer.release(&record);
        assert!(!consumer.is_ready(), "nothing is there");
        producer.push(Kind::Request, 2, &[2]).expect("room");
        assert!(consumer.is_ready());
    }
}

#[test]
#[should_panic(expected = "self.tail")]
fn a_place_laid_aside_is_good_for_nothing_once_something_else_was_sent() {
    let (mut producer, _, _) = pair(CAPACITY, 0, 0);
    let place = producer.reserve(100).expect("room").lay_aside();
    producer.push(Kind::Request, 1, &[1]).expect("room");
    // What lies there is the consumer's.
    producer.resume(&place).commit(Kind::Request, 2);
}
