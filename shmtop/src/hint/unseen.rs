//! CPU time that the watched programs may have used without having been seen at it: before others are blamed, it is taken off.
//!
//! Threads and processes come and go between two looks, some can't be read, and of a crowd only the first are looked at. Each such doubt has an amount
//! and a reason; the amounts add up, and the reason that is told is the largest one's.

use std::collections::HashMap;

use transport::stats::{Role, Slot, SlotKind, SlotState, Snapshot};

use super::kin::Kin;
use crate::model::join::is_connection;
use crate::reading::Why;
use crate::sample::{Page, Process, Sample};

/// Doubts, in CPUs.
#[derive(Clone, Debug, Default)]
pub(super) struct Unseen {
    cpus: f64,
    worst: Option<(f64, Why)>,
    /// What processes used beyond their threads: in all, and the most with its pid. Each by itself may be less than a process's time, in
    /// ticks, can differ from that of its threads; of many it is a CPU.
    rests: (f64, (f64, u32)),
}

impl Unseen {
    fn of(cpus: f64, why: impl FnOnce() -> Why) -> Self {
        let mut unseen = Self::default();
        unseen.add(cpus, why);
        unseen
    }

    /// One more of `cpus`; none if that is not above 0.
    pub(super) fn add(&mut self, cpus: f64, why: impl FnOnce() -> Why) {
        if cpus <= 0.0 {
            return;
        }
        self.cpus += cpus;
        if self.worst.as_ref().is_none_or(|(most, _)| cpus > *most) {
            self.worst = Some((cpus, why()));
        }
    }

    /// All of it, and what is most of it.
    pub(super) fn sum(mut self) -> (f64, Why) {
        let (all, (most, pid)) = self.rests;
        self.add(all, || {
            let whose = if most > all / 2.0 {
                format!("process {pid}")
            } else {
                "several processes".into()
            };
            Why::not_there(format!(
                "threads of {whose} came and went: they may be who was there"
            ))
        });
        let why = self.worst.map(|(_, why)| why);
        (
            self.cpus,
            why.unwrap_or_else(|| Why::not_there("nothing is in the way")),
        )
    }

    /// What a process used without the threads that are looked at: some have ended, or are not looked at. `rest` is what its own count says beyond
    /// theirs, if it can be read; `refused` is a thread whose own count says nothing.
    pub(super) fn of_process(&mut self, p: &Process, rest: Option<f64>, refused: Option<u32>) {
        let pid = p.pid;
        let all = p.thread_count.known().map_or(0, |all| *all as usize);
        let unknown = rest.unwrap_or(f64::INFINITY);
        if p.threads.is_empty() {
            self.add(unknown, || {
                Why::no_permission(format!(
                    "the threads of process {pid} can't be read: they may be who is there"
                ))
            });
        } else if all > Process::MAX_THREADS {
            let most = Process::MAX_THREADS;
            self.add(unknown, || {
                Why::not_there(format!(
                    "{most} of the {all} threads of process {pid} are looked at: the others may be who is there"
                ))
            });
        } else if let Some(tid) = refused {
            self.add(unknown, || {
                Why::gap(format!(
                    "what thread {tid} of process {pid} used can't be told: it may be who is there"
                ))
            });
        } else if let Some(rest) = rest {
            let (all, most) = &mut self.rests;
            *all += rest.max(0.0);
            if rest > most.0 {
                *most = (rest, pid);
            }
        } else {
            self.add(unknown, || {
                Why::not_there(format!(
                    "what process {pid} used in all can't be told: threads that came and went may be who was there"
                ))
            });
        }
    }

    /// Another's on top of it.
    pub(super) fn with(mut self, other: &Self) -> Self {
        if let Some((_, why)) = &other.worst {
            self.add(other.cpus, || why.clone());
        }
        self
    }
}

/// Processes that are ours, or were within the window, and that the sample at its end does not measure.
#[derive(Debug)]
pub(super) struct Missing {
    ended: Unseen,
    /// By who stands for a family: of one family's peers another can say that they are strangers.
    strangers: HashMap<u32, Unseen>,
    kin: Kin,
}

impl Missing {
    pub(super) fn between(before: &Sample, now: &Sample) -> Self {
        let sides = sides(now);
        let mut kin = Kin::of(now);
        let mut unseen = Unseen::default();
        let ended = ended(before, now, &sides);
        let cpus: f64 = ended.values().sum();
        unseen.add(cpus, || {
            let whose = match ended.keys().next() {
                Some(Who::Here(pid)) if ended.len() == 1 => format!("process {pid}"),
                _ => format!("{} processes", ended.len()),
            };
            Why::gap(format!(
                "{whose} ended or let go of its connection within the second: that may be who was there"
            ))
        });
        Self {
            ended: unseen,
            strangers: strangers(now, &sides, &mut kin),
            kin,
        }
    }

    /// Who stands for the family of a process.
    pub(super) fn family(&mut self, pid: u32) -> u32 {
        self.kin.find(pid)
    }

    /// What is missing for those of one family.
    pub(super) fn of(&self, family: u32) -> Unseen {
        match self.strangers.get(&family) {
            Some(strangers) => self.ended.clone().with(strangers),
            None => self.ended.clone(),
        }
    }
}

/// Peers that are connected and not looked at: there are too many, or their numbers are of another pid namespace. By the family that they are
/// peers of: to all others they are no more than what else runs on the machine.
fn strangers(now: &Sample, sides: &Sides, kin: &mut Kin) -> HashMap<u32, Unseen> {
    let mut strangers: HashMap<u32, Unseen> = HashMap::new();
    for (page, snapshot, slot) in connections(now).filter(|(.., slot)| is_connection(slot)) {
        let peer = peer(now, page, snapshot, slot, sides);
        if matches!(peer, Who::Here(pid) if now.process(pid).is_some()) {
            continue;
        }
        // Any of them may have used all there is.
        let unseen = Unseen::of(f64::INFINITY, || {
            let of = page.pid;
            Why::not_there(match peer {
                Who::Here(pid) => format!(
                    "process {pid}, a peer of process {of}, is not looked at: it may be who is there"
                ),
                Who::Elsewhere(..) => format!(
                    "a peer of process {of} can't be found from here: it may be who is there"
                ),
            })
        });
        strangers.entry(kin.find(page.pid)).or_insert(unseen);
    }
    strangers
}

/// A process: by its pid, or, where that is of another namespace, by the page that tells of it and what it is called there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Here(u32),
    Elsewhere(u32, u64),
}

/// By connection and role, closed ones included: the process of the page that tells of it.
type Sides = HashMap<(u64, Role), u32>;

/// Every side of a connection, closed ones included.
pub(super) fn connections(sample: &Sample) -> impl Iterator<Item = (&Page, &Snapshot, &Slot)> {
    let pages = sample.pages.iter();
    pages
        .filter_map(|page| Some((page, page.snapshot()?)))
        .flat_map(|(page, snapshot)| {
            let slots = snapshot.slots.iter();
            let mine = slots.filter(|s| s.info.kind == SlotKind::Connection);
            mine.map(move |slot| (page, snapshot, slot))
        })
}

fn sides(sample: &Sample) -> Sides {
    let known = connections(sample).filter(|(.., slot)| slot.info.connection_id != 0);
    known
        .map(|(page, snapshot, slot)| ((slot.info.connection_id, snapshot.role), page.pid))
        .collect()
}

/// Who is at the other end: by its own page, or by pid where that means the same here.
fn peer(now: &Sample, page: &Page, snapshot: &Snapshot, slot: &Slot, sides: &Sides) -> Who {
    let (id, pid) = (slot.info.connection_id, slot.info.peer_pid);
    let other = match snapshot.role {
        Role::Server => Role::Client,
        Role::Client => Role::Server,
    };
    if let Some(pid) = sides.get(&(id, other)) {
        return Who::Here(*pid);
    }
    let is_here = now.is_here(snapshot);
    match pid {
        0 => Who::Elsewhere(page.pid, id),
        pid if is_here => Who::Here(pid),
        pid => Who::Elsewhere(page.pid, pid.into()),
    }
}

/// The processes that were ours within the window and that its two samples don't measure, and how many CPUs each may have used: what
/// it had threads, and one if nobody saw it.
fn ended(before: &Sample, now: &Sample, sides: &Sides) -> HashMap<Who, f64> {
    let alive = |sample: &'_ Sample, pid: u32| sample.process(pid).is_some_and(|p| !p.gone);
    let mut ended = HashMap::new();
    for old in before.processes.iter().filter(|p| !p.gone) {
        let new = now.process(old.pid).filter(|p| !p.gone);
        if !new.is_some_and(|new| same_process(old, new)) {
            let threads = old.threads.len().max(1);
            ended.insert(Who::Here(old.pid), threads as f64);
        }
    }
    for new in now.processes.iter().filter(|p| p.gone) {
        if before.process(new.pid).is_none() {
            ended.insert(Who::Here(new.pid), 1.0);
        }
    }
    let start_ns = before.time.monotonic_ns;
    for (page, snapshot, slot) in connections(now) {
        if slot.info.state != SlotState::Closed || slot.info.closed_ns <= start_ns {
            continue;
        }
        let who = peer(now, page, snapshot, slot, sides);
        let measured = matches!(who, Who::Here(pid) if alive(before, pid) && alive(now, pid));
        if !measured {
            ended.entry(who).or_insert(1.0);
        }
    }
    ended
}

/// Whether it is the same process: a pid is given away again.
pub(super) fn same_process(old: &Process, new: &Process) -> bool {
    match (old.start_ticks.known(), new.start_ticks.known()) {
        (Some(old), Some(new)) => old == new,
        _ => true,
    }
}
