//! The memory a page lives in: a sealed memfd, or, where that can't be had, memory that nobody else sees.
//!
//! Called once per page by `page`. Knows nothing of what stands in it. Invariants that `page` and `slot` cite:
//! - I1: `base` is 4 KiB-aligned and valid for reads and writes of `bytes` bytes while the `Memory` lives, in
//!   the process that made it.
//! - I2: it was all zero at first, and only atomics touch it.
//! - I3: no file of it can become shorter: SHRINK is sealed before `base` is handed out.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::MFdFlags;
use nix::sys::resource::{Resource, getrlimit};

use crate::error::Step;
use crate::mem::errno_of;
use crate::mem::fork::Owner;
use crate::mem::memfd::create_empty;

/// What `/proc/PID/fd/N` of a page leads to, apart from `/memfd:` in front and ` (deleted)` behind.
pub(super) const MEMFD_NAME: &CStr = c"shmtop-stats";
/// Sizes are multiples of this.
const BLOCK: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    /// Who mapped it. MADV_DONTFORK keeps the mapping out of children.
    owner: Owner,
    backing: Option<Backing>,
}

#[repr(C, align(4096))]
#[derive(Debug)]
struct Block([u8; BLOCK]);

#[derive(Debug)]
enum Backing {
    Memfd(MmapRaw, OwnedFd),
    Anonymous(MmapRaw),
    /// A header's worth, when not even an anonymous mapping was to be had. The vector is never touched again.
    Heap(#[expect(dead_code, reason = "owns what `base` points to")] Vec<Block>),
}

// SAFETY: plain memory that is only touched through atomics (I2); the pointer is not tied to a thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// At least `least` and at most `wanted` bytes: of a published memfd if possible; else private, with the step
    /// and errno that stood in the way. Both sizes are multiples of 4 KiB.
    pub(super) fn new(least: usize, wanted: usize) -> (Self, Option<(Step, i32)>) {
        match Self::memfd(least, wanted) {
            Ok(memory) => (memory, None),
            Err(why) => (Self::private(least, wanted), Some(why)),
        }
    }

    fn memfd(least: usize, wanted: usize) -> Result<Self, (Step, i32)> {
        let bytes = within_file_limit(least, wanted)?;
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let fd = create_empty(MEMFD_NAME, flags).map_err(|e| (Step::MemfdCreate, e as i32))?;
        nix::unistd::ftruncate(&fd, bytes as i64).map_err(|e| (Step::Ftruncate, e as i32))?;
        let map = MmapOptions::new()
            .len(bytes)
            .map_raw(&fd)
            .map_err(|e| (Step::Mmap, errno_of(&e)))?;
        map.advise(Advice::DontFork)
            .map_err(|e| (Step::Mmap, errno_of(&e)))?;
        seal(&fd).map_err(|e| (Step::Seal, e as i32))?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or((Step::Mmap, 0))?;
        Ok(Self {
            base,
            bytes,
            owner: Owner::this(),
            backing: Some(Backing::Memfd(map, fd)),
        })
    }

    fn private(least: usize, wanted: usize) -> Self {
        let owner = Owner::this();
        let anonymous = MmapOptions::new().len(wanted).map_anon().and_then(|map| {
            let map = MmapRaw::from(map);
            map.advise(Advice::DontFork)?;
            Ok(map)
        });
        if let Ok(map) = anonymous
            && let Some(base) = NonNull::new(map.as_mut_ptr())
        {
            return Self {
                base,
                bytes: wanted,
                owner,
                backing: Some(Backing::Anonymous(map)),
            };
        }
        let mut blocks: Vec<Block> = (0..least / BLOCK).map(|_| Block([0; BLOCK])).collect();
        Self {
            base: NonNull::from(blocks.as_mut_slice()).cast(),
            bytes: least / BLOCK * BLOCK,
            owner,
            backing: Some(Backing::Heap(blocks)),
        }
    }

    /// I1.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// I1.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The memfd, if there is one.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match self.backing.as_ref()? {
            Backing::Memfd(_, fd) => Some(fd.as_fd()),
            Backing::Anonymous(_) | Backing::Heap(_) => None,
        }
    }

    /// False in a child of the process that made it, where nothing is mapped at `base`.
    pub(super) fn is_ours(&self) -> bool {
        self.owner.is_this()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.is_ours() {
            return;
        }
        // A forked child: DONTFORK left nothing at `base`, so by now something else may be mapped there, and an
        // munmap would tear it away. Only the descriptor's copy is ours to close.
        match self.backing.take() {
            Some(Backing::Memfd(map, fd)) => {
                std::mem::forget(map);
                drop(fd);
            }
            Some(Backing::Anonymous(map)) => std::mem::forget(map),
            Some(Backing::Heap(_)) | None => {}
        }
    }
}

/// The largest size up to `wanted` that RLIMIT_FSIZE allows. It must not be exceeded by trying: the answer would be
/// SIGXFSZ, which ends the process.
fn within_file_limit(least: usize, wanted: usize) -> Result<usize, (Step, i32)> {
    let limit = getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _)| soft);
    let bytes = wanted.min(usize::try_from(limit).unwrap_or(usize::MAX) / BLOCK * BLOCK);
    if bytes < least {
        return Err((Step::Headroom, Errno::EFBIG as i32));
    }
    Ok(bytes)
}

/// One call for all seals, because SEAL forbids any further one. It comes after our own writable mapping, which
/// FUTURE_WRITE leaves alone while it refuses everybody else's. Kernels before 5.1 don't know FUTURE_WRITE:
/// there, processes of the same user could write to the page, but still not truncate it.
fn seal(fd: &OwnedFd) -> nix::Result<()> {
    let size = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    let future_write = SealFlag::from_bits_retain(libc::F_SEAL_FUTURE_WRITE);
    let add = |seals| fcntl(fd, FcntlArg::F_ADD_SEALS(seals)).map(drop);
    add(size | future_write).or_else(|e| {
        if e == Errno::EINVAL {
            add(size)
        } else {
            Err(e)
        }
    })
}

/// Whether `fd` leads to a file that can't become shorter: a memfd with SHRINK and GROW sealed. The reader's check.
pub(super) fn is_size_sealed(fd: impl AsFd) -> bool {
    let needed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(fd, FcntlArg::F_GET_SEALS)
        .is_ok_and(|bits| SealFlag::from_bits_retain(bits).contains(needed))
}
