//! The healthy machine that every scenario starts from, second by second: nothing on it is unknown, nothing is wrong.
//!
//! Counters grow with `t`, so that two samples give the rates named here. Left out is anything a single scenario is
//! about: that stands in its file.

use shmtop::sample::*;

mod machine;
pub(crate) mod pages;

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
            ended: Vec::new(),
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
                fixed_sysctls: known(false),
                pid: 99,
                euid: 1000,
                program: "/usr/bin/shmtop".into(),
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
}
