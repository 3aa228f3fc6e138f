//! Is there room for one more connection? Asked before memory is promised, because rings are sparse: creating
//! them always works, and the limit strikes later, as SIGKILL or SIGBUS in the middle of somebody's request.
//!
//! A server asks [`check`] for each connection (some ten small files, 0.2 ms in a debug build); [`super::memfd`] asks for the limits
//! of its own calls. A file that is missing, unreadable or nonsense refuses nothing: not knowing is no reason
//! to send a client to the socket. Left out: swap, which a memory cgroup may still have when `memory.max` is
//! reached, and the untouched rest of earlier rings (`Config::memory_budget_bytes` is for that).

use std::path::{Path, PathBuf};

use memmap2::MmapMut;
use nix::sys::resource::{Resource, getrlimit};

use super::StepError;
use crate::error::Step;

/// Descriptors are probed one by one up to this limit (6 ms at most); above, their number stays unknown.
const PROBED_DESCRIPTORS: u64 = 65_536;

/// What must be left when something large was taken: what small things are allocated next can't be refused, only end the process.
const LEFT_BYTES: usize = 1 << 20;

/// Whether the process may have so much more, with [`LEFT_BYTES`] beside it. Others may take it meanwhile.
pub(crate) fn has_room_for(bytes: usize) -> bool {
    // Had for a moment, and not written to: what the kernel says counts, and no statistics of its. After mlockall(MCL_FUTURE) the kernel
    // fills it in nevertheless. It must be writable to count where overcommit is forbidden, so that is paid.
    bytes
        .checked_add(LEFT_BYTES)
        .is_some_and(|bytes| MmapMut::map_anon(bytes).is_ok())
}

/// Refuses if `bytes` more would exceed RLIMIT_AS, the memory cgroup (own group and its parents, v1 and v2) or,
/// where overcommit is forbidden, the commit limit.
pub(crate) fn check(bytes: u64) -> Result<(), StepError> {
    address_space(bytes.saturating_add(LEFT_BYTES as u64))?;
    memory_cgroup(Path::new("/"), bytes)?;
    commit_limit(Path::new("/"), bytes)
}

fn refuse(errno: i32, limit: u64, used: u64) -> StepError {
    StepError {
        step: Step::Headroom,
        errno,
        limit,
        used,
    }
}

/// The soft limit; `None` if unlimited.
fn soft(resource: Resource) -> Option<u64> {
    match getrlimit(resource) {
        Ok((soft, _)) if soft != libc::RLIM_INFINITY => Some(soft),
        _ => None,
    }
}

/// Refuses (EFBIG) a file that RLIMIT_FSIZE forbids: ftruncate would answer with SIGXFSZ.
pub(crate) fn file_size(len: u64) -> Result<(), StepError> {
    match soft(Resource::RLIMIT_FSIZE) {
        Some(limit) if len > limit => Err(refuse(libc::EFBIG, limit, len)),
        _ => Ok(()),
    }
}

/// Refuses (ENOMEM) what RLIMIT_AS leaves no room for.
pub(crate) fn address_space(bytes: u64) -> Result<(), StepError> {
    match address_space_usage() {
        (0, _) => Ok(()),
        (limit, used) if used.saturating_add(bytes) > limit => {
            Err(refuse(libc::ENOMEM, limit, used))
        }
        _ => Ok(()),
    }
}

/// RLIMIT_AS and the address space in use, in bytes; (0, 0) if there is no limit.
pub(crate) fn address_space_usage() -> (u64, u64) {
    let Some(limit) = soft(Resource::RLIMIT_AS) else {
        return (0, 0);
    };
    // First field of statm: pages mapped. Unreadable (no descriptor left): unknown, 0.
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0);
    // SAFETY: sysconf takes an integer and touches no memory of ours.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    (
        limit,
        pages.saturating_mul(u64::try_from(page_bytes).unwrap_or(0)),
    )
}

/// Limit and use of the table that was full when a call said so: this process's (EMFILE) or the system's (ENFILE). (0, 0) for any
/// other errno.
pub(crate) fn full_table(errno: i32) -> (u64, u64) {
    match errno {
        libc::EMFILE => descriptors(),
        libc::ENFILE => system_descriptors(),
        _ => (0, 0),
    }
}

/// RLIMIT_NOFILE (soft) and the descriptors open below it; an unknown number is 0.
///
/// Counted by asking the kernel about each number, because listing /proc/self/fd needs a descriptor itself, and
/// this is called when there is none left.
pub(crate) fn descriptors() -> (u64, u64) {
    let limit = soft(Resource::RLIMIT_NOFILE).unwrap_or(0);
    if limit > PROBED_DESCRIPTORS {
        return (limit, 0);
    }
    let open = (0..limit as libc::c_int)
        // SAFETY: F_GETFD reads a flag of the descriptor table; any number may be asked for, closed ones
        // answer EBADF.
        .filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1)
        .count();
    (limit, open as u64)
}

/// fs.file-max and the open files of the whole system; (0, 0) if that can't be read, as is likely at ENFILE.
pub(crate) fn system_descriptors() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    match numbers[..] {
        [allocated, free, max] => (max, allocated.saturating_sub(free)),
        _ => (0, 0),
    }
}

/// Under `vm.overcommit_memory=2` each page of a memfd is charged when it is first touched, and a touch beyond the
/// commit limit is SIGBUS. Refusing while the limit is near does not exclude that (others may commit in between).
fn commit_limit(root: &Path, bytes: u64) -> Result<(), StepError> {
    if number(&root.join("proc/sys/vm/overcommit_memory")) != Some(2) {
        return Ok(());
    }
    let text = std::fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default();
    let bytes_of = |name: &str| {
        let kib = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = kib.trim().strip_suffix(" kB")?.parse().ok()?;
        kib.checked_mul(1024)
    };
    match (bytes_of("CommitLimit:"), bytes_of("Committed_AS:")) {
        (Some(limit), Some(used)) if used.saturating_add(bytes) > limit => {
            Err(refuse(libc::ENOMEM, limit, used))
        }
        _ => Ok(()),
    }
}

/// Which files a memory cgroup has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Version {
    /// limit, usage, and the lines of memory.stat that count what is given up before anybody is killed.
    fn files(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::V1 => (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                &["total_inactive_file", "total_active_file"],
            ),
            Self::V2 => (
                "memory.max",
                "memory.current",
                &["inactive_file", "active_file", "slab_reclaimable"],
            ),
        }
    }
}

/// The check of the memory cgroup, with everything below `root` (`/`, or a fixture).
fn memory_cgroup(root: &Path, bytes: u64) -> Result<(), StepError> {
    for (version, mount, own) in hierarchies(root) {
        // From our own group up to the top of what is mounted: every level's limit counts.
        for level in own.ancestors().take_while(|dir| dir.starts_with(&mount)) {
            room_in(level, version, bytes)?;
        }
    }
    Ok(())
}

/// Refuses if this one group has no room for `bytes` more.
fn room_in(group: &Path, version: Version, bytes: u64) -> Result<(), StepError> {
    let (limit_file, usage_file, given_up) = version.files();
    // "max", or no such file (the root group of v2): no limit here.
    let Some(limit) = number(&group.join(limit_file)) else {
        return Ok(());
    };
    let Some(usage) = number(&group.join(usage_file)) else {
        return Ok(());
    };
    if usage.saturating_add(bytes) <= limit {
        return Ok(());
    }
    // The kernel kills once it has tried in vain to make room, and before that it drops file cache, the part that is read again and again included, and
    // directory entries and inodes; so that much is free, as shmtop has it, too. (Of 48 MiB of active_file in a group with 64 MiB, 3 were left when a
    // memfd had been given 52, and nobody was killed: Linux 6.18, v1.) Who reads those files has to read them from the disk again, which is no
    // reason to keep a client on the socket. Rings themselves are in none of these.
    let text = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let number_of = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        given_up
            .contains(&name)
            .then(|| number.trim().parse().ok())?
    };
    let free = text
        .lines()
        .filter_map(number_of)
        .fold(0, u64::saturating_add);
    let used = usage.saturating_sub(free);
    if used.saturating_add(bytes) <= limit {
        return Ok(());
    }
    Err(refuse(0, limit, used))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The memory hierarchies this process is in: version, mount point, directory of its own group.
fn hierarchies(root: &Path) -> Vec<(Version, PathBuf, PathBuf)> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (read("proc/self/cgroup"), read("proc/self/mountinfo"));
    groups
        .lines()
        .filter_map(|line| {
            // `0::/path` is v2; `4:memory:/path` v1.
            let mut fields = line.splitn(3, ':');
            let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let version = if id == "0" && controllers.is_empty() {
                Version::V2
            } else if controllers.split(',').any(|c| c == "memory") {
                Version::V1
            } else {
                return None;
            };
            let (mount_root, mount_point) = mount_of(&mounts, version)?;
            let mount = root.join(mount_point.trim_start_matches('/'));
            // In a container the mount may show a part of the tree only; what lies outside of it can't be looked
            // at, and the top of the mount is then the best that is known.
            let below = Path::new(path)
                .strip_prefix(mount_root)
                .ok()
                .filter(|p| !p.components().any(|c| c.as_os_str() == ".."))
                .unwrap_or(Path::new(""));
            let own = if below.as_os_str().is_empty() {
                mount.clone()
            } else {
                mount.join(below)
            };
            Some((version, mount, own))
        })
        .collect()
}

/// Root and mount point of the hierarchy in mountinfo's text: `… ROOT POINT options… - TYPE source SUPER`.
fn mount_of(mounts: &str, version: Version) -> Option<(&str, &str)> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (fs, _source, options) = (right.next()?, right.next()?, right.next()?);
        let fits = match version {
            Version::V2 => fs == "cgroup2",
            Version::V1 => fs == "cgroup" && options.split(',').any(|o| o == "memory"),
        };
        if !fits {
            return None;
        }
        let mut left = left.split(' ').skip(3);
        Some((left.next()?, left.next()?))
    })
}

#[cfg(test)]
mod tests;
