//! [`Sample`]: everything shmtop saw of the outside world at one moment, as plain data.
//!
//! Made by `source::World`, stored by recordings, written by hand as fixtures of hints, and the only input of
//! the model. It holds what was read, with units, and nothing that was concluded: no rates, no shares, no
//! judgement. What could not be read is a [`Fact::Unknown`] with the reason, never a zero.
//!
//! Every field has a default, so that a fixture names only what it is about. An absent [`Fact`] is unknown
//! ("not in this sample"); an absent plain number is 0.

mod cgroup;
mod fact;
mod glance;
mod host;
mod lost;
mod page;
mod perf;
mod process;

pub use cgroup::{CgroupVersion, Cgroups, CpuGroup, MemoryGroup};
pub use fact::Fact;
pub use glance::{Glance, GlancedPage, Glimpse};
pub use host::{
    Cpu, CpuJiffies, CpuList, FileNr, FileSystem, Frequency, Host, HugePages, LoadAverage, Memory,
    Pressure, PressureLine,
};
pub(crate) use lost::lost;
pub use page::{Discovery, Ended, FoundBy, Listener, Page, PageContent, ProcScan, RingHolder};
pub use perf::{CacheCounters, HardwareCounters, Perf, PerfThread, SoftwareCounters};
pub use process::{
    Limit, Limits, Place, Process, ProcessMemory, RingMapping, Thread, ThreadPolicy,
};

use serde::{Deserialize, Serialize};

/// Length of a window, ns: what lies between two samples for rules, and for what is not read at each sample.
pub(crate) const WINDOW_NS: u64 = 1_000_000_000;
/// A sample may come this much early (ns) and still close the window: refresh timers jitter.
pub(crate) const EARLY_NS: u64 = 60_000_000;

/// One look at the world.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// When, by every clock that matters, and what the look cost.
    pub time: Clocks,
    /// The machine.
    pub host: Host,
    /// The stats pages found, by pid and name.
    pub pages: Vec<Page>,
    /// Whoever has ended since the last look and left connections open.
    pub ended: Vec<Ended>,
    /// Every process that has a page or is the peer of one, by pid.
    pub processes: Vec<Process>,
    /// The listening sockets of the servers among the pages, and what is left of those that clients are without.
    pub listeners: Vec<Listener>,
    /// Hardware and software counters per thread that owns a slot, by tid.
    pub perf: Vec<PerfThread>,
    /// shmtop itself.
    pub viewer: Viewer,
    /// Where pages were looked for, and what could not be looked into.
    pub discovery: Discovery,
}

/// The clocks, read together: after the search for pages, right before their counters are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Clocks {
    /// CLOCK_MONOTONIC in ns: the clock of stats pages and of every `…_at_ns`. Stands still during suspend.
    pub monotonic_ns: u64,
    /// CLOCK_BOOTTIME in ns: goes on during suspend.
    pub boottime_ns: u64,
    /// CLOCK_REALTIME in ns since 1970: for people.
    pub realtime_ns: u64,
    /// How long the look took, the search included, in ns of CLOCK_MONOTONIC.
    pub took_ns: u64,
}

/// shmtop's own process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Viewer {
    /// Its pid.
    pub pid: u32,
    /// Its effective uid.
    pub euid: u32,
    /// Path of its program's file; empty if unknown.
    pub program: String,
    /// User and system CPU time used so far, all threads, in ns.
    pub cpu_ns: u64,
    /// Inode of its pid namespace: pages of another one speak of other pids.
    pub pid_ns_inode: Fact<u64>,
    /// Where it lives besides: what others are compared with.
    pub place: Place,
    /// Whether nobody here may change a sysctl, be it root: /proc/sys is mounted read-only, as in most containers.
    pub fixed_sysctls: Fact<bool>,
}

impl Sample {
    /// The process with this pid, if it was looked at.
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes
            .binary_search_by_key(&pid, |p| p.pid)
            .ok()
            .map(|i| &self.processes[i])
            // A fixture written by hand need not be sorted.
            .or_else(|| self.processes.iter().find(|p| p.pid == pid))
    }

    /// The counters of this thread, if it has any.
    pub fn perf_of(&self, tid: u32) -> Option<&PerfThread> {
        let at = self.perf.binary_search_by_key(&tid, |p| p.tid);
        at.ok()
            .map(|i| &self.perf[i])
            // A fixture written by hand need not be sorted.
            .or_else(|| self.perf.iter().find(|p| p.tid == tid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixture_names_only_what_it_is_about() {
        let sample: Sample = serde_json::from_str(
            r#"{"processes":[{"pid":9,"state":"T","limits":{"nofile":{"soft":64,"hard":4096}}}]}"#,
        )
        .unwrap();
        let process = sample.process(9).unwrap();
        assert!(process.is_stopped() && !process.gone);
        assert_eq!(process.limits.known().unwrap().nofile.soft, Some(64));
        assert_eq!(
            process.fds.why().unwrap().text,
            "not in this sample",
            "what a fixture leaves out is unknown, not 0"
        );
    }

    #[test]
    fn a_wait_policy_is_recorded_by_its_name_and_one_of_a_later_version_is_unknown() {
        use transport::config::PolicyKind;
        for number in 0..=6 {
            let kind = PolicyKind::of(number);
            let name = serde_json::to_string(&kind).unwrap();
            assert_eq!(name, format!("{:?}", kind.name()));
            assert_eq!(serde_json::from_str::<PolicyKind>(&name).unwrap(), kind);
        }
        let later = serde_json::from_str::<PolicyKind>("\"later\"");
        assert_eq!(later.unwrap(), PolicyKind::Unknown);
    }

    #[test]
    fn a_sample_survives_its_recording() {
        let sample = Sample {
            pages: vec![Page::default()],
            processes: vec![Process {
                threads: vec![Thread::default()],
                cgroups: Cgroups {
                    memory: Fact::Known(vec![MemoryGroup {
                        limit_bytes: Fact::Known(None),
                        ..MemoryGroup::default()
                    }]),
                    ..Cgroups::default()
                },
                ..Process::default()
            }],
            perf: vec![PerfThread {
                hardware: Perf::NoPmu("hidden".into()),
                ..PerfThread::default()
            }],
            ..Sample::default()
        };
        let json = serde_json::to_string(&sample).unwrap();
        assert_eq!(serde_json::from_str::<Sample>(&json).unwrap(), sample);
    }
}
