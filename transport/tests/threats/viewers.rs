//! Threats 7 and 41: who looks at the stats page can read it and do nothing else, and is never waited for.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use transport::stats::PageReader;

use crate::role::{Process, WATCHDOG, required, say, start};
use crate::watch::{is_stopped, within};
use crate::world::{Ended, World, mix, ready};

/// The stats page's descriptor of another process.
fn page_of(pid: u32) -> PathBuf {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let mut paths = fds.flatten().map(|fd| fd.path());
    let is_page = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("shmtop-stats"))
    };
    paths.find(is_page).expect("its page")
}

#[test]
fn a_stranger_who_opens_the_stats_page_can_read_it_and_nothing_else() {
    let world = World::new();
    let server = ready(world.server());
    let path = page_of(server.pid());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("by its owner it can be opened");
    let length = file.metadata().expect("its size").len();
    let map = |protection| {
        // SAFETY: a new mapping at a place of the kernel's choice; never touched.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error());
        }
        Ok(at)
    };
    assert_eq!(
        map(libc::PROT_READ | libc::PROT_WRITE),
        Err(Some(libc::EPERM))
    );
    let readable = map(libc::PROT_READ).expect("readable");
    // SAFETY: the mapping just made; the call changes its protection or fails.
    let upgraded = unsafe { libc::mprotect(readable, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    assert_eq!(upgraded, -1, "made writable afterwards");
    // SAFETY: mapped above, used by nobody.
    unsafe { libc::munmap(readable, 4096) };
    assert!(std::io::Write::write(&mut (&file), b"forged").is_err());
    for size in [0, length - 1, length + 1] {
        assert!(file.set_len(size).is_err(), "{size}");
    }
    use nix::fcntl::{FallocateFlags, fallocate};
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    assert!(fallocate(&file, punch, 0, length as i64).is_err());
    PageReader::open(&path)
        .and_then(|r| r.snapshot())
        .expect("and it is whole");
}

/// Role `viewer`: takes snapshots of the page at `PAGE` as fast as it can.
pub(crate) fn view() {
    let reader = PageReader::open(required("PAGE")).expect("a page");
    let mut said = false;
    loop {
        if reader.snapshot().is_err() {
            return;
        }
        if !std::mem::replace(&mut said, true) {
            say(format_args!("seen"));
        }
    }
}

fn viewer(page: &Path) -> Process {
    let mut viewer = start("viewer").with("PAGE", page).go();
    viewer.hear("seen");
    viewer
}

#[test]
fn a_viewer_that_is_stopped_or_killed_or_greedy_is_never_waited_for() {
    let world = World::new();
    let server = ready(world.server());
    let mut client = world.connect();
    let page = page_of(server.pid());
    let mut viewers: Vec<Process> = (0..3).map(|_| viewer(&page)).collect();
    // All that it has of the server is a mapping that it can only read, so there is nothing that it could hold.
    for viewer in &viewers {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", viewer.pid())).expect("ours");
        let pages = maps.lines().filter(|l| l.contains("shmtop-stats"));
        let how: Vec<_> = pages.filter_map(|l| l.split(' ').nth(1)).collect();
        assert_eq!(how, ["r--s"], "{maps}");
    }
    assert!(
        matches!(mix(&mut client, 5, 0), Ended::Done),
        "while they look"
    );
    for viewer in &viewers {
        viewer.signal(Signal::SIGSTOP);
        within(WATCHDOG, "stopped", || {
            is_stopped(viewer.pid()).then_some(()).ok_or("it runs")
        });
    }
    assert!(
        matches!(mix(&mut client, 20, 0), Ended::Done),
        "while they are stopped in the middle of it"
    );
    assert!(
        matches!(mix(&mut world.connect(), 1, 0), Ended::Done),
        "a new client"
    );
    viewers.iter_mut().for_each(Process::kill);
    assert!(
        matches!(mix(&mut client, 5, 0), Ended::Done),
        "and after they are gone"
    );
}
