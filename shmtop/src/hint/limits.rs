//! Rules about limits of descriptors, files and SysV memory.

use super::fix::{Bound, raise_nofile, sysctl};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::machine::{HANDED_OVER, room_for_clients};
use crate::model::{Endpoint, Severity};
use crate::reading::Why;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[FD_HEADROOM, SYSTEM_FD_HEADROOM, SHMMAX, RLIMIT_FSIZE_AS];

/// Fewer free descriptors than this are an emergency: a log file, a resolver and a pipe need them too.
const FDS_LEFT: u64 = 6;
/// Below this use of the table the clients that may still come are a plan, not a need.
const FDS_USED_SHARE: f64 = 0.8;

rule! {
    /// A soft limit of 1024 is no problem by itself, and `max_clients` (1024 by default) is a promise that few servers ever
    /// have to keep: with both defaults the plain comparison would fire on every machine. So it also takes a table that
    /// is 80 % full. Besides the descriptors that a client keeps there must be one for its rings while they are handed over, or it
    /// ends up on the socket; so the last free descriptor is no room. A client that is on the socket for want of descriptors is the
    /// consequence. The limit bounds the numbers of descriptors: those that were opened before it was lowered, with numbers beyond it,
    /// take no room below it and are not counted.
    FD_HEADROOM = "fd-headroom", Warn, "descriptors run out";
    fires: "more than 80 % of the soft limit used, and too few left for the clients that may still come; crit below 6 left";
    quiet: "the table is less than 80 % full, whatever the limit is";
    fix: "prlimit --pid PID --nofile=N; LimitNOFILE= in the unit; docker run --ulimit nofile=N";
    explains: ["socket-fallback", "fallback-churn"];
    check: Endpoint(fd_headroom);
}

fn fd_headroom(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let (used, soft) = (e.limits.fds_used.clone()?, e.limits.fds_soft.clone()?);
    let left = soft.saturating_sub(used);
    let each = e.admission.fds_per_client;
    let may_come = e
        .admission
        .max_clients
        .saturating_sub(e.clients.len() as u64);
    let short = each > 0
        && left < each.saturating_mul(may_come).saturating_add(HANDED_OVER)
        && used as f64 > FDS_USED_SHARE * soft as f64;
    if !short && left >= FDS_LEFT {
        return QUIET;
    }
    let clients = e.clients.len() as u64;
    let beyond = e.limits.fds_beyond;
    let base = used
        .saturating_add(beyond)
        .saturating_sub(clients.saturating_mul(each));
    let room = match (each, room_for_clients(left, each)) {
        (0, _) => format!("{left} left"),
        (_, 1) => "room for 1 more client".into(),
        (_, n) => format!("room for {n} more clients"),
    };
    let need = if each > 0 && clients > 0 {
        format!(
            ". {clients} {} {}, the process itself {base}",
            if clients == 1 {
                "client uses"
            } else {
                "clients use"
            },
            clients.saturating_mul(each)
        )
    } else {
        String::new()
    };
    let older = match beyond {
        0 => String::new(),
        1 => ". 1 more is open beyond the limit, from before it was lowered".to_owned(),
        n => format!(". {n} more are open beyond the limit, from before it was lowered"),
    };
    let wanted = soft.saturating_mul(4).max(4096);
    let mut fire = Fire::new(
        format!(
            "{} (pid {}): {used} of {soft} fds used: {room}{need}{older}",
            e.name, e.pid
        ),
        raise_nofile(ctx, e.pid, wanted),
    )
    .number(
        "fds used",
        used as f64,
        "",
        format!("/proc/{}/fd", e.pid),
        format!("> {:.0}", FDS_USED_SHARE * soft as f64),
    )
    .number(
        "soft limit",
        soft as f64,
        "",
        format!("/proc/{}/limits", e.pid),
        "",
    )
    .number(
        "fds per client",
        each as f64,
        "",
        "stats page: fds_per_client",
        "",
    );
    if beyond > 0 {
        fire = fire.number(
            "open beyond the limit",
            beyond as f64,
            "",
            format!("/proc/{}/fd", e.pid),
            "",
        );
    }
    if left < FDS_LEFT {
        fire.at(Severity::Crit)
    } else {
        fire
    }
    .fires()
}

rule! {
    /// fs.file-max is near 2^63 on today's kernels; where somebody lowered it, ENFILE hits every process at once.
    SYSTEM_FD_HEADROOM = "system-fd-headroom", Crit, "the system runs out of open files";
    fires: "file-nr above 90 % of file-max";
    quiet: "file-max is near 2^63";
    fix: "sudo sysctl fs.file-max=N";
    explains: ["socket-fallback", "fallback-churn"];
    check: Host(system_fd_headroom);
}

fn system_fd_headroom(ctx: &Context<'_>) -> Answer {
    let (used, max) = ctx.model.host.files.clone()?;
    if max == 0 || used as f64 <= 0.9 * max as f64 {
        return QUIET;
    }
    Fire::new(
        format!("{used} of {max} open files in the system: ENFILE is next, for everybody"),
        sysctl(ctx, &format!("fs.file-max={}", max.saturating_mul(2)), ""),
    )
    .number(
        "open files",
        used as f64,
        "",
        "/proc/sys/fs/file-nr",
        format!("> {:.0}", 0.9 * max as f64),
    )
    .number("file-max", max as f64, "", "/proc/sys/fs/file-nr", "")
    .fires()
}

/// What guides to shared memory ask for.
const CUSTOMARY_SHMMAX: u64 = 1 << 30;

rule! {
    /// A check that many guides to shared memory ask for ("shmmax at least 1 GB"), honestly labelled: kernel.shmmax bounds SysV segments,
    /// not memfds, so it never rises above info. It fires only where the check is not met, and says what does limit.
    SHMMAX = "shmmax", Info, "kernel.shmmax is small, which does not matter here";
    fires: "kernel.shmmax below 1 GiB";
    quiet: "1 GiB or more";
    fix: "nothing: look at the memory cgroup, RLIMIT_FSIZE and RLIMIT_AS instead";
    check: Host(shmmax);
}

fn shmmax(ctx: &Context<'_>) -> Answer {
    let max = ctx.model.host.shmmax_bytes.clone()?;
    if max >= CUSTOMARY_SHMMAX {
        return QUIET;
    }
    let limits = ctx.model.endpoints.iter().map(|e| &e.limits);
    let memory = limits
        .clone()
        .filter_map(|l| l.memory_max_bytes.clone().ok())
        .min()
        .map_or("no cgroup limit".into(), |b| {
            format!("cgroup memory limit {}", text::bytes(b))
        });
    let other = limits
        .filter_map(|l| {
            l.fsize_bytes
                .clone()
                .ok()
                .into_iter()
                .chain(l.as_bytes.clone().ok())
                .min()
        })
        .min()
        .map_or("RLIMIT_FSIZE and RLIMIT_AS unlimited".into(), |b| {
            format!("smallest rlimit {}", text::bytes(b))
        });
    Fire::new(
        format!("kernel.shmmax is {}, below the 1 GiB some checklists ask for; it bounds SysV segments and does not limit memfd rings. What does: {memory}, {other}", text::bytes(max)),
        "nothing to do for these rings (SysV programs would want kernel.shmmax=1073741824)",
    )
    .number("shmmax", max as f64, "bytes", "/proc/sys/kernel/shmmax", format!("< {CUSTOMARY_SHMMAX}"))
    .fires()
}

rule! {
    /// ftruncate beyond RLIMIT_FSIZE would kill with SIGXFSZ, mmap beyond RLIMIT_AS fails with ENOMEM: the library looks before, and refuses a
    /// client shared memory whose rings would not fit. It is served over the socket, slower. That is known before it comes; a server with
    /// as many clients as it admits has none to come.
    RLIMIT_FSIZE_AS = "rlimit-fsize-as", Warn, "a resource limit does not leave room for one more client";
    fires: "RLIMIT_FSIZE below a client's rings, or RLIMIT_AS below what is mapped plus a client's rings";
    quiet: "unlimited, or as many clients as the server admits";
    fix: "prlimit --pid PID --fsize=unlimited --as=unlimited";
    explains: ["socket-fallback", "fallback-churn"];
    check: Endpoint(rlimit_fsize_as);
}

fn rlimit_fsize_as(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let each = e.admission.ring_bytes;
    if each == 0 {
        return Err(Why::not_applicable("not a server"));
    }
    if !e.admission.may_come(e.clients.len()) {
        return QUIET;
    }
    let process = ctx.process(e.pid)?;
    let limits = process.limits.get()?;
    if let Some(fsize) = limits.fsize.soft.filter(|l| *l < each) {
        return Fire::new(
            format!(
                "{} (pid {}) may write files of {} only, the next client's rings have {}: it would be refused shared memory (headroom → EFBIG)",
                e.name,
                e.pid,
                text::bytes(fsize),
                text::bytes(each)
            ),
            Bound::FileSize.lift(ctx, e.pid, each),
        )
        .number(
            "RLIMIT_FSIZE",
            fsize as f64,
            "bytes",
            format!("/proc/{}/limits", e.pid),
            format!("< {each}"),
        )
        .fires();
    }
    let Some(space) = limits.address_space.soft else {
        return QUIET;
    };
    let mapped = process.memory.get()?.size_bytes;
    if mapped.saturating_add(each) <= space {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} (pid {}) has mapped {} of {}: the next client, whose rings take {}, would be refused shared memory (headroom → ENOMEM)",
            e.name,
            e.pid,
            text::bytes(mapped),
            text::bytes(space),
            text::bytes(each)
        ),
        Bound::AddressSpace.lift(ctx, e.pid, mapped.saturating_add(each.saturating_mul(2))),
    )
    .number(
        "RLIMIT_AS",
        space as f64,
        "bytes",
        format!("/proc/{}/limits", e.pid),
        format!("< {}", mapped.saturating_add(each)),
    )
    .number(
        "VmSize",
        mapped as f64,
        "bytes",
        format!("/proc/{}/status", e.pid),
        "",
    )
    .fires()
}
