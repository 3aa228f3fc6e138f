//! Records that outgrow the place that was reserved for them.

use super::model_tests::{pair, take};
use super::plan::{HEADER_BYTES, Kind, TERMINATOR_BYTES, record_bytes};

#[test]
fn a_record_that_outgrows_its_place_piece_by_piece_makes_room_a_few_times_and_ends_where_the_ring_does()
 {
    let (mut producer, mut consumer, _) = pair(64 << 10, 0, 0);
    let largest = producer.plan().max_payload();
    let mut slot = producer.reserve(64).expect("room");
    let (mut room, mut grown) = (slot.room(), 0);
    while slot.try_write(b"4 of") {
        grown += u32::from(slot.room() != room);
        room = slot.room();
    }
    assert!(grown <= 10, "{grown} times");
    assert!(largest - slot.written() < 4 && slot.room() <= largest);
    slot.commit(Kind::Reply, 1);
    assert!(take(&mut consumer).is_some());
}

#[test]
fn a_record_grows_into_what_is_free_to_the_last_byte_and_no_further() {
    const CAPACITY: u64 = 4 << 10;
    let (mut producer, _consumer, _) = pair(CAPACITY as usize, 0, 0);
    for id in [1, 2] {
        producer.push(Kind::Reply, id, &[0; 1500]).expect("room");
    }
    let (at, plan) = (producer.index(), *producer.plan());
    let mut slot = producer.reserve(100).expect("room");
    while slot.try_write(b"8 bytes.") {
        let record = record_bytes(slot.room());
        assert!(record <= plan.left_from(at) && plan.has_room(at, record, 0));
    }
    let free = CAPACITY - at - HEADER_BYTES - TERMINATOR_BYTES;
    assert_eq!(slot.written() as u64, free & !7);
}
