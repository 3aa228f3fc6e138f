//! Records that are published in pieces (I5), of a word each.

use super::super::consumer::Consumer;
use super::super::plan::{Kind, Plan, record_bytes};
use super::super::producer::{NoSlot, Producer};
use super::super::storage::{Storage, Word};
use super::{CAPACITY, Loom, message, model, push};

const WORDS: usize = 3;
/// So that some looks of a read find a piece more, and others find that the producer has stopped.
const PATIENCE: usize = 2;

fn stream(producer: &mut Producer<Loom>, id: u64) {
    let bytes = message(id, WORDS);
    loop {
        match producer.reserve(bytes.len()) {
            Ok(mut slot) => return slot.stream_by::<8>(Kind::Request, id, &bytes),
            Err(NoSlot::Full { .. }) => loom::thread::yield_now(),
            Err(NoSlot::Poisoned(p)) => panic!("{p}"),
        }
    }
}

/// Reads the next record as soon as its pieces come, and looks about as before a sleep whenever they don't.
fn take(consumer: &mut Consumer<Loom>) -> (u64, Vec<u8>) {
    let honest = "an honest producer is never taken for a liar";
    loop {
        if let Some(record) = consumer.peek().expect(honest) {
            let mut bytes = vec![0; record.length];
            let offset = consumer.payload_offset();
            assert!(record.is_streamed());
            if consumer
                .read_streamed::<PATIENCE>(offset, &mut bytes)
                .expect(honest)
            {
                consumer.release(&record);
                return (record.id, bytes);
            }
        }
        consumer.cross_check().expect(honest);
        loom::thread::yield_now();
    }
}

#[test]
fn pieces_behind_padding_are_those_that_were_written() {
    model(2, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 8 * WORDS);
        // A word too little is left before the end of the ring.
        let start = CAPACITY as u64 - (record_bytes(8 * WORDS) - 8);
        ring.store(Word::Head, start);
        ring.store(Word::Tail, start);
        let mut producer = Producer::starting_at(ring.clone(), plan, start);
        let mut consumer = Consumer::starting_at(ring, plan, start);
        let thread = loom::thread::spawn(move || stream(&mut producer, 0));
        assert_eq!(take(&mut consumer), (0, message(0, WORDS)));
        thread.join().expect("producer");
    });
}

#[test]
fn pieces_overwrite_nothing_that_was_not_read() {
    model(1, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        let mut producer = Producer::new(ring.clone(), plan);
        let mut consumer = Consumer::new(ring, plan);
        // Three fill the ring. The next takes the place of the first.
        for id in 0..3 {
            push(&mut producer, id, &message(id, 8));
        }
        let thread = loom::thread::spawn(move || stream(&mut producer, 3));
        for id in 0..3 {
            assert_eq!(super::take(&mut consumer), Some((id, message(id, 8))));
        }
        assert_eq!(take(&mut consumer), (3, message(3, WORDS)));
        thread.join().expect("producer");
    });
}
