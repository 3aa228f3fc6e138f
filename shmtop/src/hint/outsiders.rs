//! What others than the watched programs used of some CPUs: asked by rules that put the blame on them.
//!
//! The kernel counts a thread's time, not where it was spent. So there are two answers. At least: every watched thread that may have run on
//! these CPUs is taken to have spent all of its time there, and threads that are not looked at theirs. At most: only those that are
//! there count, with all of their time. Where the two lead to different conclusions nobody knows, and the reason says what is in the way.

use std::cell::RefCell;
use std::collections::HashMap;

use super::Context;
use crate::rate::Span;
use crate::reading::{Reading, Why};
use crate::sample::{Process, Thread};

/// Below this a difference between a process's time and that of its threads, in CPUs, is one of reading them at different moments, in
/// ticks of 10 ms.
const TICKS: f64 = 0.05;

/// CPU time on some CPUs, in CPUs.
#[derive(Clone, Debug)]
pub(super) struct Outsiders {
    /// What no watched thread can have used.
    pub(super) least: f64,
    /// What no thread that is there now has used.
    pub(super) most: f64,
    /// All of it.
    pub(super) busy: f64,
    /// What makes the two differ most.
    pub(super) doubt: Why,
}

/// By list of CPUs.
pub(super) type Known = RefCell<HashMap<Vec<u32>, Reading<Outsiders>>>;

impl Context<'_> {
    /// What outsiders took of these CPUs.
    ///
    /// # Errors
    /// The busy time isn't known.
    pub(super) fn outsiders(&self, cpus: &[u32]) -> Reading<Outsiders> {
        if let Some(known) = self.once.outsiders.borrow().get(cpus) {
            return known.clone();
        }
        let answer = self.measure_outsiders(cpus);
        let mut known = self.once.outsiders.borrow_mut();
        known.insert(cpus.to_vec(), answer.clone());
        answer
    }

    fn measure_outsiders(&self, cpus: &[u32]) -> Reading<Outsiders> {
        let mut busy = 0.0;
        for cpu in self.model.host.cpus.iter().filter(|c| cpus.contains(&c.id)) {
            // What the hypervisor took is nobody's on this machine.
            busy += (cpu.busy.clone()? - cpu.steal.clone().unwrap_or(0.0)).max(0.0);
        }
        let before = self.before()?;
        let start_ns = before.time.monotonic_ns;
        let there = self.model.viewer_cpu.clone().unwrap_or(0.0);
        let (mut there, mut moving) = (there, 0.0);
        let mut unseen = Vec::new();
        for p in self.sample.processes.iter().filter(|p| !p.gone) {
            let old = before.process(p.pid);
            let mut seen = 0.0;
            for t in &p.threads {
                let old = old.and_then(|p| p.thread(t.tid));
                let used = used(old, t, start_ns).unwrap_or(0.0);
                seen += used;
                if t.last_cpu.known().is_some_and(|cpu| cpus.contains(cpu)) {
                    there += used;
                } else if may_have_run(old, t, cpus) {
                    moving += used;
                }
            }
            let all = used_by_all(old, p, start_ns, self.sample.host.ticks_per_second);
            unseen.extend(unseen_of(p, all.map(|all| all - seen)));
        }
        let hidden: f64 = unseen.iter().map(|(cpus, _)| cpus).sum();
        unseen.push((
            moving,
            Why::not_there("watched threads move from CPU to CPU: they may be who is there"),
        ));
        let doubt = unseen.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Outsiders {
            least: (busy - there - moving - hidden).max(0.0),
            most: (busy - there).max(0.0),
            busy,
            doubt: doubt.map_or_else(|| Why::not_there("nothing is in the way"), |(_, why)| why),
        })
    }
}

/// CPUs that a process used without the threads that are looked at, and why that may be: some have ended, or are not looked at. `rest` is what its
/// own count says beyond theirs, if it can be read.
fn unseen_of(p: &Process, rest: Option<f64>) -> Option<(f64, Why)> {
    let pid = p.pid;
    let all = p.thread_count.known().map_or(0, |all| *all as usize);
    let (rest, why) = if p.threads.is_empty() {
        let why = format!("the threads of process {pid} can't be read: they may be who is there");
        (rest.unwrap_or(f64::INFINITY), Why::no_permission(why))
    } else if all > Process::MAX_THREADS {
        let most = Process::MAX_THREADS;
        let why = format!(
            "{most} of the {all} threads of process {pid} are looked at: the others may be who is there"
        );
        (rest.unwrap_or(f64::INFINITY), Why::not_there(why))
    } else {
        let why = format!("threads of process {pid} came and went: they may be who was there");
        (rest.unwrap_or(0.0), Why::not_there(why))
    };
    (rest > TICKS).then_some((rest, why))
}

/// Whether it may have been on one of these CPUs. One that never changed CPUs was on its own only, wherever else it may go.
fn may_have_run(old: Option<&Thread>, new: &Thread, cpus: &[u32]) -> bool {
    let moves = |t: &Thread| Some((*t.last_cpu.known()?, *t.migrations.known()?));
    if let (Some(before), Some(now)) = (old.and_then(moves), moves(new))
        && before == now
    {
        return cpus.contains(&now.0);
    }
    // Both ends of the window: its affinity may have changed within.
    old.into_iter().chain([new]).any(|t| {
        let allowed = t.allowed_cpus.known();
        let there = t.last_cpu.known().is_some_and(|c| cpus.contains(c));
        there || allowed.is_none_or(|list| list.iter().any(|c| cpus.contains(c)))
    })
}

/// CPUs it used since `start_ns`. One that was not there before has used all it ever did since then, and never more than one.
fn used(old: Option<&Thread>, new: &Thread, start_ns: u64) -> Option<f64> {
    let run_ns = *new.run_ns.known()?;
    let Some(old) = old else {
        let span = Span::between(start_ns, new.at_ns).ok()?;
        return Some((run_ns as f64 / span.ns() as f64).min(1.0));
    };
    let span = Span::between(old.at_ns, new.at_ns).ok()?;
    span.share(*old.run_ns.known()?, run_ns).ok()
}

/// CPUs that all of its threads used, ended ones included.
fn used_by_all(
    old: Option<&Process>,
    new: &Process,
    start_ns: u64,
    ticks_per_second: u64,
) -> Option<f64> {
    let ticks = *new.cpu_ticks.known()?;
    let (before, from_ns) = match old {
        Some(old) => (*old.cpu_ticks.known()?, old.at_ns),
        None => (0, start_ns),
    };
    let span = Span::between(from_ns, new.at_ns).ok()?;
    let cpus = span.per_second(before, ticks).ok()? / ticks_per_second.max(1) as f64;
    Some(cpus)
}
