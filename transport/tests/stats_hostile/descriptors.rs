//! What another process announces as its page may be anything that has a descriptor.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use transport::stats::{PageReader, ReadError};

use super::skipped::skipped;
use super::valid;

fn memfd_with(bytes: &[u8], seals: SealFlag) -> OwnedFd {
    let fd = memfd_create(
        c"shmtop-stats",
        MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC,
    )
    .unwrap();
    nix::unistd::write(&fd, bytes).unwrap();
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    fd
}

fn open(fd: &OwnedFd) -> Result<PageReader, ReadError> {
    PageReader::open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[test]
fn a_page_that_could_be_truncated_under_the_reader_is_not_even_mapped() {
    let (shrink, grow) = (SealFlag::F_SEAL_SHRINK, SealFlag::F_SEAL_GROW);
    for seals in [SealFlag::empty(), shrink, grow] {
        assert!(
            matches!(open(&memfd_with(&valid(), seals)), Err(ReadError::Unsealed)),
            "{seals:?}"
        );
    }
    assert!(open(&memfd_with(&valid(), shrink | grow)).is_ok());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), valid()).unwrap();
    assert!(matches!(
        PageReader::open(file.path()),
        Err(ReadError::Unsealed)
    ));
}

/// Its owner could punch a hole into it: the huge page goes back to the pool, and the reader's next touch is SIGBUS. Mapped it is
/// only where huge pages are free; where there are none, mapping would fail with ENOMEM, so the answer tells whether it was tried.
#[test]
fn a_page_in_huge_pages_is_not_even_mapped() {
    let flags = MFdFlags::MFD_ALLOW_SEALING
        | MFdFlags::MFD_CLOEXEC
        | MFdFlags::MFD_HUGETLB
        | MFdFlags::MFD_HUGE_2MB;
    let fd = match memfd_create(c"shmtop-stats", flags) {
        Ok(fd) => fd,
        Err(e) => {
            skipped(&format!("this kernel makes no memfd in huge pages: {e}"));
            return;
        }
    };
    nix::unistd::ftruncate(&fd, 2 << 20).unwrap();
    let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(sealed)).unwrap();
    match open(&fd) {
        Err(ReadError::NotAPage(why)) => assert_eq!(why, "in huge pages"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn things_that_are_no_page_are_told_apart_without_hanging() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(
        PageReader::open(&fifo),
        Err(ReadError::NotAPage(_))
    ));
    assert!(matches!(
        PageReader::open(dir.path()),
        Err(ReadError::NotAPage(_))
    ));
    assert!(matches!(
        PageReader::open("/dev/zero"),
        Err(ReadError::NotAPage(_))
    ));
    assert!(matches!(
        PageReader::open(dir.path().join("gone")),
        Err(ReadError::Io(_))
    ));
    let sealed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    assert!(matches!(
        open(&memfd_with(b"", sealed)),
        Err(ReadError::Truncated { .. })
    ));
    assert!(
        matches!(
            open(&memfd_with(&[0; 8192], sealed)),
            Err(ReadError::NotAPage(_))
        ),
        "not there yet"
    );
    let huge = memfd_with(b"", SealFlag::empty());
    nix::unistd::ftruncate(&huge, 1 << 40).unwrap();
    fcntl(&huge, FcntlArg::F_ADD_SEALS(sealed)).unwrap();
    assert!(matches!(open(&huge), Err(ReadError::NotAPage(_))));
}

#[test]
fn a_page_whose_owner_wipes_it_while_open_is_an_error() {
    let fd = memfd_with(&valid(), SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW);
    let reader = open(&fd).unwrap();
    assert!(reader.snapshot().is_ok());
    let file = std::fs::File::from(fd);
    let hole = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
        | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
    nix::fcntl::fallocate(&file, hole, 0, valid().len() as i64).unwrap();
    assert!(matches!(reader.snapshot(), Err(ReadError::NotAPage(_))));
    assert!(reader.raw().parse().is_err());
}
