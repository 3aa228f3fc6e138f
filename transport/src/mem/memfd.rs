//! Creates and checks the memfd that carries both rings of a connection.
//!
//! The server creates ([`create_rings`]), the client checks what it was sent ([`validate`]). Once sealed with
//! [`SEALS`] nobody can shrink the file under a mapping (SIGBUS) or grow it into somebody's memory limit. Once both sides
//! have mapped it, each sees to it that it is sealed with [`CLOSED`] too ([`close`]): nobody maps it for writing any more, and,
//! which is what matters between the two, nobody punches holes into it. A hole reads as zeros, which the ring refuses; what it is in huge
//! pages says [`super::huge`]. Left out: mapping.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;

use super::fork::Unforked;
use super::huge::{self, HugeState};
use super::{StepError, headroom};
use crate::error::Step;

/// Name of the rings' memfd; `/proc/PID/maps` shows it as `/memfd:shm-ring`.
pub(crate) const RING_NAME: &CStr = c"shm-ring";

/// Seals that a ring's memfd carries before anybody else sees it. Not `F_SEAL_SEAL`, because [`CLOSED`] comes later; until
/// then the only seals that a peer could add are those, and `F_SEAL_WRITE`, which fails (EBUSY) while anybody has a
/// writable mapping, as the server has from before it sends the descriptor, and the client before it says COMMIT.
pub(crate) const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// Seals that are added once both sides have mapped the rings.
pub(crate) const CLOSED: SealFlag = SealFlag::F_SEAL_FUTURE_WRITE.union(SealFlag::F_SEAL_SEAL);

/// Creates a memfd of exactly `len` bytes, sealed with [`SEALS`], close-on-exec, all zeros; of small pages none is touched,
/// huge ones are all there.
///
/// RLIMIT_FSIZE and RLIMIT_AS are checked first, because the kernel's answer to the former is a signal; the
/// memory cgroup is not (that is [`headroom::check`], which the caller asks for the whole connection).
/// With `huge`, `len` should come from [`huge::round_len`]; if huge pages can't be had the rings get 4 KiB pages.
pub(crate) fn create_rings(
    name: &CStr,
    len: usize,
    huge: bool,
) -> Result<(Unforked, HugeState), StepError> {
    headroom::file_size(len as u64)?;
    headroom::address_space(len as u64)?;
    let mut state = HugeState::NotAsked;
    if huge {
        let made = create(name, len, MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB)
            .and_then(|fd| huge::make_pages(fd.as_fd(), len).map(|()| fd));
        match made {
            Ok(fd) => return Ok((fd, HugeState::Used)),
            Err(e) => state = HugeState::Short { errno: e.errno },
        }
    }
    Ok((create(name, len, MFdFlags::empty())?, state))
}

/// A memfd that is not executable, for good (MFD_NOEXEC_SEAL, Linux 6.3), where that can be had. `vm.memfd_noexec=2` refuses any other; kernels that
/// don't know the flag say EINVAL.
pub(crate) fn create_empty(name: &CStr, flags: MFdFlags) -> nix::Result<OwnedFd> {
    let no_exec = MFdFlags::from_bits_retain(libc::MFD_NOEXEC_SEAL);
    match memfd_create(name, flags | no_exec) {
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    }
}

fn create(name: &CStr, len: usize, kind: MFdFlags) -> Result<Unforked, StepError> {
    let flags = kind | MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    // The peer decides how long it is open: a fork made meanwhile would keep all that memory, whatever became of the connection.
    let fd = create_empty(name, flags)
        .map(Unforked::from)
        .map_err(|e| StepError::of_call(Step::MemfdCreate, e as i32))?;
    let size = i64::try_from(len).map_err(|_| StepError::new(Step::Ftruncate, libc::EFBIG))?;
    nix::unistd::ftruncate(&fd, size).map_err(|e| StepError::new(Step::Ftruncate, e as i32))?;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(SEALS)).map_err(|e| StepError::new(Step::Seal, e as i32))?;
    Ok(fd)
}

/// Checks that a received descriptor is a memfd of exactly `expected_len` bytes whose seals contain [`SEALS`]
/// and neither forbid writing nor further seals. After `Ok` its size can't change any more, whatever the sender does.
///
/// The errno is that of the call that failed, else 0 with what was demanded (`limit`) and found (`used`): a mask
/// of seals or a size in bytes.
pub(crate) fn validate(fd: BorrowedFd<'_>, expected_len: u64) -> Result<(), StepError> {
    let refuse = |errno, limit, used| {
        Err(StepError {
            step: Step::Validate,
            errno,
            limit,
            used,
        })
    };
    // EINVAL for everything that can't be sealed: sockets, pipes, devices, files on disk. A file in /dev/shm
    // answers, with F_SEAL_SEAL alone.
    let seals = match fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS) {
        Ok(bits) => SealFlag::from_bits_retain(bits),
        Err(e) => return refuse(e as i32, 0, 0),
    };
    let forbidden = SealFlag::F_SEAL_WRITE | CLOSED;
    if !seals.contains(SEALS) || seals.intersects(forbidden) {
        return refuse(0, SEALS.bits() as u64, seals.bits() as u64);
    }
    // Only after the seals: before, the size could change between this look and the mapping.
    let stat = match fstat(fd) {
        Ok(stat) => stat,
        Err(e) => return refuse(e as i32, 0, 0),
    };
    if u64::try_from(stat.st_size) != Ok(expected_len) {
        return refuse(0, expected_len, u64::try_from(stat.st_size).unwrap_or(0));
    }
    Ok(())
}

/// Adds the seals [`CLOSED`], or finds that the other side has. Called by the client when it has mapped the rings, and by the server
/// when the client says that it has.
///
/// After `Ok` no touch can fail, in huge pages either: those that are not there, never made or punched out, are made. An error of
/// [`Step::Seal`] means that the other side has seen to it that holes can still be punched; one of [`Step::Mmap`], that huge pages
/// are missing and not to be had.
pub(crate) fn close(fd: BorrowedFd<'_>) -> Result<(), StepError> {
    seal(fd)?;
    huge::fill_holes(fd)
}

fn seal(fd: BorrowedFd<'_>) -> Result<(), StepError> {
    let add = |seals| fcntl(fd, FcntlArg::F_ADD_SEALS(seals));
    // EINVAL: before Linux 5.1, where only the last seal is left to add. The kernel looks for unknown seals first, so this is
    // never the answer to a file that is sealed already.
    let (wanted, result) = match add(CLOSED) {
        Err(Errno::EINVAL) => (SealFlag::F_SEAL_SEAL, add(SealFlag::F_SEAL_SEAL)),
        result => (CLOSED, result),
    };
    let Err(errno) = result else { return Ok(()) };
    match fcntl(fd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain) {
        Ok(seals) if seals.contains(wanted) => Ok(()),
        _ => Err(StepError::new(Step::Seal, errno as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LEN: usize = 64 * 1024;

    fn made() -> Unforked {
        create_rings(RING_NAME, LEN, false).unwrap().0
    }

    #[test]
    fn rings_are_sealed_close_on_exec_and_of_the_size_asked_for() {
        let fd = made();
        validate(fd.as_fd(), LEN as u64).unwrap();
        let flags = fcntl(&fd, FcntlArg::F_GETFD).unwrap();
        assert_ne!(flags & libc::FD_CLOEXEC, 0);
        let link = nix::fcntl::readlink(
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)).as_str(),
        )
        .unwrap();
        assert_eq!(link.to_string_lossy(), "/memfd:shm-ring (deleted)");
    }

    #[test]
    fn a_fork_does_not_keep_the_memory_of_a_connection_that_is_being_made() {
        let fd = made();
        // SAFETY: the child makes system calls and leaves by _exit.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_memory = nix::sys::stat::fstat(&fd).is_ok_and(|s| s.st_size != 0);
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(is_memory)) };
        }
        let ended = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None).unwrap();
        let right = nix::sys::wait::WaitStatus::Exited(nix::unistd::Pid::from_raw(child), 0);
        assert_eq!(ended, right);
    }

    #[test]
    fn nobody_can_shrink_or_grow_a_ring() {
        let fd = made();
        for size in [0, LEN as i64 - 1, LEN as i64 + 1, 1 << 30] {
            assert_eq!(nix::unistd::ftruncate(&fd, size), Err(Errno::EPERM));
        }
        let map = crate::mem::mapping::Mapping::shared(fd.as_fd(), LEN).unwrap();
        let forbid = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
        assert_eq!(
            fcntl(&fd, forbid),
            Err(Errno::EBUSY),
            "nor forbid writing once it is mapped"
        );
        drop(map);
    }

    #[test]
    fn a_descriptor_that_is_no_sealed_memfd_of_the_right_size_is_refused_with_the_reason() {
        let refused = |fd: BorrowedFd<'_>| validate(fd, LEN as u64).unwrap_err();

        let mut disk = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        disk.write_all(&[0; LEN]).unwrap();
        assert_eq!(refused(disk.as_fd()).errno, libc::EINVAL, "a regular file");

        if let Ok(mut shm) = tempfile::tempfile_in("/dev/shm") {
            shm.write_all(&[0; LEN]).unwrap();
            let e = refused(shm.as_fd());
            assert!(
                e.errno == libc::EINVAL || e.used & 0x6 == 0,
                "/dev/shm: {e:?}"
            );
        }
        let (socket, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(refused(socket.as_fd()).errno, libc::EINVAL, "a socket");

        let unsealed = memfd_create(RING_NAME, MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::ftruncate(&unsealed, LEN as i64).unwrap();
        let e = refused(unsealed.as_fd());
        assert_eq!((e.limit, e.used), (SEALS.bits() as u64, 0), "no seals");
        fcntl(&unsealed, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
        assert_eq!(refused(unsealed.as_fd()).used, 2, "it could grow");
        fcntl(
            &unsealed,
            FcntlArg::F_ADD_SEALS(SEALS | SealFlag::F_SEAL_WRITE),
        )
        .unwrap();
        assert_eq!(refused(unsealed.as_fd()).used, 14, "sealed against writing");

        let shut = made();
        fcntl(&shut, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL)).unwrap();
        assert_eq!(
            refused(shut.as_fd()).used & 1,
            1,
            "holes could be punched for ever"
        );

        let (short, _) = create_rings(RING_NAME, LEN - 1, false).unwrap();
        let e = refused(short.as_fd());
        assert_eq!((e.limit, e.used), (LEN as u64, LEN as u64 - 1));
        let (long, _) = create_rings(RING_NAME, LEN + 1, false).unwrap();
        assert_eq!(refused(long.as_fd()).used, LEN as u64 + 1);
    }

    #[test]
    fn once_closed_by_either_side_no_hole_can_be_punched_and_what_is_mapped_stays_writable() {
        use nix::fcntl::{FallocateFlags, fallocate};
        let fd = made();
        let map = crate::mem::mapping::Mapping::shared(fd.as_fd(), LEN).unwrap();
        let punch = || {
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(&fd, flags, 0, LEN as i64)
        };
        punch().expect("open until both have mapped");
        for _ in 0..2 {
            close(fd.as_fd()).expect("the first adds the seals, the second finds them");
            assert_eq!(punch(), Err(Errno::EPERM));
        }
        // SAFETY: the first byte of a mapping that only this test knows.
        unsafe { map.ptr().write_volatile(1) };

        let kept_open = made();
        fcntl(&kept_open, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL)).unwrap();
        let e = close(kept_open.as_fd()).unwrap_err();
        assert_eq!((e.step, e.errno), (Step::Seal, libc::EPERM));
    }

    #[test]
    fn a_size_that_no_file_can_have_is_an_error() {
        let e = create_rings(RING_NAME, usize::MAX, false).unwrap_err();
        assert!(
            e.step == Step::Ftruncate || e.step == Step::Headroom,
            "{e:?}"
        );
    }
}
