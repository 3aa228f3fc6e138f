//! Huge pages for the rings, all of which are there before anybody touches them.
//!
//! A hole that is punched into a huge page gives it back to the pool, and the next touch is SIGBUS if none is free, or if a limit forbids
//! it: a reservation does not help against `hugetlb.2MB.max`, which a page counts against when it is made, nor against
//! a cpuset. So they are made first ([`make_pages`]); and, as the seal against holes ([`super::memfd::CLOSED`]) does not fill one that was
//! punched before it, [`fill_holes`] then makes what is missing. Before Linux 5.1 that seal does not exist, so there huge pages are for
//! peers that trust each other.

use std::os::fd::{AsFd, BorrowedFd};

use memmap2::MmapOptions;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::stat::fstat;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};

use super::{StepError, errno_of};
use crate::error::Step;

/// The huge page size asked for. Named, not the system's default, so that [`round_len`] needs no look at /proc.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// What became of the wish for huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HugeState {
    /// Not asked for.
    NotAsked,
    /// The rings are in huge pages, all of which are there: a first touch can't fail.
    Used,
    /// Asked for and not had; the rings are in 4 KiB pages.
    Short {
        /// Of memfd_create, ftruncate, mmap or fallocate: ENOMEM means too few free huge pages, ENOSPC also a limit of a cgroup.
        errno: i32,
    },
}

/// `len` rounded up so that huge pages can back it; unchanged if they aren't wanted.
pub(crate) const fn round_len(len: usize, huge: bool) -> usize {
    if huge {
        len.next_multiple_of(HUGE_PAGE_BYTES)
    } else {
        len
    }
}

/// Whether the file is in huge pages. A hole punched into one gives the page back, and if somebody else takes it, the next touch is SIGBUS, whatever seals
/// the size has; in small pages a hole reads as zeros.
pub(crate) fn is_in_huge_pages(fd: impl AsFd) -> nix::Result<bool> {
    Ok(fstatfs(fd)?.filesystem_type() == HUGETLBFS_MAGIC)
}

/// Makes the huge pages of the first `len` bytes that the file does not have. fallocate answers with an error where a touch would be
/// SIGBUS: no page free (somebody else's reservations count as taken), a cgroup's limit, none on the nodes of a cpuset. What it made stays
/// with the file, and no limit of who maps it later counts.
pub(super) fn make_pages(fd: BorrowedFd<'_>, len: usize) -> Result<(), StepError> {
    // A shared mapping reserves all that is missing, or nothing: so that too few are not made in vain, and taken from others meanwhile.
    // Read-only, as the seals may demand; the reservation stays with the file.
    let reserved = MmapOptions::new().len(len).map_raw_read_only(&fd);
    reserved.map_err(|e| StepError::new(Step::Mmap, errno_of(&e)))?;
    let len = i64::try_from(len).map_err(|_| StepError::new(Step::Mmap, libc::EFBIG))?;
    loop {
        match fallocate(fd, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            // A signal; what was made so far stays.
            Err(Errno::EINTR) => {}
            Err(e) => return Err(StepError::new(Step::Mmap, e as i32)),
        }
    }
}

/// Makes what is missing, if the file is in huge pages.
pub(super) fn fill_holes(fd: BorrowedFd<'_>) -> Result<(), StepError> {
    let failed = |e: Errno| StepError::new(Step::Mmap, e as i32);
    if !is_in_huge_pages(fd).map_err(failed)? {
        return Ok(());
    }
    let len = fstat(fd).map_err(failed)?.st_size;
    make_pages(fd, usize::try_from(len).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::fork::Unforked;
    use super::super::mapping::Mapping;
    use super::super::memfd::{RING_NAME, close, create_rings, validate};
    use super::*;
    use crate::skipped::skipped;

    /// Tests that count free huge pages, one at a time.
    static HUGE_PAGES: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// Bytes in pages that have been made.
    fn bytes_there(fd: &Unforked) -> usize {
        fstat(fd).unwrap().st_blocks as usize * 512
    }

    /// Rings in one huge page, which stays there until this is dropped.
    fn in_a_huge_page() -> Option<Unforked> {
        let (fd, state) = create_rings(c"huge", HUGE_PAGE_BYTES, true).unwrap();
        (state == HugeState::Used).then_some(fd)
    }

    #[test]
    fn what_was_punched_out_of_huge_pages_before_the_seal_is_made_again_or_refused() {
        let _alone = HUGE_PAGES.lock();
        let punched = || {
            let fd = in_a_huge_page()?;
            let map = Mapping::shared(fd.as_fd(), HUGE_PAGE_BYTES).unwrap();
            // SAFETY: the first byte of a mapping that only this test knows; its page is there.
            unsafe { map.ptr().write_volatile(1) };
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&fd, flags, 0, HUGE_PAGE_BYTES as i64).unwrap();
            Some((fd, map))
        };
        let the_rest = || -> Vec<Unforked> { std::iter::from_fn(in_a_huge_page).collect() };
        let Some((fd, map)) = punched() else {
            return skipped("this machine has no free huge page");
        };
        close(fd.as_fd()).expect("there are pages for it");
        assert_eq!(bytes_there(&fd), HUGE_PAGE_BYTES, "not only reserved");
        let taken = the_rest();
        // SAFETY: as above. Without its page this is SIGBUS, as somebody else has all that were free.
        unsafe { map.ptr().write_volatile(1) };
        drop((fd, map, taken));

        let (fd, _map) = punched().expect("one is free again");
        let taken = the_rest();
        let e = close(fd.as_fd()).unwrap_err();
        assert_eq!((e.step, e.errno), (Step::Mmap, libc::ENOMEM));
        drop(taken);
        close(fd.as_fd()).expect("sealed, and there are pages again");
    }

    #[test]
    fn huge_pages_are_had_or_their_lack_is_said() {
        let _alone = HUGE_PAGES.lock();
        const LEN: usize = 64 * 1024;
        let len = round_len(LEN, true);
        assert_eq!(len, 2 << 20);
        assert_eq!(round_len(LEN, false), LEN);
        let (fd, state) = create_rings(RING_NAME, len, true).unwrap();
        validate(fd.as_fd(), len as u64).unwrap();
        let block = fstat(&fd).unwrap().st_blksize as usize;
        match state {
            HugeState::Used => {
                assert_eq!(block, HUGE_PAGE_BYTES);
                assert_eq!(
                    bytes_there(&fd),
                    len,
                    "a page made later is SIGBUS where a limit forbids it"
                );
            }
            HugeState::Short { errno } => {
                assert_ne!(errno, 0);
                assert!(block < HUGE_PAGE_BYTES);
            }
            HugeState::NotAsked => panic!("it was asked for"),
        }
    }
}
