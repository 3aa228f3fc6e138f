//! Rules about memory that runs out: control groups, kills, the machine, locks.

use transport::stats::Role;

use super::fix::{Bound, setting, write_as_root};
use super::kills::OOM_KILLED;
use super::ring_size::smallest_ring;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Endpoint, Severity};
use crate::reading::Why;
use crate::sample::MemoryGroup;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[MEMCG_HEADROOM, OOM_KILLED, LOW_MEMORY, MEMLOCK];

/// What a process needs besides rings, now and then.
const SOME_BYTES: u64 = 64 << 20;
/// A group grows if it takes a hundredth of its limit in ten seconds, or this much: less than either is the breath of one that stands.
const GROWS_BYTES: u64 = 16 << 20;
/// A group that is full so soon, at its pace, is an emergency.
const SOON_NS: u64 = 60_000_000_000;

rule! {
    /// Shared memory is charged to the group of whoever touches it first, and beyond the limit the kernel swaps, or kills. Cache that the
    /// kernel would give up first is not counted as used. Parents bind as well as the own group. A client whose rings would not fit is refused
    /// shared memory and served over the socket: a warning. It is critical where what is left goes at such a pace, over
    /// ten seconds, that it is gone within a minute. A large group that is nearly full for good is well, and one that gives and takes some pages
    /// at its limit does not grow.
    MEMCG_HEADROOM = "memcg-headroom", Warn, "the memory limit of the cgroup is near";
    fires: "left in the tightest group: less than two more clients' rings, or less than 10 % of the limit and than four clients' rings and 64 MiB; crit if it is full within a minute at its pace, and took 1 % of the limit or 16 MiB within ten seconds";
    quiet: "no limit, or no further client is admitted and there is some left";
    fix: "raise memory.max, or smaller rings";
    explains: ["socket-fallback"];
    check: Endpoint(memcg_headroom);
}

fn memcg_headroom(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let cgroups = &ctx.process(e.pid)?.cgroups;
    cgroups.memory.as_reading()?;
    let Some(group) = cgroups.tightest_memory() else {
        return Err(Why::not_applicable("no memory limit is set"));
    };
    let limit = group.limit_bytes.get()?.unwrap_or(u64::MAX);
    let left = group.headroom_bytes().unwrap_or(0);
    let each = if e.role == Role::Server {
        e.admission.ring_bytes
    } else {
        0
    };
    let comes = e.admission.may_come(e.clients.len()) && each > 0;
    let for_clients = if comes { each.saturating_mul(2) } else { 0 };
    let near = (limit / 10).min(each.saturating_mul(4).saturating_add(SOME_BYTES));
    if left >= for_clients.max(near) {
        return QUIET;
    }
    let file = match group.version {
        crate::sample::CgroupVersion::V2 => "memory.max",
        crate::sample::CgroupVersion::V1 => "memory.limit_in_bytes",
    };
    let of = format!("{} of {}", text::bytes(left), text::bytes(limit));
    let full_ns = full_within_ns(ctx, e, group).filter(|ns| *ns < SOON_NS);
    let mut says = match left.checked_div(each) {
        Some(0) if comes => format!(
            "the next client of {} (pid {}) needs {}, and {of} are left: it would be refused shared memory",
            e.name,
            e.pid,
            text::bytes(each)
        ),
        Some(n) if comes => format!(
            "{} (pid {}) has {of} left: room for the rings of {n} more client{}, others would be refused shared memory",
            e.name,
            e.pid,
            if n == 1 { "" } else { "s" }
        ),
        _ => format!("{} (pid {}) has {of} left", e.name, e.pid),
    };
    if let Some(ns) = full_ns {
        says += &format!(
            "; at this pace it is full in {}, and the kernel swaps or kills",
            text::ns(ns)
        );
    }
    let smaller = match smallest_ring(e) {
        ring if each > 0 && ring.saturating_mul(2) < each => {
            let ring = setting("exchange, trader", ("ring_bytes", ring), "--ring-size");
            format!("   # or smaller rings: {ring}")
        }
        _ => String::new(),
    };
    Fire::new(
        says,
        format!(
            "{}{smaller}",
            write_as_root(
                ctx,
                &limit.saturating_mul(2).to_string(),
                &format!("{}/{file}", group.path)
            )
        ),
    )
    .number(
        "left",
        left as f64,
        "bytes",
        format!("{}/{file} less usage and reclaimable cache", group.path),
        format!("< {}", for_clients.max(near)),
    )
    .number(
        "limit",
        limit as f64,
        "bytes",
        format!("{}/{file}", group.path),
        "",
    )
    .number(
        "one more client",
        each as f64,
        "bytes",
        "stats page: ring_bytes",
        "",
    )
    .at(match full_ns {
        Some(_) => Severity::Crit,
        None => Severity::Warn,
    })
    .fires()
}

/// How long until a group is full, at the pace of ten seconds (a process that starts grows for a moment); `None` if it hardly grows or that is not known.
fn full_within_ns(ctx: &Context<'_>, e: &Endpoint, group: &MemoryGroup) -> Option<u64> {
    let then = ctx.ten_ago().ok()?;
    let limit = group.limit_bytes.get().ok()??;
    let before = then.process(e.pid)?.cgroups.memory.known()?;
    let before = before.iter().find(|g| g.path == group.path)?;
    let grown = group.needed_bytes()?.checked_sub(before.needed_bytes()?)?;
    let took_ns = (ctx.sample.time.monotonic_ns).saturating_sub(then.time.monotonic_ns);
    let pace = grown as f64 / took_ns as f64;
    let grows = grown >= (limit / 100).clamp(1, GROWS_BYTES);
    grows.then(|| (group.headroom_bytes().unwrap_or(0) as f64 / pace) as u64)
}

rule! {
    /// memfds are reserved without memory behind them. Should all rings be touched to the end, this much more is needed; the
    /// machine does not have it. Only counted where the producers are visible.
    LOW_MEMORY = "low-memory", Warn, "the machine lacks memory for the rings that were promised";
    fires: "MemAvailable below the ring bytes reserved and not yet touched";
    quiet: "prefaulted, or enough";
    fix: "smaller rings or fewer clients";
    check: Host(low_memory);
}

fn low_memory(ctx: &Context<'_>) -> Answer {
    let available = ctx.model.host.memory_available_bytes.clone()?;
    let mut promised = 0u64;
    for e in ctx
        .model
        .endpoints
        .iter()
        .filter(|e| e.role == Role::Server)
    {
        promised = promised.saturating_add(
            e.totals
                .ring_reserved_bytes
                .saturating_sub(e.totals.ring_touched_bytes),
        );
    }
    // A ring walked with its window never reaches its end, so only a machine that is short anyway is worth a warning.
    let total = ctx.model.host.memory_total_bytes.clone()?;
    if available >= promised || available as f64 > 0.1 * total as f64 {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} of memory available, {} of ring memory promised and not yet touched",
            text::bytes(available),
            text::bytes(promised)
        ),
        "smaller rings: Config::ring_bytes (exchange, trader: --ring-size); or fewer clients: Config::max_clients (exchange: --max-clients)",
    )
    .number(
        "available",
        available as f64,
        "bytes",
        "/proc/meminfo MemAvailable",
        format!("< {promised}"),
    )
    .fires()
}

rule! {
    /// A process that has locked a quarter of what it has in memory, or all (mlockall), locks its rings too; the next one must fit under the limit. Others
    /// lock a key or a buffer, and rings don't concern them. The limit does not bind who has CAP_IPC_LOCK, as root usually does.
    MEMLOCK = "memlock", Warn, "the limit of locked memory is too small for one more ring";
    fires: "RLIMIT_MEMLOCK below locked memory plus one more client's rings, in a process that has locked a quarter of its resident memory or more";
    quiet: "little is locked, the process has CAP_IPC_LOCK (root), or no further client is admitted";
    fix: "prlimit --pid PID --memlock=N";
    check: Endpoint(memlock);
}

fn memlock(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let process = ctx.process(e.pid)?;
    let memory = process.memory.get()?;
    let locked = memory.locked_bytes;
    let Some(limit) = process.limits.get()?.memlock.soft else {
        return QUIET;
    };
    // Recordings from before it was looked at say nothing of it: more locked than allowed tells, too.
    if locked > limit || process.may_lock.known().is_some_and(|may| *may) {
        return QUIET;
    }
    let need = locked.saturating_add(e.admission.ring_bytes);
    let locks_most = locked > 0 && locked >= memory.rss_bytes / 4;
    let comes = e.admission.ring_bytes > 0 && e.admission.may_come(e.clients.len());
    if !locks_most || !comes || limit >= need {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} (pid {}) has locked {} of {}; one more client needs {}",
            e.name,
            e.pid,
            text::bytes(locked),
            text::bytes(limit),
            text::bytes(e.admission.ring_bytes)
        ),
        Bound::LockedMemory.raise(ctx, e.pid, need.saturating_mul(2)),
    )
    .number(
        "RLIMIT_MEMLOCK",
        limit as f64,
        "bytes",
        format!("/proc/{}/limits", e.pid),
        format!("< {need}"),
    )
    .number(
        "VmLck",
        locked as f64,
        "bytes",
        format!("/proc/{}/status", e.pid),
        "",
    )
    .fires()
}
