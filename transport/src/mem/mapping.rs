//! One shared mapping of a memfd, owned.
//!
//! The rings are mapped so (a stats page, which only its owner writes, is not). The face is a raw pointer and a length: the peer may write
//! every byte at any time, so a Rust reference into it would be a lie. `ring::storage` loads and copies through
//! the pointer. The descriptor is not kept: once mapped, a connection costs one descriptor, its socket.
//!
//! Invariants, cited by those who use the pointer:
//! - I1: `[ptr, ptr + len)` stays mapped, readable and writable until the `Mapping` is dropped, in the process
//!   that made it. In a fork of that process it is not mapped at all (DONTFORK).
//! - I2: `ptr` is aligned to a page.
//! - I3: if the memfd passed [`super::memfd::validate`] (or was made by `create_rings`) with this length, access
//!   raises no SIGBUS for a file that shrank: the seals forbid it.

use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd};

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::{StepError, errno_of, fork, headroom};
use crate::error::Step;

/// A shared, writable mapping. Not inherited by forks, not written into core dumps.
#[derive(Debug)]
pub(crate) struct Mapping {
    map: ManuallyDrop<MmapRaw>,
    /// Of the process that mapped it.
    generation: u64,
}

impl Mapping {
    /// Maps the first `len` bytes of `fd`, none of them touched.
    pub(crate) fn shared(fd: BorrowedFd<'_>, len: usize) -> Result<Self, StepError> {
        let failed = |e: std::io::Error| {
            let errno = errno_of(&e);
            let (limit, used) = if errno == libc::ENOMEM {
                headroom::address_space_usage()
            } else {
                (0, 0)
            };
            StepError {
                step: Step::Mmap,
                errno,
                limit,
                used,
            }
        };
        fork::watch().map_err(|errno| StepError::new(Step::Mmap, errno))?;
        if len == 0 {
            return Err(StepError::new(Step::Mmap, libc::EINVAL));
        }
        let map = MmapOptions::new()
            .len(len)
            .map_raw(fd.as_raw_fd())
            .map_err(failed)?;
        // A child that inherited the rings would be a second producer; a core dump with them would carry every
        // peer's data. Neither is optional, so a kernel that can't (CONFIG off, seccomp) gets no mapping.
        map.advise(Advice::DontFork).map_err(failed)?;
        map.advise(Advice::DontDump).map_err(failed)?;
        Ok(Self {
            map: ManuallyDrop::new(map),
            generation: fork::generation(),
        })
    }

    /// Asks for transparent huge pages, the next best to reserved ones. False if the kernel refuses, or is set not to give any to
    /// shared memory (it takes the advice then all the same): 4 KiB pages remain.
    pub(crate) fn advise_huge_pages(&self) -> bool {
        let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
        // One that can't be read is of a kernel or a container without them.
        let allowed = std::fs::read_to_string(setting).is_ok_and(|text| gives_transparent(&text));
        self.map.advise(Advice::HugePage).is_ok() && allowed
    }

    /// First byte; see I1 and I2.
    pub(crate) fn ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// Bytes from [`Self::ptr`] on.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// False in a fork of the process that mapped it: there the memory must not be touched.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.generation == fork::generation()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // In a fork the range was never ours: something else may have been mapped there since, and munmap would
        // take that away.
        if self.is_ours() {
            // SAFETY: `map` was initialised in `shared`, is dropped here only, and never used after.
            unsafe { ManuallyDrop::drop(&mut self.map) }
        }
    }
}

/// Whether `shmem_enabled` (its choice stands in brackets) gives huge pages to those who advise.
fn gives_transparent(shmem_enabled: &str) -> bool {
    ["[always]", "[within_size]", "[advise]", "[force]"]
        .iter()
        .any(|choice| shmem_enabled.contains(choice))
}

#[cfg(test)]
mod tests {
    use super::super::memfd::{RING_NAME, create_rings};
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn transparent_pages_are_claimed_only_where_the_kernel_gives_them() {
        assert!(gives_transparent(
            "always within_size [advise] never deny force\n"
        ));
        assert!(gives_transparent(
            "[always] within_size advise never deny force\n"
        ));
        assert!(!gives_transparent(
            "always within_size advise [never] deny force\n"
        ));
        assert!(!gives_transparent(
            "always within_size advise never [deny] force\n"
        ));
        assert!(!gives_transparent(""));
    }

    const LEN: usize = 64 * 1024;

    fn mapped() -> Mapping {
        let (fd, _) = create_rings(RING_NAME, LEN, false).unwrap();
        Mapping::shared(fd.as_fd(), LEN).unwrap()
    }

    /// The VmFlags of the mapping that begins at `at`, as /proc/self/smaps has them.
    fn vm_flags(at: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        smaps
            .lines()
            .skip_while(|l| !l.starts_with(&format!("{at:x}-")))
            .find(|l| l.starts_with("VmFlags:"))
            .unwrap()
            .to_owned()
    }

    #[test]
    fn two_mappings_of_one_memfd_are_the_same_memory_after_its_descriptor_is_closed() {
        let (fd, _) = create_rings(RING_NAME, LEN, false).unwrap();
        let (a, b) = (
            Mapping::shared(fd.as_fd(), LEN).unwrap(),
            Mapping::shared(fd.as_fd(), LEN).unwrap(),
        );
        drop(fd);
        assert_eq!((a.len(), b.len()), (LEN, LEN));
        // SAFETY: I1 for both; the last byte is within; no other thread knows these mappings.
        unsafe {
            a.ptr().add(LEN - 1).write_volatile(7);
            assert_eq!(b.ptr().add(LEN - 1).read_volatile(), 7);
            assert_eq!(b.ptr().read_volatile(), 0, "fresh memory is zeros");
        }
    }

    #[test]
    fn rings_stay_out_of_core_dumps_and_forks() {
        let m = mapped();
        let flags = vm_flags(m.ptr() as usize);
        assert!(flags.contains(" dd"), "dontdump: {flags}");
        assert!(flags.contains(" dc"), "dontfork: {flags}");
    }

    #[test]
    fn a_read_only_descriptor_or_no_length_is_an_error_with_the_step() {
        let (fd, _) = create_rings(RING_NAME, LEN, false).unwrap();
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let read_only = std::fs::File::open(path).unwrap();
        let e = Mapping::shared(read_only.as_fd(), LEN).unwrap_err();
        assert_eq!((e.step, e.errno), (Step::Mmap, libc::EACCES));
        let e = Mapping::shared(fd.as_fd(), 0).unwrap_err();
        assert_eq!((e.step, e.errno), (Step::Mmap, libc::EINVAL));
    }

    #[test]
    fn a_fork_knows_it_is_one_and_takes_nothing_away_from_itself_or_its_parent() {
        let m = mapped();
        assert!(m.is_ours());
        // SAFETY: the child makes only async-signal-safe calls (mmap, _exit) and drops a Mapping, which makes none.
        match unsafe { libc::fork() } {
            0 => {
                let mut failed = i32::from(m.is_ours());
                let at = m.ptr();
                // SAFETY: NOREPLACE never takes a range that something occupies; if the range were inherited
                // after all, the call fails and `failed` says so.
                let again = unsafe {
                    libc::mmap(
                        at.cast(),
                        LEN,
                        libc::PROT_READ | libc::PROT_WRITE,
                        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                        -1,
                        0,
                    )
                };
                if again.cast() != at {
                    failed |= 2;
                }
                drop(m);
                // SAFETY: the range was mapped just above; had the drop unmapped it, this faults and the
                // parent sees the signal.
                unsafe {
                    at.write_volatile(1);
                    libc::_exit(failed)
                }
            }
            child => {
                assert!(child > 0);
                let mut status = 0;
                // SAFETY: `status` is a valid int, `child` is our child and waited for once.
                let waited = unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!(
                    (waited, status),
                    (child, 0),
                    "exit code or signal of the child"
                );
                // SAFETY: I1.
                unsafe { m.ptr().write_volatile(1) };
            }
        }
    }
}
