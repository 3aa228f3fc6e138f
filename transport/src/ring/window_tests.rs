//! How much of a ring's memory is walked through.

use super::model_tests::{pair, take};
use super::plan::Kind;
use super::producer::DEFAULT_WINDOW_BYTES;

const RECORD: u64 = 1016;
const PAYLOAD: [u8; 1000] = [0; 1000];

#[test]
fn a_nearly_empty_ring_is_not_walked_end_to_end() {
    let (mut producer, mut consumer, _) = pair(1 << 22, 0, 64 << 10);
    for id in 0..10_000 {
        producer.push(Kind::Request, id, &PAYLOAD).expect("room");
        assert!(take(&mut consumer).is_some());
    }
    assert!(
        producer.touched() < 128 << 10,
        "touched {}",
        producer.touched()
    );
}

#[test]
fn new_memory_is_walked_into_no_faster_than_the_ring_is_used_and_no_further_than_advised() {
    let (mut producer, mut consumer, _) = pair(32 << 20, 0, 0);
    for id in 0..10_000 {
        producer.push(Kind::Request, id, &PAYLOAD).expect("room");
        assert!(take(&mut consumer).is_some());
        let (touched, sent) = (producer.touched(), (id + 1) * RECORD);
        assert!(
            touched <= sent / 2 + (20 << 10),
            "touched {touched} for {sent}"
        );
    }
    let most = DEFAULT_WINDOW_BYTES;
    assert!((most..most + 2 * RECORD).contains(&producer.touched()));
}

#[test]
fn a_standing_backlog_takes_some_times_its_size_and_not_the_whole_ring() {
    const BACKLOG: u64 = 32;
    let (mut producer, mut consumer, _) = pair(4 << 20, 0, 16 << 10);
    for id in 0..20_000 {
        producer.push(Kind::Request, id, &PAYLOAD).expect("room");
        assert!(id < BACKLOG || take(&mut consumer).is_some());
    }
    let touched = producer.touched();
    assert!(
        touched < 6 * BACKLOG * RECORD,
        "touched {touched} for {BACKLOG} records of {RECORD}"
    );
}

#[test]
fn a_few_large_records_in_flight_never_find_a_nearly_empty_ring_full() {
    for advice in [0, 1, 16 << 10, 32 << 10, 1 << 20, u64::MAX] {
        let (mut producer, mut consumer, _) = pair(256 << 10, 0, advice);
        let large = [7; 13_000];
        for round in 0..200 {
            for length in [9_000, 10, 13_000] {
                let sent = producer.push(Kind::Request, round, &large[..length]);
                assert!(
                    sent.is_ok(),
                    "{length} bytes, round {round}, advised {advice}: {sent:?}"
                );
            }
            for _ in 0..3 {
                assert!(take(&mut consumer).is_some());
            }
        }
    }
}
