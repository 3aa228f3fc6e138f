//! The machine of a workload: the host, its processes and what is counted on their threads.

use shmtop::sample::*;

use super::{Base, Load, S, known};

impl Base {
    pub(super) fn host(&self, now: u64, t: u64) -> Host {
        // In ticks of 10 ms: what the watched threads use, spread over the CPUs, and one in a hundred for the rest.
        let used = (u64::from(self.clients) * self.client.cpu + self.server.cpu) / 10;
        let busy = (used / u64::from(self.cpus) + 1).min(99);
        let cpu = |n: u32| Cpu {
            cpu: n,
            jiffies: CpuJiffies {
                user: t * busy,
                idle: 1_000_000 + t * (100 - busy),
                ..CpuJiffies::default()
            },
            frequency: Frequency {
                current_khz: known(3_500_000),
                max_khz: known(3_600_000),
                governor: known("schedutil".into()),
                ..Frequency::default()
            },
            core_throttle_count: known(3),
            package_throttle_count: known(3),
            core_throttle_ms: known(20),
            package_throttle_ms: known(20),
            isolated: known(false),
            siblings: known(vec![n]),
            node: known(0),
            ..Cpu::default()
        };
        Host {
            at_ns: now,
            hostname: known("host".into()),
            boot_id: known("00".into()),
            kernel: known("6.18.0".into()),
            machine: known("x86_64".into()),
            ticks_per_second: 100,
            cpus: (0..self.cpus).map(cpu).collect(),
            numa_nodes: known(1),
            numa_balancing: known(0),
            memory: known(Memory {
                total_bytes: 64 << 30,
                available_bytes: 48 << 30,
                swap_used_bytes: Some(1 << 30),
            }),
            file_nr: known(FileNr {
                used: 3_000,
                max: i64::MAX as u64,
            }),
            nr_open: known(1 << 20),
            shmmax_bytes: known(18_446_744_073_692_774_399),
            clocksource: known("tsc".into()),
            clock_gettime_ns: known(24),
            perf_event_paranoid: known(1),
            memfd_noexec: known(0),
            overcommit_memory: known(0),
            huge_pages: known(HugePages::default()),
            shmem_enabled: known("advise".into()),
            hypervisor: known(false),
            ..Host::default()
        }
    }

    pub(super) fn process(
        &self,
        pid: u32,
        tid: u32,
        comm: &str,
        l: Load,
        now: u64,
        t: u64,
    ) -> Process {
        let ms = |n: u64| t * n * 1_000_000;
        Process {
            place: Place::default(),
            pid,
            gone: false,
            at_ns: now,
            facts_at_ns: now,
            comm: comm.into(),
            uid: known(1000),
            start_ticks: known(90_000),
            state: known('S'),
            ppid: known(1),
            tracer_pid: known(0),
            cpu_ticks: known(t * l.cpu / 10),
            minor_faults: known(5_000),
            major_faults: known(0),
            threads: vec![Thread {
                inner_tid: None,
                tid,
                at_ns: now,
                facts_at_ns: now,
                comm: comm.into(),
                state: known('S'),
                utime_ticks: known(t * l.cpu / 20),
                stime_ticks: known(t * l.cpu / 40),
                last_cpu: known(tid % self.cpus),
                minor_faults: known(0),
                major_faults: known(0),
                run_ns: known(ms(l.cpu)),
                wait_ns: known(ms(l.delay)),
                slices: known(t * 1_000),
                voluntary_switches: known(t * 900),
                involuntary_switches: known(t * 10),
                migrations: known(t * 3),
                policy: known(ThreadPolicy::Other),
                rt_priority: known(0),
                nice: known(0),
                allowed_cpus: known((0..self.cpus).collect()),
                wchan: known(String::new()),
            }],
            thread_count: known(1),
            limits: known(Limits {
                nofile: Limit {
                    soft: Some(1024),
                    hard: Some(4096),
                },
                memlock: Limit {
                    soft: Some(8 << 20),
                    hard: None,
                },
                fsize: Limit::default(),
                address_space: Limit::default(),
            }),
            may_lock: known(false),
            fds: known(40),
            fds_beyond: known(0),
            memory: known(ProcessMemory {
                size_bytes: 300 << 20,
                rss_bytes: 20 << 20,
                ..ProcessMemory::default()
            }),
            rings: known(Vec::new()),
            rings_at_ns: 0,
            pid_ns_inode: known(1),
            cgroups: Cgroups {
                memory: known(vec![MemoryGroup {
                    path: "/sys/fs/cgroup/app".into(),
                    inode: known(4100),
                    limit_bytes: known(Some(16 << 30)),
                    usage_bytes: known(1 << 30),
                    file_cache_bytes: known(0),
                    oom_kills: known(0),
                    ..MemoryGroup::default()
                }]),
                cpu: known(vec![CpuGroup {
                    path: "/sys/fs/cgroup/app".into(),
                    quota_us: known(Some(1_600_000)),
                    period_us: known(100_000),
                    periods: known(t * 10),
                    throttled: known(0),
                    throttled_ns: known(0),
                    ..CpuGroup::default()
                }]),
                cpuset: known((0..self.cpus).collect()),
            },
        }
    }

    pub(super) fn counters(&self, pid: u32, tid: u32, clients: u64, t: u64) -> PerfThread {
        PerfThread {
            pid,
            tid,
            hardware: Perf::Counting(HardwareCounters {
                time_enabled_ns: t * S / 2,
                time_running_ns: t * S / 2,
                cycles: t * S,
                instructions: t * S,
                cache_misses: t * self.rate * clients * 2 * (2 + self.bytes / 64),
                ..HardwareCounters::default()
            }),
            cache: Perf::Unavailable("not asked for".into()),
            software: Perf::Counting(SoftwareCounters {
                page_faults: 10,
                context_switches: known(t * 900),
                ..SoftwareCounters::default()
            }),
        }
    }
}
