//! Rules about the view: what shmtop cannot see, and what it costs.

use transport::stats::Role;

use super::fix::sudo;
use super::trust::is_ending;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::Endpoint;
use crate::reading::{Why, WhyKind};
use crate::sample::PageContent;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[
    VIEWER_BLIND,
    SUSPENDED,
    STOLEN_PATH,
    DEBUG_BUILD,
    VIEWER_COST,
];

rule! {
    /// A missing number is shown as missing; this says how many, why, and what would change it.
    VIEWER_BLIND = "viewer-blind", Info, "some processes can't be read";
    fires: "a page or a process of a connection can't be read for want of permission";
    quiet: "everything found can be read";
    fix: "run shmtop as the same user, or as root";
    check: Host(viewer_blind);
}

fn viewer_blind(ctx: &Context<'_>) -> Answer {
    let denied = |why: Option<&Why>| why.is_some_and(|w| w.kind == WhyKind::NoPermission);
    let mut blind: Vec<u32> = ctx
        .sample
        .processes
        .iter()
        .filter(|p| !p.gone)
        .filter(|p| denied(p.fds.why()) || denied(p.state.why()) || denied(p.limits.why()))
        .map(|p| p.pid)
        .collect();
    for page in &ctx.sample.pages {
        if matches!(page.content, PageContent::Permission(_)) && !blind.contains(&page.pid) {
            blind.push(page.pid);
        }
    }
    if blind.is_empty() {
        return QUIET;
    }
    let mut all: Vec<u32> = ctx.sample.processes.iter().map(|p| p.pid).collect();
    all.extend(ctx.sample.pages.iter().map(|p| p.pid));
    all.sort_unstable();
    all.dedup();
    let list = blind
        .iter()
        .take(4)
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    Fire::new(
        format!(
            "cannot read {} of {} processes (pid {list}); what is missing is shown as –",
            blind.len(),
            all.len()
        ),
        match sudo(ctx) {
            // Root is kept from nothing but by what it runs in.
            "" => "run shmtop outside of its container, or let that trace others: docker run --pid host --cap-add SYS_PTRACE".to_owned(),
            sudo => format!("{sudo}shmtop"),
        },
    )
    .number(
        "processes not readable",
        blind.len() as f64,
        "",
        "/proc/PID: EACCES or hidepid",
        "> 0",
    )
    .about(blind)
    .fires()
}

rule! {
    /// CLOCK_BOOTTIME goes on during suspend and CLOCK_MONOTONIC does not. Windows that would span it are dropped.
    SUSPENDED = "suspended", Info, "the machine slept";
    fires: "BOOTTIME − MONOTONIC grew by more than 1 s between two samples";
    quiet: "a minute later";
    fix: "nothing: rates start anew";
    onset: Dated;
    check: Host(suspended);
}

fn suspended(ctx: &Context<'_>) -> Answer {
    let Some((at, slept)) = ctx.suspend else {
        return QUIET;
    };
    let ago = ctx.model.at_ns.saturating_sub(at);
    if ago > 60_000_000_000 {
        return QUIET;
    }
    Fire::new(
        format!(
            "the machine slept for {}, {} ago; rates start anew",
            text::ns(slept),
            text::ns(ago)
        ),
        "nothing to do",
    )
    .number(
        "slept",
        slept as f64,
        "ns",
        "CLOCK_BOOTTIME - CLOCK_MONOTONIC",
        "> 1000000000",
    )
    .fires()
}

rule! {
    /// The server notes the inode of its socket's path when it binds. Another inode there means that new clients go elsewhere. A server that
    /// ends takes its path away itself, and its successor may have it while handlers still run.
    STOLEN_PATH = "stolen-path", Crit, "the socket's path leads to somebody else";
    fires: "the path's inode is not the one the server bound, or the path is gone";
    quiet: "it is, or the server is ending";
    fix: "stop the second server, restart the first";
    onset: State;
    check: Endpoint(stolen_path);
}

fn stolen_path(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    if e.role != Role::Server {
        return Err(Why::not_applicable("not a server"));
    }
    if is_ending(ctx, e) {
        return QUIET;
    }
    let listener = ctx
        .listener(e)
        .ok_or_else(|| Why::not_there("its listening socket was not looked at"))?;
    if listener.bound_inode == 0 {
        return Err(Why::not_there(
            "the server does not say which inode it bound",
        ));
    }
    let now = listener.path_inode.get()?;
    if now == listener.bound_inode {
        return QUIET;
    }
    if now == 0 {
        return Fire::new(
            format!(
                "{} is gone: nobody can reach {} (pid {}) any more",
                e.socket_path, e.name, e.pid
            ),
            format!("restart {} (pid {})", text::shell(&e.name), e.pid),
        )
        .state("path", "gone", format!("stat {}", e.socket_path))
        .fires();
    }
    Fire::new(
        format!(
            "{} no longer leads to {} (pid {}): new clients reach another server",
            e.socket_path, e.name, e.pid
        ),
        // Whose socket that is only root learns of all.
        format!(
            "{}ss -xlp | grep -F -e {}",
            sudo(ctx),
            text::shell(&e.socket_path)
        ),
    )
    .number(
        "inode now",
        now as f64,
        "",
        format!("stat {}", e.socket_path),
        format!("!= {}", listener.bound_inode),
    )
    .number(
        "inode bound",
        listener.bound_inode as f64,
        "",
        "stats page: listener_inode",
        "",
    )
    .fires()
}

rule! {
    /// Debug assertions and no inlining make the ring tens of times slower: every latency shown is of the build, not of the
    /// design.
    DEBUG_BUILD = "debug-build", Warn, "a debug build";
    fires: "the build flag in the page says debug";
    quiet: "a release build";
    fix: "cargo build --release";
    once: true;
    check: Endpoint(debug_build);
}

fn debug_build(_: &Context<'_>, e: &Endpoint) -> Answer {
    if !e.debug_build {
        return QUIET;
    }
    Fire::new(
        format!(
            "{} (pid {}) is a debug build: its latencies mean nothing",
            e.name, e.pid
        ),
        "cargo build --release   # and start that one",
    )
    .state("build", "debug", "stats page: build flags")
    .fires()
}

rule! {
    /// The viewer must not become the load it shows. It slows its refresh by itself; this says that it did.
    VIEWER_COST = "viewer-cost", Info, "shmtop itself uses much CPU";
    fires: "more than 2 % of a core";
    quiet: "less";
    fix: "shmtop -d 2s";
    check: Host(viewer_cost);
}

fn viewer_cost(ctx: &Context<'_>) -> Answer {
    let cpu = ctx.model.viewer_cpu.clone()?;
    if cpu <= 0.02 {
        return QUIET;
    }
    Fire::new(
        format!("shmtop uses {} of a core", text::percent(cpu)),
        "shmtop -d 2s   # a slower refresh; the dashboard slows its own already",
    )
    .number("CPU", cpu * 100.0, "%", "getrusage(RUSAGE_SELF)", "> 2")
    .fires()
}
