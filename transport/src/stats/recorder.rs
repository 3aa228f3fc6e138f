//! The writer's three verbs on a word of the page, and recording into a histogram.
//!
//! Called by the threads that own the words, on the hot path. A word has one writer, so load, add and store need no
//! locked instruction: nobody can come in between. Relaxed suffices because a counter publishes nothing but
//! itself; readers only need each word whole. Built with `--cfg transport_no_stats` every function here is
//! empty, which is how the cost of the rest is measured.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::histogram::{SUB_BUCKETS, bucket_of};
use super::words::HistogramWords;

/// Adds `n`. Only the word's one writer may call it.
#[inline(always)]
pub fn bump(word: &AtomicU64, n: u64) {
    if cfg!(transport_no_stats) {
        return;
    }
    word.store(word.load(Relaxed).wrapping_add(n), Relaxed);
}

/// Sets a level.
#[inline(always)]
pub fn set(word: &AtomicU64, value: u64) {
    if cfg!(transport_no_stats) {
        return;
    }
    word.store(value, Relaxed);
}

/// Raises a high-water mark; stores only if it rises, so that a settled mark leaves its line clean.
#[inline(always)]
pub fn raise(word: &AtomicU64, value: u64) {
    if cfg!(transport_no_stats) {
        return;
    }
    if value > word.load(Relaxed) {
        word.store(value, Relaxed);
    }
}

impl HistogramWords<'_> {
    /// Records a duration that stands for `weight` of its kind (see [`super::sampler`]). 0 ns counts as 1: nothing takes
    /// no time, and a clock that says so was too coarse.
    #[inline(always)]
    pub fn record(self, ns: u64, weight: u64) {
        if cfg!(transport_no_stats) {
            return;
        }
        let ns = ns.max(1);
        let bucket = bucket_of(ns);
        bump(&self.buckets[bucket], weight);
        bump(&self.head.sum_ns, ns.saturating_mul(weight));
        raise(&self.head.max_ns, ns);
        let octaves = self.head.octaves.load(Relaxed);
        let seen = octaves | 1 << (bucket / SUB_BUCKETS);
        if seen != octaves {
            self.head.octaves.store(seen, Relaxed);
        }
    }

    /// Empties it. Touches only octaves that were used: the rest is zero, and perhaps not even backed by memory.
    pub(super) fn clear(self) {
        let octaves = self.head.octaves.load(Relaxed);
        for (i, bucket) in self.buckets.chunks(SUB_BUCKETS).enumerate() {
            if octaves >> i & 1 == 1 {
                bucket.iter().for_each(|word| word.store(0, Relaxed));
            }
        }
        self.head.sum_ns.store(0, Relaxed);
        self.head.max_ns.store(0, Relaxed);
        self.head.octaves.store(0, Relaxed);
    }
}
