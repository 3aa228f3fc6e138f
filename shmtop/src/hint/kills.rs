//! The rule about processes that the kernel killed for memory.

use transport::stats::{Role, SlotInfo};

use super::left_behind::gone_peer;
use super::{Answer, Context, Fire, QUIET, rule};
use crate::model::Endpoint;
use crate::rate::delta;
use crate::reading::Why;
use crate::sample::{Sample, lost};

rule! {
    /// The count of the group itself; and of a parent, where the parent's own limit was the reason: who is below it may be the next. The
    /// other kills that a parent counts are those of other groups, for reasons of their own. Most often it is the server that is killed, and it
    /// can't tell: its clients are told that its group counted a kill when it was seen to be gone (or the nearest parent that is left, where the group
    /// has gone with it). The process that is gone and the count are looked at together, so that a kill of somebody else in the same second is all that
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

/// Of a client that is left without a server: whether the server's memory group counted a kill as the server vanished.
fn of_its_server(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let page = ctx.page(e)?;
    let died = |info: &SlotInfo| ctx.sample.peer_died(page, info) == Some(true);
    let Some(info) = lost(page, died)
        .map(|slot| &slot.info)
        .filter(|info| died(info))
    else {
        return QUIET;
    };
    // What it was when it was last seen to live, and how it is since.
    let of = |s: &'_ Sample| {
        s.process(info.peer_pid)
            .filter(|p| p.is_peer(info))
            .cloned()
    };
    let lived = ctx
        .windows
        .iter()
        .rev()
        .filter_map(|s| of(s))
        .find(|p| !p.is_dead());
    let (Some(lived), Some(dead)) = (lived, of(ctx.sample)) else {
        // It died before anybody looked, or its number is another's by now.
        return QUIET;
    };
    let before = lived.cgroups.memory.as_reading()?;
    let Some(group) = dead.cgroups.memory.as_reading()?.first() else {
        return Err(Why::not_there(format!(
            "pid {} was in no memory group",
            info.peer_pid
        )));
    };
    let Some(old) = before.iter().find(|old| old.path == group.path) else {
        return Err(Why::not_there(format!(
            "the memory group of pid {} has gone with it",
            info.peer_pid
        )));
    };
    let kills = delta(old.oom_kills.get()?, group.oom_kills.get()?)?;
    if kills == 0 {
        return QUIET;
    }
    let who = gone_peer(info);
    Fire::new(
        format!(
            "the kernel killed {} in the memory group of {who} as it vanished, the server of {} (pid {})",
            processes(kills),
            e.name,
            e.pid
        ),
        DO,
    )
    .number("oom kills", kills as f64, "", format!("{} oom_kill", group.path), "> 0")
    .state("server", format!("{who} is gone"), format!("/proc/{}", info.peer_pid))
    .about([info.peer_pid])
    .fires()
}
