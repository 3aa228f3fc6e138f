//! The outside world, and the one struct that looks at it: [`World`].
//!
//! Everything a [`Sample`] holds is read below this module: pages through `transport::stats`, /proc and /sys under
//! roots that are arguments, clocks in one file, counters through perf_event. Nothing else in shmtop touches the world.
//! Left out is every conclusion: rates and shares are the model's.
//!
//! A sample is meant to cost less than a millisecond, so what changes slowly is read once a second or more rarely.

mod budget;
mod cgroup;
mod clock;
mod cpu;
mod facts;
mod fds;
mod file;
mod host;
mod limits;
mod mounts;
mod net;
mod open_page;
mod pages;
mod parse;
mod perf;
mod perf_group;
mod place;
mod process;
mod rings;
mod room;
mod search;
mod smaps;
mod sock_diag;
#[cfg(test)]
mod tests;
mod thread;

pub(crate) use clock::thread_cpu_ns;

use crate::reading::{Reading, Why};
use crate::sample::{
    Glance, Host, Listener, Page, PageContent, PerfThread, Place, Process, Sample, Viewer,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use transport::stats::{Role, SlotState};

/// Processes looked at, at most: a page may name any pids it likes.
const MAX_PROCESSES: usize = 1024;
const LISTENERS_NS: u64 = 1_000_000_000;

/// Where and how to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// `/proc`, or a fixture tree.
    pub proc_root: PathBuf,
    /// `/sys`, or a fixture tree.
    pub sys_root: PathBuf,
    /// Where pages are announced.
    pub runtime_dir: PathBuf,
    /// Also look for pages through every process's descriptors.
    pub scan: bool,
    /// The first sample is waited for: if pages are announced it is content with them, and the scan comes with the second.
    pub hurry: bool,
    /// Which perf counters to open.
    pub perf: PerfScope,
    /// Processes to look at more closely: their ring mappings are read (milliseconds each, once a second), and the
    /// kernel's own perf counters opened.
    pub detail: BTreeSet<u32>,
}

/// Which perf counters to open on the threads that own a slot. Whatever is opened costs the counted thread up to 2 µs at
/// each of its context switches, for as long as shmtop runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PerfScope {
    /// None.
    Off,
    /// Hardware counters where the machine has them, so nothing in most VMs; the kernel's own only for
    /// [`Options::detail`].
    #[default]
    Hardware,
    /// Both kinds for every thread.
    All,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proc_root: "/proc".into(),
            sys_root: "/sys".into(),
            runtime_dir: transport::stats::registry::default_dir(),
            scan: true,
            hurry: false,
            perf: PerfScope::default(),
            detail: BTreeSet::new(),
        }
    }
}

/// The outside world: roots, open pages and counters, and what was last read of what changes slowly.
#[derive(Debug)]
pub struct World {
    options: Options,
    own_pid_ns: Reading<u64>,
    own_place: Place,
    own_program: String,
    pages: pages::PageStore,
    host: host::HostReader,
    cgroups: cgroup::CgroupReader,
    processes: BTreeMap<u32, process::ProcessWatch>,
    /// By pid: what its page said of its admissions in the last sample.
    admitted: BTreeMap<u32, [u64; 5]>,
    listeners: Vec<Listener>,
    listeners_due_ns: u64,
    perf: perf::PerfReader,
    buffer: Vec<u8>,
    /// For files kept open between samples.
    room: room::Room,
}

/// Path of a program by its link in /proc: of one that was built again while it runs, the new one.
fn program(link: &str) -> String {
    link.strip_suffix(" (deleted)").unwrap_or(link).to_owned()
}

impl World {
    /// A world to look at; nothing is read yet but the mounts and the cost of a clock.
    pub fn new(options: Options) -> Self {
        Self {
            own_pid_ns: place::ns_inode(&options.proc_root.join("self"), "pid"),
            own_place: place::own(&options.proc_root),
            own_program: std::fs::read_link(options.proc_root.join("self/exe"))
                .map_or_else(|_| String::new(), |p| program(&p.to_string_lossy())),
            pages: pages::PageStore::new(
                options.runtime_dir.clone(),
                options.proc_root.clone(),
                options.scan,
                options.hurry,
            ),
            host: host::HostReader::new(&options),
            cgroups: cgroup::CgroupReader::new(&options.proc_root, &options.sys_root),
            processes: BTreeMap::new(),
            admitted: BTreeMap::new(),
            listeners: Vec::new(),
            listeners_due_ns: 0,
            perf: perf::PerfReader::default(),
            buffer: Vec::new(),
            room: room::Room::of_this_process(),
            options,
        }
    }

    /// Changes which processes are looked at more closely; takes effect within a second.
    pub fn set_detail(&mut self, pids: BTreeSet<u32>) {
        self.options.detail = pids;
    }

    /// Looks at everything. Never fails: what can't be read is unknown in the sample, with the reason.
    pub fn sample(&mut self) -> Sample {
        let mut time = clock::now();
        let now_ns = time.monotonic_ns;
        let mut pages = self.pages.read(now_ns);
        let interest = self.interest(&pages);
        let changed = self.changed(&pages);
        let processes = self.look_at(&interest, &changed, now_ns);
        self.name_threads_as_here(&mut pages);
        let pages = living(pages, &processes);
        self.look_at_listeners(&pages, &processes, now_ns);
        let host = self.host.read(now_ns, &mut self.buffer);
        let perf = self.count(&interest, &processes, &host, now_ns);
        time.took_ns = clock::monotonic_ns().saturating_sub(now_ns);
        Sample {
            time,
            host,
            processes,
            listeners: self.listeners.clone(),
            perf,
            viewer: Viewer {
                pid: std::process::id(),
                euid: nix::unistd::geteuid().as_raw(),
                cpu_ns: clock::own_cpu_ns(),
                pid_ns_inode: self.own_pid_ns.clone().into(),
                place: self.own_place.clone(),
                program: self.own_program.clone(),
            },
            discovery: self.pages.discovery().clone(),
            pages,
        }
    }

    /// A page of another pid namespace names its threads as they are called there: from here on by the number that they have here, or
    /// 0 where that is not known (yet), since the number itself is somebody else's.
    fn name_threads_as_here(&self, pages: &mut [Page]) {
        for page in pages {
            let watch = self.processes.get(&page.pid);
            let PageContent::Read(snapshot) = &mut page.content else {
                continue;
            };
            if self
                .own_pid_ns
                .as_ref()
                .is_ok_and(|ns| *ns == snapshot.pid_ns_inode)
            {
                continue;
            }
            for slot in &mut snapshot.slots {
                let here = watch.and_then(|w| w.thread_inside(slot.info.tid));
                slot.info.tid = here.unwrap_or(0);
            }
        }
    }

    /// Reads only the counters that `glance` is about, into it. What a sample would find besides stays unseen.
    pub fn glance(&mut self, glance: &mut Glance) {
        glance.before_ns = glance.time.monotonic_ns;
        glance.time = clock::now();
        self.pages.glance(glance);
        glance.time.took_ns = clock::monotonic_ns().saturating_sub(glance.time.monotonic_ns);
    }

    /// The processes that matter and, of each, the threads that own a slot. Peers of a page from another pid namespace have numbers
    /// that mean others here, so they are left out; its threads are known by what their process says of them.
    fn interest(&self, pages: &[Page]) -> BTreeMap<u32, BTreeSet<u32>> {
        let mut interest: BTreeMap<u32, BTreeSet<u32>> =
            // A link that leads to no process has no pid.
            pages
                .iter()
                .filter(|p| p.pid != 0)
                .map(|p| (p.pid, BTreeSet::new()))
                .collect();
        for page in pages {
            let Some(snapshot) = page.snapshot() else {
                continue;
            };
            if self.own_pid_ns != Ok(snapshot.pid_ns_inode) {
                let Some(watch) = self.processes.get(&page.pid) else {
                    continue;
                };
                let inner = snapshot.slots.iter().map(|s| s.info.tid);
                let here = inner.filter_map(|tid| watch.thread_inside(tid));
                interest.entry(page.pid).or_default().extend(here);
                continue;
            }
            for slot in &snapshot.slots {
                let info = &slot.info;
                if !matches!(info.state, SlotState::Handshaking | SlotState::Open) {
                    continue;
                }
                if info.tid != 0
                    && let Some(threads) = interest.get_mut(&page.pid)
                {
                    threads.insert(info.tid);
                }
                if info.peer_pid != 0 && interest.len() < MAX_PROCESSES {
                    interest.entry(info.peer_pid).or_default();
                }
            }
        }
        interest
    }

    /// The processes whose page says that connections came or went since the last sample.
    fn changed(&mut self, pages: &[Page]) -> BTreeSet<u32> {
        let mut now: BTreeMap<u32, [u64; 5]> = BTreeMap::new();
        for page in pages {
            if let Some(snapshot) = page.snapshot() {
                let sums = now.entry(page.pid).or_default();
                for (sum, n) in sums.iter_mut().zip(pages::admissions(&snapshot.process)) {
                    *sum = sum.wrapping_add(n);
                }
            }
        }
        let before = std::mem::replace(&mut self.admitted, now);
        let known = self
            .admitted
            .iter()
            .filter(|(pid, _)| before.contains_key(pid));
        known
            .filter(|(pid, now)| before.get(pid) != Some(now))
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// Files that are kept open.
    fn held(&self) -> usize {
        let held = self.processes.values().map(process::ProcessWatch::held);
        held.sum()
    }

    fn look_at(
        &mut self,
        interest: &BTreeMap<u32, BTreeSet<u32>>,
        changed: &BTreeSet<u32>,
        now_ns: u64,
    ) -> Vec<Process> {
        self.processes.retain(|pid, _| interest.contains_key(pid));
        let set_aside = match self.options.perf {
            PerfScope::Off => 0,
            _ => perf::USUAL,
        };
        let mut room = self
            .room
            .for_files(self.held(), self.perf.held(), set_aside);
        // Where it can't be told, there may be some.
        let swap = self.host.swap_used_bytes() != Some(0);
        let mut seen = Vec::with_capacity(interest.len());
        for (turn, (&pid, hot)) in (0..).zip(interest) {
            let watch = self.processes.entry(pid).or_insert_with(|| {
                process::ProcessWatch::new(&self.options.proc_root, pid, &mut room)
            });
            seen.push(watch.look(process::Look {
                now_ns,
                buffer: &mut self.buffer,
                cgroups: &mut self.cgroups,
                hot,
                turn,
                detail: self.options.detail.contains(&pid),
                swap,
                room: &mut room,
                renew: changed.contains(&pid),
            }));
        }
        self.cgroups.end_sample(now_ns);
        seen
    }

    fn look_at_listeners(&mut self, pages: &[Page], processes: &[Process], now_ns: u64) {
        if now_ns < self.listeners_due_ns {
            return;
        }
        self.listeners_due_ns = now_ns + LISTENERS_NS;
        let claims: Vec<net::Claim> = pages
            .iter()
            .filter_map(|page| {
                let snapshot = page.snapshot().filter(|s| s.role == Role::Server)?;
                Some(net::Claim {
                    pid: page.pid,
                    path: snapshot.socket_path.clone(),
                    bound_inode: snapshot.process.listener_inode,
                    is_here: self.shares_network(page.pid, processes),
                })
            })
            .collect();
        self.listeners = net::read(&self.options.proc_root, &claims);
    }

    /// Whether a process's sockets are among those that this one sees.
    fn shares_network(&self, pid: u32, processes: &[Process]) -> Reading<bool> {
        let Ok(own) = self.own_place.net_ns_inode.get() else {
            // A kernel without network namespaces.
            return Ok(true);
        };
        let process = processes.iter().find(|p| p.pid == pid);
        let process = process.ok_or_else(|| Why::not_there("it was not looked at"))?;
        Ok(process.place.net_ns_inode.get()? == own)
    }

    /// Counters of the threads that own a slot, as far as they really are threads of that process.
    fn count(
        &mut self,
        interest: &BTreeMap<u32, BTreeSet<u32>>,
        processes: &[Process],
        host: &Host,
        now_ns: u64,
    ) -> Vec<PerfThread> {
        let mut threads = BTreeMap::new();
        if self.options.perf != PerfScope::Off {
            for process in processes {
                let software = self.options.perf == PerfScope::All
                    || self.options.detail.contains(&process.pid);
                let wanted = perf::Wanted {
                    pid: process.pid,
                    software,
                };
                let hot = interest.get(&process.pid);
                let tids = process.threads.iter().map(|t| t.tid);
                let own = tids.filter(|tid| hot.is_some_and(|hot| hot.contains(tid)));
                threads.extend(own.map(|tid| (tid, wanted)));
            }
        }
        let around = perf::Surroundings {
            hypervisor: host.hypervisor.known().copied(),
            paranoid: host.perf_event_paranoid.known().copied(),
        };
        let mut room = self.room.beside(self.held() + self.perf.held());
        self.perf.read(&threads, now_ns, around, &mut room)
    }
}

/// The pages whose process still runs: a mapping outlives its owner, and a pid is given away again.
fn living(pages: Vec<Page>, processes: &[Process]) -> Vec<Page> {
    let lives = |page: &Page| {
        let Some(process) = processes.iter().find(|p| p.pid == page.pid) else {
            return true;
        };
        let same = match (page.snapshot(), process.start_ticks.known()) {
            (Some(snapshot), Some(ticks)) if snapshot.pid == page.pid => {
                snapshot.start_ticks == *ticks
            }
            _ => true,
        };
        !process.gone && same
    };
    pages.into_iter().filter(lives).collect()
}
