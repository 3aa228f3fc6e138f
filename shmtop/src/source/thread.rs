//! One thread: what is read of it each time, what once a second. Called by `process`.

use super::file::{Kept, harmless, nonsense};
use super::parse::{Stat, Status, migrations, schedstat};
use super::room::Room;
use crate::reading::Why;
use crate::sample::{Fact, Thread};
use std::path::{Path, PathBuf};

/// Files of a thread that owns a slot; of others one is read again and again.
const HOT_FILES: usize = 5;

/// A thread being watched, and what was last seen of it.
#[derive(Debug)]
pub(super) struct ThreadWatch {
    dir: PathBuf,
    stat: Kept,
    schedstat: Kept,
    status: Kept,
    sched: Kept,
    wchan: Kept,
    /// Owns a slot: read for each sample.
    hot: bool,
    /// Descriptors it keeps open.
    pub(super) held: usize,
    /// Times and state at the last look at the rest: who has not run since is as it was.
    facts_of: Option<Progress>,
    pub(super) seen: Thread,
}

/// ns on a CPU, ns waiting for one, turns; state.
type Progress = (u64, u64, u64, char);

impl ThreadWatch {
    /// Keeps its files open if there is room for them: one, or all if it owns a slot.
    pub(super) fn new(proc_root: &Path, pid: u32, tid: u32, hot: bool, room: &mut Room) -> Self {
        let dir = proc_root.join(format!("{pid}/task/{tid}"));
        let files = if hot { HOT_FILES } else { 1 };
        let keep = room.take(files);
        Self {
            stat: Kept::new(dir.join("stat"), hot && keep),
            schedstat: Kept::new(dir.join("schedstat"), keep),
            status: Kept::new(dir.join("status"), hot && keep),
            sched: Kept::new(dir.join("sched"), hot && keep),
            wchan: Kept::new(dir.join("wchan"), hot && keep),
            dir,
            hot,
            held: if keep { files } else { 0 },
            facts_of: None,
            seen: Thread {
                tid,
                ..Thread::default()
            },
        }
    }

    pub(super) fn is_hot(&self) -> bool {
        self.hot
    }

    /// Whether it owns a slot: more is read of those that do.
    pub(super) fn set_hot(&mut self, hot: bool, room: &mut Room) {
        if self.hot != hot {
            self.hot = hot;
            self.facts_of = None;
            if hot && room.take(HOT_FILES - self.held) {
                self.held = HOT_FILES;
                self.files().into_iter().for_each(Kept::keep);
            }
        }
    }

    fn files(&mut self) -> [&mut Kept; HOT_FILES] {
        [
            &mut self.stat,
            &mut self.schedstat,
            &mut self.status,
            &mut self.sched,
            &mut self.wchan,
        ]
    }

    /// Reads what changes quickly. False if the thread is gone.
    pub(super) fn read_quick(&mut self, now_ns: u64, buffer: &mut Vec<u8>) -> bool {
        let stat = self
            .stat
            .read(buffer)
            .map(Stat::parse)
            .and_then(|stat| stat.ok_or_else(|| nonsense(self.stat.path())));
        if stat.is_err() && !self.dir.exists() {
            return false;
        }
        let seen = &mut self.seen;
        seen.at_ns = now_ns;
        let part = |f: fn(&Stat) -> u64| Fact::from(stat.as_ref().map(f).map_err(Why::clone));
        seen.utime_ticks = part(|s| s.utime_ticks);
        seen.stime_ticks = part(|s| s.stime_ticks);
        seen.minor_faults = part(|s| s.minor_faults);
        seen.major_faults = part(|s| s.major_faults);
        match stat {
            Ok(stat) => {
                seen.state = Fact::Known(stat.state);
                seen.last_cpu = Fact::Known(stat.last_cpu);
                seen.policy = Fact::Known(stat.policy);
                seen.rt_priority = Fact::Known(stat.rt_priority);
                seen.nice = Fact::Known(stat.nice);
                seen.comm = stat.comm;
            }
            Err(why) => {
                seen.state = Fact::Unknown(why.clone());
                seen.last_cpu = Fact::Unknown(why.clone());
                seen.policy = Fact::Unknown(why.clone());
                seen.rt_priority = Fact::Unknown(why.clone());
                seen.nice = Fact::Unknown(why);
            }
        }
        self.times(buffer);
        true
    }

    /// Reads its CPU time alone. False if the thread is gone.
    pub(super) fn read_times(&mut self, now_ns: u64, buffer: &mut Vec<u8>) -> bool {
        self.times(buffer);
        if self.seen.run_ns.known().is_none() && !self.dir.exists() {
            return false;
        }
        let seen = &mut self.seen;
        seen.at_ns = now_ns;
        // Those of the last look would make a rate of nothing.
        let why = || Why::not_applicable("counted only on threads that own a slot");
        seen.minor_faults = Fact::Unknown(why());
        seen.major_faults = Fact::Unknown(why());
        true
    }

    /// How far it got. `None` if that can't be told: a kernel that does not count its turns says 0.
    fn progress(&self) -> Option<Progress> {
        let seen = &self.seen;
        let slices = *seen.slices.known().filter(|n| **n > 0)?;
        Some((
            *seen.run_ns.known()?,
            *seen.wait_ns.known()?,
            slices,
            *seen.state.known()?,
        ))
    }

    fn times(&mut self, buffer: &mut Vec<u8>) {
        let times = self
            .schedstat
            .read(buffer)
            .map(schedstat)
            .and_then(|t| t.ok_or_else(|| nonsense(self.schedstat.path())));
        let seen = &mut self.seen;
        match times {
            Ok((run, wait, slices)) => {
                seen.run_ns = Fact::Known(run);
                seen.wait_ns = Fact::Known(wait);
                seen.slices = Fact::Known(slices);
            }
            Err(why) => {
                seen.run_ns = Fact::Unknown(why.clone());
                seen.wait_ns = Fact::Unknown(why.clone());
                seen.slices = Fact::Unknown(why);
            }
        }
    }

    /// Reads the rest, unless it has not run since the last time; but with `settings`, which hardly ever change and by the hand of others, it is
    /// all read. `status` is what its status file says, if that was read already.
    pub(super) fn read_facts(
        &mut self,
        now_ns: u64,
        settings: bool,
        status: Option<&Status>,
        buffer: &mut Vec<u8>,
    ) {
        self.seen.facts_at_ns = now_ns;
        let progress = self.progress();
        if !settings && progress.is_some() && progress == self.facts_of {
            return;
        }
        self.facts_of = progress;
        let seen = &mut self.seen;
        let read;
        let status = match status {
            Some(known) => Ok(known),
            None => {
                let text = self.status.text(buffer);
                read = text.map(|text| Status::parse(&text));
                read.as_ref()
            }
        };
        let path = self.status.path();
        fn of<T>(status: &Result<&Status, &Why>, path: &Path, part: Option<T>) -> Fact<T> {
            match status {
                Ok(_) => part.ok_or_else(|| nonsense(path)).into(),
                Err(why) => Fact::Unknown((*why).clone()),
            }
        }
        let known = status.ok();
        seen.voluntary_switches = of(&status, path, known.and_then(|s| s.voluntary_switches));
        seen.involuntary_switches = of(&status, path, known.and_then(|s| s.involuntary_switches));
        seen.allowed_cpus = of(&status, path, known.and_then(|s| s.allowed_cpus.clone()));
        seen.inner_tid = known.and_then(|s| s.inner);
        if !self.hot {
            let why = || Why::not_applicable("read only of threads that own a slot");
            seen.migrations = Fact::Unknown(why());
            seen.wchan = Fact::Unknown(why());
            return;
        }
        seen.migrations = self
            .sched
            .text(buffer)
            .and_then(|t| {
                migrations(&t).ok_or_else(|| Why::not_there("this kernel counts no migrations"))
            })
            .into();
        seen.wchan = match seen.state.known() {
            // Who runs waits nowhere.
            Some('R') => Fact::Known(String::new()),
            _ => self.wchan.text(buffer).map(|name| wchan(&name)).into(),
        };
    }
}

/// The kernel writes "0" for a thread that does not sleep.
fn wchan(name: &str) -> String {
    match name.trim() {
        "0" => String::new(),
        name => harmless(name),
    }
}
