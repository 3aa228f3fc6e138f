//! One process: what is read of it each time, what once a second. Called by `World` for every process that has a page
//! or is the peer of one.
//!
//! A process costs one small file and each thread that owns a slot two, twice a second; everything else is due once a
//! second. Each process has its own moments, so that no sample pays for all of them. What was read when stands in
//! the `at_ns` of the sample: rates are taken between readings, not between samples.

use super::cgroup::CgroupReader;
use super::facts::FactFiles;
use super::file::{Kept, nonsense};
use super::parse::Stat;
use super::room::Room;
use super::thread::ThreadWatch;
use crate::reading::{Reading, Why};
use crate::sample::{Fact, Process};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Threads without a slot keep their files open only in a process that has no more threads than this: of hundreds, hardly any runs.
const KEPT_THREADS: usize = 8;
/// Files of a process itself that are kept open.
const OWN_FILES: usize = 3;
/// State, faults, CPU time: a stopped process must show within a second, and a rate needs some length.
const QUICK_NS: u64 = 450_000_000;
/// The rest. Below a second, so that every second's window has a new reading however the refresh jitters.
const FACTS_NS: u64 = 900_000_000;
/// What somebody would have to change by hand (limits, cgroup, slack), and what threads without a slot do: each so many
/// times the facts are read.
const SETTINGS_TURNS: u64 = 5;
/// The first looks read everything quick: the second makes the first rates.
const FIRST_LOOKS: u32 = 2;

/// A process being watched, and what was last seen of it.
#[derive(Debug)]
pub(super) struct ProcessWatch {
    proc_root: PathBuf,
    dir: PathBuf,
    stat: Kept,
    files: FactFiles,
    /// Those of them that are read each second, and `stat`, are kept open.
    keep: bool,
    threads: Vec<ThreadWatch>,
    /// Threads that a slot names and that were not there: a slot keeps the number of who opened it, and that thread may have ended.
    /// They are not looked for again unless a listing has them.
    absent: BTreeSet<u32>,
    looks: u32,
    quick_due_ns: u64,
    facts_looks: u32,
    due_ns: u64,
    seen: Process,
    /// It was seen to be gone in this sample, and its groups have not been read after that.
    ended: bool,
}

/// What a look at a process needs besides the process.
pub(super) struct Look<'w> {
    pub(super) now_ns: u64,
    pub(super) buffer: &'w mut Vec<u8>,
    pub(super) cgroups: &'w mut CgroupReader,
    /// Threads that own a slot.
    pub(super) hot: &'w BTreeSet<u32>,
    /// Number of this process among those looked at.
    pub(super) turn: u64,
    /// Whether ring mappings are wanted.
    pub(super) detail: bool,
    /// Whether the machine may have swapped something out.
    pub(super) swap: bool,
    /// For descriptors kept open between looks.
    pub(super) room: &'w mut Room,
    /// Whether everything is due: its page says that connections came or went, so what was counted before them would contradict it.
    pub(super) renew: bool,
}

impl ProcessWatch {
    pub(super) fn new(proc_root: &Path, pid: u32, room: &mut Room) -> Self {
        let keep = room.take(OWN_FILES);
        let dir = proc_root.join(pid.to_string());
        Self {
            proc_root: proc_root.to_owned(),
            stat: Kept::new(dir.join("stat"), keep),
            files: FactFiles::new(dir.clone(), keep),
            keep,
            dir,
            threads: Vec::new(),
            absent: BTreeSet::new(),
            looks: 0,
            quick_due_ns: 0,
            facts_looks: 0,
            due_ns: 0,
            seen: Process {
                pid,
                ..Process::default()
            },
            ended: false,
        }
    }

    /// Descriptors that it keeps open.
    pub(super) fn held(&self) -> usize {
        let own = if self.keep { OWN_FILES } else { 0 };
        own + self.threads.iter().map(|t| t.held).sum::<usize>()
    }

    /// Its thread that is called so in its own pid namespace, as far as was seen.
    pub(super) fn thread_inside(&self, inner_tid: u32) -> Option<u32> {
        let mut threads = self.threads.iter();
        let found = threads.find(|t| t.seen.inner_tid == Some(inner_tid))?;
        Some(found.seen.tid)
    }

    /// Looks at the process, as far as it is time to.
    pub(super) fn look(&mut self, mut look: Look<'_>) -> Process {
        let unknown = |tid: &u32| {
            !self.absent.contains(tid) && !self.threads.iter().any(|t| t.seen.tid == *tid)
        };
        let due = look.now_ns >= self.quick_due_ns || look.renew;
        if !due && !self.seen.gone && !look.hot.iter().any(unknown) {
            return self.seen.clone();
        }
        self.looks += 1;
        self.quick_due_ns = look.now_ns
            + match self.looks {
                0..FIRST_LOOKS => 0,
                // Five groups of processes, 90 ms apart.
                FIRST_LOOKS => (look.turn % 5 + 1) * (QUICK_NS / 5),
                _ => QUICK_NS,
            };
        let mut stat = self.read_stat(look.buffer);
        if stat.is_err() {
            // What was kept open is a process's that has ended; the number may be another's by now, which the path leads to.
            stat = self.read_stat(look.buffer);
        }
        if stat.is_err() && !self.dir.exists() {
            if !is_hidden(&self.proc_root, self.seen.pid) {
                self.ended = !self.seen.gone;
                self.seen.gone = true;
                self.threads.clear();
                return self.seen.clone();
            }
            stat = Err(Why::no_permission("hidden by the hidepid option of /proc"));
        }
        if let Ok(stat) = &stat {
            let other = self
                .seen
                .start_ticks
                .known()
                .is_some_and(|t| *t != stat.start_ticks);
            if other || self.seen.gone {
                // The pid was given to another process: nothing known of the first is true of this one.
                *self = Self::new(&self.proc_root, self.seen.pid, look.room);
            }
        }
        self.quick(stat, look.now_ns);
        if look.now_ns >= self.due_ns || look.renew {
            self.facts(&mut look);
            self.due_ns = look.now_ns
                + match self.due_ns {
                    // Ten groups of processes, 90 ms apart.
                    0 => (look.turn % 10 + 1) * (FACTS_NS / 10),
                    _ => FACTS_NS,
                };
        }
        self.absent.retain(|tid| look.hot.contains(tid));
        for tid in look.hot {
            let known = self.threads.iter().any(|t| t.seen.tid == *tid);
            if !known && !self.absent.contains(tid) && !self.add_thread(*tid, &mut look) {
                self.absent.insert(*tid);
            }
        }
        let (now, hot, buffer) = (look.now_ns, look.hot, look.buffer);
        self.threads.retain_mut(|t| {
            t.set_hot(hot.contains(&t.seen.tid), look.room);
            !t.is_hot() || t.seen.at_ns == now || t.read_quick(now, buffer)
        });
        self.seen.cgroups.cpu = match self.files.cgroup_text() {
            Ok(text) => look.cgroups.cpu(text, now).into(),
            Err(why) => Fact::Unknown(why.clone()),
        };
        self.seen.threads.clear();
        self.seen
            .threads
            .extend(self.threads.iter().map(|t| t.seen.clone()));
        self.seen.clone()
    }

    /// Once all processes were looked at: what ended this one may be counted in its groups, and nobody else may be there to read it.
    pub(super) fn read_what_ended_it(&mut self, cgroups: &mut CgroupReader, seen: &mut Process) {
        if !std::mem::take(&mut self.ended) {
            return;
        }
        if let Ok(text) = self.files.cgroup_text() {
            self.seen.cgroups.memory = cgroups.memory_after_ends(text).into();
            seen.cgroups.memory = self.seen.cgroups.memory.clone();
        }
    }

    fn read_stat(&mut self, buffer: &mut Vec<u8>) -> Reading<Stat> {
        let stat = self.stat.read(buffer).map(Stat::parse);
        stat.and_then(|s| s.ok_or_else(|| nonsense(self.stat.path())))
    }

    fn quick(&mut self, stat: Reading<Stat>, now_ns: u64) {
        let seen = &mut self.seen;
        seen.at_ns = now_ns;
        match stat {
            Ok(stat) => {
                seen.comm = stat.comm;
                seen.start_ticks = Fact::Known(stat.start_ticks);
                seen.state = Fact::Known(stat.state);
                seen.ppid = Fact::Known(stat.ppid);
                seen.cpu_ticks = Fact::Known(stat.utime_ticks.saturating_add(stat.stime_ticks));
                seen.minor_faults = Fact::Known(stat.minor_faults);
                seen.major_faults = Fact::Known(stat.major_faults);
                seen.thread_count = Fact::Known(stat.threads);
            }
            Err(why) => {
                seen.start_ticks = Fact::Unknown(why.clone());
                seen.state = Fact::Unknown(why.clone());
                seen.ppid = Fact::Unknown(why.clone());
                seen.cpu_ticks = Fact::Unknown(why.clone());
                seen.minor_faults = Fact::Unknown(why.clone());
                seen.major_faults = Fact::Unknown(why.clone());
                seen.thread_count = Fact::Unknown(why);
            }
        }
    }

    fn facts(&mut self, look: &mut Look<'_>) {
        // The first two looks give everything its first rate.
        // Each process at its own turn: no sample pays for all of them.
        let turns = u64::from(self.facts_looks) + look.turn;
        let settings = self.facts_looks < FIRST_LOOKS || turns.is_multiple_of(SETTINGS_TURNS);
        self.facts_looks += 1;
        let status = self.files.read(&mut self.seen, settings, look);
        // As many as were known, none of them found gone and none missed: listing them would find the same.
        let there = self.seen.thread_count.known().map(|n| *n as usize);
        if settings || there != Some(self.threads.len()) || !self.absent.is_empty() {
            self.list_threads(look);
        }
        let now = look.now_ns;
        // What the process's status says of a thread it says of the first.
        let (first, status) = (self.seen.pid, status.as_ref().ok());
        self.threads.retain_mut(|thread| {
            // Of a thread without a slot only its CPU time counts, and there may be hundreds.
            let all = thread.is_hot() || settings || thread.seen.facts_at_ns == 0;
            if !all {
                return thread.read_times(now, look.buffer);
            }
            let known = status.filter(|_| thread.seen.tid == first);
            let there = thread.read_quick(now, look.buffer);
            if there {
                thread.read_facts(now, settings, known, look.buffer);
            }
            there
        });
        self.threads.sort_by_key(|t| t.seen.tid);
    }

    fn list_threads(&mut self, look: &mut Look<'_>) {
        let tids = thread_ids(&self.dir.join("task"), look.hot);
        self.absent.retain(|tid| !tids.contains(tid));
        self.threads.retain(|t| tids.contains(&t.seen.tid));
        let few = tids.len() <= KEPT_THREADS;
        for tid in tids {
            if !self.threads.iter().any(|t| t.seen.tid == tid) {
                let hot = look.hot.contains(&tid);
                let mut none = Room::none();
                let room = if hot || few {
                    &mut *look.room
                } else {
                    &mut none
                };
                let (root, pid) = (&self.proc_root, self.seen.pid);
                self.threads
                    .push(ThreadWatch::new(root, pid, tid, hot, room));
            }
        }
    }

    /// A thread that owns a slot and was not there at the last listing; false if it is not there now either.
    fn add_thread(&mut self, tid: u32, look: &mut Look<'_>) -> bool {
        let mut thread = ThreadWatch::new(&self.proc_root, self.seen.pid, tid, true, look.room);
        let there = thread.read_quick(look.now_ns, look.buffer);
        if there {
            thread.read_facts(look.now_ns, true, None, look.buffer);
            let at = self.threads.partition_point(|t| t.seen.tid < tid);
            self.threads.insert(at, thread);
        }
        there
    }
}

/// Whether a process without a directory exists all the same: with hidepid=2 those of others have none. A fixture
/// tree has only the processes in it.
pub(super) fn is_hidden(proc_root: &Path, pid: u32) -> bool {
    let real = proc_root == Path::new("/proc");
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0);
    real && pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// The process's threads; those that own a slot are never the ones left out.
fn thread_ids(task_dir: &Path, hot: &BTreeSet<u32>) -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir(task_dir) else {
        // The reason stands with every other file of the process.
        return BTreeSet::new();
    };
    let all: BTreeSet<u32> = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect();
    let (first, rest): (Vec<u32>, Vec<u32>) = all.into_iter().partition(|t| hot.contains(t));
    first
        .into_iter()
        .chain(rest)
        .take(Process::MAX_THREADS)
        .collect()
}
