//! Limits of the process, each in a process of its own: a lowered limit would hit the other tests too.
//!
//! A test starts this very test binary again for itself alone, with [`CHILD`] set, and reads its exit status.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::mapping::Mapping;
use super::memfd::{RING_NAME, create_rings};
use super::{StepError, headroom};
use crate::error::Step;

const CHILD: &str = "TRANSPORT_TEST_CHILD";
const LEN: usize = 64 << 20;

/// Runs `body` alone in a process; `test` is the calling test's path in this binary.
pub(crate) fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "signal {:?}: {said}{}",
        output.status.signal(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Lowers a soft limit of this process.
pub(crate) fn lower(resource: Resource, to: u64) {
    let (_, hard) = getrlimit(resource).unwrap();
    setrlimit(resource, to, hard).unwrap();
}

/// Takes every descriptor number that is left.
pub(crate) fn fill_descriptors() -> Vec<OwnedFd> {
    let null = std::fs::File::open("/dev/null").unwrap();
    let clones = std::iter::from_fn(|| null.as_fd().try_clone_to_owned().ok());
    let mut full: Vec<OwnedFd> = clones.collect();
    full.push(null.into());
    full
}

#[test]
fn a_file_size_limit_is_an_error_with_both_numbers_not_a_signal() {
    alone(
        "mem::limit_tests::a_file_size_limit_is_an_error_with_both_numbers_not_a_signal",
        || {
            lower(Resource::RLIMIT_FSIZE, 1 << 20);
            let e = create_rings(RING_NAME, LEN, false).unwrap_err();
            assert_eq!(
                e,
                StepError {
                    step: Step::Headroom,
                    errno: libc::EFBIG,
                    limit: 1 << 20,
                    used: LEN as u64
                }
            );
            create_rings(RING_NAME, 1 << 20, false).expect("what the limit allows is had");
        },
    );
}

#[test]
fn an_address_space_limit_is_noticed_before_and_named_after_a_failed_mmap() {
    alone(
        "mem::limit_tests::an_address_space_limit_is_noticed_before_and_named_after_a_failed_mmap",
        || {
            let (fd, _) = create_rings(RING_NAME, LEN, false).unwrap();
            lower(Resource::RLIMIT_AS, u64::MAX / 2);
            let (_, now) = headroom::address_space_usage();
            assert!(now > 1 << 20, "a test process is larger than {now}");
            let limit = now + LEN as u64 / 2;
            lower(Resource::RLIMIT_AS, limit);
            for e in [
                headroom::check(LEN as u64).unwrap_err(),
                create_rings(RING_NAME, LEN, false).unwrap_err(),
            ] {
                assert_eq!(
                    (e.step, e.errno, e.limit),
                    (Step::Headroom, libc::ENOMEM, limit)
                );
                assert!(e.used >= now / 2 && e.used < limit);
            }
            let e = Mapping::shared(fd.as_fd(), LEN).unwrap_err();
            assert_eq!(
                (e.step, e.errno, e.limit),
                (Step::Mmap, libc::ENOMEM, limit)
            );
            headroom::check(4096).expect("what the limit allows is had");
        },
    );
}

#[test]
fn a_full_descriptor_table_is_named_with_its_limit_and_number() {
    alone(
        "mem::limit_tests::a_full_descriptor_table_is_named_with_its_limit_and_number",
        || {
            lower(Resource::RLIMIT_NOFILE, 40);
            let mut full = fill_descriptors();
            let e = create_rings(RING_NAME, 8192, false).unwrap_err();
            assert_eq!(
                e,
                StepError {
                    step: Step::MemfdCreate,
                    errno: libc::EMFILE,
                    limit: 40,
                    used: 40
                }
            );
            assert_eq!(
                e.fallback(false).to_string(),
                "memfd_create → EMFILE, 40/40"
            );
            full.pop();
            drop(create_rings(RING_NAME, 8192, false).expect("one free number is enough"));
            assert_eq!(headroom::descriptors(), (40, 39));
        },
    );
}
