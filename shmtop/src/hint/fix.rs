//! Commands that rules share. What a finding says to do is either a line that a shell takes as it stands (what is left to a person
//! follows behind `#`), or a sentence; never a command with a gap in it.

use super::Context;
use crate::model::ThreadView;
use crate::sample::Limit;

/// How to wait without a core to oneself, in the library's words and in those of the programs that come with it.
pub(super) const WAIT_WELL: &str =
    "Config::wait = Adaptive or Park (exchange, trader: --wait adaptive or park)";

/// What the two rings of a connection take where no page says it.
pub(super) const DEFAULT_RINGS: u64 = 64 << 20;

/// A setting of the library with its value, and the flag of the programs that come with it: other programs have no such flag.
pub(super) fn setting(who: &str, (field, value): (&str, u64), flag: &str) -> String {
    format!("Config::{field} = {value} ({who}: {flag} {value})")
}

/// A resource limit that a process may be short of.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    Descriptors,
    LockedMemory,
    FileSize,
    AddressSpace,
}

impl Bound {
    /// Its flag of prlimit.
    fn flag(self) -> &'static str {
        match self {
            Self::Descriptors => "nofile",
            Self::LockedMemory => "memlock",
            Self::FileSize => "fsize",
            Self::AddressSpace => "as",
        }
    }

    /// As it is now, if that could be read.
    pub(super) fn of(self, ctx: &Context<'_>, pid: u32) -> Option<Limit> {
        let limits = ctx.process(pid).ok()?.limits.get().ok()?;
        Some(match self {
            Self::Descriptors => limits.nofile,
            Self::LockedMemory => limits.memlock,
            Self::FileSize => limits.fsize,
            Self::AddressSpace => limits.address_space,
        })
    }

    /// Raises the limit of a process to `wanted`. The soft limit alone where the hard one has room, and that much any user may: a bare
    /// number would set both, and so take room away that the process was given.
    pub(super) fn raise(self, ctx: &Context<'_>, pid: u32, wanted: u64) -> String {
        let hard = self.of(ctx, pid).and_then(|limit| limit.hard);
        self.set(
            ctx,
            pid,
            &wanted.to_string(),
            hard.is_none_or(|hard| hard >= wanted),
        )
    }

    /// Takes the limit of a process away, or as much of it as its user may where that leaves room for `needed`.
    pub(super) fn lift(self, ctx: &Context<'_>, pid: u32, needed: u64) -> String {
        match self.of(ctx, pid).and_then(|limit| limit.hard) {
            Some(hard) if hard >= needed => self.raise(ctx, pid, hard),
            hard => self.set(ctx, pid, "unlimited", hard.is_none()),
        }
    }

    fn set(self, ctx: &Context<'_>, pid: u32, to: &str, soft_alone: bool) -> String {
        let flag = self.flag();
        match soft_alone {
            true => format!("{}prlimit --pid {pid} --{flag}={to}:", sudo_for(ctx, pid)),
            // Beyond the hard limit only root gets.
            false => format!("{}prlimit --pid {pid} --{flag}={to}", sudo(ctx)),
        }
    }
}

/// Before a command that takes root's rights; nothing if who looks has them.
pub(super) fn sudo(ctx: &Context<'_>) -> &'static str {
    match ctx.sample.viewer.euid {
        0 => "",
        _ => "sudo ",
    }
}

/// Sets a sysctl, by somebody who may; what comes `then` is left to a person.
pub(super) fn sysctl(ctx: &Context<'_>, setting: &str, then: &str) -> String {
    let sudo = match on_host(ctx) {
        "" => sudo(ctx),
        _ => "sudo ",
    };
    format!("{sudo}sysctl {setting}{}", note(ctx, then))
}

/// Behind a command that changes a setting of the kernel's: where that is done, if not here, and what comes `then`.
pub(super) fn note(ctx: &Context<'_>, then: &str) -> String {
    match (on_host(ctx), then) {
        ("", "") => String::new(),
        ("", one) | (one, "") => format!("   # {one}"),
        (on_host, then) => format!("   # {on_host}; {then}"),
    }
}

/// Where the kernel is set, and its log read, if that is not here.
pub(super) fn on_host(ctx: &Context<'_>) -> &'static str {
    match ctx.sample.viewer.fixed_sysctls.known() {
        Some(true) => "on the host: what sets the kernel is read-only here",
        _ => "",
    }
}

/// Before a command that a process's own user may give as well.
pub(super) fn sudo_for(ctx: &Context<'_>, pid: u32) -> &'static str {
    let uid = ctx.process(pid).ok().and_then(|p| p.uid.known());
    match uid {
        Some(uid) if *uid != ctx.sample.viewer.euid => sudo(ctx),
        _ => "",
    }
}

/// Shows which program each of these processes runs. The link is kept from other users.
pub(super) fn look_at_programs(ctx: &Context<'_>, pids: &[u32]) -> String {
    let sudo = pids.iter().map(|pid| sudo_for(ctx, *pid)).max();
    let links: Vec<String> = pids.iter().map(|pid| format!("/proc/{pid}/exe")).collect();
    format!("{}ls -l {}", sudo.unwrap_or_default(), links.join(" "))
}

/// Highest perf_event_paranoid at which anybody may count the user space of their own processes.
pub(super) const USER_SPACE: i64 = 2;

/// `perf`, as who may look into this process.
pub(super) fn perf(ctx: &Context<'_>, pid: u32) -> String {
    let paranoid = ctx.model.host.perf_paranoid.as_ref();
    let sudo = match paranoid.is_ok_and(|now| *now > USER_SPACE) {
        true => sudo(ctx),
        false => sudo_for(ctx, pid),
    };
    format!("{sudo}perf")
}

/// Raises the descriptor limit of a process: to `wanted`, and to twice of what it is at least, as that is used up. The kernel has a limit for the
/// limit, which is raised first where it is reached.
pub(super) fn raise_nofile(ctx: &Context<'_>, pid: u32, wanted: u64) -> String {
    let soft = Bound::Descriptors.of(ctx, pid).and_then(|limit| limit.soft);
    let soft = soft.unwrap_or(0);
    let wanted = wanted.max(soft.saturating_mul(2));
    let most = ctx.sample.host.nr_open.known().copied();
    let most = most.unwrap_or(u64::MAX);
    if most > soft {
        return Bound::Descriptors.raise(ctx, pid, wanted.min(most));
    }
    let (sudo, raise) = (sudo(ctx), Bound::Descriptors.raise(ctx, pid, wanted));
    format!("{sudo}sysctl fs.nr_open={wanted} && {raise}")
}

/// Whether a process whose descriptors ran out has some again: enough for a connection and what else it opens beside.
pub(super) fn has_descriptors(ctx: &Context<'_>, pid: u32, then: u64) -> bool {
    const ENOUGH: u64 = 16;
    let used = ctx.process(pid).and_then(|p| p.fds_below_limit());
    let soft = Bound::Descriptors.of(ctx, pid).and_then(|limit| limit.soft);
    matches!((used, soft), (Ok(used), Some(soft)) if soft > then && soft.saturating_sub(used) >= ENOUGH)
}

/// Writes to a file that is root's: the redirection of a `sudo echo` would be done by the shell, without root's rights.
pub(super) fn write_as_root(ctx: &Context<'_>, what: &str, path: &str) -> String {
    format!(
        "echo {what} | {}tee {}",
        sudo(ctx),
        crate::text::shell(path)
    )
}

/// Moves a thread to the idlest CPU outside of `away` that it can be moved to, or says that there is none.
pub(super) fn move_thread(ctx: &Context<'_>, pid: u32, tid: u32, away: &[u32]) -> String {
    match idlest(ctx, pid, away) {
        Some(cpu) => format!("{}taskset -cp {cpu} {tid}", sudo_for(ctx, pid)),
        None if ctx.model.host.cpus.is_empty() => format!(
            "move it to another core that is idle: which are can't be seen here ({})",
            ctx.no_cpu().text
        ),
        None => {
            let cpus = ctx.model.host.cpus.iter();
            let mut others = cpus.filter(|c| !away.contains(&c.id));
            let known = match others.all(|c| is_idle(ctx, c.id).is_some()) {
                true => "idle",
                false => "known to be idle",
            };
            format!(
                "no other core that it may use is {known}: run less there, widen its cpuset, or use a larger machine"
            )
        }
    }
}

/// Keeps a thread to the CPU it is on.
pub(super) fn keep_thread(ctx: &Context<'_>, pid: u32, thread: &ThreadView) -> String {
    match &thread.last_cpu {
        Ok(cpu) => format!("{}taskset -cp {cpu} {}", sudo_for(ctx, pid), thread.tid),
        Err(_) => move_thread(ctx, pid, thread.tid, &[]),
    }
}

/// A CPU that is busy for a larger share of the time has no room for a thread that spins.
const IDLE_BELOW: f64 = 0.5;

/// Whether a CPU has room for a thread that spins; `None` if that is not known.
pub(super) fn is_idle(ctx: &Context<'_>, cpu: u32) -> Option<bool> {
    let seen = ctx.model.host.cpus.iter().find(|c| c.id == cpu)?;
    seen.busy.as_ref().ok().map(|busy| *busy < IDLE_BELOW)
}

/// The CPU with the most idle time, of those not in `away` that the process's cpuset has (the kernel refuses others) and that are not isolated
/// (they were set apart for somebody), if one of them is known to be idle for half of the time or more; one that shares its core with one of those in `away` only if there is no other.
pub(super) fn idlest(ctx: &Context<'_>, pid: u32, away: &[u32]) -> Option<u32> {
    let process = ctx.process(pid).ok();
    let cpuset = process.and_then(|p| p.cgroups.cpuset.known());
    let may_be = |id: u32| {
        let cpu = ctx.sample.host.cpus.iter().find(|c| c.cpu == id);
        cpuset.is_none_or(|set| set.contains(&id)) && !cpu.is_some_and(|c| c.is_set_apart())
    };
    let beside = |cpu: &crate::model::CpuView| {
        let siblings = cpu.siblings.as_ref().map_or(&[][..], |s| s.as_slice());
        siblings.iter().any(|s| away.contains(s))
    };
    let cpus = ctx.model.host.cpus.iter();
    let busy = |c: &crate::model::CpuView| c.busy.clone().unwrap_or(1.0);
    let idle = |id| is_idle(ctx, id) == Some(true);
    let cpus = cpus.filter(|c| !away.contains(&c.id) && may_be(c.id) && idle(c.id));
    cpus.min_by(|a, b| (beside(a).cmp(&beside(b))).then(busy(a).total_cmp(&busy(b))))
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

/// Shows what a process waits for, or one thread of it: first the look that disturbs nobody. A debugger stops all threads, for seconds where the
/// program is large, and its clients with it. No braces: sh knows none.
pub(super) fn look_inside(
    ctx: &Context<'_>,
    pid: u32,
    tid: Option<u32>,
    whereabouts: Option<&str>,
) -> String {
    if whereabouts.is_some_and(is_frozen) {
        return thaw(pid);
    }
    let tasks = tid.map_or_else(|| "*".to_owned(), |tid| tid.to_string());
    let dir = format!("/proc/{pid}/task/{tasks}");
    let look = format!("{}head {dir}/comm {dir}/wchan", sudo_for(ctx, pid));
    format!(
        "{look}   # where in the program: gdb -p {pid} -batch -ex 'thread apply all bt', which stops all of it for seconds"
    )
}
