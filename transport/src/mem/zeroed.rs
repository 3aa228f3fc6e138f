//! Large buffers that may be refused: where an address space is limited, one client too many must not be the end of all. Zeroed by the
//! kernel, so that what is never used takes no memory.

use std::alloc::{Layout, alloc_zeroed};

/// So many zeros, or `None` if there is no memory for them.
pub(crate) fn zeroed(bytes: usize) -> Option<Box<[u8]>> {
    let layout = Layout::array::<u8>(bytes).ok()?;
    if bytes == 0 {
        return Some(Box::default());
    }
    // SAFETY: the layout has a size, which was just looked at.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        return None;
    }
    // SAFETY: the global allocator has just given this for the layout of a `[u8]` of this length, whose bytes are initialised, to zero;
    // nobody else has it.
    Some(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, bytes)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_had_is_refused_and_the_rest_is_zeros() {
        for bytes in [0, 1, 4096, 3 << 20] {
            let buffer = zeroed(bytes).expect("memory");
            assert!(buffer.len() == bytes && buffer.iter().all(|b| *b == 0));
        }
        assert!(zeroed(isize::MAX as usize).is_none());
        assert!(zeroed(usize::MAX).is_none());
    }
}
