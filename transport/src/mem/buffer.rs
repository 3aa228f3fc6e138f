//! Large buffers that take memory only as far as they are used, and that may be refused: where an address space is limited, one client
//! too many must not be the end of all.
//!
//! Mapped, and not allocated: an allocator that has had such a buffer back once keeps its place, and zeroes the next one by writing, all
//! 2 MiB of it for each client that connects.

use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

/// Zeros at first, private, and no page of it touched.
#[derive(Debug)]
pub(crate) struct Buffer(MmapMut);

impl Buffer {
    /// So many bytes, or `None` if there is no memory for them.
    pub(crate) fn zeroed(bytes: usize) -> Option<Self> {
        let map = MmapMut::map_anon(bytes).ok()?;
        // A huge page would be 2 MiB for the first byte. A kernel that refuses the advice has none to give.
        let _ = map.advise(Advice::NoHugePage);
        Some(Self(map))
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::{UsageWho, getrusage};

    #[test]
    fn what_cannot_be_had_is_refused_and_the_rest_is_zeros() {
        for bytes in [1, 4096, 3 << 20] {
            let buffer = Buffer::zeroed(bytes).expect("memory");
            assert!(buffer.len() == bytes && buffer.iter().all(|b| *b == 0));
        }
        assert!(Buffer::zeroed(isize::MAX as usize).is_none());
        assert!(Buffer::zeroed(usize::MAX).is_none());
    }

    #[test]
    fn a_buffer_costs_the_memory_of_what_was_written_also_when_one_was_given_back_before() {
        let faults = || {
            getrusage(UsageWho::RUSAGE_THREAD)
                .expect("rusage")
                .minor_page_faults()
        };
        for _ in 0..3 {
            let before = faults();
            let mut buffer = Buffer::zeroed(8 << 20).expect("memory");
            buffer[..8].fill(1);
            assert!(faults() - before < 64, "{} faults", faults() - before);
        }
    }
}
