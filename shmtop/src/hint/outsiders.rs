//! What others than the watched programs certainly used of some CPUs: asked by rules that put the blame on them.
//!
//! The kernel counts a thread's time, not where it was spent. So every watched thread that may have run on these CPUs is taken to have spent
//! all of its time there, and what is left of their busy time is less than what others used, never more.

use super::Context;
use crate::rate::Span;
use crate::reading::{Reading, Why};
use crate::sample::{Process, Thread};

impl Context<'_> {
    /// CPU time on these CPUs that none of the watched processes can have used, in CPUs; it is what outsiders took. Also the total.
    ///
    /// # Errors
    /// The busy time isn't known, or not the time of a watched process.
    pub(super) fn outsiders(&self, cpus: &[u32]) -> Reading<(f64, f64)> {
        let mut busy = 0.0;
        for cpu in self.model.host.cpus.iter().filter(|c| cpus.contains(&c.id)) {
            // What the hypervisor took is nobody's on this machine.
            busy += (cpu.busy.clone()? - cpu.steal.clone().unwrap_or(0.0)).max(0.0);
        }
        let before = self.before()?;
        let mut ours = self.model.viewer_cpu.clone().unwrap_or(0.0);
        for p in self.sample.processes.iter().filter(|p| !p.gone) {
            seen_whole(p)?;
            let old = before.process(p.pid);
            for t in &p.threads {
                let old = old.and_then(|p| p.thread(t.tid));
                if may_have_run(old, t, cpus) {
                    ours += used(old, t, before.time.monotonic_ns).unwrap_or(0.0);
                }
            }
        }
        Ok(((busy - ours).max(0.0), busy))
    }
}

/// All of its threads are known.
fn seen_whole(p: &Process) -> Reading<()> {
    let pid = p.pid;
    if p.threads.is_empty() {
        let why = format!("the threads of process {pid} can't be read: they may be who is there");
        return Err(Why::no_permission(why));
    }
    match p.thread_count.known() {
        Some(all) if *all as usize > Process::MAX_THREADS => {
            let seen = Process::MAX_THREADS;
            Err(Why::not_there(format!(
                "{seen} of the {all} threads of process {pid} are looked at"
            )))
        }
        _ => Ok(()),
    }
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
