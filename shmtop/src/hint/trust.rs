//! Rules about pages that should not be believed: old numbers, another layout, contradictions.

use transport::stats::schema::OLDEST_MAJOR;

use super::fix::{is_frozen, look_at_programs, look_inside, thaw};
use super::whom::Whom;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, Endpoint, Shared, ThreadView};
use crate::sample::PageContent;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[STATS_FROZEN, LAYOUT_MISMATCH, INCONSISTENT_PEER];

rule! {
    /// A server's housekeeping touches the page a few times a second, busy or idle. Old numbers of a running process mean that
    /// this thread is stuck. A stopped process has a hint of its own, and a client has no housekeeping. Nor has a server that ends: it says so,
    /// takes its path away and waits for the handlers that still run, for as long as they take. A machine that stood still for some seconds makes
    /// every page old for one look, so two must find it so.
    STATS_FROZEN = "stats-frozen", Warn, "the numbers are old";
    fires: "page not updated for more than 3 s while the process runs";
    quiet: "the process is stopped, or is ending; a client's page";
    fix: "look at what the process waits for";
    onset: State;
    check: Endpoint(stats_frozen);
}

/// A page whose heart has not beaten for so long is not kept up to date.
pub(super) const FROZEN_NS: u64 = 3_000_000_000;

/// Whether this server was told to end and only waits for its handlers: nobody can reach it any more, and nobody keeps its house.
pub(super) fn is_ending(ctx: &Context<'_>, e: &Endpoint) -> bool {
    ctx.page(e).is_ok_and(|p| p.process.stopping_since_ns != 0)
}

fn stats_frozen(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    let age = e.heartbeat_age_ns.clone()?;
    let process = ctx.process(e.pid)?;
    if age <= FROZEN_NS || process.is_stopped() || process.gone || is_ending(ctx, e) {
        return QUIET;
    }
    let state = process
        .state
        .get()
        .map_or("unknown".into(), |s| s.to_string());
    let threads = e.process.threads.as_ref().map_or(&[][..], |t| t.as_slice());
    let frozen = |t: &Shared<ThreadView>| t.wchan.as_ref().is_ok_and(|w| is_frozen(w));
    let (is, fix) = if threads.iter().any(frozen) {
        (
            "its group is frozen (docker pause, systemctl freeze)".into(),
            thaw(e.pid),
        )
    } else {
        (
            format!("the process is in state {state}"),
            look_inside(ctx, e.pid, None, None),
        )
    };
    Fire::new(
        format!(
            "the numbers of {} (pid {}) are {} old; {is}",
            e.name,
            e.pid,
            text::ns(age)
        ),
        fix,
    )
    .number(
        "age",
        age as f64,
        "ns",
        "stats page: heartbeat_ns",
        "> 3000000000",
    )
    .state("state", state, format!("/proc/{}/stat", e.pid))
    .fires()
}

rule! {
    /// A newer minor version only adds words and is read as far as known; an older major one that is known is read as it was. Another major
    /// one would be misread, so it is not read.
    LAYOUT_MISMATCH = "layout-mismatch", Warn, "a stats page of another layout";
    fires: "the page's major version is none that this shmtop reads";
    quiet: "a newer minor version, or an older major one that is known";
    fix: "use the shmtop that was built with that library";
    check: Host(layout_mismatch);
}

fn layout_mismatch(ctx: &Context<'_>) -> Answer {
    let other = ctx.sample.pages.iter().find_map(|p| match p.content {
        PageContent::Incompatible { page, viewer } => Some((p, page, viewer)),
        _ => None,
    });
    let Some((p, page, viewer)) = other else {
        return QUIET;
    };
    Fire::new(
        format!(
            "the page of pid {} has layout {}.{}, this shmtop reads {}",
            p.pid,
            page.0,
            page.1,
            text::layouts(viewer)
        ),
        format!(
            "{}   # use the shmtop that belongs to its library",
            look_at_programs(ctx, &[p.pid])
        ),
    )
    .number(
        "page",
        f64::from(page.0),
        "",
        "stats page: version",
        format!("< {} or > {}", OLDEST_MAJOR.min(viewer.0), viewer.0),
    )
    .about([p.pid])
    .fires()
}

rule! {
    /// The server's own count of what it consumed and the bytes a client claims to have produced must fit into the ring. Only
    /// contradictions that no delay between two looks explains count: a later claim below an earlier fact.
    INCONSISTENT_PEER = "inconsistent-peer", Warn, "a client's numbers contradict the server's";
    fires: "0 ≤ produced − consumed ≤ capacity is broken, or the server counted impossible indices";
    quiet: "a race between two looks";
    fix: "don't believe the client's page; find out what runs there";
    check: Client(inconsistent_peer);
}

fn inconsistent_peer(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let who = Whom::client(ctx, e, c);
    let fix = who.told(
        |pid| {
            format!(
                "{}   # its numbers are not believed here",
                look_at_programs(ctx, &[pid])
            )
        },
        |name| format!("see which program is {name}: its numbers are not believed here"),
    );
    let who = who.name;
    if let Some(doubt) = &c.doubt {
        return Fire::new(
            format!(
                "client {} ({who}) contradicts the server: {doubt}",
                c.number
            ),
            fix,
        )
        .state(
            "claim",
            doubt.clone(),
            "stats pages: tx_record_bytes against rx_record_bytes",
        )
        .fires();
    }
    let (now, before) = (ctx.slot(e, c)?, ctx.old_slot(e, c)?);
    let grown = crate::rate::delta(
        before.house.house_inconsistent,
        now.house.house_inconsistent,
    )?;
    if grown == 0 {
        return QUIET;
    }
    Fire::new(
        format!(
            "client {} ({who}): its ring indices made no sense {grown}×",
            c.number
        ),
        fix,
    )
    .number(
        "impossible indices",
        grown as f64 / ctx.seconds()?,
        "1/s",
        "stats page: house_inconsistent",
        "> 0",
    )
    .fires()
}
