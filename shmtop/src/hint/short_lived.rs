//! The rule about clients on the socket that are gone before anything can be said of them.

use transport::error::Step;
use transport::stats::{Role, Slot, SlotKind, SlotState, Via};

use super::connection::fire;
use super::fallback::remedy;
use super::whom::Whom;
use super::{Answer, Context, QUIET, Rule, rule};
use crate::model::Endpoint;
use crate::model::verdict::fallback_text;
use crate::reading::Why;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[FALLBACK_CHURN];

/// As many a minute are worth a word.
const MANY: u64 = 3;
/// A connection is dated when it is accepted and counted when it has shaken hands, for which it may take so long (`Config::handshake_timeout` is 2 s by default).
const HANDSHAKE_NS: u64 = 5_000_000_000;

rule! {
    /// A client that comes for a few requests is gone before `socket-fallback` may speak of it, and where all are like that nothing else shows that each
    /// pays for an upgrade that fails and then for the socket. The server counts them; those that are still there are not meant. Why they stayed there
    /// is what the slots of the last of them say.
    FALLBACK_CHURN = "fallback-churn", Warn, "short-lived clients end up on the socket";
    fires: "3 or more connections of the last minute wanted shared memory, stayed on the socket and are closed";
    quiet: "fewer, or either side was told to keep to the socket";
    fix: "remove what the step and errno name";
    onset: Dated;
    check: Endpoint(fallback_churn);
}

fn fallback_churn(ctx: &Context<'_>, e: &Endpoint) -> Answer {
    if e.role != Role::Server {
        return Err(Why::not_applicable("not a server"));
    }
    let page = ctx.page(e)?;
    let kept = ctx.minute.get(&e.key).and_then(|m| m.front());
    let Some((since_ns, old)) = kept else {
        return Err(Why::not_yet("needs a second sample"));
    };
    let fell = crate::rate::delta(old.fallbacks, page.process.fallbacks)?;
    let came = crate::rate::delta(old.handshakes, page.process.handshakes)?;
    let connections = || {
        let slots = page.slots.iter();
        slots.filter(|s| s.info.kind == SlotKind::Connection)
    };
    // A connection may try again to come to shared memory, as often as it likes, and may succeed: what it counts is nobody who went.
    let upgraded = crate::rate::delta(old.upgrades, page.process.upgrades)?;
    let from_ns = since_ns.saturating_sub(HANDSHAKE_NS);
    let stays = |s: &&Slot| {
        let is = (s.info.state, s.info.transport);
        is == (SlotState::Open, Via::Socket) && s.info.opened_ns >= from_ns
    };
    let on_socket = came.saturating_sub(upgraded);
    let went = on_socket.saturating_sub(connections().filter(stays).count() as u64);
    let gone = fell.min(went);
    if gone < MANY {
        return QUIET;
    }
    let closed = connections().filter(|s| {
        let wanted = (s.info.state, s.info.transport, s.info.wanted);
        let of_these = wanted == (SlotState::Closed, Via::Socket, Via::Shm);
        of_these && s.info.fallback.is_some() && s.info.closed_ns >= *since_ns
    });
    let Some(last) = closed.max_by_key(|s| s.info.closed_ns) else {
        // A slot is the next one's some seconds after its end. Where all are there, those that went had asked for the socket.
        let told = connections().filter(|s| s.info.opened_ns >= *since_ns);
        if told.count() as u64 >= came {
            return QUIET;
        }
        return Err(Why::not_there(
            "why they stayed on the socket is not told any more",
        ));
    };
    let Some(f) = &last.info.fallback else {
        return QUIET;
    };
    if f.step == Step::Disabled as u32 {
        return QUIET;
    }
    let them = Whom {
        pid: None,
        name: "such clients".to_owned(),
    };
    let who = match f.at_peer {
        true => &them,
        false => &Whom::own(e),
    };
    let pid = match last.info.peer_pid {
        0 => String::new(),
        pid if ctx.sample.is_here(page) => format!(" (the last: pid {pid})"),
        pid => format!(" (the last: pid {pid} in its pid namespace)"),
    };
    let says = format!(
        "{gone} clients of {} (pid {}) wanted shared memory within a minute, stayed on the socket and went{pid}: {}",
        e.name,
        e.pid,
        fallback_text(f)
    );
    fire(f, says, remedy(ctx, e, f, who, &them, "let others come"))
        .number(
            "fell back and went",
            gone as f64,
            "1/min",
            "stats page: fallbacks, handshakes less upgrades; less those that are open",
            format!(">= {MANY}"),
        )
        .fires()
}
