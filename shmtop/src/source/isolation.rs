//! Which CPUs the scheduler leaves to who is put there: by the boot line, or by a cpuset, which comes and goes. Called by `cpu`.
//!
//! From within a container the groups above it can't be seen, and one of them may be what isolates its CPUs: then it is not known of the others that
//! they are not.

use super::file::{cpu_list, field, line, nonsense, number, text};
use crate::reading::{Reading, Why, WhyKind};
use crate::sample::{CpuList, Fact};
use std::path::{Path, PathBuf};

/// CPUs that are isolated, and whether all others are not.
#[derive(Debug)]
pub(super) struct Isolation {
    cpus: CpuList,
    no_others: Reading<()>,
    tickless: CpuList,
}

impl Isolation {
    /// Before anybody has looked.
    pub(super) fn unknown() -> Self {
        Self {
            cpus: CpuList::new(),
            no_others: Err(Why::not_yet("not looked at yet")),
            tickless: CpuList::new(),
        }
    }

    pub(super) fn read(proc_root: &Path, sys_root: &Path) -> Self {
        let (mut cpus, no_others) = by_cpuset(proc_root, &sys_root.join("fs/cgroup"));
        // No such file: a kernel that can't, or not so.
        let by_boot = |name| {
            let path = sys_root.join("devices/system/cpu").join(name);
            list(path).unwrap_or_default()
        };
        cpus.extend(by_boot("isolated"));
        Self {
            cpus,
            no_others,
            tickless: by_boot("nohz_full"),
        }
    }

    pub(super) fn is_tickless(&self, cpu: u32) -> bool {
        self.tickless.contains(&cpu)
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
fn by_cpuset(proc_root: &Path, root: &Path) -> (CpuList, Reading<()>) {
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
    let no_others = match number::<u32>(&balanced) {
        Ok(0) => Err(Why::not_there(format!("{} is 0", balanced.display()))),
        Ok(_) => Ok(()),
        Err(why) if why.kind == WhyKind::NotThere && is_without_cpusets(proc_root) => Ok(()),
        Err(why) => Err(why),
    };
    (CpuList::new(), no_others)
}

/// Whether the kernel has no cpusets, or none but the one that everybody is in.
fn is_without_cpusets(proc_root: &Path) -> bool {
    let status = text(&proc_root.join("self/status"));
    if status.is_ok_and(|status| field(&status, "Mems_allowed").is_none()) {
        return true;
    }
    // Hierarchy (0: of no version 1), groups in it, whether the boot line left it on.
    let controllers = text(&proc_root.join("cgroups")).unwrap_or_default();
    let words = field(&controllers, "cpuset");
    let words: Option<Vec<&str>> = words.map(|words| words.split_whitespace().collect());
    matches!(words.as_deref(), Some(["0", "1", _] | [_, _, "0"]))
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
