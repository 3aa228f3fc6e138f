//! What a sample says of a process and its threads. Plain data; `source` fills it.
//!
//! Cheap, quickly changing numbers are read for each sample, the others once a second; so each struct carries the two
//! moments, and a rate divides by the distance of the right one.

use super::{Cgroups, CpuList, Fact};
use crate::reading::Reading;
use serde::{Deserialize, Serialize};

/// A process that has a page or is the peer of one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Its pid as seen from here.
    pub pid: u32,
    /// True once /proc has no such process any more; the rest is then what was last known of it.
    pub gone: bool,
    /// CLOCK_MONOTONIC ns at which `state`, CPU time and the faults were read (each sample).
    pub at_ns: u64,
    /// CLOCK_MONOTONIC ns at which everything else was read (once a second).
    pub facts_at_ns: u64,
    /// Its name, sanitised.
    pub comm: String,
    /// Effective uid.
    pub uid: Fact<u32>,
    /// Start in clock ticks since boot: with the pid it names the process.
    pub start_ticks: Fact<u64>,
    /// State letter of the main thread: R running, S sleeping, D uninterruptible, T stopped, t traced, Z zombie, X dead.
    pub state: Fact<char>,
    /// Parent.
    pub ppid: Fact<u32>,
    /// Its debugger or strace; 0 = none.
    pub tracer_pid: Fact<u32>,
    /// CPU time of all threads since start, ended ones included, in clock ticks.
    pub cpu_ticks: Fact<u64>,
    /// Minor faults of all threads since start.
    pub minor_faults: Fact<u64>,
    /// Major faults of all threads since start.
    pub major_faults: Fact<u64>,
    /// Its threads by tid; at most [`Process::MAX_THREADS`] of them.
    pub threads: Vec<Thread>,
    /// Threads it has in all.
    pub thread_count: Fact<u32>,
    /// Resource limits.
    pub limits: Fact<Limits>,
    /// It has CAP_IPC_LOCK on this machine, so [`Limits::memlock`] does not bind.
    pub may_lock: Fact<bool>,
    /// Open file descriptors.
    pub fds: Fact<u64>,
    /// Of them, those whose number the soft limit no longer gives away: they were opened before it was lowered.
    pub fds_beyond: Fact<u64>,
    /// Memory.
    pub memory: Fact<ProcessMemory>,
    /// Mappings of rings, from smaps: costs milliseconds, so only for the processes asked for in detail, and where major faults come while swap is in use.
    pub rings: Fact<Vec<RingMapping>>,
    /// CLOCK_MONOTONIC ns at which `rings` was read; 0 in recordings that do not say. Reading rests for long where it is dear.
    pub rings_at_ns: u64,
    /// Inode of its pid namespace.
    pub pid_ns_inode: Fact<u64>,
    /// Where it lives besides.
    pub place: Place,
    /// Its control groups.
    pub cgroups: Cgroups,
}

/// Where a process lives: what tells containers apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Inode of its mount namespace.
    pub mnt_ns_inode: Fact<u64>,
    /// Inode of its network namespace.
    pub net_ns_inode: Fact<u64>,
    /// What it calls itself in its own pid namespace.
    pub inner_pid: Option<u32>,
    /// Engine and id of its container, if its control group names one; sanitised.
    pub container: Option<String>,
}

impl Process {
    /// Of a process with more threads only so many are looked at.
    pub const MAX_THREADS: usize = 256;

    /// The thread with this tid, if it was looked at.
    pub fn thread(&self, tid: u32) -> Option<&Thread> {
        let at = self.threads.binary_search_by_key(&tid, |t| t.tid);
        at.ok().map(|i| &self.threads[i])
    }

    /// Descriptors that count against the soft limit, which bounds their numbers.
    ///
    /// # Errors
    /// Why the descriptors can't be counted.
    pub fn fds_below_limit(&self) -> Reading<u64> {
        // Recordings from before they were told apart have no such number.
        let beyond = self.fds_beyond.known().copied().unwrap_or(0);
        Ok(self.fds.get()?.saturating_sub(beyond))
    }

    /// Stopped by a signal or a debugger.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state.known(), Some('T' | 't'))
    }
}

/// One thread. Threads that own a slot are read for each sample, the others once a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    /// Its id.
    pub tid: u32,
    /// CLOCK_MONOTONIC ns at which `state` up to `slices` were read.
    pub at_ns: u64,
    /// CLOCK_MONOTONIC ns at which the rest was read (once a second).
    pub facts_at_ns: u64,
    /// What it is called in its own pid namespace, if that is another one than the viewer's.
    pub inner_tid: Option<u32>,
    /// Its name, sanitised.
    pub comm: String,
    /// State letter, as in [`Process::state`].
    pub state: Fact<char>,
    /// User time in clock ticks.
    pub utime_ticks: Fact<u64>,
    /// System time in clock ticks.
    pub stime_ticks: Fact<u64>,
    /// The CPU it last ran on.
    pub last_cpu: Fact<u32>,
    /// Minor faults since start.
    pub minor_faults: Fact<u64>,
    /// Major faults since start.
    pub major_faults: Fact<u64>,
    /// Time on a CPU, in ns (schedstat).
    pub run_ns: Fact<u64>,
    /// Time runnable but waiting for a CPU, in ns (schedstat): run delay.
    pub wait_ns: Fact<u64>,
    /// Turns on a CPU (schedstat).
    pub slices: Fact<u64>,
    /// Times it gave up the CPU by itself.
    pub voluntary_switches: Fact<u64>,
    /// Times it was made to.
    pub involuntary_switches: Fact<u64>,
    /// Moves from one CPU to another (se.nr_migrations). Only of threads that own a slot.
    pub migrations: Fact<u64>,
    /// Scheduling policy.
    pub policy: Fact<ThreadPolicy>,
    /// Real-time priority 1…99; 0 for the others.
    pub rt_priority: Fact<u32>,
    /// Nice value.
    pub nice: Fact<i32>,
    /// CPUs its affinity (and cpuset) allows.
    pub allowed_cpus: Fact<CpuList>,
    /// Kernel function it sleeps in; empty if it runs. Only of threads that own a slot.
    pub wchan: Fact<String>,
}

/// Scheduling policy of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThreadPolicy {
    /// SCHED_OTHER.
    #[default]
    Other,
    /// SCHED_FIFO.
    Fifo,
    /// SCHED_RR.
    RoundRobin,
    /// SCHED_BATCH.
    Batch,
    /// SCHED_IDLE.
    Idle,
    /// SCHED_DEADLINE.
    Deadline,
    /// SCHED_EXT.
    Ext,
    /// A number this viewer has no name for.
    Unnamed(u32),
}

impl ThreadPolicy {
    /// FIFO or RR: others on its CPU wait until it sleeps. DEADLINE gives it up when its budget is used.
    pub fn is_unbounded(self) -> bool {
        matches!(self, Self::Fifo | Self::RoundRobin)
    }
}

/// A resource limit; null = unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limit {
    /// What binds.
    pub soft: Option<u64>,
    /// What the soft one may be raised to.
    pub hard: Option<u64>,
}

/// The limits that matter to shared memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// RLIMIT_NOFILE: descriptors.
    pub nofile: Limit,
    /// RLIMIT_MEMLOCK in bytes.
    pub memlock: Limit,
    /// RLIMIT_FSIZE in bytes.
    pub fsize: Limit,
    /// RLIMIT_AS in bytes.
    pub address_space: Limit,
}

/// Memory of a process by its status file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessMemory {
    /// VmSize: address space.
    pub size_bytes: u64,
    /// VmLck: locked.
    pub locked_bytes: u64,
    /// VmRSS: resident.
    pub rss_bytes: u64,
    /// RssShmem: of it shared memory, rings included.
    pub rss_shmem_bytes: u64,
    /// VmSwap: swapped out; shared memory not included.
    pub swap_bytes: u64,
}

/// A mapping of a ring's memfd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RingMapping {
    /// Inode of the memfd, as in [`transport::stats::SlotInfo::ring_inode`].
    pub inode: u64,
    /// Address space.
    pub size_bytes: u64,
    /// Resident in this process.
    pub rss_bytes: u64,
    /// Resident, divided by the processes that share it.
    pub pss_bytes: u64,
    /// Swapped out.
    pub swap_bytes: u64,
}
