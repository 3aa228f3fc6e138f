//! The rule about clients whose server is not there any more.

use transport::stats::{Role, SlotInfo};

use super::fix::{on_host, sudo};
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::Endpoint;
use crate::reading::Why;
use crate::sample::lost;
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[SERVER_GONE];

/// A server that is started again at once has its clients back by then.
const RESTART_NS: u64 = 2_000_000_000;

rule! {
    /// Whom a server leaves behind is known from its clients alone, so that somebody who looks afterwards is told as well: their pages
    /// say that the connection ended and that there is none in its place, /proc that the server's process is no more. One that shuts down
    /// in good order takes its socket's path away first; one that is killed leaves it there, with nobody who listens. Only that is an alarm:
    /// a client that waits while a server is stopped on purpose is as it should be, and so is one that gave its connection up itself.
    SERVER_GONE = "server-gone", Crit, "clients are left without a server";
    fires: "the server's process died more than 2 s ago (where the client has not noticed: was seen to be dead for 2 s) and left its socket behind, nobody listens there, and the client lives and has no other connection";
    quiet: "the server shut down in good order (its socket's path is gone), another one listens there, or the client has ended or found back";
    fix: "see why it died, and start it again";
    explains: ["peer-gone", "consumer-stalled", "ring-full", "late-replies", "mutual-full"];
    onset: State;
    once: true;
    check: Endpoint(server_gone);
}

/// What a connection calls the process at its other end, which is there no more.
pub(super) fn gone_peer(info: &SlotInfo) -> String {
    match text::clean(&info.peer_name) {
        name if name.is_empty() => format!("pid {}", info.peer_pid),
        name => format!("{name} (pid {})", info.peer_pid),
    }
}

fn server_gone(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    if e.role != Role::Client {
        return Err(Why::not_applicable("a server"));
    }
    let page = ctx.page(e)?;
    let died = |info: &_| ctx.sample.peer_died(page, info);
    let Some(slot) = lost(page, |info| died(info) == Some(true)) else {
        return QUIET;
    };
    let info = &slot.info;
    // Not noticed yet: since it was first seen to be dead.
    let unnoticed = e.clients.iter().map(|c| c.state_for_ns).max();
    let age_ns = match info.closed_ns {
        0 => unnoticed.unwrap_or(0),
        at => ctx.model.at_ns.saturating_sub(at),
    };
    let noticed = info.closed_ns != 0;
    if age_ns <= RESTART_NS {
        return QUIET;
    }
    match died(info) {
        Some(true) => {}
        Some(false) => return QUIET,
        None => {
            return Err(Why::not_there(format!(
                "whether the server of process {} lives can't be seen from here",
                e.pid
            )));
        }
    }
    let beside = |o: &Endpoint| o.role == Role::Server && o.socket_path == e.socket_path;
    if ctx.model.endpoints.iter().any(|o| beside(o)) {
        return QUIET;
    }
    let left = ctx
        .listener(e)
        .ok_or_else(|| Why::not_yet("what is left of its server's socket was not looked at"))?;
    // Where that can't be seen (another network namespace), another server may well listen there.
    if left.path_inode.get()? == 0 || left.backlog.get()? > 0 {
        return QUIET;
    }
    let who = gone_peer(info);
    Fire::new(
        format!(
            "{} (pid {}) is without a server: {who} died{}",
            e.name,
            e.pid,
            match noticed {
                true => format!(" {} ago", text::ns(age_ns)),
                false => String::new(),
            }
        ),
        format!(
            "{}journalctl -b -n 20 -g '\\b{}\\b'   # {}why it ended (killed for memory, a crash); then start it again",
            sudo(ctx),
            info.peer_pid,
            match on_host(ctx) {
                "" => "",
                _ => "on the host, by its pid there: ",
            }
        ),
    )
    .number(
        "without a server for",
        age_ns as f64,
        "ns",
        match noticed {
            true => "stats page: closed_ns".to_owned(),
            false => format!("/proc/{}: gone for so long while shmtop looked", info.peer_pid),
        },
        format!("> {RESTART_NS}"),
    )
    .state("server", format!("{who} is gone"), format!("/proc/{}", info.peer_pid))
    .about([info.peer_pid])
    .state("socket", "left behind, nobody listens", e.socket_path.clone())
    .fires()
}
