//! The machine, a process, a thread and their limits, as the views show them.

use super::counters::CountersView;
use super::shared::Shared;
use crate::reading::{Reading, Why};
use crate::sample::ThreadPolicy;

/// The machine.
#[derive(Clone, Debug, PartialEq)]
pub struct HostView {
    /// Host name.
    pub name: Reading<String>,
    /// Kernel release.
    pub kernel: Reading<String>,
    /// CPUs online.
    pub cpus: Vec<CpuView>,
    /// Whether this is a virtual machine.
    pub hypervisor: Reading<bool>,
    /// Load averages of 1, 5 and 15 minutes.
    pub load: Reading<[f64; 3]>,
    /// Share of the last ten seconds in which some task waited for a CPU, for memory, for I/O (0..=1).
    pub pressure: [Reading<f64>; 3],
    /// Current clock source.
    pub clocksource: Reading<String>,
    /// Measured cost of a clock_gettime call, ns.
    pub clock_cost_ns: Reading<u64>,
    /// Memory of the machine.
    pub memory_total_bytes: Reading<u64>,
    /// Memory that can be had without swapping.
    pub memory_available_bytes: Reading<u64>,
    /// Open files of the system and their limit.
    pub files: Reading<(u64, u64)>,
    /// kernel.shmmax.
    pub shmmax_bytes: Reading<u64>,
    /// The file system at /dev/shm: bytes used, and its size. memfds don't live there.
    pub dev_shm_bytes: Reading<(u64, u64)>,
    /// perf_event_paranoid.
    pub perf_paranoid: Reading<i64>,
    /// Whether hardware counters can be had; the reason if not.
    pub hardware_counters: Reading<()>,
    /// NUMA nodes.
    pub numa_nodes: Reading<u32>,
}

impl HostView {
    /// A machine nobody has looked at yet.
    pub fn unknown() -> Self {
        fn no<T>() -> Reading<T> {
            Err(Why::not_yet("no sample yet"))
        }
        Self {
            name: no(),
            kernel: no(),
            cpus: Vec::new(),
            hypervisor: no(),
            load: no(),
            pressure: [no(), no(), no()],
            clocksource: no(),
            clock_cost_ns: no(),
            memory_total_bytes: no(),
            memory_available_bytes: no(),
            files: no(),
            shmmax_bytes: no(),
            dev_shm_bytes: no(),
            perf_paranoid: no(),
            hardware_counters: no(),
            numa_nodes: no(),
        }
    }
}

/// One CPU.
#[derive(Clone, Debug, PartialEq)]
pub struct CpuView {
    /// Number.
    pub id: u32,
    /// CPUs of the same core, itself included.
    pub siblings: Reading<Vec<u32>>,
    /// Lowest CPU that shares its last-level cache.
    pub llc: Reading<u32>,
    /// NUMA node.
    pub node: Reading<u32>,
    /// Share of the interval it was busy (0..=1).
    pub busy: Reading<f64>,
    /// Share the hypervisor took (0..=1).
    pub steal: Reading<f64>,
    /// Frequency and maximum, kHz.
    pub frequency_khz: Reading<(u64, u64)>,
    /// Frequency governor.
    pub governor: Reading<String>,
    /// Time it was throttled for heat since boot: number of events.
    pub thermal_throttles: Reading<u64>,
}

/// A process.
#[derive(Clone, Debug, PartialEq)]
pub struct ProcessView {
    /// State letter of /proc/PID/stat (R S D T t Z…).
    pub state: Reading<char>,
    /// CPUs' worth of time used (1.0 = one whole CPU).
    pub cpu: Reading<f64>,
    /// Share of that in the kernel (0..=1).
    pub system_share: Reading<f64>,
    /// Resident memory.
    pub rss_bytes: Reading<u64>,
    /// Minor faults per second.
    pub minor_faults_per_s: Reading<f64>,
    /// Major faults per second.
    pub major_faults_per_s: Reading<f64>,
    /// Threads, as far as they can be read.
    pub threads: Reading<Vec<Shared<ThreadView>>>,
}

/// A thread.
#[derive(Clone, Debug, PartialEq)]
pub struct ThreadView {
    /// Thread id.
    pub tid: u32,
    /// Name, sanitised.
    pub comm: String,
    /// State letter.
    pub state: Reading<char>,
    /// Share of wall time on a core (0..=1).
    pub cpu: Reading<f64>,
    /// Share of wall time runnable without a core (0..=1).
    pub run_delay: Reading<f64>,
    /// Switches because it waited, per second.
    pub voluntary_per_s: Reading<f64>,
    /// Switches because somebody else was due, per second.
    pub involuntary_per_s: Reading<f64>,
    /// Moves between CPUs per second.
    pub migrations_per_s: Reading<f64>,
    /// Page faults per second, minor and major.
    pub faults_per_s: Reading<f64>,
    /// What the hardware counted; only of threads that own a slot.
    pub counters: CountersView,
    /// CPU it last ran on.
    pub last_cpu: Reading<u32>,
    /// CPUs it may run on.
    pub allowed_cpus: Reading<Vec<u32>>,
    /// Scheduling policy.
    pub policy: Reading<ThreadPolicy>,
    /// Nice value.
    pub nice: Reading<i32>,
    /// Where it sleeps in the kernel, if that may be read.
    pub wchan: Reading<String>,
}

/// What bounds a process.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitsView {
    /// Descriptors in use, as far as they count against the soft limit.
    pub fds_used: Reading<u64>,
    /// Open beyond it: their numbers are from before the limit was lowered, and they take no room below it.
    pub fds_beyond: u64,
    /// Soft limit of descriptors.
    pub fds_soft: Reading<u64>,
    /// Hard limit of descriptors.
    pub fds_hard: Reading<u64>,
    /// Clients that fit into the descriptors left (servers).
    pub room_fds: Reading<u64>,
    /// Clients that fit into the memory limit left (servers).
    pub room_memory: Reading<u64>,
    /// Smallest memory limit among its cgroups, bytes; `Err` if none is set.
    pub memory_max_bytes: Reading<u64>,
    /// Usage against that limit, reclaimable cache taken off.
    pub memory_current_bytes: Reading<u64>,
    /// Directory of the memory cgroup it is in: who is charged for the pages that it touches first.
    pub memory_group: Reading<String>,
    /// CPUs' worth of time that its cgroups allow.
    pub cpu_quota: Reading<f64>,
    /// Share of the periods in which the quota stopped it (0..=1).
    pub throttled: Reading<f64>,
    /// RLIMIT_MEMLOCK soft, bytes; `Err` if unlimited.
    pub memlock_bytes: Reading<u64>,
    /// RLIMIT_FSIZE soft, bytes; `Err` if unlimited.
    pub fsize_bytes: Reading<u64>,
    /// RLIMIT_AS soft, bytes; `Err` if unlimited.
    pub as_bytes: Reading<u64>,
}
