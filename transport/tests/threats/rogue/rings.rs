//! Both rings of a connection, written and read as `docs/protocol.md` says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CONSUMED, DATA, EMPTY, FULL, HEAD, Memory, PRODUCED, REPLIES, TAIL};
use crate::role::WATCHDOG;

/// The commit word of a record.
pub(crate) fn commit(kind: u64, length: u64) -> u64 {
    length | kind << 32
}

pub(crate) const PADDING: u64 = 1;
pub(crate) const REQUEST_RECORD: u64 = 2;
pub(crate) const REPLY_RECORD: u64 = 3;
pub(crate) const ERROR_RECORD: u64 = 4;
pub(crate) const STREAMED: u64 = 1 << 40;

/// One end of both rings: `ours` is the control block and data of the ring it produces into.
pub(crate) struct Rings {
    pub(crate) memory: Arc<Memory>,
    control: [usize; 2],
    data: [usize; 2],
    /// Ends of what was produced and consumed.
    pub(crate) tail: u64,
    pub(crate) head: u64,
    kind: u64,
}

impl Rings {
    pub(crate) fn client(memory: Memory) -> Self {
        let memory = Arc::new(memory);
        let data = [DATA, DATA + memory.capacity as usize];
        Self {
            memory,
            control: [0, REPLIES],
            data,
            tail: 0,
            head: 0,
            kind: REQUEST_RECORD,
        }
    }

    pub(crate) fn server(memory: Memory) -> Self {
        let memory = Arc::new(memory);
        let data = [DATA + memory.capacity as usize, DATA];
        Self {
            memory,
            control: [REPLIES, 0],
            data,
            tail: 0,
            head: 0,
            kind: REPLY_RECORD,
        }
    }

    /// Where the next record goes, in the mapping.
    pub(crate) fn place(&self) -> usize {
        self.data[0] + (self.tail % self.memory.capacity) as usize
    }

    /// A word of the ring produced into.
    pub(crate) fn out(&self, word: usize) -> &AtomicU64 {
        self.memory.word(self.control[0] + word)
    }

    /// A word of the ring consumed from.
    pub(crate) fn back(&self, word: usize) -> &AtomicU64 {
        self.memory.word(self.control[1] + word)
    }

    /// Bytes from the next place to the end of the ring.
    pub(crate) fn left(&self) -> u64 {
        self.memory.capacity - self.tail % self.memory.capacity
    }

    /// Goes to the start of the ring if a record with this payload does not fit before its end.
    pub(crate) fn make_room_for(&mut self, payload: &[u8]) {
        let bytes = 16 + (payload.len() as u64).next_multiple_of(8);
        if self.left() < bytes {
            let skip = self.place();
            self.tail += self.left();
            let start = self.place();
            self.memory.word(start).store(0, Ordering::Release);
            self.memory
                .word(skip)
                .store(commit(PADDING, 0), Ordering::Release);
        }
    }

    /// Writes id, payload and the zero behind, but not the commit word. Goes to the start of the ring if it must.
    pub(crate) fn prepare(&mut self, id: u64, payload: &[u8]) -> u64 {
        self.make_room_for(payload);
        let bytes = 16 + (payload.len() as u64).next_multiple_of(8);
        let at = self.place();
        self.memory.word(at + 8).store(id, Ordering::Relaxed);
        self.memory.write(at + 16, payload);
        let behind = self.data[0] + ((self.tail + bytes) % self.memory.capacity) as usize;
        self.memory.word(behind).store(0, Ordering::Relaxed);
        bytes
    }

    /// Sends a record, as the document says.
    pub(crate) fn send(&mut self, id: u64, payload: &[u8]) {
        let bytes = self.prepare(id, payload);
        let word = commit(self.kind, payload.len() as u64);
        self.memory
            .word(self.place())
            .store(word, Ordering::Release);
        self.tail += bytes;
        self.out(PRODUCED).fetch_add(bytes, Ordering::Relaxed);
        self.out(TAIL).store(self.tail, Ordering::Release);
        self.wake();
    }

    /// Fills all room there is with empty records of this id, as fast as memory goes.
    pub(crate) fn flood(&mut self, id: u64) {
        self.flood_large(id, 0);
    }

    /// The same with records of `length` bytes, which nobody writes; a lap is a whole number of them.
    pub(crate) fn flood_large(&mut self, id: u64, length: u64) {
        let capacity = self.memory.capacity;
        let head = self.out(HEAD).load(Ordering::Acquire);
        let (word, bytes) = (commit(self.kind, length), 16 + length);
        while self.tail.wrapping_sub(head) + bytes + 8 <= capacity {
            let at = self.place();
            let behind = self.data[0] + ((self.tail + bytes) % capacity) as usize;
            self.memory.word(at + 8).store(id, Ordering::Relaxed);
            self.memory.word(behind).store(0, Ordering::Relaxed);
            self.memory.word(at).store(word, Ordering::Release);
            self.tail += bytes;
            // Each time: a consumer that has caught up must find it where it is.
            self.out(TAIL).store(self.tail, Ordering::Release);
        }
    }

    /// Wakes the peer, for either ring.
    pub(crate) fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        for flag in [self.control[0] + EMPTY, self.control[1] + FULL] {
            let flag = self.memory.flag(flag);
            if flag.swap(0, Ordering::Relaxed) != 0 {
                // SAFETY: FUTEX_WAKE on a live, aligned word; the kernel does not touch it.
                unsafe { libc::syscall(libc::SYS_futex, flag.as_ptr(), libc::FUTEX_WAKE, 1) };
            }
        }
    }

    /// The next record, if it is there: kind, id and payload.
    pub(crate) fn receive(&mut self) -> Option<(u64, u64, Vec<u8>)> {
        loop {
            let at = self.data[1] + (self.head % self.memory.capacity) as usize;
            let word = self.memory.word(at).load(Ordering::Acquire);
            if word == 0 {
                return None;
            }
            let (length, kind) = (word & 0xffff_ffff, word >> 32 & 0xff);
            if kind == PADDING {
                self.head += self.memory.capacity - self.head % self.memory.capacity;
                continue;
            }
            let bytes = 16 + length.next_multiple_of(8);
            if word & STREAMED != 0 {
                let tail = self.back(TAIL).load(Ordering::Acquire);
                if tail.wrapping_sub(self.head + bytes) > self.memory.capacity {
                    std::thread::yield_now();
                    continue;
                }
            }
            let id = self.memory.word(at + 8).load(Ordering::Relaxed);
            let payload = self.memory.read(at + 16, length as usize);
            self.head += bytes;
            self.back(CONSUMED).fetch_add(bytes, Ordering::Relaxed);
            self.back(HEAD).store(self.head, Ordering::Release);
            self.wake();
            return Some((kind, id, payload));
        }
    }

    /// Waits for the next record.
    pub(crate) fn await_record(&mut self) -> (u64, u64, Vec<u8>) {
        let begun = std::time::Instant::now();
        loop {
            if let Some(record) = self.receive() {
                return record;
            }
            assert!(begun.elapsed() < WATCHDOG, "no record");
            std::thread::yield_now();
        }
    }
}
