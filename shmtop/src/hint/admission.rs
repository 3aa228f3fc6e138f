//! Rules about being let in: the accept queue, refused handshakes.

use transport::stats::{ProcessCounters, Snapshot};

use super::fix::{sudo, sudo_for};
use super::trust::{FROZEN_NS, is_ending};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::Endpoint;
use crate::reading::Why;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[ACCEPT_QUEUE, HANDSHAKE_REJECTED];

/// Refused handshakes per minute that are worth a word.
const REJECTS: u64 = 3;
/// Handshakes may wait this long in a burst.
const BURST_NS: u64 = 2_000_000_000;

rule! {
    /// A full accept queue answers connect() with EAGAIN while nothing looks wrong at the server. A burst of connects may
    /// fill it for a moment, so the queue must be at 80 % window after window. A handshake that is older than 2 s is another matter: that connection
    /// was accepted, and its client does not go on, or the server is stopped. Of that a page tells that is kept up to date: one that stands still while
    /// the process is not stopped may name a handshake that has long ended (stats-frozen).
    ACCEPT_QUEUE = "accept-queue", Warn, "connections wait to be let in";
    fires: "queue at 80 % of the backlog or more, or a pending handshake older than 2 s";
    quiet: "a burst of less than 2 s, or the server is ending";
    fix: "see why the server does not accept, or who does not finish the handshake";
    explains: ["fallback-eagain"];
    check: Endpoint(accept_queue);
}

fn accept_queue(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    if e.admission.max_clients == 0 {
        return Err(Why::not_applicable("not a server"));
    }
    if is_ending(ctx, e) {
        return QUIET;
    }
    let stopped = ctx.process(e.pid).is_ok_and(|p| p.is_stopped());
    let is_kept = e
        .heartbeat_age_ns
        .as_ref()
        .is_ok_and(|age| *age <= FROZEN_NS);
    let unfinished = || unfinished(ctx, e, stopped).filter(|_| is_kept || stopped);
    match queued(ctx, e, stopped) {
        Ok(None) => Ok(unfinished()),
        // The page's own count needs no socket to be found.
        Err(why) => unfinished().map_or(Err(why), Fire::fires),
        full => full,
    }
}

/// Connections that the kernel keeps until somebody accepts them.
fn queued(ctx: &Context<'_>, e: &Endpoint, stopped: bool) -> Answer {
    let listener = ctx
        .listener(e)
        .ok_or_else(|| Why::not_there("its listening socket was not found"))?;
    let (queue, backlog) = (listener.queue.get()?, listener.backlog.get()?);
    if backlog == 0 || f64::from(queue) < 0.8 * f64::from(backlog) || queue == 0 {
        return QUIET;
    }
    let (why, fix) = if stopped {
        (
            "is stopped",
            format!("{}kill -CONT {}", sudo_for(ctx, e.pid), e.pid),
        )
    } else {
        (
            "does not accept",
            format!("ps -o pid,stat,wchan -p {}", e.pid),
        )
    };
    Fire::new(
        format!(
            "{queue} of {backlog} places in the accept queue of {} are taken: pid {} {why}",
            e.socket_path, e.pid
        ),
        fix,
    )
    .number(
        "queue",
        f64::from(queue),
        "",
        "sock_diag: listening socket",
        format!(">= {:.0}", 0.8 * f64::from(backlog)),
    )
    .number(
        "backlog",
        f64::from(backlog),
        "",
        "sock_diag: listening socket",
        "",
    )
    .fires()
}

/// Connections that were accepted and have not told who they are: it is the client that does not go on, unless the server is stopped.
fn unfinished(ctx: &Context<'_>, e: &Endpoint, stopped: bool) -> Option<Fire> {
    let (pending, oldest) = (e.admission.pending, e.admission.oldest_pending_ns);
    if pending == 0 || oldest <= BURST_NS {
        return None;
    }
    let (name, pid, age) = (&e.name, e.pid, text::ns(oldest));
    let says = match pending {
        1 => format!(
            "1 connection to {name} (pid {pid}) was accepted and has not finished its handshake for {age}"
        ),
        n => format!(
            "{n} connections to {name} (pid {pid}) were accepted and have not finished their handshakes, the oldest for {age}"
        ),
    };
    let (says, fix) = match stopped {
        true => (
            format!("{says}: pid {pid} is stopped"),
            format!("{}kill -CONT {pid}", sudo_for(ctx, pid)),
        ),
        false => (
            says,
            format!(
                "ss -xp | grep -F pid={pid},   # the other ends have these ports as peers: whose are they, and do they run?"
            ),
        ),
    };
    let fire = Fire::new(says, fix)
        .number(
            "pending",
            pending as f64,
            "",
            "stats page: pending_handshakes",
            "",
        )
        .number(
            "oldest",
            oldest as f64,
            "ns",
            "stats page: oldest_pending_ns",
            format!("> {BURST_NS}"),
        );
    Some(fire)
}

rule! {
    /// One refused handshake is a typo; several a minute are a client that can't get in or a stranger who tries. The kind
    /// says which. For who can't be accepted (no descriptor, no memory) there is no kind: it is told by the limits, as is who is refused for want of
    /// a thread or memory.
    HANDSHAKE_REJECTED = "handshake-rejected", Warn, "handshakes are being refused";
    fires: "3 or more refused handshakes, or clients that there was no thread, descriptor or memory for, within a minute";
    quiet: "fewer";
    fix: "by kind: another version, another user, a stranger, too many clients, too many handshakes at once; raise the limit that is reached";
    onset: Dated;
    check: Endpoint(handshake_rejected);
}

fn handshake_rejected(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    if e.admission.max_clients == 0 {
        return Err(Why::not_applicable("not a server"));
    }
    let page = ctx.page(e)?;
    let kept = ctx.minute.get(&e.key).and_then(|m| m.front());
    let Some((_, old)) = kept else {
        return Err(Why::not_yet("needs a second sample"));
    };
    let now = crate::model::rejected(page);
    let before = crate::model::rejected_of(old);
    let mut sum = 0;
    let mut kinds = Vec::new();
    for ((kind, n), (_, o)) in now.iter().zip(before) {
        let grown = crate::rate::delta(o, *n)?;
        sum = grown.saturating_add(sum);
        if grown > 0 {
            kinds.push(format!("{grown}× {kind}"));
        }
    }
    if sum < REJECTS {
        return unserved(page, old, e);
    }
    let p = &page.process;
    let (uid, pid) = (p.last_rejected_uid, p.last_rejected_pid);
    // Of a server in a container it is a number of that, and here somebody else's.
    let is_ours = ctx.sample.is_here(page);
    let (last, look) = match is_ours {
        true => (format!("pid {pid}"), String::new()),
        false => (
            format!("pid {pid} in its pid namespace"),
            format!("{}nsenter -t {} -p -m ", sudo(ctx), e.pid),
        ),
    };
    let fix = if now[3].1 > before[3].1 {
        format!(
            "run it as uid {}, or add uid {uid} to the server's allowed_uids",
            e.uid
        )
    } else if now[5].1 > before[5].1 {
        format!(
            "start the server with Config::max_clients above {} (exchange: --max-clients)",
            p.max_clients
        )
    } else if now[6].1 > before[6].1 {
        format!(
            "ps -o pid,stat,wchan -u {uid}   # whose handshakes don't end? Config::max_pending_per_uid bounds them"
        )
    } else if now[7].1 > before[7].1 {
        limits_of(e)
    } else {
        format!("{look}ls -l /proc/{pid}/exe")
    };
    Fire::new(
        format!(
            "{} (pid {}) refused {sum} handshakes within a minute: {} (last: {last}, uid {uid})",
            e.name,
            e.pid,
            kinds.join(", ")
        ),
        fix,
    )
    .number(
        "refused",
        sum as f64,
        "1/min",
        "stats page: rejected_*",
        format!(">= {REJECTS}"),
    )
    .fires()
}

/// Shows what the server lacks.
fn limits_of(e: &Endpoint) -> String {
    format!(
        "cat /proc/{}/limits   # processes, open files, address space; and its cgroup's pids.max and memory.max",
        e.pid
    )
}

/// Clients that the server would have had, and could not.
fn unserved(page: &Snapshot, before: &ProcessCounters, e: &Endpoint) -> Answer {
    let errors = crate::rate::delta(before.accept_errors, page.process.accept_errors)?;
    if errors < REJECTS {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} (pid {}) had no thread, descriptor or memory for {errors} clients within a minute",
            e.name, e.pid
        ),
        limits_of(e),
    )
    .number(
        "turned away",
        errors as f64,
        "1/min",
        "stats page: accept_errors",
        format!(">= {REJECTS}"),
    )
    .fires()
}
