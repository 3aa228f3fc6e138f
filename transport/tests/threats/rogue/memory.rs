//! The memory of a connection as a peer sees it that knows the document and nothing else.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The memory of a connection, mapped without a word to anybody.
pub(crate) struct Memory {
    base: *mut u8,
    pub(crate) length: usize,
    pub(crate) capacity: u64,
    pub(crate) fd: OwnedFd,
}

// SAFETY: the mapping is not tied to a thread, and all access is by atomics.
unsafe impl Send for Memory {}

// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Words of a ring's control block.
pub(crate) const TAIL: usize = 0x000;
pub(crate) const PRODUCED: usize = 0x008;
pub(crate) const FULL: usize = 0x080;
pub(crate) const HEAD: usize = 0x100;
pub(crate) const CONSUMED: usize = 0x108;
pub(crate) const EMPTY: usize = 0x180;
pub(crate) const WINDOW: usize = 0x200;
/// Where the reply ring's control block and the data begin.
pub(crate) const REPLIES: usize = 0x400;
pub(crate) const DATA: usize = 0x1000;

impl Memory {
    pub(crate) fn map(fd: OwnedFd, capacity: u64) -> Self {
        let length = DATA + 2 * capacity as usize;
        // SAFETY: a new mapping at a place of the kernel's choice, of a file that is sealed against shrinking.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        Self {
            base: base.cast(),
            length,
            capacity,
            fd,
        }
    }

    /// A word anywhere in it.
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.length);
        // SAFETY: aligned and inside the mapping (asserted), which lives as long as `self`; shared words are atomics.
        unsafe { AtomicU64::from_ptr(self.base.add(at).cast()) }
    }

    /// A flag.
    pub(crate) fn flag(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.base.add(at).cast()) }
    }

    /// Copies bytes in, in whole words.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(at + 8 * i)
                .store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, at: usize, length: usize) -> Vec<u8> {
        let words = (0..length.div_ceil(8)).map(|i| self.word(at + 8 * i).load(Ordering::Relaxed));
        let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        bytes.truncate(length);
        bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and nobody uses it any more.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}
