//! What can be seen of a process from outside: its descriptors, its ring mappings, its state, its stats page.

use std::path::Path;
use std::time::{Duration, Instant};

use transport::stats::{PageReader, Role, Slot, Snapshot, registry};

/// What a process holds that a connection could leak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Open descriptors.
    pub(crate) fds: usize,
    /// Mappings of rings.
    pub(crate) rings: usize,
    /// Threads.
    pub(crate) threads: usize,
}

/// What process `pid` holds now.
pub(crate) fn held(pid: u32) -> Held {
    let count =
        |dir: &str| std::fs::read_dir(format!("/proc/{pid}/{dir}")).map_or(0, Iterator::count);
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    Held {
        fds: count("fd"),
        rings: maps
            .lines()
            .filter(|l| l.contains("/memfd:shm-ring"))
            .count(),
        threads: count("task"),
    }
}

/// Waits until `done`; panics with what is the matter after `limit`.
pub(crate) fn within<W: std::fmt::Debug>(
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<(), W>,
) -> Duration {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(()) => return begun.elapsed(),
            Err(why) => assert!(
                begun.elapsed() < limit,
                "{what}: not within {limit:?}: {why:?}"
            ),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// CPU time that a process has used.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, rest) = stat.rsplit_once(") ").expect("its name");
    // Fields 14 and 15; the first after the name is field 3. In ticks of 10 ms.
    let ticks = rest
        .split(' ')
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().expect("ticks"));
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Whether a process is stopped by a signal: all of it, since one thread can answer while another has stopped already.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stopped = |thread: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        Some(rest.starts_with('T'))
    };
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .is_ok_and(|mut threads| threads.all(|t| stopped(t) == Some(true)))
}

/// The page of a server announced in `dir`, by its pid.
pub(crate) fn page(dir: &Path, pid: u32) -> Option<Snapshot> {
    announced(dir, pid, Role::Server)
}

/// The page of a client process announced in `dir`.
pub(crate) fn client_page(dir: &Path, pid: u32) -> Option<Snapshot> {
    announced(dir, pid, Role::Client)
}

fn announced(dir: &Path, pid: u32, role: Role) -> Option<Snapshot> {
    let pages = registry::discover(dir).ok()?;
    pages
        .iter()
        .filter_map(|found| PageReader::open(&found.link).ok()?.snapshot().ok())
        .find(|page| page.pid == pid && page.role == role)
}

/// The newest slot of a connection with this peer.
pub(crate) fn slot_of(page: &Snapshot, peer: u32) -> Option<&Slot> {
    page.slots
        .iter()
        .filter(|s| s.info.peer_pid == peer)
        .max_by_key(|s| s.info.opened_ns)
}

/// The page of this process's own client connections; its first connection made it, in the directory of whichever test that was.
pub(crate) fn own_page() -> Option<Snapshot> {
    let fds = std::fs::read_dir("/proc/self/fd").ok()?;
    fds.flatten()
        .map(|fd| fd.path())
        .filter(|path| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("shmtop-stats"))
        })
        .filter_map(|path| PageReader::open(path).ok()?.snapshot().ok())
        .find(|page| page.role == Role::Client)
}
