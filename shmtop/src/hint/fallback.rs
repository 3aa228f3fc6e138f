//! What to do about a connection that stayed on the socket, by the step that failed and its errno. Step `headroom`, where there was no room for the
//! rings, has five causes; errno and limit tell them apart, beside what binds the process now.

use transport::error::Step;
use transport::stats::FallbackFact;

use super::Context;
use super::fix::{Bound, DEFAULT_RINGS, has_descriptors, look_at_programs, raise_nofile, sysctl};
use super::groups::more_memory;
use super::whom::Whom;
use crate::model::Endpoint;
use crate::sample::Limit;
use crate::text;

const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EFBIG: i32 = 27;

/// What always helps.
const SMALLER: &str = "smaller rings: Config::ring_bytes (exchange, trader: --ring-size)";

/// More descriptors for a process.
pub(super) fn more_descriptors(ctx: &Context<'_>, who: &Whom, wanted: u64, then: &str) -> String {
    who.told(
        |pid| format!("{}   # {then}", raise_nofile(ctx, pid, wanted)),
        |name| format!("raise the limit of descriptors (nofile) of {name}; {then}"),
    )
}

/// For the process in which the step failed, `who`, and the `other` end than that of the row; `again` is what their client is to do then.
pub(super) fn remedy(
    ctx: &Context<'_>,
    e: &Endpoint,
    f: &FallbackFact,
    who: &Whom,
    other: &Whom,
    again: &str,
) -> String {
    match f.errno {
        EMFILE
            if who
                .pid
                .is_some_and(|pid| has_descriptors(ctx, pid, f.limit)) =>
        {
            format!("{again}: {} has descriptors left by now", who.name)
        }
        EMFILE => {
            let wanted = f.limit.max(64).saturating_mul(4).max(4096);
            more_descriptors(ctx, who, wanted, &format!("then {again}"))
        }
        ENFILE => {
            let files = ctx.model.host.files.as_ref();
            let most = files.map_or(1_000_000, |f| f.1.saturating_mul(2));
            sysctl(
                ctx,
                &format!("fs.file-max={most}"),
                &format!("then {again}"),
            )
        }
        _ => match Step::from_number(f.step) {
            Some(Step::Headroom) => headroom(ctx, e, f, who, again),
            Some(Step::Layout) => other.told(
                |peer| {
                    let look = look_at_programs(ctx, &[e.pid, peer]);
                    format!("{look}   # two versions: start both with the same")
                },
                |peer| format!("start pid {} and {peer} with the same version", e.pid),
            ),
            _ => format!("see why that step failed in {}, then {again}", who.name),
        },
    }
}

/// Whether RLIMIT_AS of a process, as it is `now`, leaves no room for rings: it may have been lowered since.
fn is_short(ctx: &Context<'_>, pid: u32, now: Limit, rings: u64) -> bool {
    let mapped = ctx.process(pid).and_then(|p| p.memory.get());
    let needed = mapped.map_or(0, |m| m.size_bytes).saturating_add(rings);
    now.soft.is_some_and(|soft| soft < needed)
}

/// For the process that had no room.
fn headroom(ctx: &Context<'_>, e: &Endpoint, f: &FallbackFact, who: &Whom, again: &str) -> String {
    let Whom { pid, name } = who;
    let limit = text::bytes(f.limit);
    let own = e.admission.ring_bytes;
    // Only a server's page says how large they are.
    let rings = if own > 0 { own } else { DEFAULT_RINGS };
    let bound = |bound: Bound| pid.and_then(|pid| Some((pid, bound.of(ctx, pid)?)));
    match f.errno {
        EFBIG => match bound(Bound::FileSize) {
            Some((_, now)) if now.soft.is_none_or(|soft| soft >= f.used) => {
                format!("{again}: {name} may write files of that size by now")
            }
            Some((pid, _)) => {
                let lift = Bound::FileSize.lift(ctx, pid, f.used);
                format!("{lift}   # then {again}")
            }
            None => format!("raise RLIMIT_FSIZE of {name}, then {limit}; then {again}"),
        },
        ENOMEM => match bound(Bound::AddressSpace) {
            Some((pid, now)) if now.soft == Some(f.limit) || is_short(ctx, pid, now, rings) => {
                let needed = f.used.saturating_add(rings.saturating_mul(2));
                let lift = Bound::AddressSpace.lift(ctx, pid, needed);
                format!("{lift}   # then {again}")
            }
            // It may have been raised since, or it was what the machine promises, which is bounded in one mode only.
            Some((_, now)) => {
                let now = now.soft.map_or("unlimited".to_owned(), text::bytes);
                match ctx.sample.host.overcommit_memory.known() {
                    Some(2) => format!(
                        "{again}, if the {limit} were RLIMIT_AS of {name}, which is {now} now; else raise vm.overcommit_ratio, or add swap: vm.overcommit_memory is 2, so the machine promises no more than CommitLimit. Or use {SMALLER}"
                    ),
                    Some(mode) => format!(
                        "{again}: what left no room, {limit}, binds no more (RLIMIT_AS of {name} is {now}, vm.overcommit_memory {mode})"
                    ),
                    None => format!(
                        "{again}, if the {limit} were RLIMIT_AS of {name}, which is {now} now; else, if vm.overcommit_memory is 2, raise vm.overcommit_ratio, or add swap. Or use {SMALLER}"
                    ),
                }
            }
            None => format!(
                "raise RLIMIT_AS of {name} if that was {limit}, else vm.overcommit_ratio; then {again}. Or use {SMALLER}"
            ),
        },
        _ => {
            let process = pid.and_then(|pid| Some((pid, ctx.process(pid).ok()?)));
            let groups = process.and_then(|(pid, p)| Some((pid, p.cgroups.memory.known()?)));
            let Some((pid, groups)) = groups else {
                return format!(
                    "raise Config::memory_budget_bytes of {name} or the memory limit of its control group, whichever was {limit}; then {again}. Or use {SMALLER}"
                );
            };
            let mut groups = groups.iter();
            let is_it = |limit: Option<&Option<u64>>| limit == Some(&Some(f.limit));
            match groups.find(|g| is_it(g.limit_bytes.known())) {
                Some(group) => match group.headroom_bytes().filter(|left| *left >= rings) {
                    Some(_) if own > 0 => {
                        format!("{again}: the control group of {name} has room by now")
                    }
                    Some(left) => format!(
                        "{again}: the control group of {name} has {} left by now; where its rings take more, raise the group's limit, or use {SMALLER}",
                        text::bytes(left)
                    ),
                    None => {
                        let least = f.used.saturating_add(rings);
                        let raise = more_memory(ctx, pid, group, least);
                        raise.or(&format!("{SMALLER}; then {again}"))
                    }
                },
                None => format!(
                    "{again}, if the {limit} were the limit of the control group of {name} and that was raised since; else start {name} with Config::memory_budget_bytes above {limit}, or with {SMALLER}"
                ),
            }
        }
    }
}
