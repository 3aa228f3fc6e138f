//! The healthy machine that every scenario starts from, second by second: nothing on it is unknown, nothing is wrong.
//!
//! Counters grow with `t`, so that two samples give the rates named here. Left out is anything a single scenario is
//! about: that stands in its file.

use shmtop::sample::*;
use transport::stats::*;

pub(crate) const SERVER: u32 = 4711;
pub(crate) const POLLER: u32 = 4719;
const START_NS: u64 = 1_000_000_000_000;
const CREATED_NS: u64 = 900_000_000_000;
const S: u64 = 1_000_000_000;

/// A workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    pub(crate) name: &'static str,
    clients: u32,
    cpus: u32,
    rate: u64,
    bytes: u64,
    /// Of each second, in ms, for a client's thread.
    client: Load,
    server: Load,
    p50_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Load {
    useful: u64,
    spin: u64,
    yielding: u64,
    sleep: u64,
    cpu: u64,
    delay: u64,
}

const fn load(useful: u64, spin: u64, yielding: u64, sleep: u64, cpu: u64, delay: u64) -> Load {
    Load {
        useful,
        spin,
        yielding,
        sleep,
        cpu,
        delay,
    }
}

/// All of them. `busy` is where most scenarios start; `crowded` is seventeen processes on two CPUs, which is healthy.
pub(crate) const BASES: [Base; 5] = [
    Base {
        name: "busy",
        clients: 4,
        cpus: 8,
        rate: 20_000,
        bytes: 64,
        client: load(500, 150, 30, 300, 680, 1),
        server: load(600, 120, 20, 240, 740, 1),
        p50_ns: 1_200,
    },
    Base {
        name: "one",
        clients: 1,
        cpus: 2,
        rate: 400_000,
        bytes: 64,
        client: load(450, 520, 10, 0, 985, 3),
        server: load(450, 520, 10, 0, 985, 3),
        p50_ns: 1_000,
    },
    Base {
        name: "large",
        clients: 1,
        cpus: 2,
        rate: 100_000,
        bytes: 20_000,
        client: load(800, 150, 20, 10, 975, 4),
        server: load(700, 250, 20, 10, 975, 4),
        p50_ns: 8_000,
    },
    Base {
        name: "crowded",
        clients: 16,
        cpus: 2,
        rate: 20_000,
        bytes: 20_000,
        client: load(300, 2, 40, 650, 65, 850),
        server: load(960, 5, 20, 10, 700, 290),
        p50_ns: 60_000,
    },
    Base {
        name: "idle",
        clients: 2,
        cpus: 2,
        rate: 0,
        bytes: 64,
        client: load(0, 0, 0, 1000, 0, 0),
        server: load(1, 0, 0, 998, 1, 0),
        p50_ns: 0,
    },
];

fn known<T>(value: T) -> Fact<T> {
    Fact::Known(value)
}

impl Base {
    pub(crate) fn named(name: &str) -> Self {
        *BASES
            .iter()
            .find(|b| b.name == name)
            .unwrap_or_else(|| panic!("no base {name:?}"))
    }

    /// Pid, and thread, of a client.
    pub(crate) fn client_pid(n: u32) -> u32 {
        4235 + n
    }

    /// The world at second `t`.
    pub(crate) fn sample(&self, t: u64) -> Sample {
        let now = START_NS + t * S;
        let clients = 1..=self.clients;
        let mut processes = vec![self.process(SERVER, POLLER, "exchange", self.server, now, t)];
        let mut pages = vec![Page {
            link: format!("{SERVER}-exchange"),
            pid: SERVER,
            content: PageContent::Read(Box::new(self.server_page(now, t))),
            ..Page::default()
        }];
        let mut perf = vec![self.counters(SERVER, POLLER, u64::from(self.clients), t)];
        for n in clients {
            let pid = Self::client_pid(n);
            processes.push(self.process(pid, pid, "trader", self.client, now, t));
            pages.push(Page {
                link: format!("{pid}-trader"),
                pid,
                content: PageContent::Read(Box::new(self.client_page(n, now, t))),
                ..Page::default()
            });
            perf.push(self.counters(pid, pid, 1, t));
        }
        Sample {
            time: Clocks {
                monotonic_ns: now,
                boottime_ns: now + 5 * S,
                realtime_ns: 1_700_000_000 * S + now,
                took_ns: 1_000_000,
            },
            host: self.host(now, t),
            pages,
            processes,
            listeners: vec![Listener {
                pid: SERVER,
                path: "/run/x/exchange.sock".into(),
                bound_inode: 77,
                path_inode: known(77),
                queue: known(0),
                backlog: known(128),
            }],
            perf,
            viewer: Viewer {
                place: Place::default(),
                pid: 99,
                euid: 1000,
                cpu_ns: t * 5_000_000,
                pid_ns_inode: known(1),
            },
            discovery: Discovery {
                runtime_dir: "/run/x".into(),
                registry_links: known(self.clients + 1),
                ring_holders: known(Vec::new()),
                ..Discovery::default()
            },
        }
    }

    fn host(&self, now: u64, t: u64) -> Host {
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
            siblings: known(vec![n]),
            node: known(0),
            ..Cpu::default()
        };
        Host {
            at_ns: now,
            hostname: known("host".into()),
            boot_id: known("00".into()),
            kernel: known("6.18.0".into()),
            ticks_per_second: 100,
            cpus: (0..self.cpus).map(cpu).collect(),
            numa_nodes: known(1),
            memory: known(Memory {
                total_bytes: 64 << 30,
                available_bytes: 48 << 30,
            }),
            file_nr: known(FileNr {
                used: 3_000,
                max: i64::MAX as u64,
            }),
            shmmax_bytes: known(18_446_744_073_692_774_399),
            clocksource: known("tsc".into()),
            clock_gettime_ns: known(24),
            perf_event_paranoid: known(1),
            memfd_noexec: known(0),
            huge_pages: known(HugePages::default()),
            shmem_enabled: known("advise".into()),
            hypervisor: known(false),
            ..Host::default()
        }
    }

    fn process(&self, pid: u32, tid: u32, comm: &str, l: Load, now: u64, t: u64) -> Process {
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
                timer_slack_ns: known(50_000),
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
            fds: known(40),
            fds_beyond: known(0),
            memory: known(ProcessMemory {
                size_bytes: 300 << 20,
                rss_bytes: 20 << 20,
                ..ProcessMemory::default()
            }),
            rings: known(Vec::new()),
            pid_ns_inode: known(1),
            cgroups: Cgroups {
                memory: known(vec![MemoryGroup {
                    path: "/sys/fs/cgroup/app".into(),
                    limit_bytes: known(Some(16 << 30)),
                    usage_bytes: known(1 << 30),
                    inactive_file_bytes: known(0),
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

    fn counters(&self, pid: u32, tid: u32, clients: u64, t: u64) -> PerfThread {
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

    fn page(&self, pid: u32, role: Role, name: &str, now: u64) -> Snapshot {
        Snapshot {
            version: (1, 0),
            pid,
            start_ticks: 90_000,
            uid: 1000,
            role,
            boot_id: "00".into(),
            pid_ns_inode: 1,
            created_monotonic_ns: CREATED_NS,
            name: name.into(),
            socket_path: "/run/x/exchange.sock".into(),
            library: "0.1.0".into(),
            process: ProcessCounters {
                heartbeat_ns: if role == Role::Server {
                    now - 100_000_000
                } else {
                    0
                },
                ..ProcessCounters::default()
            },
            ..Snapshot::default()
        }
    }

    fn server_page(&self, now: u64, t: u64) -> Snapshot {
        let mut page = self.page(SERVER, Role::Server, "exchange", now);
        let n = u64::from(self.clients);
        page.process = ProcessCounters {
            max_clients: 1024,
            open_clients: n,
            accepted: n,
            handshakes: n,
            upgrades: n,
            fds_per_client: 1,
            ring_bytes: 64 << 20,
            listener_inode: 77,
            handshake_max_ns: 3_000_000,
            ..page.process
        };
        page.slots.push(Slot {
            index: 0,
            info: SlotInfo {
                state: SlotState::Open,
                kind: SlotKind::Poller,
                tid: POLLER,
                wait_policy: "adaptive".into(),
                opened_ns: CREATED_NS,
                ..SlotInfo::default()
            },
            wait: self.wait(self.server, t, n),
            req: ReqCounters {
                last_progress_ns: now,
                ..ReqCounters::default()
            },
            ..Slot::default()
        });
        for c in 1..=self.clients {
            let mut slot = self.slot(c, now, t);
            slot.index = c;
            slot.info.peer_pid = Self::client_pid(c);
            slot.info.tid = POLLER;
            slot.info.poller_slot = Some(0);
            slot.wait = WaitCounters::default();
            slot.rtt = Histogram::default();
            slot.handler = self.latency(self.p50_ns / 10, t);
            slot.req.handler_ns = t * self.rate * self.p50_ns / 10;
            slot.house = HouseCounters {
                house_ns: now - 100_000_000,
                house_rx_high_water_bytes: 8_000,
                house_tx_high_water_bytes: 8_000,
                house_rx_moved_ns: now - 100_000_000,
                house_tx_moved_ns: now - 100_000_000,
                ..HouseCounters::default()
            };
            page.slots.push(slot);
        }
        page
    }

    fn client_page(&self, n: u32, now: u64, t: u64) -> Snapshot {
        let pid = Self::client_pid(n);
        let mut page = self.page(pid, Role::Client, "trader", now);
        let mut slot = self.slot(n, now, t);
        slot.info.peer_pid = SERVER;
        slot.info.tid = pid;
        slot.rtt = self.latency(self.p50_ns, t);
        page.slots.push(slot);
        page
    }

    fn slot(&self, n: u32, now: u64, t: u64) -> Slot {
        let messages = 1_000_000 + t * self.rate;
        Slot {
            info: SlotInfo {
                state: SlotState::Open,
                connection_id: 0xc000 + u64::from(n),
                client_number: n,
                transport: Via::Shm,
                wanted: Via::Shm,
                peer_uid: 1000,
                peer_start_ticks: 90_000,
                peer_name: "trader".into(),
                wait_policy: "adaptive".into(),
                tx_capacity: 32 << 20,
                rx_capacity: 32 << 20,
                max_message: 2 << 20,
                opened_ns: CREATED_NS + S,
                ring_inode: 500 + u64::from(n),
                ..SlotInfo::default()
            },
            tx: TxCounters {
                tx_messages: messages,
                tx_bytes: messages * self.bytes,
                tx_record_bytes: messages * (self.bytes + 16),
                tx_index_hits: messages * 9 / 10,
                tx_index_loads: messages / 10,
                tx_high_water_bytes: 8_000,
                tx_touched_bytes: 2 << 20,
                tx_window_bytes: 2 << 20,
                tx_largest_bytes: self.bytes,
                ..TxCounters::default()
            },
            rx: RxCounters {
                rx_messages: messages,
                rx_bytes: messages * self.bytes,
                rx_record_bytes: messages * (self.bytes + 16),
                rx_index_hits: messages * 9 / 10,
                rx_index_loads: messages / 10,
                rx_largest_bytes: self.bytes,
                ..RxCounters::default()
            },
            wait: self.wait(self.client, t, 1),
            req: ReqCounters {
                requests: messages,
                replies: messages,
                in_flight: u64::from(self.rate > 0),
                oldest_ns: if self.rate > 0 { now - 1_000 } else { 0 },
                last_progress_ns: if self.rate > 0 {
                    now - 1_000
                } else {
                    START_NS - S
                },
                sample_period: 1,
                ..ReqCounters::default()
            },
            ..Slot::default()
        }
    }

    fn wait(&self, l: Load, t: u64, clients: u64) -> WaitCounters {
        let ms = |n: u64| t * n * 1_000_000;
        let waits = t * self.rate * clients / 2;
        WaitCounters {
            waits,
            spins: ms(l.spin) / 25,
            yields: ms(l.yielding) / 500,
            sleeps: ms(l.sleep) / 1_000_000,
            spin_ns: ms(l.spin),
            yield_ns: ms(l.yielding),
            sleep_ns: ms(l.sleep),
            ended_spin: waits * 96 / 100,
            ended_yield: waits * 2 / 100,
            ended_sleep: waits * 2 / 100,
            useful_ns: ms(l.useful),
            polls: waits * 2,
            spin_budget_ns: 50_000,
            ..WaitCounters::default()
        }
    }

    /// Of each second's requests: 98.5 % around `p50_ns`, 1.4 % at four times that, 0.1 % at ten times.
    fn latency(&self, p50_ns: u64, t: u64) -> Histogram {
        let n = t * self.rate;
        histogram(&[
            (p50_ns, n - n * 15 / 1000),
            (p50_ns * 4, n * 14 / 1000),
            (p50_ns * 10, n / 1000),
        ])
    }
}

/// A histogram of (value in ns, how many).
pub(crate) fn histogram(values: &[(u64, u64)]) -> Histogram {
    let mut h = Histogram::default();
    for &(value, n) in values.iter().filter(|(_, n)| *n > 0) {
        h.merge(&Histogram {
            sum_ns: value * n,
            max_ns: value,
            buckets: vec![(transport::stats::histogram::bucket_of(value) as u16, n)],
        });
    }
    h
}
