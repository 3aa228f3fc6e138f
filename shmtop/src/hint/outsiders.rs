//! What others than the watched programs used of some CPUs: asked by rules that put the blame on them.
//!
//! The kernel counts a thread's time, not where it was spent, and that of a CPU, on most kernels, in ticks. So there are two answers. At
//! least: every watched thread that may have run on these CPUs is taken to have spent all of its time there, and whatever else makes the
//! answer uncertain is taken off ([`Unseen`]). At most: only those that are there count, with all of their time. Where the two lead to
//! different conclusions nobody knows, and the reason says what is in the way.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use super::Context;
use super::unseen::{Missing, Unseen, same_process};
use crate::rate::Span;
use crate::reading::{Reading, Why};
use crate::sample::{CpuJiffies, Host, Process, Sample, Thread};

/// Time of a CPU that may be accounted too much or too little, as a share of what passed: more is said to be a doubt.
const UNACCOUNTED: f64 = 0.05;
/// Readings that are further apart are of different moments.
const APART_NS: u64 = 50_000_000;

/// CPU time on some CPUs, in CPUs.
#[derive(Clone, Debug)]
pub(super) struct Outsiders {
    /// What no watched thread can have used.
    pub(super) least: f64,
    /// What no thread that is there now has used.
    pub(super) most: f64,
    /// What all processes used.
    pub(super) busy: f64,
    /// What makes the two differ most.
    pub(super) doubt: Why,
}

/// By list of CPUs.
type ByCpus = HashMap<Vec<u32>, Reading<Outsiders>>;

/// What was worked out in this window.
#[derive(Default)]
pub(super) struct Known {
    /// By who stands for a family of processes.
    by_cpus: RefCell<HashMap<u32, ByCpus>>,
    /// Wherever they may have run.
    missing: OnceCell<RefCell<Missing>>,
}

impl Context<'_> {
    /// What outsiders took of these CPUs, as seen by those that belong with process `pid`.
    ///
    /// # Errors
    /// The busy time isn't known.
    pub(super) fn outsiders(&self, pid: u32, cpus: &[u32]) -> Reading<Outsiders> {
        let before = self.before()?;
        let missing = &self.once.outsiders.missing;
        let missing = missing.get_or_init(|| RefCell::new(Missing::between(before, self.sample)));
        let family = missing.borrow_mut().family(pid);
        let known = &self.once.outsiders.by_cpus;
        if let Some(known) = known.borrow().get(&family).and_then(|k| k.get(cpus)) {
            return known.clone();
        }
        let answer = self.measure_outsiders(before, missing.borrow().of(family), cpus);
        let mut known = known.borrow_mut();
        let of_family = known.entry(family).or_default();
        of_family.insert(cpus.to_vec(), answer.clone());
        answer
    }

    fn measure_outsiders(
        &self,
        before: &Sample,
        mut unseen: Unseen,
        cpus: &[u32],
    ) -> Reading<Outsiders> {
        let time = Spent::between(&before.host, &self.sample.host, cpus)?;
        let start_ns = before.time.monotonic_ns;
        let there = self.model.viewer_cpu.clone().unwrap_or(0.0);
        let (mut there, mut moving) = (there, 0.0);
        for p in self.sample.processes.iter().filter(|p| !p.gone) {
            let old = before.process(p.pid).filter(|old| same_process(old, p));
            let (mut seen, mut refused) = (0.0, None);
            for t in &p.threads {
                let old = old.and_then(|p| p.thread(t.tid));
                let Some(used) = used(old, t, start_ns) else {
                    // The process's own count has it.
                    refused = Some(t.tid);
                    continue;
                };
                seen += used;
                if t.last_cpu.known().is_some_and(|cpu| cpus.contains(cpu)) {
                    there += used;
                } else if may_have_run(old, t, cpus) {
                    moving += used;
                }
            }
            let all = used_by_all(old, p, start_ns, self.sample.host.ticks_per_second);
            unseen.of_process(p, all.map(|all| all - seen), refused);
        }
        unseen.add(moving, || {
            Why::not_there("watched threads move from CPU to CPU: they may be who is there")
        });
        unseen.add(time.doubtful, || {
            let (cpu, percent) = (time.worst, time.worst_accounted * 100.0);
            Why::not_there(format!(
                "the kernel accounted {percent:.0} % of CPU {cpu}'s time: what ran there is not certain"
            ))
        });
        let apart_ns = apart_ns(before).max(apart_ns(self.sample));
        if apart_ns > APART_NS {
            // No more than these CPUs can have done between the two moments.
            let span = Span::between(before.host.at_ns, self.sample.host.at_ns)?;
            let most = cpus.len() as f64 * apart_ns as f64 / span.ns() as f64;
            let changed = (time.busy - self.busy_before(cpus)).abs();
            unseen.add(changed.min(most), || {
                Why::gap(
                    "the load changed, and not all threads were read when it did: they may be who is there",
                )
            });
        }
        let (hidden, doubt) = unseen.sum();
        Ok(Outsiders {
            least: (time.busy - there - hidden).max(0.0),
            most: (time.busy - there).max(0.0),
            busy: time.busy,
            doubt,
        })
    }

    /// What all processes used of these CPUs in the window before this one; 0 where that is not known.
    fn busy_before(&self, cpus: &[u32]) -> f64 {
        let n = self.windows.len();
        let [Some(start), Some(end)] = [2, 1].map(|back| self.windows.get(n.wrapping_sub(back)))
        else {
            return 0.0;
        };
        Spent::between(&start.host, &end.host, cpus).map_or(0.0, |s| s.busy)
    }
}

/// Where the time of some CPUs went, in CPUs.
struct Spent {
    /// With processes: an interrupt's time is nobody's on this machine, nor is what the hypervisor took.
    busy: f64,
    /// What was accounted too much or too little. With idle time by the clock and the rest by ticks, many short runs are met by more or fewer
    /// ticks than are theirs.
    doubtful: f64,
    /// The CPU where the two differ most, and the share of its time that was accounted.
    worst: u32,
    worst_accounted: f64,
}

impl Spent {
    fn between(before: &Host, now: &Host, cpus: &[u32]) -> Reading<Self> {
        if let Some(why) = &now.cpus_unknown {
            return Err(why.clone());
        }
        let span = Span::between(before.at_ns, now.at_ns)?;
        let per_tick = 1.0 / now.ticks_per_second.max(1) as f64;
        let mut spent = Self {
            busy: 0.0,
            doubtful: 0.0,
            worst: 0,
            worst_accounted: 1.0,
        };
        for cpu in now.cpus.iter().filter(|c| cpus.contains(&c.cpu)) {
            let old = before.cpus.iter().find(|c| c.cpu == cpu.cpu);
            let old = old.ok_or_else(|| Why::not_yet("needs a second sample"))?;
            let share = |of: fn(&CpuJiffies) -> u64| {
                let ticks = span.per_second(of(&old.jiffies), of(&cpu.jiffies))?;
                Ok::<f64, Why>(ticks * per_tick)
            };
            spent.busy += share(CpuJiffies::of_processes)?;
            let accounted = share(CpuJiffies::total)?;
            let off = (accounted - 1.0).abs();
            if off > UNACCOUNTED {
                spent.doubtful += off;
                if off > (spent.worst_accounted - 1.0).abs() {
                    (spent.worst, spent.worst_accounted) = (cpu.cpu, accounted);
                }
            }
        }
        Ok(spent)
    }
}

/// How far apart the machine and what runs of the watched processes were read, ns. What a process's own count covers need not be read thread by
/// thread in that moment.
fn apart_ns(sample: &Sample) -> u64 {
    let off = |at_ns: u64| at_ns.abs_diff(sample.host.at_ns);
    let of = |p: &Process| {
        let threads = p.threads.iter().filter(|_| p.cpu_ticks.known().is_none());
        threads.fold(off(p.at_ns), |most, t| most.max(off(t.at_ns)))
    };
    let living = sample.processes.iter().filter(|p| !p.gone);
    living.map(of).max().unwrap_or(0)
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
