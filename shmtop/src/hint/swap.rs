//! The rule about ring memory that was swapped out.

use super::context::TEN_NS;
use super::fix::{sudo, sysctl};
use super::{Answer, Context, Fire, QUIET, rule};
use crate::model::Endpoint;
use crate::rate::delta;
use crate::reading::{Reading, Why};
use crate::sample::{EARLY_NS, RingMapping, WINDOW_NS};
use crate::text;

rule! {
    /// Swapped ring pages alone are stale backlog; where they become fewer while threads of the rings have major faults, they are on the path. Faults
    /// alone may be of files that a handler reads. Where reading the mappings takes so long that there are no two readings within ten seconds,
    /// what was found swapped out counts until they are read again, as long as faults go on.
    RING_SWAPPED = "ring-swapped", Warn, "ring memory is swapped out and comes back by faults";
    fires: "swapped bytes in a ring's mapping that became fewer within ten seconds, and major faults of ring threads in the window";
    quiet: "stale swap nobody touches";
    fix: "mlock the rings, or less memory pressure";
    check: Endpoint(ring_swapped);
}

fn ring_swapped(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    // First of all: where nothing faults, nobody looks whose pages are swapped out.
    let faults = e.process.major_faults_per_s.clone()?;
    if faults <= 0.0 {
        return QUIET;
    }
    let faults = major_faults_of_ring_threads(ctx, e)?;
    if faults <= 0.0 {
        return QUIET;
    }
    // Its mappings are not even read then.
    let memory = ctx.sample.host.memory.known();
    if memory.is_some_and(|m| m.swap_used_bytes == Some(0)) {
        return QUIET;
    }
    let process = ctx.process(e.pid)?;
    let age_ns = match process.rings_at_ns {
        0 => 0,
        at_ns => ctx.model.at_ns.saturating_sub(at_ns),
    };
    let swapped: u64 = process
        .rings
        .as_reading()?
        .iter()
        .map(|r| r.swap_bytes)
        .fold(0, u64::saturating_add);
    let is_old = age_ns > 2 * ctx.model.interval_ns.clone()?.max(WINDOW_NS);
    if swapped == 0 && is_old {
        return Err(Why::not_yet(format!(
            "its mappings were read {} ago: that takes so long that it is done rarely",
            text::ns(age_ns)
        )));
    }
    if swapped == 0 {
        return QUIET;
    }
    match came_back(ctx, e.pid) {
        Some(false) => return QUIET,
        None if !is_old => return Err(Why::not_yet("needs a second reading of its mappings")),
        _ => {}
    }
    let when = match is_old {
        true => format!(" when it was looked at {} ago", text::ns(age_ns)),
        false => String::new(),
    };
    Fire::new(
        format!(
            "{} (pid {}): {} of ring memory swapped out{when}, {faults:.0} major faults/s",
            e.name,
            e.pid,
            text::bytes(swapped)
        ),
        sysctl(
            ctx,
            "vm.swappiness=1",
            &format!(
                "when memory is free again: {0}swapoff -a && {0}swapon -a",
                sudo(ctx)
            ),
        ),
    )
    .number(
        "swapped",
        swapped as f64,
        "bytes",
        format!("/proc/{}/smaps", e.pid),
        "> 0",
    )
    .number(
        "major faults",
        faults,
        "1/s",
        format!("/proc/{}/task/*/stat of its ring threads", e.pid),
        "> 0",
    )
    .fires()
}

/// Major faults per second in the window of the threads that own a slot.
fn major_faults_of_ring_threads(ctx: &Context<'_>, e: &Endpoint) -> Reading<f64> {
    let page = ctx.page(e)?;
    let (now, old) = (ctx.process(e.pid)?, ctx.old_process(e.pid)?);
    let mut sum = 0;
    let on_rings = |tid| page.slots.iter().any(|s| s.info.tid == tid);
    for thread in now.threads.iter().filter(|t| on_rings(t.tid)) {
        let Some(before) = old.thread(thread.tid) else {
            continue;
        };
        let grown = delta(before.major_faults.get()?, thread.major_faults.get()?)?;
        sum = grown.saturating_add(sum);
    }
    Ok(sum as f64 / ctx.seconds()?)
}

/// Whether less of a ring was swapped out at some reading within ten seconds than at the one before; `None` without two readings.
fn came_back(ctx: &Context<'_>, pid: u32) -> Option<bool> {
    let samples = ctx.windows.iter().map(|s| &**s).chain([ctx.sample]);
    let mut readings: Vec<(u64, &[RingMapping])> = samples
        .filter_map(|s| {
            let process = s.process(pid)?;
            // Recordings from before it was said: each sample read them.
            let at_ns = match process.rings_at_ns {
                0 => s.time.monotonic_ns,
                at_ns => at_ns,
            };
            Some((at_ns, process.rings.known()?.as_slice()))
        })
        .collect();
    readings.dedup_by_key(|(at_ns, _)| *at_ns);
    // Windows may be longer than a second. The last reading before is what the first within is compared with.
    let is_late =
        |(at_ns, _): &(u64, _)| ctx.model.at_ns.saturating_sub(*at_ns) <= TEN_NS + EARLY_NS;
    let first = readings.iter().position(is_late)?;
    readings.drain(..first.saturating_sub(1));
    let fewer = |old: &[RingMapping], new: &[RingMapping]| {
        let before = |ring: &RingMapping| old.iter().find(|o| o.inode == ring.inode);
        new.iter()
            .any(|ring| before(ring).is_some_and(|o| ring.swap_bytes < o.swap_bytes))
    };
    let mut pairs = readings.windows(2);
    (readings.len() > 1).then(|| pairs.any(|p| fewer(p[0].1, p[1].1)))
}
