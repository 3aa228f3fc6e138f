//! A ring in ordinary memory: the twin of a mapping, for models, Miri and fuzzing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::storage::{Flag, Storage, Word};

/// A ring in ordinary memory: the same protocol without a mapping (so Miri can run it).
#[derive(Clone)]
pub(crate) struct Heap {
    words: Arc<[AtomicU64; 7]>,
    flags: Arc<[AtomicU32; 2]>,
    data: Arc<[AtomicU64]>,
    /// What each look at `tail` adds to it.
    creep: Arc<AtomicU64>,
}

impl Heap {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            words: Arc::default(),
            flags: Arc::default(),
            data: (0..capacity / 8).map(|_| AtomicU64::new(0)).collect(),
            creep: Arc::default(),
        }
    }

    /// From now on each look at `tail` adds so much to it, as a peer does that lets it creep.
    #[cfg(test)]
    pub(crate) fn creep(&self, bytes: u64) {
        self.creep.store(bytes, Ordering::Relaxed);
    }

    /// Fills all of the ring with rubbish, as after many laps, except the first commit word.
    #[cfg(test)]
    pub(crate) fn dirty(self, start: u64) -> Self {
        for (i, w) in self.data.iter().enumerate() {
            w.store(0x0102_0304_0506_0708 ^ (i as u64) << 33, Ordering::Relaxed);
        }
        let at = (start as usize / 8) & (self.data.len() - 1);
        self.data[at].store(0, Ordering::Relaxed);
        self.words[Word::Head as usize].store(start, Ordering::Relaxed);
        self.words[Word::Tail as usize].store(start, Ordering::Relaxed);
        self
    }
}

impl Storage for Heap {
    fn load(&self, word: Word) -> u64 {
        self.words[word as usize].load(Ordering::Relaxed)
    }
    fn load_acquire(&self, word: Word) -> u64 {
        if word == Word::Tail {
            let creep = self.creep.load(Ordering::Relaxed);
            self.words[word as usize].fetch_add(creep, Ordering::Relaxed);
        }
        self.words[word as usize].load(Ordering::Acquire)
    }
    fn store(&self, word: Word, value: u64) {
        self.words[word as usize].store(value, Ordering::Relaxed);
    }
    fn store_release(&self, word: Word, value: u64) {
        self.words[word as usize].store(value, Ordering::Release);
    }
    fn commit_acquire(&self, offset: usize) -> u64 {
        self.data[offset / 8].load(Ordering::Acquire)
    }
    fn commit_release(&self, offset: usize, value: u64) {
        self.data[offset / 8].store(value, Ordering::Release);
    }
    fn word(&self, offset: usize) -> u64 {
        self.data[offset / 8].load(Ordering::Relaxed)
    }
    fn set_word(&self, offset: usize, value: u64) {
        self.data[offset / 8].store(value, Ordering::Relaxed);
    }
    fn write(&self, offset: usize, bytes: &[u8]) {
        for (i, b) in bytes.iter().enumerate() {
            let (at, shift) = ((offset + i) / 8, (offset + i) % 8 * 8);
            let old = self.data[at].load(Ordering::Relaxed);
            self.data[at].store(
                old & !(0xff << shift) | u64::from(*b) << shift,
                Ordering::Relaxed,
            );
        }
    }
    fn read(&self, offset: usize, into: &mut [u8]) {
        for (i, b) in into.iter_mut().enumerate() {
            *b = (self.data[(offset + i) / 8].load(Ordering::Relaxed) >> ((offset + i) % 8 * 8))
                as u8;
        }
    }
    fn flag(&self, flag: Flag) -> u32 {
        self.flags[flag as usize].load(Ordering::Relaxed)
    }
    fn set_flag(&self, flag: Flag, value: u32) {
        self.flags[flag as usize].store(value, Ordering::Relaxed);
    }
    fn swap_flag(&self, flag: Flag, value: u32) -> u32 {
        self.flags[flag as usize].swap(value, Ordering::Relaxed)
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}
