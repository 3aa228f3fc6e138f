//! Which CPUs the scheduler leaves to who is put there: by the boot line, or by a cpuset, which comes and goes. Called by `cpu`.
//!
//! From within a container the groups above it can't be seen, and one of them may be what isolates its CPUs: then it is not known of the others that
//! they are not.

use super::file::{cpu_list, line, nonsense, number};
use crate::reading::{Reading, Why};
use crate::sample::{CpuList, Fact};
use std::path::{Path, PathBuf};

/// CPUs that are isolated, and whether all others are not.
#[derive(Debug)]
pub(super) struct Isolation {
    cpus: CpuList,
    no_others: Reading<()>,
}

impl Isolation {
    /// Before anybody has looked.
    pub(super) fn unknown() -> Self {
        Self {
            cpus: CpuList::new(),
            no_others: Err(Why::not_yet("not looked at yet")),
        }
    }

    pub(super) fn read(sys_root: &Path) -> Self {
        let (mut cpus, no_others) = by_cpuset(&sys_root.join("fs/cgroup"));
        // A CPU without ticks was set apart as well. No such file: a kernel that can't, or not so.
        for by_boot in ["isolated", "nohz_full"] {
            let path = sys_root.join("devices/system/cpu").join(by_boot);
            cpus.extend(list(path).unwrap_or_default());
        }
        Self { cpus, no_others }
    }

    pub(super) fn of(&self, cpu: u32) -> Fact<bool> {
        if self.cpus.contains(&cpu) {
            return Fact::Known(true);
        }
        self.no_others.clone().map(|()| false).into()
    }
}

pub(super) fn list(path: PathBuf) -> Reading<CpuList> {
    cpu_list(&line(&path)?).ok_or_else(|| nonsense(&path))
}

/// CPUs that cpusets isolate, and whether there can be no others.
fn by_cpuset(root: &Path) -> (CpuList, Reading<()>) {
    // Linux 6.9 and later list them, in the root of the hierarchy.
    if let Ok(all) = list(root.join("cpuset.cpus.isolated")) {
        return (all, Ok(()));
    }
    if root.join("cgroup.controllers").exists() {
        // The root of the hierarchy has no such file.
        if !root.join("cgroup.type").exists() {
            return (below(root, DEEPEST), Ok(()));
        }
        let why = "whether a control group above the container's is an isolated partition can't be seen in it";
        return (
            of_partition(root).unwrap_or_default(),
            Err(Why::not_visible(why)),
        );
    }
    // Of version 1: CPUs are balanced if those of any group with them are.
    let balanced = root.join("cpuset/cpuset.sched_load_balance");
    let no_others = number::<u32>(&balanced).and_then(|on| match on {
        0 => Err(Why::not_there(format!("{} is 0", balanced.display()))),
        _ => Ok(()),
    });
    (CpuList::new(), no_others)
}

/// Partitions of partitions of …: nobody has as many.
const DEEPEST: u32 = 8;

/// CPUs of isolated partitions below a group. A partition's parent is one itself, as the root of the hierarchy is: the kernels that know of others list
/// them, but for 6.7 and 6.8.
fn below(dir: &Path, deepest: u32) -> CpuList {
    let mut cpus = CpuList::new();
    for child in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let child = child.path();
        match of_partition(&child) {
            Some(isolated) => cpus.extend(isolated),
            None if deepest > 0 && kind(&child).is_ok_and(|kind| kind == "root") => {
                cpus.extend(below(&child, deepest - 1));
            }
            None => {}
        }
    }
    cpus
}

/// CPUs of a group that is an isolated partition.
fn of_partition(dir: &Path) -> Option<CpuList> {
    let is = kind(dir).is_ok_and(|kind| kind == "isolated");
    is.then(|| list(dir.join("cpuset.cpus.effective")).unwrap_or_default())
}

/// `member`, `root` or `isolated`; more words if it is none for now.
fn kind(dir: &Path) -> Reading<String> {
    line(&dir.join("cpuset.cpus.partition"))
}
