//! Commands that rules share. What a finding says to do is either a line that a shell takes as it stands (what is left to a person
//! follows behind `#`), or a sentence; never a command with a gap in it.

use super::Context;
use crate::model::ThreadView;

/// How to wait without a core to oneself, in the library's words and in those of the programs that come with it.
pub(super) const WAIT_WELL: &str =
    "Config::wait = Adaptive or Park (exchange, trader: --wait adaptive or park)";

/// A setting of the library with its value, and the flag of the programs that come with it: other programs have no such flag.
pub(super) fn setting(who: &str, (field, value): (&str, u64), flag: &str) -> String {
    format!("Config::{field} = {value} ({who}: {flag} {value})")
}

/// Raises the descriptor limit of a process. The soft limit alone where the hard one has room: a bare number would set both, and so
/// take room away that the process was given.
pub(super) fn raise_nofile(ctx: &Context<'_>, pid: u32, wanted: u64) -> String {
    let limits = ctx.process(pid).and_then(|p| p.limits.get());
    let both = matches!(limits, Ok(l) if l.nofile.hard.is_some_and(|hard| hard < wanted));
    format!(
        "prlimit --pid {pid} --nofile={wanted}{}",
        if both { "" } else { ":" }
    )
}

/// Writes to a file that is root's: the redirection of a `sudo echo` would be done by the shell, without root's rights.
pub(super) fn write_as_root(what: &str, path: &str) -> String {
    format!("echo {what} | sudo tee {}", crate::text::shell(path))
}

/// Moves a thread to the idlest CPU outside of `away` that it can be moved to, or says that there is none.
pub(super) fn move_thread(ctx: &Context<'_>, pid: u32, tid: u32, away: &[u32]) -> String {
    match idlest(ctx, pid, away) {
        Some(cpu) => format!("taskset -cp {cpu} {tid}"),
        None => "there is no other CPU that it may use: run less there, widen its cpuset, or use a larger machine".into(),
    }
}

/// Keeps a thread to the CPU it is on.
pub(super) fn keep_thread(ctx: &Context<'_>, pid: u32, thread: &ThreadView) -> String {
    match &thread.last_cpu {
        Ok(cpu) => format!("taskset -cp {cpu} {}", thread.tid),
        Err(_) => move_thread(ctx, pid, thread.tid, &[]),
    }
}

/// The CPU with the most idle time, of those not in `away` that the process's cpuset has (the kernel refuses others) and that are not isolated
/// (they were set apart for somebody); one that shares its core with one of those in `away` only if there is no other.
pub(super) fn idlest(ctx: &Context<'_>, pid: u32, away: &[u32]) -> Option<u32> {
    let process = ctx.process(pid).ok();
    let cpuset = process.and_then(|p| p.cgroups.cpuset.known());
    let may_be = |id: u32| {
        let cpu = ctx.sample.host.cpus.iter().find(|c| c.cpu == id);
        cpuset.is_none_or(|set| set.contains(&id)) && !cpu.is_some_and(|c| c.isolated)
    };
    let beside = |cpu: &crate::model::CpuView| {
        let siblings = cpu.siblings.as_ref().map_or(&[][..], |s| s.as_slice());
        siblings.iter().any(|s| away.contains(s))
    };
    let cpus = ctx.model.host.cpus.iter();
    let cpus = cpus.filter(|c| !away.contains(&c.id) && may_be(c.id));
    cpus.min_by(|a, b| {
        let busy = |c: &crate::model::CpuView| c.busy.clone().unwrap_or(1.0);
        (beside(a).cmp(&beside(b))).then(busy(a).total_cmp(&busy(b)))
    })
    .map(|c| c.id)
}

/// Whether what was said of a thread (`D in __refrigerator`) means that its group is frozen.
pub(super) fn is_frozen(whereabouts: &str) -> bool {
    ["refrigerator", "freezer"]
        .iter()
        .any(|place| whereabouts.contains(place))
}

/// Lets a frozen process go on. Nothing else helps, and a debugger would hang.
pub(super) fn thaw(pid: u32) -> String {
    format!(
        "cat /proc/{pid}/cgroup   # its group is frozen: docker unpause, systemctl thaw, or what else froze it"
    )
}

/// Shows what a process waits for: `files` of its threads, and their stacks.
pub(super) fn look_inside(pid: u32, files: &str, whereabouts: Option<&str>) -> String {
    if whereabouts.is_some_and(is_frozen) {
        return thaw(pid);
    }
    format!("cat /proc/{pid}/task/{files}; gdb -p {pid} -batch -ex 'thread apply all bt'")
}
