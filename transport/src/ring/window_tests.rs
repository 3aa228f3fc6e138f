//! How much of a ring's memory is walked through.

use super::consumer::Consumer;
use super::heap::Heap;
use super::model_tests::{pair, take};
use super::plan::{Kind, record_bytes};
use super::producer::{DEFAULT_WINDOW_BYTES, FIRST_WINDOW_BYTES, Producer};

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
    for payload in [1000, 2000] {
        let record = record_bytes(payload);
        let (mut producer, mut consumer, _) = pair(32 << 20, 0, 0);
        for id in 0..10_000 {
            let sent = producer.push(Kind::Request, id, &[0; 2000][..payload]);
            assert!(sent.is_ok() && take(&mut consumer).is_some());
            let (touched, sent) = (producer.touched(), (id + 1) * record);
            assert!(
                touched <= sent / 2 + (20 << 10),
                "touched {touched} for {sent}"
            );
        }
        let most = DEFAULT_WINDOW_BYTES;
        assert!((most..most + 2 * record).contains(&producer.touched()));
    }
}

#[test]
fn a_standing_backlog_takes_some_times_its_size_and_not_the_whole_ring() {
    const BACKLOG: u64 = 32;
    let (mut producer, mut consumer, _) = pair(4 << 20, 0, 16 << 10);
    let mut looks = 0;
    for id in 0..20_000 {
        producer.push(Kind::Request, id, &PAYLOAD).expect("room");
        looks += u32::from(producer.take_look().is_some());
        assert!(id < BACKLOG || take(&mut consumer).is_some());
    }
    let touched = producer.touched();
    assert!(
        touched < 6 * BACKLOG * RECORD,
        "touched {touched} for {BACKLOG} records of {RECORD}"
    );
    // Some on the way to the end of each lap, and not one for each record behind the window.
    assert!((100..20_000 / 8).contains(&looks), "{looks} looks");
}

#[test]
fn nearly_four_times_a_backlog_finds_room_in_whatever_lap_it_stands() {
    for backlog in [5, 8, 13, 32] {
        let (mut producer, mut consumer, _) = pair(4 << 20, 0, 16 << 10);
        let mut inside = 0;
        for round in 0..250 {
            // A little more each time, so that laps end everywhere.
            let most = backlog + 1 + round % (3 * backlog - 1);
            while inside < most {
                let sent = producer.push(Kind::Request, round, &PAYLOAD);
                assert!(sent.is_ok(), "{inside} of {most} before: {sent:?}");
                inside += 1;
            }
            while inside > backlog {
                assert!(take(&mut consumer).is_some());
                inside -= 1;
            }
        }
    }
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

const SMALL: [u8; 100] = [7; 100];
const LARGE: [u8; 13_000] = [7; 13_000];

/// So many small messages, of which some are always in flight, so that what lies before the end of a lap is not free at once; then so many
/// large ones, for which there must be room; and all are taken.
#[track_caller]
fn burst(
    (producer, consumer, _): &mut (Producer<Heap>, Consumer<Heap>, Heap),
    (small, in_flight): (u64, u64),
    large: u64,
) {
    for n in 0..small {
        producer.push(Kind::Request, n, &SMALL).expect("room");
        assert!(n < in_flight || take(consumer).is_some());
    }
    for n in 0..large {
        let sent = producer.push(Kind::Request, n, &LARGE);
        assert!(sent.is_ok(), "{n} large behind {small} small: {sent:?}");
    }
    while take(consumer).is_some() {}
}

#[test]
fn a_burst_of_large_records_finds_room_wherever_small_ones_have_begun_a_lap() {
    // Three at least, in laps that are no longer than they must be.
    let mut ring = pair(256 << 10, 0, 16 << 10);
    for round in 0..150 {
        burst(&mut ring, (round * 31 % 2000, 30), 3);
    }
    // Seven, in the first laps on the way to longer ones.
    for small in (0..900).step_by(10) {
        let mut ring = pair(256 << 10, 0, 1 << 20);
        burst(&mut ring, (0, 0), 1);
        burst(&mut ring, (small, 30), 7);
    }
    // How large they would be, no ring could know that has seen none; but it may on its first lap.
    let first_lap = FIRST_WINDOW_BYTES / record_bytes(SMALL.len());
    for small in first_lap - 8..=first_lap + 1 {
        burst(&mut pair(256 << 10, 0, 16 << 10), (small, 3), 3);
    }
}
