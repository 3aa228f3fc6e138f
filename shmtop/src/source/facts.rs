//! What is read of one process once a second, and the files that say it. Called by `process`, which knows when.

use super::fds::{FdDir, count_fds};
use super::file::{Kept, nonsense, text};
use super::parse::Status;
use super::place::ns_inode;
use super::process::Look;
use super::{clock, limits, place, smaps};
use crate::reading::{Reading, Why};
use crate::sample::{Fact, Process, ProcessMemory};
use std::path::{Path, PathBuf};

/// Reading its mappings rests for this many times the CPU time that it cost: a process may have as many as it likes.
const SMAPS_REST: u64 = 200;

/// Where the facts stand.
#[derive(Debug)]
pub(super) struct FactFiles {
    dir: PathBuf,
    status: Kept,
    fds: FdDir,
    cgroup_text: Reading<String>,
    /// Major faults when the facts were last looked at.
    faults: Option<u64>,
    /// Its mappings are not read before.
    smaps_due_ns: u64,
}

impl FactFiles {
    /// Of the process whose directory is `dir`; two of its files stay open if they may.
    pub(super) fn new(dir: PathBuf, keep: bool) -> Self {
        Self {
            status: Kept::new(dir.join("status"), keep),
            fds: FdDir::new(dir.join("fd"), keep),
            cgroup_text: Err(Why::not_yet("not read yet")),
            dir,
            faults: None,
            smaps_due_ns: 0,
        }
    }

    /// Its control groups, as its file of that name lists them.
    pub(super) fn cgroup_text(&self) -> &Reading<String> {
        &self.cgroup_text
    }

    /// Reads the facts into `seen`, with what somebody would have to change by hand if `settings`; what its status said.
    pub(super) fn read(
        &mut self,
        seen: &mut Process,
        settings: bool,
        look: &mut Look<'_>,
    ) -> Reading<Status> {
        let status = self.status.text(look.buffer);
        let status = status.map(|text| Status::parse(&text));
        let path = self.status.path();
        seen.facts_at_ns = look.now_ns;
        let part = |part: fn(&Status) -> Option<u32>| match &status {
            Ok(status) => part(status).ok_or_else(|| nonsense(path)).into(),
            Err(why) => Fact::Unknown(why.clone()),
        };
        seen.uid = part(|s| s.euid);
        seen.tracer_pid = part(|s| s.tracer_pid);
        seen.memory = match &status {
            Ok(status) => memory(status).into(),
            Err(why) => Fact::Unknown(why.clone()),
        };
        if settings {
            seen.limits = limits::read(&self.dir).into();
            seen.may_lock = may_lock(status.as_ref(), &self.dir).into();
        }
        let soft = seen.limits.known().and_then(|l| l.nofile.soft);
        let soft = soft.unwrap_or(u64::MAX);
        let table = status.as_ref().ok().and_then(|s| s.fd_table);
        // Above the end of its table no number can be.
        let below = table.is_some_and(|end| end <= soft);
        let fds = match self.fds.known().filter(|_| below) {
            Some(all) => Ok((all, 0)),
            None => count_fds(&self.fds.path, soft),
        };
        seen.fds = fds.clone().map(|(all, _)| all).into();
        seen.fds_beyond = fds.map(|(_, beyond)| beyond).into();
        // Swapped pages that come back are major faults; it takes some since the last time, and swap in use, to make this worth its cost.
        let faults = seen.major_faults.known().copied();
        let swaps = faults.zip(self.faults).is_some_and(|(now, old)| now > old);
        self.faults = faults;
        // What was read stays while reading rests: the process that is watched waits for its memory map meanwhile.
        if look.now_ns >= self.smaps_due_ns {
            seen.rings = if look.detail || (swaps && look.swap) {
                let start_ns = clock::thread_cpu_ns();
                let rings = smaps::rings(&self.dir);
                let cost_ns = clock::thread_cpu_ns().saturating_sub(start_ns);
                self.smaps_due_ns = look
                    .now_ns
                    .saturating_add(cost_ns.saturating_mul(SMAPS_REST));
                seen.rings_at_ns = look.now_ns;
                rings.into()
            } else {
                Fact::Unknown(Why::not_yet(
                    "read when major faults come and swap is in use: reading smaps costs milliseconds",
                ))
            };
        }
        if seen.pid_ns_inode.known().is_none() {
            seen.pid_ns_inode = ns_inode(&self.dir, "pid").into();
        }
        if settings {
            self.cgroup_text = text(&self.dir.join("cgroup"));
            seen.place = place::read(
                &self.dir,
                status.as_ref().ok(),
                self.cgroup_text.as_deref().ok(),
            );
        }
        match &self.cgroup_text {
            Ok(text) => {
                seen.cgroups.memory = look.cgroups.memory(text).into();
                seen.cgroups.cpuset = look.cgroups.cpuset(text).into();
            }
            Err(why) => {
                seen.cgroups.memory = Fact::Unknown(why.clone());
                seen.cgroups.cpuset = Fact::Unknown(why.clone());
            }
        }
        status
    }
}

/// Whether the limit of locked memory does not bind a process: with CAP_IPC_LOCK, but for one in a user namespace of its own.
fn may_lock(status: Result<&Status, &Why>, dir: &Path) -> Reading<bool> {
    let has = status.map_err(Why::clone)?.may_lock;
    let has = has.ok_or_else(|| Why::not_there("its status has no CapEff"))?;
    // Who may not be asked where it lives is taken to live here.
    Ok(has && ns_inode(dir, "user").unwrap_or(INITIAL_USER_NS) == INITIAL_USER_NS)
}

/// Inode of the machine's first user namespace, by the kernel's definition.
const INITIAL_USER_NS: u64 = 0xeffffffd;

fn memory(status: &Status) -> Reading<ProcessMemory> {
    let size = |size: Option<u64>, key: &str| {
        size.ok_or_else(|| Why::not_there(format!("its status has no {key}")))
    };
    Ok(ProcessMemory {
        size_bytes: size(status.size_bytes, "VmSize")?,
        locked_bytes: size(status.locked_bytes, "VmLck")?,
        rss_bytes: size(status.rss_bytes, "VmRSS")?,
        rss_shmem_bytes: size(status.rss_shmem_bytes, "RssShmem")?,
        swap_bytes: size(status.swap_bytes, "VmSwap")?,
    })
}
