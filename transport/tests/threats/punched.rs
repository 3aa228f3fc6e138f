//! Threat 6 in huge pages: who punches a hole before the seal forbids it takes a page away, and then somebody else has it. And who offers a
//! file whose pages nobody has made leaves it to the other side's first touch, which a cgroup's limit (0 in a pod that asks for no huge
//! pages) makes a SIGBUS.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::statfs::{HUGETLBFS_MAGIC, fstatfs};
use transport::Synapse;
use transport::error::Step;

use crate::rogue::server::{SEALS, against, echo, offer, until_upgrade, works_over_the_socket};
use crate::rogue::{COMMIT, DECLINE, OFFER, READY, Raw, UPGRADE, WELCOME, hello, message};
use crate::skipped::skipped;
use crate::world::{Ended, World, mix, ready};

const HUGE_PAGE: usize = 2 << 20;

/// Held by tests that take huge pages, or count on some that are free: they are few, and everybody's.
static HUGE_PAGES: Mutex<()> = Mutex::new(());

/// The other tests that take huge pages wait; one that failed is no reason not to run the next.
pub(crate) fn huge_pages() -> MutexGuard<'static, ()> {
    HUGE_PAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A huge page that nobody else gets.
fn take() -> Option<(OwnedFd, MmapRaw)> {
    let flags = MFdFlags::MFD_CLOEXEC
        | MFdFlags::MFD_ALLOW_SEALING
        | MFdFlags::MFD_HUGETLB
        | MFdFlags::MFD_HUGE_2MB;
    let fd = memfd_create(c"taken", flags).ok()?;
    nix::unistd::ftruncate(&fd, HUGE_PAGE as i64).ok()?;
    let map = MmapOptions::new().len(HUGE_PAGE).map_raw(&fd).ok()?;
    Some((fd, map))
}

#[test]
fn a_client_that_takes_the_huge_pages_out_of_its_rings_is_closed_and_the_server_lives() {
    let _alone = huge_pages();
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
    // SAFETY: the first byte of a mapping of our own, whose page the server has made.
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

/// Both ways out, whichever this machine has: run in a cgroup with `hugetlb.2MB.max` 0, it is the second.
#[test]
fn a_client_makes_the_huge_pages_it_is_offered_before_it_touches_them_or_declines() {
    let _alone = huge_pages();
    let Some((probe, _reserved)) = take() else {
        return skipped("this machine has no free huge page");
    };
    let to_be_had = fallocate(&probe, FallocateFlags::empty(), 0, HUGE_PAGE as i64).is_ok();
    drop((probe, _reserved));
    let (fd, _reserved) = take().expect("one is free");
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS)).expect("sealed, as the client wants it");
    let script = |mut raw: Raw| {
        until_upgrade(&mut raw);
        raw.say_with(&offer(&[(32, HUGE_PAGE as u64)]), &[fd.as_fd()]);
        if to_be_had {
            raw.expect(COMMIT);
            let there = fstat(&fd).expect("its pages").st_blocks as usize * 512;
            assert_eq!(there, HUGE_PAGE, "the next touch made it, or killed");
            raw.say(&message(READY, 1, &[]));
        } else {
            let declined = raw.expect(DECLINE);
            assert_eq!(declined.u32(24), Step::Mmap as u32, "{declined:?}");
            echo(&mut raw, 3);
        }
    };
    against(script, |path, config| {
        let mut client = Synapse::connect(path, &config).expect("a client");
        assert_eq!(client.is_shm(), to_be_had);
        if !to_be_had {
            works_over_the_socket(&mut client);
        }
    });
}
