//! A bounded queue in shared chunks that are only ever added to. Used by the histories only.
//!
//! A clone costs a few reference counts, not a copy, and a frozen dashboard that keeps old models shares their memory.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Values per chunk.
pub(super) const CHUNK: usize = 64;

/// Values that are added one by one and never change. Who has a copy sees as many as there were.
#[derive(Debug)]
struct Chunk<T>([OnceLock<T>; CHUNK]);

impl<T> Chunk<T> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

/// The queue.
#[derive(Clone, Debug)]
pub(super) struct Chunked<T> {
    full: Arc<VecDeque<Arc<Chunk<T>>>>,
    /// The last chunk and how many of its values are ours: the original goes on writing behind them. `None` while empty.
    tail: Option<Arc<Chunk<T>>>,
    filled: usize,
    limit: usize,
}

impl<T: Clone> Chunked<T> {
    /// Keeps `limit` values at least, unless they are old.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            full: Arc::default(),
            tail: None,
            filled: 0,
            limit,
        }
    }

    /// Adds a value. Whole chunks leave: when `limit` values are left without them, or when one value is left that `is_old`.
    pub(super) fn push(&mut self, value: T, is_old: impl Fn(&T) -> bool) {
        let tail = self.tail.get_or_insert_with(|| Arc::new(Chunk::new()));
        if let Err(value) = tail.0[self.filled].set(value) {
            // Another copy has gone on from here: this one needs a chunk of its own.
            let own = Chunk::new();
            let ours = tail.0[..self.filled].iter().filter_map(OnceLock::get);
            for (place, old) in own.0.iter().zip(ours.cloned().chain([value])) {
                // The chunk was made here: all its places are empty.
                let _ = place.set(old);
            }
            *tail = Arc::new(own);
        }
        self.filled += 1;
        if self.filled == CHUNK {
            let full = Arc::make_mut(&mut self.full);
            full.extend(self.tail.take());
            self.filled = 0;
            let is_old = |c: &Arc<Chunk<T>>| c.0[0].get().is_some_and(&is_old);
            while (full.len() - 1) * CHUNK >= self.limit || full.get(1).is_some_and(is_old) {
                full.pop_front();
            }
        }
    }

    /// The values, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        let tail = self.tail.iter().flat_map(|c| &c.0[..self.filled]);
        let full = self.full.iter().flat_map(|c| &c.0);
        full.chain(tail).filter_map(OnceLock::get)
    }
}

impl<T: Clone + PartialEq> PartialEq for Chunked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}
