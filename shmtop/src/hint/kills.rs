//! The rule about processes that the kernel killed for memory.

use transport::error::CloseReason;
use transport::stats::{Role, SlotInfo, SlotKind, SlotState, Snapshot};

use super::left_behind::gone_peer;
use super::{Answer, Context, Fire, QUIET, rule};
use crate::model::Endpoint;
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::sample::{MemoryGroup, Process, Sample, lost};
use crate::text;

rule! {
    /// The count of the group itself; and of a parent, where the parent's own limit was the reason: who is below it may be the next. The
    /// other kills that a parent counts are those of other groups, for reasons of their own. Most often it is the server that is killed, and it
    /// can't tell: its clients are told that its group counted a kill when it was seen to be gone (or the nearest parent that is left, where the group
    /// has gone with it, or was made anew), also where it is back before anybody looks again. The process that is gone and the count are looked at together, so that a kill of somebody else in the same second is all that
    /// could be mistaken for its end.
    OOM_KILLED = "oom-killed", Crit, "the kernel killed a process for memory here";
    fires: "oom_kill of the own group grew, or that of a parent together with the oom of its memory.events.local; or that of the group of a client's server as the server vanished, within ten windows";
    quiet: "other groups";
    fix: "dmesg | grep -i oom";
    explains: ["server-gone", "peer-gone"];
    onset: Dated;
    once: true;
    check: Endpoint(oom_killed);
}

fn oom_killed(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let here = in_its_group(ctx, e);
    let fires = |answer: &Answer| matches!(answer, Ok(Some(_)));
    if fires(&here) || e.role == Role::Server {
        return here;
    }
    let server = of_its_server(ctx, e)?;
    server.map_or(here, |fire| Ok(Some(fire)))
}

const DO: &str = "dmesg | grep -i 'killed process'   # then raise the group's memory limit, or use smaller rings";

fn processes(kills: u64) -> String {
    format!("{kills} process{}", if kills == 1 { "" } else { "es" })
}

fn in_its_group(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let (new, old) = (ctx.process(e.pid)?, ctx.old_process(e.pid)?);
    let before = old.cgroups.memory.as_reading()?;
    for (n, g) in new.cgroups.memory.as_reading()?.iter().enumerate() {
        let Some(o) = before.iter().find(|o| o.path == g.path) else {
            continue;
        };
        let (Ok(a), Ok(b)) = (o.oom_kills.get(), g.oom_kills.get()) else {
            continue;
        };
        let kills = delta(a, b)?;
        let by_its_limit = |a: u64, b: u64| delta(a, b).is_ok_and(|ooms| ooms > 0);
        let is_ours = match (n, o.limit_ooms.get(), g.limit_ooms.get()) {
            (0, ..) => true,
            (_, Ok(a), Ok(b)) => by_its_limit(a, b),
            _ => false,
        };
        if kills > 0 && is_ours {
            return Fire::new(
                format!(
                    "the kernel killed {} in the memory group of {} (pid {})",
                    processes(kills),
                    e.name,
                    e.pid
                ),
                DO,
            )
            .number(
                "oom kills",
                kills as f64,
                "",
                format!("{} oom_kill", g.path),
                "> 0",
            )
            .fires();
        }
    }
    QUIET
}

/// A server that a client has lost: it is without one, or has found another meanwhile, as where the server was started again at once.
fn lost_server<'p>(ctx: &Context<'_>, page: &'p Snapshot) -> Option<&'p SlotInfo> {
    let died = |info: &SlotInfo| ctx.sample.peer_died(page, info) == Some(true);
    if let Some(slot) = lost(page, died).filter(|slot| died(&slot.info)) {
        return Some(&slot.info);
    }
    let since_ns = ctx.windows.front()?.time.monotonic_ns;
    let ended = page.slots.iter().map(|slot| &slot.info).filter(|info| {
        info.kind == SlotKind::Connection
            && info.state == SlotState::Closed
            && info.close_reason == CloseReason::PeerGone as u32
            && info.closed_ns > since_ns
    });
    // Nobody looks any longer at one that nobody is connected to.
    ended
        .filter(|info| ctx.sample.is_here(page) && ctx.sample.peer_died(page, info) != Some(false))
        .max_by_key(|info| info.closed_ns)
}

/// Of a client that has lost its server: whether the server's memory group counted a kill as the server vanished.
fn of_its_server(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let page = ctx.page(e)?;
    let Some(info) = lost_server(ctx, page) else {
        return QUIET;
    };
    // What it was when it was last seen to live, and all that was seen from then on.
    let of = |s: &'_ &Sample| {
        s.process(info.peer_pid)
            .filter(|p| p.is_peer(info))
            .cloned()
    };
    let samples = ctx.windows.iter().map(|s| &**s).chain([ctx.sample]);
    let samples: Vec<&Sample> = samples.collect();
    let lives = |s: &&Sample| of(s).is_some_and(|p| !p.is_dead());
    let Some(at) = samples.iter().rposition(lives) else {
        // It died before anybody looked, or its number is another's by now.
        return QUIET;
    };
    let (Some(lived), after) = (of(&samples[at]), &samples[at + 1..]) else {
        return QUIET;
    };
    let before = lived.cgroups.memory.as_reading()?;
    let counted = match after.iter().find_map(of) {
        Some(dead) => in_what_is_left(before, &dead)?,
        None => in_same_place(before, after),
    };
    let Some(Counted {
        kills,
        path,
        is_own,
    }) = counted.filter(|c| c.kills > 0)
    else {
        return QUIET;
    };
    let who = gone_peer(info);
    let place = match is_own {
        true => format!("in the memory group of {who}"),
        false => format!("below {}, where {who} was,", text::path(&path)),
    };
    Fire::new(
        format!(
            "the kernel killed {} {place} as it vanished, the server of {} (pid {})",
            processes(kills),
            e.name,
            e.pid
        ),
        DO,
    )
    .number(
        "oom kills",
        kills as f64,
        "",
        format!("{path} oom_kill"),
        "> 0",
    )
    .state(
        "server",
        format!("{who} is gone"),
        format!("/proc/{}", info.peer_pid),
    )
    .about([info.peer_pid])
    .fires()
}

/// Kills that a group of a process that vanished counted meanwhile.
struct Counted {
    kills: u64,
    path: String,
    /// Its own, not one above.
    is_own: bool,
}

/// By what is left of its groups, as they were read when it was seen to be gone.
fn in_what_is_left(before: &[MemoryGroup], dead: &Process) -> Reading<Option<Counted>> {
    let pid = dead.pid;
    let Some(group) = dead.cgroups.memory.as_reading()?.first() else {
        return Err(Why::not_there(format!("pid {pid} was in no memory group")));
    };
    let Some(old) = before.iter().position(|old| old.path == group.path) else {
        return Err(Why::not_there(format!(
            "the memory group of pid {pid} has gone with it"
        )));
    };
    Ok(Some(Counted {
        kills: delta(before[old].oom_kills.get()?, group.oom_kills.get()?)?,
        path: group.path.clone(),
        is_own: old == 0,
    }))
}

/// By whoever is in the same groups, where the process itself was not seen any more. systemd makes the group of a unit anew that it starts again, with
/// a count that begins at 0: then the one above tells, which counts for those below it.
fn in_same_place(before: &[MemoryGroup], after: &[&Sample]) -> Option<Counted> {
    let seen = |path: &str| {
        let all = after.iter().flat_map(|s| &s.processes);
        let mut groups = all.filter_map(|p| p.cgroups.memory.known()).flatten();
        groups.find(|group| group.path == path)
    };
    for (n, old) in before.iter().enumerate() {
        let Some(group) = seen(&old.path) else {
            continue;
        };
        let kills = old
            .oom_kills
            .get()
            .and_then(|old| delta(old, group.oom_kills.get()?));
        let kills = kills.unwrap_or(0);
        if kills > 0 || n > 0 {
            return Some(Counted {
                kills,
                path: group.path.clone(),
                is_own: n == 0,
            });
        }
    }
    None
}
