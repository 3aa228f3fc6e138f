//! Where a poller runs.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::wait::slice::is_filtered;

/// Brings the calling thread to `cpu`, if it may run there and does not. It is as free as before to be taken elsewhere: nothing stays
/// that a thread or process started by a handler would inherit. Under a seccomp filter
/// nothing is asked for: who may not do this is killed for trying.
pub(super) fn go_to(cpu: usize) {
    if sched_getcpu().is_ok_and(|here| here == cpu) || is_filtered() {
        return;
    }
    let own = Pid::from_raw(0);
    let mut there = CpuSet::new();
    if let Ok(allowed) = sched_getaffinity(own)
        && allowed.is_set(cpu).unwrap_or(false)
        && there.set(cpu).is_ok()
        && sched_setaffinity(own, &there).is_ok()
    {
        // What was allowed a moment ago; should it fail, this is still one of the CPUs allowed.
        let _ = sched_setaffinity(own, &allowed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_goes_to_a_cpu_may_run_where_it_could_before() {
        let own = Pid::from_raw(0);
        let before = sched_getaffinity(own).expect("the CPUs");
        let allowed = (0..CpuSet::count()).filter(|cpu| before.is_set(*cpu).unwrap_or(false));
        for cpu in allowed.take(4) {
            go_to(cpu);
            assert_eq!(sched_getaffinity(own).expect("the CPUs"), before);
        }
        // One that there is not, or that is not allowed: nothing happens.
        go_to(CpuSet::count());
        assert_eq!(sched_getaffinity(own).expect("the CPUs"), before);
    }
}
