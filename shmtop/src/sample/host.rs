//! What a sample says of the machine. Plain data; `source` fills it.

use super::Fact;
use crate::reading::Why;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// CPU numbers, ascending.
pub type CpuList = Vec<u32>;

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// CLOCK_MONOTONIC ns at which everything that moves in here was read (once a second): rates divide by its distance.
    pub at_ns: u64,
    /// Host name (of this uts namespace).
    pub hostname: Fact<String>,
    /// Boot id, 32 hex digits without dashes, as in [`transport::stats::Snapshot::boot_id`].
    pub boot_id: Fact<String>,
    /// `uname -r`.
    pub kernel: Fact<String>,
    /// What it runs on, as uname -m says.
    pub machine: Fact<String>,
    /// Clock ticks per second (USER_HZ): the unit of every `…_ticks` and of [`CpuJiffies`].
    pub ticks_per_second: u64,
    /// The online CPUs, ascending.
    pub cpus: Vec<Cpu>,
    /// Why `cpus` is empty, if it is.
    pub cpus_unknown: Option<Why>,
    /// Number of NUMA nodes with memory or CPUs.
    pub numa_nodes: Fact<u32>,
    /// kernel.numa_balancing: not 0 if the kernel takes pages away for a moment, to see which node uses them.
    pub numa_balancing: Fact<u32>,
    /// numa_hint_faults of /proc/vmstat: page faults on pages taken away so, of all processes; read only while that is on.
    pub numa_hint_faults: Fact<u64>,
    /// Memory of the machine.
    pub memory: Fact<Memory>,
    /// /proc/sys/fs/file-nr.
    pub file_nr: Fact<FileNr>,
    /// fs.nr_open: the highest descriptor limit that a process may have.
    pub nr_open: Fact<u64>,
    /// /proc/sys/kernel/shmmax in bytes: bounds SysV segments, not memfds.
    pub shmmax_bytes: Fact<u64>,
    /// /proc/sys/kernel/shmall in pages: bounds SysV segments, not memfds.
    pub shmall_pages: Fact<u64>,
    /// The file system at /dev/shm; memfds don't live there.
    pub dev_shm: Fact<FileSystem>,
    /// The kernel's clocksource (`tsc`, `kvm-clock`, `hpet`, …).
    pub clocksource: Fact<String>,
    /// Median cost of one clock_gettime(CLOCK_MONOTONIC), measured once by this viewer.
    pub clock_gettime_ns: Fact<u64>,
    /// kernel.perf_event_paranoid.
    pub perf_event_paranoid: Fact<i32>,
    /// vm.memfd_noexec (0 allow exec, 1 default to noexec, 2 refuse memfds without MFD_NOEXEC_SEAL).
    pub memfd_noexec: Fact<u32>,
    /// vm.overcommit_memory: 2 if the machine promises no more memory than CommitLimit.
    pub overcommit_memory: Fact<u32>,
    /// Huge pages of the default size.
    pub huge_pages: Fact<HugePages>,
    /// The chosen word of transparent_hugepage/shmem_enabled (`never`, `advise`, …).
    pub shmem_enabled: Fact<String>,
    /// Whether the CPU says that it runs under a hypervisor.
    pub hypervisor: Fact<bool>,
    /// /proc/loadavg.
    pub load: Fact<LoadAverage>,
    /// /proc/pressure by resource (`cpu`, `io`, `memory`).
    pub pressure: BTreeMap<String, Fact<Pressure>>,
}

/// One online CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Its number.
    pub cpu: u32,
    /// Where its time went since boot.
    pub jiffies: CpuJiffies,
    /// Its clock.
    pub frequency: Frequency,
    /// thermal_throttle/core_throttle_count: times the heat limit slowed this core.
    pub core_throttle_count: Fact<u64>,
    /// thermal_throttle/package_throttle_count: times it slowed the whole package.
    pub package_throttle_count: Fact<u64>,
    /// thermal_throttle/core_throttle_total_time_ms: for how long, in all; it grows when the core is free again.
    pub core_throttle_ms: Fact<u64>,
    /// thermal_throttle/package_throttle_total_time_ms.
    pub package_throttle_ms: Fact<u64>,
    /// Isolated, by `isolcpus=` or a cpuset. In a container that it is not may be unknown.
    pub isolated: Fact<bool>,
    /// Without ticks, by `nohz_full=`. That alone keeps no thread away from it.
    pub tickless: bool,
    /// The hardware threads of its core, itself included; just itself without SMT.
    pub siblings: Fact<CpuList>,
    /// Identity of its last-level cache: CPUs with the same number share one.
    pub llc: Fact<u32>,
    /// Its NUMA node.
    pub node: Fact<u32>,
}

/// /proc/stat of one CPU, in clock ticks since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "the kernel's own names, see proc(5)")]
pub struct CpuJiffies {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
}

impl Cpu {
    /// Known to be isolated, or without ticks: set apart for somebody.
    pub fn is_set_apart(&self) -> bool {
        self.isolated.known() == Some(&true) || self.tickless
    }
}

impl CpuJiffies {
    /// What processes used; interrupts and what the hypervisor took are none of theirs.
    pub fn of_processes(&self) -> u64 {
        [self.user, self.nice, self.system]
            .iter()
            .fold(0, |sum, t| sum.saturating_add(*t))
    }

    /// All of it; guest time is already in user and nice.
    pub fn total(&self) -> u64 {
        [
            self.user,
            self.nice,
            self.system,
            self.idle,
            self.iowait,
            self.irq,
            self.softirq,
            self.steal,
        ]
        .iter()
        .fold(0, |sum, t| sum.saturating_add(*t))
    }
}

/// How fast a CPU's clock runs. In a VM without cpufreq all but `cpuinfo_khz` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Frequency {
    /// Now, by cpufreq (scaling_cur_freq); without cpufreq on a bare machine by /proc/cpuinfo, see `current_source`.
    pub current_khz: Fact<u64>,
    /// Where `current_khz` came from: the file.
    pub current_source: String,
    /// Lowest it may be set to (cpuinfo_min_freq).
    pub min_khz: Fact<u64>,
    /// Highest it may be set to (cpuinfo_max_freq).
    pub max_khz: Fact<u64>,
    /// What it keeps up with all cores busy (base_frequency, or nominal_freq of acpi_cppc): between this and the highest lies turbo.
    pub base_khz: Fact<u64>,
    /// cpufreq governor.
    pub governor: Fact<String>,
    /// "cpu MHz" of /proc/cpuinfo, read only where there is no cpufreq: in a VM a constant that says nothing about
    /// throttling.
    pub cpuinfo_khz: Fact<u64>,
}

/// /proc/meminfo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// MemTotal.
    pub total_bytes: u64,
    /// MemAvailable: what can be had without swapping.
    pub available_bytes: u64,
    /// SwapTotal − SwapFree; `None` in recordings of before it was read.
    pub swap_used_bytes: Option<u64>,
}

/// Open files of the whole system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileNr {
    /// Open file descriptions.
    pub used: u64,
    /// fs.file-max; often near 2^63, which means none.
    pub max: u64,
}

/// A file system by statvfs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileSystem {
    /// Its size.
    pub size_bytes: u64,
    /// Of it in use.
    pub used_bytes: u64,
}

/// The pool of huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HugePages {
    /// HugePages_Total.
    pub total: u64,
    /// HugePages_Free.
    pub free: u64,
    /// HugePages_Rsvd: of the free ones, promised to mappings that have not touched them yet.
    pub reserved: u64,
    /// Hugepagesize.
    pub size_bytes: u64,
}

/// Load averages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "minutes, see proc_loadavg(5)")]
pub struct LoadAverage {
    pub one: f64,
    pub five: f64,
    pub fifteen: f64,
}

/// Pressure stall information of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Some tasks waited.
    pub some: PressureLine,
    /// All non-idle tasks waited at once; absent where the kernel has no such line.
    pub full: Option<PressureLine>,
}

/// One line of a pressure file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureLine {
    /// Share of the last 10 s, in per cent.
    pub avg10: f64,
    /// Stalled since boot, in µs.
    pub total_us: u64,
}
