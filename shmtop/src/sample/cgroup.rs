//! What a sample says of the control groups a process is in. Plain data; `source` fills it.
//!
//! A limit anywhere between a group and the root binds, so each controller is a chain: the process's own
//! group first, then its parents as far as this mount namespace shows them.

use super::{CpuList, Fact};
use serde::{Deserialize, Serialize};

/// Which kind of hierarchy a controller is mounted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupVersion {
    /// One hierarchy per controller.
    #[serde(rename = "v1")]
    V1,
    /// The unified one.
    #[default]
    #[serde(rename = "v2")]
    V2,
}

/// The control groups of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cgroups {
    /// Memory controller, own group first (once a second).
    pub memory: Fact<Vec<MemoryGroup>>,
    /// CPU controller, own group first (each sample).
    pub cpu: Fact<Vec<CpuGroup>>,
    /// CPUs the cpuset allows, by `cpuset.cpus.effective`; of v1 also `cpuset.effective_cpus`.
    pub cpuset: Fact<CpuList>,
}

/// One group of the memory controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryGroup {
    /// Directory of the group, for the person who wants to look.
    pub path: String,
    /// Inode of the directory: a group that was made anew at the same path has another.
    pub inode: Fact<u64>,
    /// Hierarchy.
    pub version: CgroupVersion,
    /// memory.max or memory.limit_in_bytes; null = none.
    pub limit_bytes: Fact<Option<u64>>,
    /// memory.current or memory.usage_in_bytes: file cache included.
    pub usage_bytes: Fact<u64>,
    /// active_file and inactive_file of memory.stat (total_… in v1): cache the kernel gives up before it kills, however often it is
    /// read. Shared memory is in neither.
    #[serde(alias = "inactive_file_bytes")]
    pub file_cache_bytes: Fact<u64>,
    /// slab_reclaimable of memory.stat: directory entries and inodes, which are given up as well. v1 does not say.
    pub reclaimable_slab_bytes: Fact<u64>,
    /// oom_kill of memory.events (groups below it included) or memory.oom_control.
    pub oom_kills: Fact<u64>,
    /// oom of memory.events.local: how often its own limit was the reason. v1 does not say.
    pub limit_ooms: Fact<u64>,
}

impl MemoryGroup {
    /// Whether this is another reading of the same group, as far as that is known: its counts can be compared.
    pub fn is_same(&self, other: &Self) -> bool {
        let inode = self.inode.known();
        self.path == other.path && inode.is_some() && inode == other.inode.known()
    }

    /// What is in use and would not be given up.
    pub fn needed_bytes(&self) -> Option<u64> {
        let given_up = [&self.file_cache_bytes, &self.reclaimable_slab_bytes];
        let given_up = given_up.map(|part| part.known().copied().unwrap_or(0));
        let usage = *self.usage_bytes.known()?;
        Some(given_up.into_iter().fold(usage, u64::saturating_sub))
    }

    /// What may still be allocated before the kernel kills, what it gives up before counted as free. `None`
    /// without a limit, or where a number is unknown.
    pub fn headroom_bytes(&self) -> Option<u64> {
        let limit = (*self.limit_bytes.known()?)?;
        Some(limit.saturating_sub(self.needed_bytes()?))
    }
}

/// One group of the CPU controller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuGroup {
    /// Directory of the group.
    pub path: String,
    /// Hierarchy.
    pub version: CgroupVersion,
    /// CPU time per period, in µs; null = no quota.
    pub quota_us: Fact<Option<u64>>,
    /// Length of a period, in µs.
    pub period_us: Fact<u64>,
    /// Periods in which the group wanted to run.
    pub periods: Fact<u64>,
    /// Of them, those in which it was stopped.
    pub throttled: Fact<u64>,
    /// Time stopped, summed over CPUs, in ns.
    pub throttled_ns: Fact<u64>,
}

impl CpuGroup {
    /// The quota in CPUs (2.5 = two and a half); `None` without one, or where a number is unknown.
    pub fn quota_cpus(&self) -> Option<f64> {
        let (quota, period) = ((*self.quota_us.known()?)?, *self.period_us.known()?);
        (period > 0).then(|| quota as f64 / period as f64)
    }
}

impl Cgroups {
    /// The group, own or parent, that leaves the least memory; `None` if none has a limit.
    pub fn tightest_memory(&self) -> Option<&MemoryGroup> {
        self.memory
            .known()?
            .iter()
            .filter(|g| g.headroom_bytes().is_some())
            .min_by_key(|g| g.headroom_bytes())
    }

    /// The smallest quota of the chain, in CPUs; `None` if there is none.
    pub fn quota_cpus(&self) -> Option<f64> {
        self.cpu
            .known()?
            .iter()
            .filter_map(CpuGroup::quota_cpus)
            .min_by(f64::total_cmp)
    }
}
