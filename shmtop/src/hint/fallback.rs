//! What to do about rings that there was no room for (step `headroom`). The step has five causes; the errno and the limit that the fallback carries
//! tell them apart, beside what binds the process now.

use transport::stats::FallbackFact;

use super::Context;
use super::fix::Bound;
use super::groups::more_memory;
use super::whom::Whom;
use crate::model::Endpoint;
use crate::text;

const ENOMEM: i32 = 12;
const EFBIG: i32 = 27;

/// What always helps.
const SMALLER: &str = "smaller rings: Config::ring_bytes (exchange, trader: --ring-size)";

/// For the process that had no room; `again` is what its client is to do then.
pub(super) fn headroom(
    ctx: &Context<'_>,
    e: &Endpoint,
    f: &FallbackFact,
    who: &Whom,
    again: &str,
) -> String {
    let Whom { pid, name } = who;
    let limit = text::bytes(f.limit);
    let rings = e.admission.ring_bytes;
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
            Some((pid, now)) if now.soft == Some(f.limit) => {
                let needed = f.used.saturating_add(rings.saturating_mul(2));
                let lift = Bound::AddressSpace.lift(ctx, pid, needed);
                format!("{lift}   # then {again}")
            }
            Some(_) => format!(
                "raise vm.overcommit_ratio, or add swap: with vm.overcommit_memory = 2 the machine promised {limit} at most (CommitLimit); then {again}. Or use {SMALLER}"
            ),
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
                Some(group) if group.headroom_bytes().is_some_and(|left| left >= rings) => {
                    format!("{again}: the control group of {name} has room by now")
                }
                Some(group) => {
                    let least = f.used.saturating_add(rings);
                    let raise = more_memory(ctx, pid, group, least);
                    raise.or(&format!("{SMALLER}; then {again}"))
                }
                None => format!(
                    "start {name} with Config::memory_budget_bytes above {limit}, or with {SMALLER}"
                ),
            }
        }
    }
}
