//! The outside world, and the one struct that looks at it: [`World`].
//!
//! Everything a [`Sample`] holds is read below this module: pages through `transport::stats`, /proc and /sys under
//! roots that are arguments, clocks in one file, counters through perf_event. Samples hold nothing else.
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
mod interest;
mod isolation;
mod limits;
mod listeners;
mod mounts;
mod net;
mod open_page;
mod options;
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
pub use options::{Options, PerfScope};

use crate::reading::Reading;
use crate::sample::{
    Glance, Host, Listener, Page, PageContent, PerfThread, Place, Process, Sample, Viewer,
};
use std::collections::{BTreeMap, BTreeSet};

/// The outside world: roots, open pages and counters, and what was last read of what changes slowly.
#[derive(Debug)]
pub struct World {
    options: Options,
    own_pid_ns: Reading<u64>,
    own_place: Place,
    own_sysctls: Reading<bool>,
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
            own_sysctls: mounts::is_read_only(&options.proc_root.join("sys")),
            own_program: std::fs::read_link(options.proc_root.join("self/exe"))
                .map_or_else(|_| String::new(), |p| program(&p.to_string_lossy())),
            pages: pages::PageStore::new(&options),
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
        let began_ns = clock::monotonic_ns();
        self.pages.look_for(began_ns);
        // The moment is that of the counters: a search before one sample and none before the next would make its rates too high.
        let mut time = clock::now();
        let now_ns = time.monotonic_ns;
        let mut pages = self.pages.read(now_ns);
        let interest = self.interest(&pages);
        let changed = self.changed(&pages);
        let processes = self.look_at(&interest, &changed, now_ns);
        self.name_threads_as_here(&mut pages);
        let (pages, dead): (Vec<Page>, Vec<Page>) =
            pages.into_iter().partition(|p| lives(p, &processes));
        for page in &dead {
            self.pages.bury(page);
        }
        self.look_at_listeners(&pages, &processes, now_ns);
        let host = self.host.read(now_ns, &mut self.buffer);
        let perf = self.count(&interest, &processes, &host, now_ns);
        time.took_ns = clock::monotonic_ns().saturating_sub(began_ns);
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
                fixed_sysctls: self.own_sysctls.clone().into(),
                program: self.own_program.clone(),
            },
            discovery: self.pages.discovery().clone(),
            ended: self.pages.take_ended(),
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
        for process in seen.iter_mut().filter(|p| p.gone) {
            if let Some(watch) = self.processes.get_mut(&process.pid) {
                watch.read_what_ended_it(&mut self.cgroups, process);
            }
        }
        self.cgroups.end_sample(now_ns);
        seen
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

/// Whether the process of a page still runs: a mapping outlives its owner, and a pid is given away again.
fn lives(page: &Page, processes: &[Process]) -> bool {
    let Some(process) = listeners::find(processes, page.pid) else {
        return true;
    };
    let same = match (page.snapshot(), process.start_ticks.known()) {
        (Some(snapshot), Some(ticks)) if snapshot.pid == page.pid => snapshot.start_ticks == *ticks,
        _ => true,
    };
    !process.gone && same
}
