//! The ring's orderings under loom: every interleaving of small histories, with weak memory.
//!
//! The production code runs on loom's atomics through [`Storage`]; data bytes are loom atomics too (Relaxed), so a missing
//! Release or Acquire shows as a stale byte. One that is missing on the way back shows as no byte, since loom never lets a load see what is
//! stored later: so payloads are watched for races besides.

mod pieces;
mod wakes;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use loom::sync::{Arc, Condvar, Mutex};

use super::consumer::Consumer;
use super::plan::{Kind, Plan, TERMINATOR_BYTES, record_bytes};
use super::producer::{NoSlot, Producer};
use super::storage::{Flag, Storage, Word};

const CAPACITY: usize = 256;

#[derive(Clone)]
struct Loom(Arc<Inner>);

struct Inner {
    words: Vec<AtomicU64>,
    flags: Vec<AtomicU32>,
    data: Vec<AtomicU64>,
    /// Who copies payload in or out of each word: must be ordered.
    copied: Vec<UnsafeCell<()>>,
    kernel: Arc<Kernel>,
}

/// The kernel's side of a futex (value check and enqueueing are one step), and the bytes that wait unread in the socket.
struct Kernel {
    unread: Mutex<i64>,
    queue: Condvar,
}

impl Loom {
    fn new() -> Self {
        Self::under(Arc::new(Kernel {
            unread: Mutex::new(0),
            queue: Condvar::new(),
        }))
    }

    /// A ring whose futexes somebody can sleep on together with those of another.
    fn under(kernel: Arc<Kernel>) -> Self {
        Self(Arc::new(Inner {
            words: (0..7).map(|_| AtomicU64::new(0)).collect(),
            flags: (0..2).map(|_| AtomicU32::new(0)).collect(),
            data: (0..CAPACITY / 8).map(|_| AtomicU64::new(0)).collect(),
            copied: (0..CAPACITY / 8).map(|_| UnsafeCell::new(())).collect(),
            kernel,
        }))
    }

    /// FUTEX_WAIT: sleeps if the word still says 1.
    fn sleep(&self, flag: Flag) {
        let guard = self.0.kernel.unread.lock().expect("no panics");
        if self.flag(flag) == 1 {
            drop(self.0.kernel.queue.wait(guard).expect("no panics"));
        }
    }

    /// FUTEX_WAITV on `flag` of both: sleeps if both words still say 1.
    fn sleep_on_either(a: &Self, b: &Self, flag: Flag) {
        let guard = a.0.kernel.unread.lock().expect("no panics");
        if a.flag(flag) == 1 && b.flag(flag) == 1 {
            drop(a.0.kernel.queue.wait(guard).expect("no panics"));
        }
    }

    /// FUTEX_WAKE.
    fn wake(&self) {
        let _guard = self.0.kernel.unread.lock().expect("no panics");
        self.0.kernel.queue.notify_all();
    }

    /// Sends a byte into the socket.
    fn ring_socket(&self) {
        let mut unread = self.0.kernel.unread.lock().expect("no panics");
        *unread += 1;
        self.0.kernel.queue.notify_all();
    }

    /// Waits until the socket is readable, and reads all there is: how many bytes.
    fn sleep_on_socket(&self) -> i64 {
        let mut unread = self.0.kernel.unread.lock().expect("no panics");
        while *unread == 0 {
            unread = self.0.kernel.queue.wait(unread).expect("no panics");
        }
        std::mem::take(&mut *unread)
    }

    /// Bytes on the socket.
    fn unread(&self) -> i64 {
        *self.0.kernel.unread.lock().expect("no panics")
    }
}

impl Storage for Loom {
    fn load(&self, word: Word) -> u64 {
        self.0.words[word as usize].load(Ordering::Relaxed)
    }
    fn load_acquire(&self, word: Word) -> u64 {
        self.0.words[word as usize].load(Ordering::Acquire)
    }
    fn store(&self, word: Word, value: u64) {
        self.0.words[word as usize].store(value, Ordering::Relaxed);
    }
    fn store_release(&self, word: Word, value: u64) {
        self.0.words[word as usize].store(value, Ordering::Release);
    }
    fn commit_acquire(&self, offset: usize) -> u64 {
        self.0.data[offset / 8].load(Ordering::Acquire)
    }
    fn commit_release(&self, offset: usize, value: u64) {
        self.0.data[offset / 8].store(value, Ordering::Release);
    }
    fn word(&self, offset: usize) -> u64 {
        self.0.data[offset / 8].load(Ordering::Relaxed)
    }
    fn set_word(&self, offset: usize, value: u64) {
        self.0.data[offset / 8].store(value, Ordering::Relaxed);
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        assert_eq!(
            (offset % 8, bytes.len() % 8),
            (0, 0),
            "loom payloads are whole words"
        );
        for (i, word) in bytes.chunks(8).enumerate() {
            let value = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            self.0.copied[offset / 8 + i].with_mut(|_| ());
            self.0.data[offset / 8 + i].store(value, Ordering::Relaxed);
        }
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        for (i, word) in into.chunks_mut(8).enumerate() {
            self.0.copied[offset / 8 + i].with(|_| ());
            word.copy_from_slice(
                &self.0.data[offset / 8 + i]
                    .load(Ordering::Relaxed)
                    .to_le_bytes(),
            );
        }
    }
    fn flag(&self, flag: Flag) -> u32 {
        self.0.flags[flag as usize].load(Ordering::Relaxed)
    }
    fn set_flag(&self, flag: Flag, value: u32) {
        self.0.flags[flag as usize].store(value, Ordering::Relaxed);
    }
    fn swap_flag(&self, flag: Flag, value: u32) -> u32 {
        self.0.flags[flag as usize].swap(value, Ordering::Relaxed)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

fn model(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(f);
}

fn message(id: u64, words: usize) -> Vec<u8> {
    (0..words as u64)
        .flat_map(|i| (id * 100 + i).to_le_bytes())
        .collect()
}

/// Takes the next record; `None` if nothing is there.
fn take(consumer: &mut Consumer<Loom>) -> Option<(u64, Vec<u8>)> {
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

fn push(producer: &mut Producer<Loom>, id: u64, bytes: &[u8]) {
    loop {
        match producer.push(Kind::Request, id, bytes) {
            Ok(_) => return,
            Err(NoSlot::Full { .. }) => loom::thread::yield_now(),
            Err(NoSlot::Poisoned(p)) => panic!("{p}"),
        }
    }
}

#[test]
fn what_the_consumer_sees_is_what_was_committed() {
    model(3, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        let mut producer = Producer::new(ring.clone(), plan);
        let mut consumer = Consumer::new(ring, plan);
        let thread = loom::thread::spawn(move || {
            for id in 0..2 {
                push(&mut producer, id, &message(id, 2));
            }
        });
        for id in 0..2 {
            let got = loop {
                match take(&mut consumer) {
                    Some(got) => break got,
                    None => loom::thread::yield_now(),
                }
            };
            assert_eq!(got, (id, message(id, 2)));
        }
        thread.join().expect("producer");
    });
}

#[test]
fn bytes_are_not_overwritten_before_they_were_read_across_wraps() {
    model(2, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        // Close to the end, so that the second record wraps and the fourth needs the first one's room.
        let start = CAPACITY as u64 - 88;
        ring.store(Word::Head, start);
        ring.store(Word::Tail, start);
        let mut producer = Producer::starting_at(ring.clone(), plan, start);
        let mut consumer = Consumer::starting_at(ring, plan, start);
        let thread = loom::thread::spawn(move || {
            for id in 0..4 {
                push(&mut producer, id, &message(id, 7));
            }
        });
        for id in 0..4 {
            let got = loop {
                match take(&mut consumer) {
                    Some(got) => break got,
                    None => loom::thread::yield_now(),
                }
            };
            assert_eq!(got, (id, message(id, 7)));
        }
        thread.join().expect("producer");
    });
}

#[test]
fn an_early_wrap_is_seen_whole_or_not_at_all() {
    model(2, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        ring.store(Word::Window, 4 * record_bytes(8));
        let mut producer = Producer::new(ring.clone(), plan);
        let mut consumer = Consumer::new(ring, plan);
        // A lap has room for four records at least. The fifth starts over, behind one that is still there.
        for id in 0..4 {
            push(&mut producer, id, &message(id, 1));
        }
        for id in 0..3 {
            assert_eq!(take(&mut consumer), Some((id, message(id, 1))));
        }
        let thread = loom::thread::spawn(move || {
            for id in 4..6 {
                push(&mut producer, id, &message(id, 1));
            }
            producer.touched()
        });
        let mut id = 3;
        while id < 6 {
            match take(&mut consumer) {
                Some(got) => {
                    assert_eq!(got, (id, message(id, 1)));
                    id += 1;
                }
                None => {
                    consumer
                        .cross_check()
                        .expect("an honest producer is never taken for a liar");
                    loom::thread::yield_now();
                }
            }
        }
        let touched = thread.join().expect("producer");
        assert_eq!(touched, 4 * record_bytes(8) + TERMINATOR_BYTES, "wrapped");
    });
}

#[test]
fn who_is_neither_end_never_takes_a_ring_for_empty_that_never_was() {
    model(2, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        let mut producer = Producer::new(ring.clone(), plan);
        push(&mut producer, 0, &message(0, 1));
        let both = 2 * record_bytes(8);
        let sender = loom::thread::spawn(move || push(&mut producer, 1, &message(1, 1)));
        let taker = ring.clone();
        let mut consumer = Consumer::new(ring.clone(), plan);
        let taker = loom::thread::spawn(move || {
            // The first not before the second has been sent.
            while taker.load_acquire(Word::Tail) < both {
                loom::thread::yield_now();
            }
            take(&mut consumer).expect("a record")
        });
        assert!(ring.holds_records(CAPACITY as u64));
        sender.join().expect("producer");
        assert_eq!(taker.join().expect("consumer").0, 0);
    });
}
