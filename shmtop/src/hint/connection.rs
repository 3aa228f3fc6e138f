//! Rules about fallbacks to the socket, by cause.

use transport::error::{Step, errno_name};
use transport::stats::{FallbackFact, Via};

use super::fallback::{more_descriptors, remedy};
use super::fix::{Bound, DEFAULT_RINGS, has_descriptors, look_at_programs, sudo};
use super::whom::Whom;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::verdict::fallback_text;
use crate::model::{Client, Endpoint};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[
    SOCKET_FALLBACK,
    FALLBACK_EAGAIN,
    FD_TRUNCATED,
    INFLIGHT_FDS,
    MEMFD_BLOCKED,
    UNSEALED_RING,
];

const ENOSYS: i32 = 38;
const EPERM: i32 = 1;
const EACCES: i32 = 13;
const EAGAIN: i32 = 11;
const EMFILE: i32 = 24;
const ETOOMANYREFS: i32 = 109;
/// A fallback younger than this may be a handshake that is not finished.
const SETTLED_NS: u64 = 1_000_000_000;

/// The fallback of a row that wanted shared memory and has settled on the socket.
fn fallback(c: &Client) -> Option<&FallbackFact> {
    let settled = c.transport == Via::Socket && c.wanted == Via::Shm && c.age_ns > SETTLED_NS;
    let fallback = c.fallback.as_ref().filter(|_| settled);
    // One of the two sides was told to keep to the socket.
    fallback.filter(|f| f.step != Step::Disabled as u32)
}

/// Where the step ran: in the server or in the client.
fn where_it_failed(ctx: &Context<'_>, f: &FallbackFact, e: &Endpoint, c: &Client) -> Whom {
    match f.at_peer {
        true => Whom::peer(ctx, e, c),
        false => Whom::own(e),
    }
}

/// And the other one.
fn across(ctx: &Context<'_>, f: &FallbackFact, e: &Endpoint, c: &Client) -> Whom {
    match f.at_peer {
        true => Whom::own(e),
        false => Whom::peer(ctx, e, c),
    }
}

pub(super) fn fire(f: &FallbackFact, says: String, fix: String) -> Fire {
    let step = Step::from_number(f.step).map_or("unknown step", Step::name);
    let mut fire = Fire::new(says, fix)
        .state("step", step, "stats page: fallback_step")
        .state(
            "errno",
            if f.errno == 0 {
                "none".into()
            } else {
                errno_name(f.errno)
            },
            "stats page: fallback_errno",
        );
    if f.limit != 0 {
        let (wanted, found) = match Step::from_number(f.step) {
            Some(Step::Validate | Step::Layout) => ("expected", "offered"),
            _ => ("limit then", "used then"),
        };
        fire = fire
            .number(wanted, f.limit as f64, "", "stats page: fallback_limit", "")
            .number(found, f.used as f64, "", "stats page: fallback_used", "");
    }
    fire
}

rule! {
    /// Fires only after a second, because every connection starts on the socket and upgrades itself. The sentence
    /// carries step and errno as they were at that moment, and counts those that met the same; the latency beside the others' says what it costs.
    SOCKET_FALLBACK = "socket-fallback", Warn, "a client that wanted shared memory is on the socket";
    fires: "transport is socket, shared memory was wanted, for more than 1 s";
    quiet: "the socket was asked for, by either side, or the handshake is pending";
    fix: "remove what the step and errno name, then let the client reconnect";
    onset: Dated;
    once: true;
    check: Client(socket_fallback);
}

fn socket_fallback(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(f) = fallback(c) else {
        return QUIET;
    };
    let who = where_it_failed(ctx, f, e, c);
    let client = Whom::client(ctx, e, c).name;
    let alike = |o: &FallbackFact| (o.step, o.errno) == (f.step, f.errno);
    let rows = e.clients.iter();
    let on_socket = rows.filter(|o| fallback(o).is_some_and(alike)).count();
    let are = if on_socket == 1 { "is" } else { "are" };
    let one = match on_socket {
        1 => format!("({client})"),
        _ => format!("({client} is one)"),
    };
    let mut says = format!(
        "{on_socket} of {} clients {are} on the socket {one}: {}",
        e.clients.len(),
        fallback_text(f)
    );
    if f.errno == EMFILE && f.limit != 0 {
        says += " fds";
    }
    let p50 = |c: &Client| c.rtt.recent.as_ref().ok().map(|p| p.p50);
    let mut others: Vec<u64> = e
        .clients
        .iter()
        .filter(|o| o.transport == Via::Shm)
        .filter_map(|o| p50(o))
        .collect();
    others.sort_unstable();
    if let (Some(mine), Some(theirs)) = (p50(c), others.get(others.len() / 2)) {
        says += &format!(
            ". Its p50 is {}, the others' {}",
            text::ns(mine),
            text::ns(*theirs)
        );
    }
    let again = format!("let {client} connect again");
    let fix = remedy(ctx, e, f, &who, &Whom::peer(ctx, e, c), &again);
    fire(f, says, fix).fires()
}

rule! {
    /// EAGAIN is never the descriptor limit (that is EMFILE). From connect() it is a full accept queue, from a receive it
    /// is a peer that did not answer in time, from mmap() in a process that locks its memory it is RLIMIT_MEMLOCK; so the step
    /// decides the sentence.
    FALLBACK_EAGAIN = "fallback-eagain", Warn, "a step of the upgrade met EAGAIN";
    fires: "the fallback's errno is EAGAIN";
    quiet: "any other errno";
    fix: "by step: a longer accept queue, or a server that answers";
    explains: ["socket-fallback"];
    onset: Dated;
    check: Client(fallback_eagain);
}

fn fallback_eagain(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(f) = fallback(c).filter(|f| f.errno == EAGAIN) else {
        return QUIET;
    };
    let step = Step::from_number(f.step);
    let client = Whom::client(ctx, e, c).name;
    let (meaning, fix) = match step {
        Some(Step::Connect) => (
            "the server's accept queue was full",
            Whom::server(ctx, e, c).told(
                |pid| format!("shmtop doctor -p {pid}   # is it accepting?"),
                |name| format!("see whether {name} accepts"),
            ),
        ),
        Some(Step::ReceiveFd | Step::Handshake) => (
            "the other side did not answer in time",
            across(ctx, f, e, c).told(
                |pid| format!("ps -o pid,stat,wchan -p {pid}   # does it run?"),
                |name| format!("see whether {name} runs"),
            ),
        ),
        Some(Step::Mmap) => {
            let who = where_it_failed(ctx, f, e, c);
            let raise = |pid| {
                let locks = ctx.process(pid).and_then(|p| p.memory.get());
                let need = locks
                    .map_or(0, |m| m.locked_bytes)
                    .saturating_add(e.admission.ring_bytes.max(DEFAULT_RINGS));
                let raise = Bound::LockedMemory.raise(ctx, pid, need.saturating_mul(2));
                format!("{raise}   # then let {client} connect again")
            };
            (
                "the process locks what it maps, and RLIMIT_MEMLOCK has no room for the rings",
                who.told(raise, |name| {
                    format!("raise RLIMIT_MEMLOCK of {name}; then let {client} connect again")
                }),
            )
        }
        _ => (
            "the kernel was short of something for a moment",
            format!("let {client} connect again"),
        ),
    };
    let name = step.map_or("unknown step", Step::name);
    fire(
        f,
        format!("client {} ({client}): {name} → EAGAIN: {meaning}. This is not the descriptor limit (that would be EMFILE)", c.number),
        fix,
    )
    .fires()
}

rule! {
    /// The kernel drops a descriptor it can't install and only sets MSG_CTRUNC: the sender sees nothing. So it is the
    /// *receiver's* table that is full, or a security module that refused.
    FD_TRUNCATED = "fd-truncated", Crit, "a descriptor got lost on its way";
    fires: "MSG_CTRUNC, or fewer descriptors than promised";
    quiet: "nothing was truncated";
    fix: "raise the receiver's descriptor limit; look for a denial in the audit log";
    explains: ["socket-fallback"];
    onset: Dated;
    check: Client(fd_truncated);
}

fn fd_truncated(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(f) = fallback(c).filter(|f| f.step == Step::FdTruncated as u32) else {
        return QUIET;
    };
    let who = where_it_failed(ctx, f, e, c);
    let table = ctx
        .process(who.pid.unwrap_or(0))
        .and_then(|p| Ok((p.fds_below_limit()?, p.limits.get()?.nofile.soft)));
    let full = match table {
        Ok((used, Some(soft))) => format!("{used} of {soft} fds used"),
        _ => "its descriptor table can't be read".into(),
    };
    const DENIED: &str = "look for a denial in the kernel's log (dmesg)";
    // Nobody noted how full it was then.
    let fix = match who.pid.filter(|pid| has_descriptors(ctx, *pid, 0)) {
        Some(_) => format!(
            "let {} connect again: {} has descriptors left by now; if they had not run out, {DENIED}",
            Whom::client(ctx, e, c).name,
            who.name
        ),
        None => more_descriptors(ctx, &who, 4096, &format!("if there is room, {DENIED}")),
    };
    fire(
        f,
        format!(
            "the descriptor of the rings did not reach {}: {full}",
            who.name
        ),
        fix,
    )
    .fires()
}

rule! {
    /// Descriptors in flight on Unix sockets count against RLIMIT_NOFILE of the sending user, root excepted.
    INFLIGHT_FDS = "inflight-fds", Warn, "too many descriptors in flight";
    fires: "sendmsg failed with ETOOMANYREFS";
    quiet: "any other errno; root is exempt";
    fix: "raise nofile of the sender";
    explains: ["socket-fallback"];
    onset: Dated;
    check: Client(inflight_fds);
}

fn inflight_fds(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(f) = fallback(c).filter(|f| f.errno == ETOOMANYREFS) else {
        return QUIET;
    };
    let who = where_it_failed(ctx, f, e, c);
    fire(
        f,
        format!(
            "{} has too many descriptors in flight: nofile bounds those too",
            who.name
        ),
        more_descriptors(ctx, &who, 4096, "they count for all processes of its user"),
    )
    .fires()
}

rule! {
    /// A seccomp profile says EPERM or ENOSYS as a rule, a security module (SELinux, AppArmor) EACCES; neither has to. vm.memfd_noexec=2 is no cause: the
    /// library's memfds are not executable, for good, and it lets those through.
    MEMFD_BLOCKED = "memfd-blocked", Crit, "memfd_create is not allowed";
    fires: "memfd_create failed with ENOSYS, EPERM or EACCES";
    quiet: "it works, or failed for want of descriptors or memory";
    fix: "allow memfd_create in the seccomp profile or the security module's policy";
    explains: ["socket-fallback"];
    onset: Dated;
    check: Client(memfd_blocked);
}

fn memfd_blocked(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(f) = fallback(c).filter(|f| {
        f.step == Step::MemfdCreate as u32 && matches!(f.errno, ENOSYS | EPERM | EACCES)
    }) else {
        return QUIET;
    };
    let who = where_it_failed(ctx, f, e, c).name;
    let allow = format!(
        "allow memfd_create for {who}, e.g. docker run --security-opt seccomp=PROFILE.json"
    );
    let (cause, fix) = match f.errno {
        EACCES => (
            "a security module (SELinux, AppArmor) or a seccomp profile forbids it",
            format!(
                "{}dmesg | grep -i denied   # if a module did, it says so there; else {allow}",
                sudo(ctx)
            ),
        ),
        _ => ("a seccomp profile or a security module forbids it", allow),
    };
    fire(
        f,
        format!(
            "{who} may not call memfd_create ({}): {cause}",
            errno_name(f.errno)
        ),
        fix,
    )
    .fires()
}

rule! {
    /// The transport takes a memfd of exactly the agreed size that is sealed against shrinking and growing, and not yet against
    /// writing or further seals. Without the first two it could be shrunk under the reader, who would die of SIGBUS; with the others
    /// it is none that was made for this connection. So what is left to see is the refusal. Ring memory of another version is refused
    /// in a step of its own and is no case for this.
    UNSEALED_RING = "unsealed-ring", Crit, "a peer offered memory that is not sealed";
    fires: "a received descriptor was refused by validation";
    quiet: "its seals and its size were right, or it is of another version";
    fix: "find out what runs at the other end: it is not this library";
    explains: ["socket-fallback"];
    onset: Dated;
    check: Client(unsealed_ring);
}

fn unsealed_ring(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let Some(f) = fallback(c).filter(|f| f.step == Step::Validate as u32) else {
        return QUIET;
    };
    let from = across(ctx, f, e, c);
    fire(
        f,
        format!(
            "the memory offered by {} was refused: it has not the agreed size or not the seals of a new ring",
            from.name
        ),
        from.told(
            |pid| look_at_programs(ctx, &[pid]),
            |name| format!("find out what {name} runs, as uid {}", c.peer_uid),
        ),
    )
    .fires()
}
