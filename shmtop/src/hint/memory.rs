//! Rules about memory that runs out: control groups, kills, the machine, locks.

use transport::stats::Role;

use super::fix::{Bound, setting};
use super::groups::more_memory;
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
/// Of [`crate::model::Client::huge_pages`]: in use.
const HUGE: u32 = 1;
/// A group that is full so soon, at its pace, is an emergency.
const SOON_NS: u64 = 60_000_000_000;

rule! {
    /// Shared memory is charged to the group of whoever touches it first, and beyond the limit the kernel swaps, or kills. Parents bind as well
    /// as the own group. File cache and slab that the kernel gives up before it kills are not counted as used, neither here nor by the library, which
    /// serves a client over the socket whose rings would not fit. It is critical where what is left goes at such a pace, over ten seconds, that it is
    /// gone within a minute. A large group that is nearly full for good is well, and one that gives and takes some pages at its limit does not
    /// grow: info, as is a group with room for one more client that is not 80 % full. What has no more left than such a breath is a warning
    /// however it came to be. Who keeps the limit is told to raise it: systemd that of its units, the engine or the kubelet that of a container,
    /// and a group above others is not raised for one of them.
    MEMCG_HEADROOM = "memcg-headroom", Warn, "the memory limit of the cgroup is near";
    fires: "left in the tightest group: less than two more clients' rings, or less than 10 % of the limit and than four clients' rings and 64 MiB; warn if not one more client fits, or one does and 80 % are used, or it took 1 % of the limit or 16 MiB within ten seconds, or has less than that left, else info; crit if it is full within a minute at its pace";
    quiet: "no limit, or no further client is admitted and there is some left";
    fix: "raise the limit where it is kept (memory.max, MemoryMax= of a unit, the container's own), or smaller rings";
    explains: ["socket-fallback", "fallback-churn"];
    check: Endpoint(memcg_headroom);
}

fn memcg_headroom(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let cgroups = &ctx.process(e.pid)?.cgroups;
    cgroups.memory.as_reading()?;
    let Some(group) = cgroups.tightest_memory() else {
        return Err(Why::not_applicable("no memory limit is set"));
    };
    let each = if e.role == Role::Server {
        e.admission.ring_bytes
    } else {
        0
    };
    let comes = e.admission.may_come(e.clients.len()) && each > 0;
    let for_clients = if comes { each.saturating_mul(2) } else { 0 };
    let left = group.headroom_bytes().unwrap_or(0);
    let limit = limit_of(group);
    let near = (limit / 10).min(each.saturating_mul(4).saturating_add(SOME_BYTES));
    if left >= near.max(for_clients) {
        return QUIET;
    }
    let pace = pace(ctx, e, group);
    let full_ns = pace.map(|pace| (left as f64 / pace) as u64);
    let full_ns = full_ns.filter(|ns| *ns < SOON_NS);
    let is_full = left < for_clients && (left < each || left < limit / 5);
    let is_near = left < near && (pace.is_some() || left < breath(limit));
    let severity = match (full_ns, is_full || is_near) {
        (Some(_), _) => Severity::Crit,
        (None, true) => Severity::Warn,
        (None, false) => Severity::Info,
    };
    let file = match group.version {
        crate::sample::CgroupVersion::V2 => "memory.max",
        crate::sample::CgroupVersion::V1 => "memory.limit_in_bytes",
    };
    let of = format!("{} of {}", text::bytes(left), text::bytes(limit));
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
    let short = near.max(for_clients).saturating_sub(left);
    let raise = more_memory(ctx, e.pid, group, limit.saturating_add(short));
    let fix = match smallest_ring(e) {
        ring if each > 0 && ring.saturating_mul(2) < each => {
            let ring = setting("exchange, trader", ("ring_bytes", ring), "--ring-size");
            raise.or(&format!("smaller rings: {ring}"))
        }
        _ => raise.alone(),
    };
    Fire::new(says, fix)
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
        .at(severity)
        .fires()
}

fn limit_of(group: &MemoryGroup) -> u64 {
    let limit = group.limit_bytes.known().copied().flatten();
    limit.unwrap_or(u64::MAX)
}

/// What a group of this limit gives and takes while it stands.
fn breath(limit: u64) -> u64 {
    (limit / 100).clamp(1, GROWS_BYTES)
}

/// Bytes per ns that a group takes, over ten seconds (a process that starts grows for a moment); `None` if it hardly grows or that is not known.
fn pace(ctx: &Context<'_>, e: &Endpoint, group: &MemoryGroup) -> Option<f64> {
    let then = ctx.ten_ago().ok()?;
    let before = then.process(e.pid)?.cgroups.memory.known()?;
    let before = before.iter().find(|g| g.path == group.path)?;
    let grown = group.needed_bytes()?.checked_sub(before.needed_bytes()?)?;
    let took_ns = (ctx.sample.time.monotonic_ns).saturating_sub(then.time.monotonic_ns);
    (grown >= breath(limit_of(group))).then(|| grown as f64 / took_ns as f64)
}

rule! {
    /// memfds are reserved without memory behind them. Should all rings be touched to the end, this much more is needed; the
    /// machine does not have it. Only counted where the producers are visible. Rings in reserved huge pages have theirs, and take none of what is left.
    LOW_MEMORY = "low-memory", Warn, "the machine lacks memory for the rings that were promised";
    fires: "MemAvailable below the ring bytes reserved and not yet touched";
    quiet: "prefaulted, in reserved huge pages, or enough";
    fix: "smaller rings or fewer clients";
    check: Host(low_memory);
}

fn low_memory(ctx: &Context<'_>) -> Answer {
    let available = ctx.model.host.memory_available_bytes.clone()?;
    let servers = ctx.model.endpoints.iter();
    let servers = servers.filter(|e| e.role == Role::Server);
    let promised = servers
        .flat_map(|e| &e.clients)
        .filter(|c| c.huge_pages != HUGE)
        .flat_map(|c| [&c.tx, &c.rx])
        .filter_map(|ring| {
            let (capacity, touched) = (&ring.capacity_bytes, &ring.touched_bytes);
            Some(capacity.clone().ok()?.saturating_sub(touched.clone().ok()?))
        })
        .fold(0, u64::saturating_add);
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
