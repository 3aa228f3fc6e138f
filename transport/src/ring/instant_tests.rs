//! Whatever instruction the producer stands at, and however long: a consumer that checks its index takes it for honest (I4).
//!
//! loom sees small records only; this sees streamed ones, too. Each store of the producer is followed by a look of the consumer.

use std::cell::RefCell;
use std::rc::Rc;

use super::consumer::Consumer;
use super::heap::Heap;
use super::model_tests::pair;
use super::plan::{Kind, Plan, STREAM_FROM_BYTES};
use super::producer::Producer;
use super::storage::{Flag, Storage, Word};
use crate::limits::max_payload;

const CAPACITY: usize = 64 << 10;

/// The producer's memory, with a consumer that looks after every store.
struct Watched {
    heap: Heap,
    consumer: Rc<RefCell<Consumer<Heap>>>,
    /// It also takes what it can as soon as it sees it; else only between two records.
    takes: bool,
}

fn take_all(consumer: &mut Consumer<Heap>, streamed: bool) {
    while let Some(record) = consumer.peek().expect("an honest producer")
        && (streamed || record.length < STREAM_FROM_BYTES)
    {
        let mut bytes = vec![0; record.length];
        assert!(
            consumer
                .read(&record, &mut bytes)
                .expect("an honest producer")
        );
        consumer.release(&record);
    }
}

impl Watched {
    fn stored(&self) {
        let mut consumer = self.consumer.borrow_mut();
        let check = |consumer: &mut Consumer<Heap>| {
            let found = consumer.cross_check();
            found.expect("an honest producer is never taken for a liar");
        };
        check(&mut consumer);
        if self.takes {
            take_all(&mut consumer, false);
            check(&mut consumer);
        }
    }
}

impl Storage for Watched {
    fn load(&self, word: Word) -> u64 {
        self.heap.load(word)
    }
    fn load_acquire(&self, word: Word) -> u64 {
        self.heap.load_acquire(word)
    }
    fn store(&self, word: Word, value: u64) {
        self.heap.store(word, value);
        self.stored();
    }
    fn store_release(&self, word: Word, value: u64) {
        self.heap.store_release(word, value);
        self.stored();
    }
    fn commit_acquire(&self, offset: usize) -> u64 {
        self.heap.commit_acquire(offset)
    }
    fn commit_release(&self, offset: usize, value: u64) {
        self.heap.commit_release(offset, value);
        self.stored();
    }
    fn word(&self, offset: usize) -> u64 {
        self.heap.word(offset)
    }
    fn set_word(&self, offset: usize, value: u64) {
        self.heap.set_word(offset, value);
        self.stored();
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        self.heap.write(offset, bytes);
        self.stored();
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        self.heap.read(offset, into);
    }
    fn flag(&self, flag: Flag) -> u32 {
        self.heap.flag(flag)
    }
    fn set_flag(&self, flag: Flag, value: u32) {
        self.heap.set_flag(flag, value);
    }
    fn swap_flag(&self, flag: Flag, value: u32) -> u32 {
        self.heap.swap_flag(flag, value)
    }
    fn fence(&self) {
        self.heap.fence();
    }
}

#[test]
fn an_honest_producer_is_never_taken_for_a_liar_whatever_instruction_it_stands_at() {
    for takes in [false, true] {
        for window in [0, 8 << 10] {
            // Short of the end of the ring, so that the index itself wraps on the way.
            let start = 0u64.wrapping_sub(CAPACITY as u64 / 2);
            let (_, consumer, heap) = pair(CAPACITY, start, window);
            let consumer = Rc::new(RefCell::new(consumer));
            let watched = Watched {
                heap,
                consumer: Rc::clone(&consumer),
                takes,
            };
            let plan = Plan::new(CAPACITY, max_payload(CAPACITY));
            let mut producer = Producer::starting_at(watched, plan, start);
            let sizes = [
                0,
                8,
                1000,
                100,
                STREAM_FROM_BYTES,
                5 * STREAM_FROM_BYTES / 2,
            ];
            for (id, size) in (0..200).zip(sizes.into_iter().cycle()) {
                let pushed = producer.push(Kind::Request, id, &vec![id as u8; size]);
                assert!(pushed.is_ok(), "there is room");
                // Two in a row now and then.
                if id % 3 != 0 {
                    take_all(&mut consumer.borrow_mut(), true);
                }
            }
        }
    }
}
