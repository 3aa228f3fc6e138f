//! The rule about processes that the kernel killed for memory.

use transport::error::CloseReason;
use transport::stats::{Role, SlotInfo, SlotKind, SlotState, Snapshot};

use super::fix::{on_host, sudo};
use super::left_behind::gone_peer;
use super::{Answer, Context, Fire, QUIET, rule};
use crate::model::{Endpoint, Severity};
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::sample::{CgroupVersion, MemoryGroup, Process, Sample, lost};
use crate::text;

rule! {
    /// The count of the group itself; and of a parent, where the parent's own limit was the reason: who is below it may be the next. The
    /// other kills that a parent counts are those of other groups, for reasons of their own. Most often it is the server that is killed, and it
    /// can't tell: its clients are told that its group counted a kill about when it was seen to be gone, also where it is back before anybody looks
    /// again. Where the group has gone with it, or was made anew, as systemd does with that of a unit, and was seen to count none before, the nearest parent that
    /// is left counts those of others as well: a warning, and nothing where it had counted some while the server lived. In version 1 no parent counts them.
    OOM_KILLED = "oom-killed", Crit, "the kernel killed a process for memory here";
    fires: "oom_kill of the own group grew, or that of a parent together with the oom of its memory.events.local; or that of the group of a client's server as the server vanished, within ten windows; warn if that group is not there any more and the one above it counted a kill";
    quiet: "other groups";
    fix: "sudo dmesg | grep -i 'killed process'";
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

/// What to do: what the kernel logged may be for root alone.
fn see_the_log(ctx: &Context<'_>) -> String {
    let on_host = match on_host(ctx) {
        "" => "",
        _ => "on the host; ",
    };
    format!(
        "{}dmesg | grep -i 'killed process'   # {on_host}then raise the group's memory limit, or use smaller rings",
        sudo(ctx)
    )
}

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
                see_the_log(ctx),
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

/// The process at the other end of that connection, if it was looked at.
fn server<'s>(sample: &'s Sample, info: &SlotInfo) -> Option<&'s Process> {
    let process = sample.process(info.peer_pid);
    process.filter(|p| p.is_peer(info))
}

/// Of a client that has lost its server: whether the server's memory group counted a kill as the server vanished.
fn of_its_server(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let page = ctx.page(e)?;
    let Some(info) = lost_server(ctx, page) else {
        return QUIET;
    };
    let samples = ctx.windows.iter().map(|s| &**s).chain([ctx.sample]);
    let samples: Vec<&Sample> = samples.collect();
    let alive = |s: &&Sample| server(s, info).is_some_and(|p| !p.is_dead());
    let Some(last) = samples.iter().rposition(alive) else {
        // It died before anybody looked, or its number is another's by now.
        return QUIET;
    };
    let (life, after) = samples.split_at(last + 1);
    let life: Vec<&Process> = life.iter().filter_map(|s| server(s, info)).collect();
    let looks = match after.iter().find_map(|s| server(s, info)) {
        Some(dead) => vec![dead.cgroups.memory.as_reading()?.iter().collect()],
        // The groups may be read less often than samples are taken: the first may not have counted it yet.
        None => after.iter().take(2).map(|s| all_groups(s)).collect(),
    };
    let Counted {
        kills,
        path,
        is_own,
    } = counted(&life, &looks)?;
    if kills == 0 {
        return QUIET;
    }
    let who = gone_peer(info);
    let what = match is_own {
        true => format!("in the memory group of {who} as it vanished"),
        false => {
            let path = text::path(&path);
            format!("below {path}, where {who} was, as it vanished: perhaps it")
        }
    };
    let fire = Fire::new(
        format!(
            "the kernel killed {} {what}, the server of {} (pid {})",
            processes(kills),
            e.name,
            e.pid
        ),
        see_the_log(ctx),
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
    .about([info.peer_pid]);
    match is_own {
        true => fire.fires(),
        false => fire.at(Severity::Warn).fires(),
    }
}

/// What anybody who was looked at is in.
fn all_groups(sample: &Sample) -> Vec<&MemoryGroup> {
    let all = sample.processes.iter();
    all.filter_map(|p| p.cgroups.memory.known())
        .flatten()
        .collect()
}

/// Kills that a group of a process that vanished counted meanwhile.
struct Counted {
    kills: u64,
    path: String,
    /// Its own, not one above.
    is_own: bool,
}

/// By the nearest of its groups that is still there: its own knows best, also that it was no kill. `life` is the process whenever it was seen to live,
/// `looks` the groups that were seen thereafter.
fn counted(life: &[&Process], looks: &[Vec<&MemoryGroup>]) -> Reading<Counted> {
    let [.., last] = life else {
        return Err(Why::not_there("nobody saw it live"));
    };
    let pid = last.pid;
    // The kernel counts a kill before it kills, and who has much memory takes its time to die.
    let nearly_last = life[life.len().saturating_sub(2)];
    let groups = last.cgroups.memory.as_reading()?;
    if groups.is_empty() {
        return Err(Why::not_there(format!("pid {pid} was in no memory group")));
    }
    for (n, group) in groups.iter().enumerate() {
        let is_own = n == 0;
        let seen = looks.iter().flatten().filter(|g| g.path == group.path);
        let seen: Vec<&&MemoryGroup> = seen.collect();
        let is_left = !seen.is_empty() && seen.iter().all(|g| g.is_same(group));
        let kills_by = |p: &Process| {
            let groups = p.cgroups.memory.as_reading()?;
            let then = groups.iter().find(|g| g.is_same(group)).unwrap_or(group);
            then.oom_kills.get()
        };
        let counted = |kills| Counted {
            kills,
            path: group.path.clone(),
            is_own,
        };
        if is_own {
            // Also what it counted before it went or was made anew, which one look may have seen still.
            let before = kills_by(nearly_last);
            let still_it = seen.iter().filter(|g| g.is_same(group));
            let counts = still_it.map(|g| g.oom_kills.get()).chain([kills_by(last)]);
            let kills = counts.filter_map(|n| delta(before.clone().ok()?, n.ok()?).ok());
            let kills = kills.max().unwrap_or(0);
            if kills > 0 {
                return Ok(counted(kills));
            }
            if !is_left {
                continue;
            }
        }
        // In version 1 a kill is counted in the group of who was killed alone.
        if !is_left || !is_own && group.version == CgroupVersion::V1 {
            continue;
        }
        if !is_own && delta(kills_by(life[0])?, kills_by(nearly_last)?)? > 0 {
            return Err(Why::not_there(format!(
                "the memory group of pid {pid} has gone with it, and others below {} were killed while it lived",
                text::path(&group.path)
            )));
        }
        let before = kills_by(if is_own { nearly_last } else { last })?;
        let mut kills = 0;
        for group in seen {
            kills = delta(before, group.oom_kills.get()?)?.max(kills);
        }
        return Ok(counted(kills));
    }
    Err(Why::not_there(format!(
        "the memory group of pid {pid} has gone with it"
    )))
}
