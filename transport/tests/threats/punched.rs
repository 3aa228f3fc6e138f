//! Row 6 in huge pages: who punches a hole before the seal forbids it takes a page away that was reserved, and then somebody else has it.

use std::os::fd::{AsFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};

use crate::rogue::{COMMIT, OFFER, Raw, UPGRADE, WELCOME, hello, message};
use crate::skipped::skipped;
use crate::world::{Ended, World, mix, ready};

const HUGE_PAGE: usize = 2 << 20;

/// A huge page that nobody else gets.
fn take() -> Option<(OwnedFd, MmapRaw)> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    let fd = memfd_create(c"taken", flags).ok()?;
    nix::unistd::ftruncate(&fd, HUGE_PAGE as i64).ok()?;
    let map = MmapOptions::new().len(HUGE_PAGE).map_raw(&fd).ok()?;
    Some((fd, map))
}

#[test]
fn a_client_that_takes_the_huge_pages_out_of_its_rings_is_closed_and_the_server_lives() {
    let world = World::new();
    let mut server = ready(world.server().with("HUGE", ""));
    let mut raw = Raw::connect(&world.path());
    raw.say(&hello(1 << 16, 20_000));
    raw.expect(WELCOME);
    raw.say(&message(UPGRADE, 1, &[]));
    let fd = raw.expect(OFFER).fds.remove(0);
    if fstatfs(fd.as_fd())
        .expect("its file system")
        .filesystem_type()
        != HUGETLBFS_MAGIC
    {
        return skipped("this machine has no free huge page");
    }
    let map = MmapOptions::new()
        .len(HUGE_PAGE)
        .map_raw(&fd)
        .expect("mapped");
    // SAFETY: the first byte of a mapping of our own, whose page the server has reserved.
    unsafe { map.as_mut_ptr().write_volatile(1) };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&fd, hole, 0, HUGE_PAGE as i64).expect("a hole");
    let taken: Vec<_> = std::iter::from_fn(take).collect();
    assert!(!taken.is_empty(), "the page was free");
    let closed = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(closed)).expect("sealed, as the server wants it");
    raw.say(&message(COMMIT, 1, &[]));
    raw.is_closed();
    drop(taken);
    assert!(matches!(mix(&mut world.connect(), 2, 0), Ended::Done));
    assert!(server.ask("counts", "counts").starts_with("handled="));
}
