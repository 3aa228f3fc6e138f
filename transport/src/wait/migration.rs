//! Moving the calling thread off a CPU, or to one, once, without keeping it there.
//!
//! Linux spreads runnable threads evenly, and who yields is runnable. Of a server and 16 busy clients on two CPUs it puts eight beside the server, which
//! then answers a round of them each time it has the CPU, and every request costs a switch between processes. If the clients are all on the other
//! CPU, answers come while they spin ([`super::turn`]), three for each switch. The kernel moves threads back every few dozen milliseconds; who finds
//! itself beside the server again leaves again.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::slice::is_filtered;
use crate::clock::Ticks;

/// Time between two moves of one waiter, at least. One takes some 20 µs (the kernel's migration thread has to run), so this bounds what
/// following the advice of one connection can cost to half a per cent, whatever a peer writes.
const MIN_INTERVAL_NS: u64 = 4_000_000;

const CALLING_THREAD: Pid = Pid::from_raw(0);

/// The CPU the calling thread runs on, as of now; `None` on a kernel that does not tell.
pub(crate) fn current_cpu() -> Option<usize> {
    sched_getcpu().ok()
}

/// One waiter's moves.
#[derive(Debug)]
pub(super) struct Migration {
    last: Option<Ticks>,
}

impl Migration {
    pub(super) const fn new() -> Self {
        Self { last: None }
    }

    /// Whether the calling thread runs on `cpu`, and has not moved just now.
    #[inline]
    pub(super) fn is_due(&self, cpu: usize, now: Ticks) -> bool {
        let rests = |last| now.ns_since(last) < MIN_INTERVAL_NS;
        current_cpu() == Some(cpu) && !self.last.is_some_and(rests)
    }

    /// Moves the calling thread off `cpu`, if it may run elsewhere.
    pub(super) fn leave(&mut self, cpu: usize, now: Ticks) {
        self.last = Some(now);
        leave(cpu);
    }
}

/// Moves the calling thread off `cpu`, if it may run elsewhere. What it may run on is afterwards what it was before; whether it has moved.
#[cold]
fn leave(cpu: usize) -> bool {
    visit(|own| {
        let mut others = *own;
        // The only one, or none of ours: the kernel refuses an empty set, and the same set moves nothing.
        let some = others.unset(cpu).is_ok() && others != *own && others != CpuSet::new();
        some.then_some(others)
    })
}

/// Brings the calling thread to `cpu`, if it may run there and does not. It is as free as before to be taken elsewhere: nothing stays
/// that a thread or process started by a handler would inherit.
pub(crate) fn go_to(cpu: usize) {
    if current_cpu() != Some(cpu) {
        visit(|own| {
            let mut there = CpuSet::new();
            let allowed = own.is_set(cpu) == Ok(true) && there.set(cpu).is_ok();
            allowed.then_some(there)
        });
    }
}

/// Keeps the calling thread for a moment to those CPUs that `there` makes of its own; whether it was brought there.
///
/// Not under a seccomp filter, where some are killed for asking. Somebody else who changes the thread's affinity in these
/// microseconds may find that undone.
fn visit(there: impl FnOnce(&CpuSet) -> Option<CpuSet>) -> bool {
    if is_filtered() {
        return false;
    }
    let Ok(own) = sched_getaffinity(CALLING_THREAD) else {
        return false;
    };
    let Some(there) = there(&own) else {
        return false;
    };
    if sched_setaffinity(CALLING_THREAD, &there).is_err() {
        return false;
    }
    // Everything first: a thread whose affinity nobody has set follows its cpuset when that grows, and one that was set to all CPUs does so, too. Only
    // if that is more than it had, what it had. Fails, if at all, because the cpuset has changed, and then the kernel has set it anew.
    let _ = sched_setaffinity(CALLING_THREAD, &everything());
    if sched_getaffinity(CALLING_THREAD) != Ok(own) {
        let _ = sched_setaffinity(CALLING_THREAD, &own);
    }
    true
}

fn everything() -> CpuSet {
    let mut all = CpuSet::new();
    for cpu in 0..CpuSet::count() {
        // In range by construction.
        let _ = all.set(cpu);
    }
    all
}

#[cfg(test)]
impl Migration {
    /// Whether it was ever tried.
    pub(super) const fn has_moved(&self) -> bool {
        self.last.is_some()
    }
}

#[cfg(test)]
fn only(cpu: usize) -> CpuSet {
    let mut one = CpuSet::new();
    one.set(cpu).expect("in range");
    one
}

/// Of the calling thread, for good; which one.
#[cfg(test)]
pub(super) fn keep_to_one_cpu() -> usize {
    let cpu = current_cpu().expect("a CPU");
    sched_setaffinity(CALLING_THREAD, &only(cpu)).expect("its own");
    cpu
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_thread<T: Send>(what: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| scope.spawn(what).join().expect("no panic"))
    }

    fn own() -> CpuSet {
        sched_getaffinity(CALLING_THREAD).expect("an affinity mask")
    }

    fn cpus(set: &CpuSet) -> Vec<usize> {
        let is_set = |cpu: &usize| set.is_set(*cpu) == Ok(true);
        (0..CpuSet::count()).filter(is_set).collect()
    }

    /// What /proc says that the thread may run on, which is what was asked of the kernel and not what it made of it.
    fn allowed() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").expect("procfs");
        let line = status.lines().find(|l| l.starts_with("Cpus_allowed:"));
        line.expect("a mask").to_owned()
    }

    #[test]
    fn a_thread_leaves_a_cpu_and_may_go_back_to_it() {
        let all = cpus(&own());
        let [first, second, ..] = all[..] else {
            return; // Nowhere to go on one CPU.
        };
        for cpu in [first, second, first] {
            on_a_thread(|| {
                // There, for certain, and then free to run where it was.
                sched_setaffinity(CALLING_THREAD, &only(cpu)).expect("one of its own");
                let mut both = only(first);
                both.set(second).expect("in range");
                sched_setaffinity(CALLING_THREAD, &both).expect("its own");
                let before = allowed();
                assert!(leave(cpu));
                assert_eq!((own(), allowed()), (both, before));
            });
        }
    }

    #[test]
    fn a_thread_that_may_run_everywhere_may_do_so_afterwards() {
        on_a_thread(|| {
            let (before, cpu) = (own(), current_cpu().expect("a CPU"));
            assert_eq!(leave(cpu), cpus(&before).len() > 1);
            assert_eq!(own(), before);
        });
    }

    #[test]
    fn who_was_given_one_cpu_stays_there_and_a_cpu_of_nobodys_is_left_by_nobody() {
        on_a_thread(|| {
            let cpu = keep_to_one_cpu();
            assert!(!leave(cpu));
            assert_eq!(own(), only(cpu));
            for nonsense in [CpuSet::count() - 1, CpuSet::count(), usize::MAX] {
                assert!(!leave(nonsense));
            }
            assert_eq!(own(), only(cpu));
        });
    }

    #[test]
    fn who_goes_to_a_cpu_may_run_where_it_could_before() {
        on_a_thread(|| {
            let before = (own(), allowed());
            // The last one is none of ours: nothing happens.
            for cpu in cpus(&own()).into_iter().take(4).chain([CpuSet::count()]) {
                go_to(cpu);
                assert_eq!((own(), allowed()), before);
            }
        });
    }

    #[test]
    fn who_goes_to_a_cpu_gets_there() {
        on_a_thread(|| {
            for cpu in cpus(&own()).into_iter().take(4) {
                // The kernel may have taken it elsewhere again, but not each time.
                let comes = || {
                    go_to(cpu);
                    current_cpu() == Some(cpu)
                };
                assert!((0..100).any(|_| comes()), "{cpu}");
            }
        });
    }

    #[test]
    fn moves_are_rare_whatever_is_asked_for() {
        on_a_thread(|| {
            let cpu = keep_to_one_cpu();
            let (mut migration, now) = (Migration::new(), Ticks::now());
            assert!(migration.is_due(cpu, now));
            migration.leave(cpu, now);
            let mut later = now;
            while later.ns_since(now) < MIN_INTERVAL_NS {
                assert!(!migration.is_due(cpu, later));
                later = Ticks::now();
            }
            assert!(migration.is_due(cpu, later));
            // Elsewhere there is nothing to leave.
            assert!(!migration.is_due(cpu + 1, later));
        });
    }

    /// Kills the process for asking: if this fails, it takes all other tests with it.
    #[test]
    fn a_thread_whose_system_calls_are_filtered_never_asks() {
        on_a_thread(|| {
            let cpu = current_cpu().expect("a CPU");
            crate::wait::slice::kill_for(libc::SYS_sched_setaffinity);
            assert!(!leave(cpu));
        });
    }
}
