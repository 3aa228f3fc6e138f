//! A page never stands in the way of the transport: not at a limit, and not across a fork.
//!
//! Each test runs its body in a process of its own, because limits are per process and a fork wants one thread.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use transport::error::{CloseReason, Step};
use transport::stats::page::{PageDescription, PageWriter};
use transport::stats::recorder::bump;
use transport::stats::{PageReader, Role, SlotKind, SlotState, schema};

const IN_CHILD: &str = "STATS_LIMITS_CHILD";

/// Runs `body` in a fresh process: this test binary, told to run only the test `name`.
fn in_own_process(name: &str, body: impl FnOnce()) {
    if std::env::var_os(IN_CHILD).is_some() {
        return body();
    }
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1", "--nocapture"])
        .env(IN_CHILD, "1")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        status.success(),
        "{status}\n{}\n{}",
        text(&stdout),
        text(&stderr)
    );
    assert!(
        text(&stdout).contains("1 passed"),
        "the body ran: {}",
        text(&stdout)
    );
}

fn page(slots: usize) -> Arc<PageWriter> {
    PageWriter::create(&PageDescription {
        name: "n",
        role: Role::Server,
        socket_path: Path::new(""),
        slots,
    })
}

fn counts_all_the_same(page: &Arc<PageWriter>) {
    let slot = page.slot(SlotKind::Connection).unwrap();
    bump(&slot.sent().tx_straight, 3);
    slot.handler().record(1_000_000, 1);
    assert_eq!(slot.sent().tx_straight.load(Relaxed), 3);
    bump(&page.process().accepted, 1);
}

#[test]
fn without_a_descriptor_left_the_page_is_private_and_says_why() {
    in_own_process(
        "without_a_descriptor_left_the_page_is_private_and_says_why",
        || {
            let used: Vec<File> = std::iter::from_fn(|| {
                setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
                File::open("/dev/null").ok()
            })
            .collect();
            let page = page(16);
            assert_eq!(page.unpublished(), Some((Step::MemfdCreate, libc::EMFILE)));
            assert!(page.fd().is_none());
            counts_all_the_same(&page);
            drop(used);
        },
    );
}

#[test]
fn a_file_size_limit_makes_the_page_smaller_and_never_kills() {
    in_own_process(
        "a_file_size_limit_makes_the_page_smaller_and_never_kills",
        || {
            let three = (schema::SLOTS_OFFSET + 3 * schema::SLOT_STRIDE + 5000) as u64;
            setrlimit(Resource::RLIMIT_FSIZE, three, three).unwrap();
            let small = page(16);
            assert_eq!((small.unpublished(), small.slots()), (None, 3));
            counts_all_the_same(&small);
            let link = format!("/proc/self/fd/{}", small.fd().unwrap().as_raw_fd());
            assert_eq!(
                PageReader::open(link)
                    .unwrap()
                    .snapshot()
                    .unwrap()
                    .slots
                    .len(),
                1
            );

            setrlimit(Resource::RLIMIT_FSIZE, 4096, 4096).unwrap();
            let private = page(16);
            assert_eq!(private.unpublished(), Some((Step::Headroom, libc::EFBIG)));
            assert_eq!(private.slots(), 16);
            counts_all_the_same(&private);
        },
    );
}

#[test]
fn without_address_space_the_page_has_no_slots_and_still_counts_the_process() {
    in_own_process(
        "without_address_space_the_page_has_no_slots_and_still_counts_the_process",
        || {
            let pages: u64 = std::fs::read_to_string("/proc/self/statm")
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            let limit = pages * 4096 + (4 << 20);
            setrlimit(Resource::RLIMIT_AS, limit, limit).unwrap();
            let page = page(1056);
            assert_eq!(page.unpublished(), Some((Step::Mmap, libc::ENOMEM)));
            assert_eq!(page.slots(), 0);
            assert!(page.slot(SlotKind::Connection).is_none());
            bump(&page.process().accepted, 1);
            assert_eq!(page.process().accepted.load(Relaxed), 1);
        },
    );
}

#[test]
fn a_forked_child_can_neither_corrupt_nor_unmap_anything() {
    in_own_process(
        "a_forked_child_can_neither_corrupt_nor_unmap_anything",
        || {
            let page = page(2);
            let slot = page.slot(SlotKind::Connection).unwrap();
            bump(&slot.sent().tx_straight, 1);
            // SAFETY: the child uses this process's memory as it is and ends with _exit; no other thread runs anything.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    assert!(!page.is_ours());
                    assert!(page.slot(SlotKind::Connection).is_none());
                    // Nothing is mapped where the page was. Put something there, and see it outlive the drop.
                    let at = std::ptr::from_ref(slot.tx()) as usize & !4095;
                    // SAFETY: NOREPLACE: it fails rather than take away a mapping.
                    let mine = unsafe {
                        libc::mmap(
                            at as *mut _,
                            4096,
                            libc::PROT_READ | libc::PROT_WRITE,
                            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                            -1,
                            0,
                        )
                    };
                    let there = mine as usize == at;
                    // SAFETY: just mapped, if `there`.
                    let kept = there
                        && unsafe {
                            mine.cast::<u64>().write(42);
                            drop(slot);
                            drop(page);
                            mine.cast::<u64>().read() == 42
                        };
                    // SAFETY: ends the child at once, without the test harness.
                    unsafe { libc::_exit(if kept { 0 } else { 3 }) }
                }
                ForkResult::Parent { child } => {
                    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
                    let link = format!("/proc/self/fd/{}", page.fd().unwrap().as_raw_fd());
                    let seen = PageReader::open(link)
                        .unwrap()
                        .snapshot()
                        .unwrap()
                        .slots
                        .remove(0);
                    assert_eq!(seen.tx.tx_messages, 1);
                    assert_eq!(
                        seen.info.state,
                        SlotState::Handshaking,
                        "not closed by the child"
                    );
                    bump(&slot.sent().tx_straight, 1);
                    slot.close(CloseReason::Local);
                }
            }
        },
    );
}

#[test]
fn a_page_is_closed_on_exec() {
    let page = page(1);
    let fd = page.fd().unwrap();
    let flags = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).unwrap();
    assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
}
