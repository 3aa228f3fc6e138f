//! What a sample says of perf_event counters, per thread. Plain data; `source` fills it.

use super::Fact;
use serde::{Deserialize, Serialize};

/// Counters of one thread that owns a slot, or the reason why there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PerfThread {
    /// Its process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// What the CPU counts, in user space only.
    pub hardware: Perf<HardwareCounters>,
    /// Reads from the first and the last level of cache, in user space only. Asked for like `software`: it needs as many counters of
    /// the PMU again, and with both groups open each may count only a share of the time.
    pub cache: Perf<CacheCounters>,
    /// What the kernel counts.
    pub software: Perf<SoftwareCounters>,
}

/// A group of counters, or which of the typical reasons there is for having none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Perf<T> {
    /// Counting since it was opened.
    Counting(T),
    /// The machine has no such counters (ENOENT, EOPNOTSUPP, ENODEV): in a VM the hypervisor hides them.
    NoPmu(String),
    /// They exist but are not for us (EACCES, EPERM): the sentence has perf_event_paranoid.
    Denied(String),
    /// Something else: the sentence has the errno, or says that they were not asked for.
    Unavailable(String),
}

impl<T> Default for Perf<T> {
    fn default() -> Self {
        Self::Unavailable("not in this sample".to_owned())
    }
}

impl<T> Perf<T> {
    /// The counters, if they count.
    pub fn counting(&self) -> Option<&T> {
        match self {
            Self::Counting(counters) => Some(counters),
            _ => None,
        }
    }

    /// Why they don't.
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Counting(_) => None,
            Self::NoPmu(why) | Self::Denied(why) | Self::Unavailable(why) => Some(why),
        }
    }
}

/// One hardware group: counted together or not at all. Values are raw; where `time_running_ns` is below
/// `time_enabled_ns` the group shared the PMU and the values cover that share of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HardwareCounters {
    /// Time the thread ran since opening, in ns.
    pub time_enabled_ns: u64,
    /// Of it, time the group was on the PMU.
    pub time_running_ns: u64,
    /// CPU cycles.
    pub cycles: u64,
    /// Instructions retired.
    pub instructions: u64,
    /// References to (usually) the last-level cache.
    pub cache_references: u64,
    /// Of them, misses.
    pub cache_misses: u64,
}

/// A second hardware group, of HW_CACHE events; raw like the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheCounters {
    /// Time the thread ran since opening, in ns.
    pub time_enabled_ns: u64,
    /// Of it, time the group was on the PMU.
    pub time_running_ns: u64,
    /// Reads that looked into the first-level data cache.
    pub l1d_reads: u64,
    /// Of them, misses.
    pub l1d_misses: u64,
    /// Reads that looked into the last-level cache.
    pub llc_reads: u64,
    /// Of them, misses: they went to memory or to another node.
    pub llc_misses: u64,
}

/// The kernel's own counters; no PMU needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SoftwareCounters {
    /// Time the thread ran since opening, in ns.
    pub time_enabled_ns: u64,
    /// Of it, time the group counted.
    pub time_running_ns: u64,
    /// CPU time in ns.
    pub task_clock_ns: u64,
    /// Context switches. They happen in the kernel, so they are unknown where only user space may be counted.
    pub context_switches: Fact<u64>,
    /// Moves from one CPU to another; unknown for the same reason.
    pub cpu_migrations: Fact<u64>,
    /// Page faults, minor and major.
    pub page_faults: u64,
}
