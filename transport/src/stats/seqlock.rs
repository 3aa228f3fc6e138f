//! A seqlock over words: facts of several words that a reader gets all of one write, or not at all.
//!
//! Used by `slot` (one writer at a time, under its mutex) and by `parse` (any number of readers, which never
//! write and give up after a bounded number of tries). Generic over the word, so that loom checks the very code
//! that runs. Names of the orderings' partners:
//!
//! ```text
//! writer                                   reader
//! W1 seq = odd            Relaxed          R1 s = seq        Relaxed
//! W2 fence                Release          R2 fence          Acquire
//! W3 words = …            Relaxed          R3 … = words      Relaxed
//! W4 seq = even           Release          R4 fence          Acquire
//!                                          R5 s == seq ?     Relaxed
//! ```
//! - W4 with R1+R2: a reader that starts from the even number of a write sees all words of that write (W3 happens
//!   before R3), so never a mixture with older ones.
//! - W2 with R4: if R3 read any word of a later write, W1 of that write happens before R5, which then sees
//!   its odd number or a greater one, and the reader drops what it has. Without W2, W3 could be
//!   visible before W1; without R4, R5 could be answered before R3.
//!
//! Loads are Relaxed with a fence, never Acquire: on memory that is mapped read-only, only Relaxed
//! loads are promised to compile to plain reads.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// What a reader needs of the sequence word.
pub(super) trait SeqRead {
    /// Relaxed load.
    fn load(&self) -> u64;
    /// `fence(Acquire)`.
    fn fence_acquire();
}

/// What a writer needs.
pub(super) trait SeqWrite: SeqRead {
    /// Relaxed store.
    fn store(&self, value: u64);
    /// Release store.
    fn store_release(&self, value: u64);
    /// `fence(Release)`.
    fn fence_release();
}

/// Runs `store_words` (Relaxed stores only) as one write. The caller excludes other writers.
pub(super) fn write<W: SeqWrite>(seq: &W, store_words: impl FnOnce()) {
    // An odd number here was left by a writer that panicked in between: go on from it, and stay odd until done.
    let start = seq.load() | 1;
    seq.store(start); // W1
    W::fence_release(); // W2
    store_words(); // W3
    seq.store_release(start.wrapping_add(1)); // W4
}

/// Runs `load_words` (Relaxed loads only) until it fell between two writes, at most `tries` times.
pub(super) fn read<W: SeqRead, T>(
    seq: &W,
    tries: u32,
    mut load_words: impl FnMut() -> T,
) -> Option<T> {
    for _ in 0..tries {
        let before = seq.load(); // R1
        if before & 1 == 0 {
            W::fence_acquire(); // R2
            let words = load_words(); // R3
            W::fence_acquire(); // R4
            // R5
            if seq.load() == before {
                return Some(words);
            }
        }
        std::hint::spin_loop();
    }
    None
}

impl SeqRead for AtomicU64 {
    fn load(&self) -> u64 {
        AtomicU64::load(self, Ordering::Relaxed)
    }

    fn fence_acquire() {
        fence(Ordering::Acquire);
    }
}

impl SeqWrite for AtomicU64 {
    fn store(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Relaxed);
    }

    fn store_release(&self, value: u64) {
        AtomicU64::store(self, value, Ordering::Release);
    }

    fn fence_release() {
        fence(Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU64 as LoomU64, Ordering, fence};

    use super::*;

    impl SeqRead for LoomU64 {
        fn load(&self) -> u64 {
            LoomU64::load(self, Ordering::Relaxed)
        }

        fn fence_acquire() {
            fence(Ordering::Acquire);
        }
    }

    impl SeqWrite for LoomU64 {
        fn store(&self, value: u64) {
            LoomU64::store(self, value, Ordering::Relaxed);
        }

        fn store_release(&self, value: u64) {
            LoomU64::store(self, value, Ordering::Release);
        }

        fn fence_release() {
            fence(Ordering::Release);
        }
    }

    #[test]
    fn no_interleaving_shows_half_a_write() {
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(3);
        model.check(|| {
            let page = Arc::new([0, 0, 0].map(LoomU64::new));
            let writer = {
                let page = page.clone();
                loom::thread::spawn(move || {
                    for value in 1..=2 {
                        write(&page[0], || {
                            page[1].store(value, Ordering::Relaxed);
                            page[2].store(value, Ordering::Relaxed);
                        });
                    }
                })
            };
            let seen = read(&page[0], 2, || {
                (
                    page[1].load(Ordering::Relaxed),
                    page[2].load(Ordering::Relaxed),
                )
            });
            if let Some((a, b)) = seen {
                assert_eq!(a, b);
            }
            writer.join().unwrap();
            let last = read(&page[0], 1, || page[1].load(Ordering::Relaxed));
            assert_eq!(last, Some(2), "a quiet page is readable at once");
        });
    }

    #[test]
    fn a_writer_that_died_in_between_is_no_endless_loop() {
        let seq = AtomicU64::new(0);
        let died = std::panic::catch_unwind(|| write(&seq, || panic!("in the middle")));
        assert!(died.is_err());
        assert_eq!(read(&seq, 100, || ()), None);
        write(&seq, || ());
        assert_eq!(read(&seq, 1, || 5), Some(5), "the next write repairs it");
    }
}
