//! Limits and effects of the control groups that a process is in: memory, CPU quota, cpuset; v1 and v2.
//!
//! Called by `process`. Many processes are in the same groups, so what these say is read once per moment for all of them.

use super::file::{Kept, cpu_list, field, line, nonsense, number, text, why};
use super::mounts::{self, Hierarchy};
use crate::reading::{Reading, Why, WhyKind};
use crate::sample::{CgroupVersion, CpuGroup, CpuList, Fact, MemoryGroup};
use std::collections::{HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Limits are read again after this long; the throttling of a group each time.
const LIMITS_NS: u64 = 1_000_000_000;
/// Memory of a group is read again after this long, whoever asks: its processes ask at different moments.
const MEMORY_NS: u64 = 900_000_000;
/// A group that nobody asked for in this long is forgotten.
const FORGET_NS: u64 = 10_000_000_000;
/// v1 writes "no limit" as the largest multiple of the page size; nothing real is above this.
const V1_UNLIMITED: u64 = 1 << 62;

/// Reads groups and remembers them.
#[derive(Debug)]
pub(super) struct CgroupReader {
    hierarchies: Reading<Vec<Hierarchy>>,
    cpu: HashMap<PathBuf, CpuWatch>,
    /// The answers of this moment, by what the process's cgroup file says: most processes are in the same groups.
    answered: HashMap<String, Reading<Vec<CpuGroup>>>,
    answered_at_ns: u64,
    /// By what the process's cgroup file says, like `cpusets`.
    memory: HashMap<String, Reading<Vec<MemoryGroup>>>,
    cpusets: HashMap<String, Reading<CpuList>>,
    /// Those of `memory` that were read when processes were seen to have ended, in this sample.
    after_ends: HashSet<String>,
    /// When `memory` and `cpusets` are emptied.
    memory_due_ns: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct CpuWatch {
    stat: Kept,
    limits_at_ns: u64,
    read_at_ns: u64,
    /// `None`: the controller is not switched on here.
    seen: Option<CpuGroup>,
}

impl CgroupReader {
    pub(super) fn new(proc_root: &Path, sys_root: &Path) -> Self {
        Self {
            hierarchies: mounts::hierarchies(proc_root, sys_root),
            cpu: HashMap::new(),
            answered: HashMap::new(),
            answered_at_ns: 0,
            memory: HashMap::new(),
            cpusets: HashMap::new(),
            after_ends: HashSet::new(),
            memory_due_ns: 0,
            buffer: Vec::new(),
        }
    }

    fn chain(&self, cgroup_text: &str, controller: &str) -> Reading<(CgroupVersion, Vec<PathBuf>)> {
        match &self.hierarchies {
            Ok(hierarchies) => mounts::chain(hierarchies, cgroup_text, controller),
            Err(why) => Err(why.clone()),
        }
    }

    /// The CPU controller's groups, own first.
    pub(super) fn cpu(&mut self, cgroup_text: &str, now_ns: u64) -> Reading<Vec<CpuGroup>> {
        if self.answered_at_ns != now_ns {
            self.answered_at_ns = now_ns;
            self.answered.clear();
        }
        if let Some(known) = self.answered.get(cgroup_text) {
            return known.clone();
        }
        let read = self.read_cpu(cgroup_text, now_ns);
        self.answered.insert(cgroup_text.to_owned(), read.clone());
        read
    }

    fn read_cpu(&mut self, cgroup_text: &str, now_ns: u64) -> Reading<Vec<CpuGroup>> {
        let (version, dirs) = self.chain(cgroup_text, "cpu")?;
        Ok(dirs
            .into_iter()
            .filter_map(|dir| self.cpu_group(version, dir, now_ns))
            .collect())
    }

    fn cpu_group(&mut self, version: CgroupVersion, dir: PathBuf, now_ns: u64) -> Option<CpuGroup> {
        let watch = self.cpu.entry(dir).or_insert_with_key(|dir| CpuWatch {
            stat: Kept::new(dir.join("cpu.stat"), true),
            limits_at_ns: 0,
            read_at_ns: 0,
            seen: None,
        });
        if watch.limits_at_ns == 0 || now_ns >= watch.limits_at_ns + LIMITS_NS {
            watch.limits_at_ns = now_ns;
            let dir = watch.stat.path().parent()?;
            watch.seen = cpu_limits(version, dir);
        }
        let group = watch.seen.as_mut()?;
        if watch.read_at_ns != now_ns {
            watch.read_at_ns = now_ns;
            let path = watch.stat.path().to_owned();
            let text = watch
                .stat
                .read(&mut self.buffer)
                .map(String::from_utf8_lossy);
            let value = |key: &str, scale: u64| match &text {
                Ok(text) => match field(text, key).map(str::parse::<u64>) {
                    Some(Ok(n)) => Ok(n.saturating_mul(scale)),
                    _ => Err(nonsense(&path)),
                },
                Err(why) => Err(why.clone()),
            };
            group.periods = value("nr_periods", 1).into();
            group.throttled = value("nr_throttled", 1).into();
            group.throttled_ns = match version {
                CgroupVersion::V1 => value("throttled_time", 1).into(),
                CgroupVersion::V2 => value("throttled_usec", 1000).into(),
            };
        }
        Some(group.clone())
    }

    /// The memory controller's groups, own first.
    pub(super) fn memory(&mut self, cgroup_text: &str) -> Reading<Vec<MemoryGroup>> {
        if let Some(known) = self.memory.get(cgroup_text) {
            return known.clone();
        }
        let read = self.chain(cgroup_text, "memory").map(|(version, dirs)| {
            let read = dirs.iter().filter_map(|dir| memory_group(version, dir));
            read.collect::<Vec<_>>()
        });
        self.memory.insert(cgroup_text.to_owned(), read.clone());
        read
    }

    /// The same, as it is when all processes were looked at: once for all of a group that have ended since the last sample, as a container's do.
    pub(super) fn memory_after_ends(&mut self, cgroup_text: &str) -> Reading<Vec<MemoryGroup>> {
        if self.after_ends.insert(cgroup_text.to_owned()) {
            self.memory.remove(cgroup_text);
        }
        self.memory(cgroup_text)
    }

    /// CPUs that the nearest group with a cpuset allows.
    pub(super) fn cpuset(&mut self, cgroup_text: &str) -> Reading<CpuList> {
        if let Some(known) = self.cpusets.get(cgroup_text) {
            return known.clone();
        }
        let read = self.read_cpuset(cgroup_text);
        self.cpusets.insert(cgroup_text.to_owned(), read.clone());
        read
    }

    fn read_cpuset(&self, cgroup_text: &str) -> Reading<CpuList> {
        let (version, dirs) = self.chain(cgroup_text, "cpuset")?;
        let names: &[&str] = match version {
            CgroupVersion::V1 => &["cpuset.effective_cpus", "cpuset.cpus"],
            CgroupVersion::V2 => &["cpuset.cpus.effective"],
        };
        let mut last = Err(Why::not_applicable(
            "none of its control groups has a cpuset",
        ));
        for path in dirs
            .iter()
            .flat_map(|dir| names.iter().map(move |n| dir.join(n)))
        {
            match line(&path) {
                Ok(text) => return cpu_list(&text).ok_or_else(|| nonsense(&path)),
                Err(why) if why.kind == WhyKind::NotThere => {}
                Err(why) => last = Err(why),
            }
        }
        last
    }

    /// Ends a sample: what was read once in it is read again in the next, and what nobody asks for is forgotten.
    pub(super) fn end_sample(&mut self, now_ns: u64) {
        self.after_ends.clear();
        self.cpu.retain(|_, w| now_ns < w.limits_at_ns + FORGET_NS);
        if now_ns >= self.memory_due_ns {
            self.memory_due_ns = now_ns + MEMORY_NS;
            self.memory.clear();
            self.cpusets.clear();
        }
    }
}

/// Quota and period; `None` where the controller is not switched on for the group.
fn cpu_limits(version: CgroupVersion, dir: &Path) -> Option<CpuGroup> {
    let (quota_us, period_us) = match version {
        CgroupVersion::V1 => (
            // -1 is no quota.
            number::<i64>(&dir.join("cpu.cfs_quota_us")).map(|q| u64::try_from(q).ok()),
            number(&dir.join("cpu.cfs_period_us")),
        ),
        CgroupVersion::V2 => {
            let path = dir.join("cpu.max");
            match line(&path) {
                Ok(text) => match text.split_once(' ') {
                    Some((quota, period)) => (
                        no_max(quota).ok_or_else(|| nonsense(&path)),
                        period.parse().map_err(|_| nonsense(&path)),
                    ),
                    None => (Err(nonsense(&path)), Err(nonsense(&path))),
                },
                Err(why) => (Err(why.clone()), Err(why)),
            }
        }
    };
    if matches!(&quota_us, Err(why) if why.kind == WhyKind::NotThere) {
        return None;
    }
    Some(CpuGroup {
        path: dir.display().to_string(),
        version,
        quota_us: quota_us.into(),
        period_us: period_us.into(),
        ..CpuGroup::default()
    })
}

/// "max" is no limit.
fn no_max(text: &str) -> Option<Option<u64>> {
    if text == "max" {
        return Some(None);
    }
    text.parse().ok().map(Some)
}

/// One group of the memory controller; `None` where the controller is not switched on for it.
fn memory_group(version: CgroupVersion, dir: &Path) -> Option<MemoryGroup> {
    let from = |file: &str, key: &str| -> Fact<u64> {
        let path = dir.join(file);
        text(&path)
            .and_then(|text| {
                let value = field(&text, key).and_then(|v| v.parse().ok());
                value.ok_or_else(|| nonsense(&path))
            })
            .into()
    };
    let path = dir.join("memory.stat");
    let stat = text(&path);
    let part = |key: &str| -> Reading<u64> {
        let stat = stat.as_ref().map_err(Why::clone)?;
        let value = field(stat, key).and_then(|v| v.parse().ok());
        value.ok_or_else(|| nonsense(&path))
    };
    let cache = |prefix: &str| -> Fact<u64> {
        part(&format!("{prefix}inactive_file"))
            .and_then(|n| Ok(part(&format!("{prefix}active_file"))?.saturating_add(n)))
            .into()
    };
    let group = match version {
        CgroupVersion::V1 => MemoryGroup {
            limit_bytes: number::<u64>(&dir.join("memory.limit_in_bytes"))
                .map(|n| (n < V1_UNLIMITED).then_some(n))
                .into(),
            usage_bytes: number(&dir.join("memory.usage_in_bytes")).into(),
            file_cache_bytes: cache("total_"),
            reclaimable_slab_bytes: Fact::Unknown(Why::not_there("v1 does not say")),
            oom_kills: from("memory.oom_control", "oom_kill"),
            limit_ooms: Fact::Unknown(Why::not_there("v1 does not say whose limit it was")),
            ..MemoryGroup::default()
        },
        CgroupVersion::V2 => {
            let path = dir.join("memory.max");
            MemoryGroup {
                limit_bytes: line(&path)
                    .and_then(|text| no_max(&text).ok_or_else(|| nonsense(&path)))
                    .into(),
                usage_bytes: number(&dir.join("memory.current")).into(),
                file_cache_bytes: cache(""),
                reclaimable_slab_bytes: part("slab_reclaimable").into(),
                oom_kills: from("memory.events", "oom_kill"),
                limit_ooms: from("memory.events.local", "oom"),
                ..MemoryGroup::default()
            }
        }
    };
    // The root of the unified hierarchy has no such files, and neither has a group without the controller.
    if group
        .limit_bytes
        .why()
        .is_some_and(|why| why.kind == WhyKind::NotThere)
    {
        return None;
    }
    let inode = std::fs::metadata(dir).map(|dir| dir.ino());
    Some(MemoryGroup {
        path: dir.display().to_string(),
        inode: inode.map_err(|e| why(&e, dir)).into(),
        version,
        ..group
    })
}
