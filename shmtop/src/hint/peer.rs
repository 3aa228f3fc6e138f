//! Rules about a side that does not move: stopped, gone, stalled, stuck in its handler.

use transport::stats::{Role, Slot, Via};

use super::fix::{look_inside, sudo_for};
use super::ring::{FULL, client_pid, plural, server_pid};
use super::stuck::HANDLER_STUCK;
use super::trust::is_ending;
use super::whom::Whom;
use super::{Answer, Context, Fire, QUIET, Rule, rule};
use crate::model::{Client, ClientState, Endpoint, Severity, Shared, ThreadView};
use crate::reading::{Reading, Why};
use crate::text;

/// This family, in the order of the catalogue.
pub(super) const RULES: &[Rule] = &[PEER_STOPPED, PEER_GONE, CONSUMER_STALLED, HANDLER_STUCK];

/// Longer than this is no scheduling accident.
pub(super) const LONG_NS: u64 = 1_000_000_000;

/// `S in futex_wait`, from the thread if it can be seen, else of the process; `None` if neither can.
pub(super) fn whereabouts(
    ctx: &Context<'_>,
    pid: u32,
    thread: &Reading<Shared<ThreadView>>,
) -> Option<String> {
    let state = thread
        .as_ref()
        .ok()
        .and_then(|t| t.state.clone().ok())
        .or_else(|| ctx.process(pid).ok().and_then(|p| p.state.known().copied()));
    let wchan = thread
        .as_ref()
        .ok()
        .and_then(|t| t.wchan.clone().ok())
        .filter(|w| !w.is_empty() && w != "0");
    state.map(|s| wchan.map_or(s.to_string(), |w| format!("{s} in {w}")))
}

/// The thread's state as evidence, if it is known.
pub(super) fn with_state(fire: Fire, at: Option<String>, source: String) -> Fire {
    match at {
        Some(at) => fire.state("thread state", at, source),
        None => fire,
    }
}

rule! {
    /// A stopped process is not dead: its connection stays and works again after SIGCONT. The state letter says so, T by a
    /// signal and t by a debugger. Seen in two windows, so a debugger that only looks around is not reported; nor is strace, under which a
    /// process is in state t at each system call and messages pass nevertheless. A process that is stopped is one finding, however many clients it has.
    PEER_STOPPED = "peer-stopped", Crit, "a process on a ring is stopped";
    fires: "/proc/PID/stat says T or t, and no message passes";
    quiet: "any other state, or messages pass";
    fix: "kill -CONT PID, or leave the debugger";
    explains: ["consumer-stalled", "ring-full", "mutual-full", "stats-frozen", "late-replies", "outlier-client", "handler-stuck", "tail-spread", "accept-queue"];
    onset: State;
    once: true;
    check: Client(peer_stopped);
}

fn peer_stopped(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    let own_state = e.process.state.clone();
    let moves = || e.clients.iter().any(|c| c.state == ClientState::Active);
    let mine = matches!(own_state, Ok('T' | 't')) && !moves();
    let peer = c.state == ClientState::Stopped;
    if !mine && !peer {
        // Without a readable state of the peer there is no answer.
        let visible = ctx.process(c.peer_pid).and_then(|p| p.state.get());
        return visible.map(|_| None);
    }
    let pid = if peer { c.peer_pid } else { e.pid };
    let process = ctx.process(pid)?;
    let tracer = process.tracer_pid.get().unwrap_or(0);
    let who = if pid == client_pid(e, c) {
        "client"
    } else {
        "server"
    };
    let waiting = match c.in_flight {
        Ok(0) | Err(_) => String::new(),
        Ok(1) => "; 1 request waits".into(),
        Ok(n) => format!("; {n} requests wait"),
    };
    let state = process.state.get()?;
    let is_stopped = if peer && c.state_for_ns > 0 {
        format!("has been stopped for {}", text::ns(c.state_for_ns))
    } else {
        "is stopped".into()
    };
    let (says, fix) = if tracer != 0 {
        (
            format!("{who} pid {pid} {is_stopped} under a debugger (pid {tracer}){waiting}"),
            format!("continue it in the debugger, pid {tracer}"),
        )
    } else {
        (
            format!("{who} pid {pid} {is_stopped} (state {state}){waiting}"),
            format!("{}kill -CONT {pid}", sudo_for(ctx, pid)),
        )
    };
    let fire = Fire::new(says, fix)
        .state("state", state.to_string(), format!("/proc/{pid}/stat"))
        .state("pid", pid.to_string(), format!("/proc/{pid}"));
    let (name, source) = ("requests waiting", "stats page: in_flight");
    match &c.in_flight {
        Ok(n) => fire.number(name, *n as f64, "", source, "").fires(),
        Err(_) => fire.fires(),
    }
}

rule! {
    /// The transport notices a peer's death through the socket within a second. A connection that is still held later means
    /// that nobody reads the socket: the server is stopped or stuck. A client has no thread of ours: one that waits for nothing looks with its next
    /// call, however its server ended, and until then holds no more than the memory of its rings: info.
    PEER_GONE = "peer-gone", Crit, "a connection to a dead process is still held";
    fires: "the peer is gone and the connection is still open after more than 1 s; info of a client that has no request in flight";
    quiet: "a pid namespace hides the peer: then only the socket knows";
    fix: "see why the other side does not clean up";
    explains: ["consumer-stalled", "ring-full", "outlier-client"];
    onset: State;
    check: Client(peer_gone);
}

fn peer_gone(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    // Who ends lets go of all when the last handler has returned.
    if c.state != ClientState::Dead || is_ending(ctx, e) {
        return ctx.process(c.peer_pid).map(|_| None);
    }
    let held =
        c.tx.capacity_bytes
            .clone()
            .unwrap_or(0)
            .saturating_add(c.rx.capacity_bytes.clone().unwrap_or(0));
    let memory = if held > 0 {
        format!(", {} of rings still held", text::bytes(held))
    } else {
        String::new()
    };
    let idle = c.role == Role::Client && matches!(c.in_flight, Ok(0));
    let who = match c.role {
        Role::Server => format!("pid {} of client {}", c.peer_pid, c.number),
        Role::Client => format!("pid {}, the server of client {},", c.peer_pid, c.number),
    };
    let (says, fix, severity) = match idle {
        true => (
            format!("{who} ended more than 1 s ago, and no request waits for it{memory}"),
            format!(
                "nothing to do: the next call of pid {} sees it and lets go",
                e.pid
            ),
            Severity::Info,
        ),
        false => (
            format!("{who} died more than 1 s ago{memory}"),
            format!(
                "ps -o pid,stat,wchan -p {}   # why does it not clean up?",
                e.pid
            ),
            Severity::Crit,
        ),
    };
    let fire = Fire::new(says, fix).at(severity);
    fire.state("peer", "gone", format!("/proc/{}", c.peer_pid))
        .number(
            "rings held",
            held as f64,
            "bytes",
            "stats page: tx_capacity, rx_capacity",
            "",
        )
        .fires()
}

rule! {
    /// Bytes wait and the reader's index has not moved for a second. While the handler runs the server's reader can't move: that
    /// is `handler-stuck`, and of the requests this one says nothing then. If both rings stand still it is the client that does not read: the server
    /// takes no request that it has no room to answer. Replies to requests that were given up are left there until the next call; a client
    /// that waits for nothing else reads none, and need not. Nor does one that computes before it collects: replies harm nobody until the ring is
    /// full, so it takes that, or a client that is asleep until a reply comes, to be critical.
    CONSUMER_STALLED = "consumer-stalled", Crit, "the reader of a ring has stopped reading";
    fires: "bytes in the ring and its consumer's index frozen for more than 1 s; info of replies that nobody is kept waiting for: the ring is less than 80 % full, the server has room, and the client does not sleep for one";
    quiet: "of requests: the handler is running; of replies: their client waits for none";
    fix: "look at the thread named";
    explains: ["ring-full", "tail-spread", "late-replies", "outlier-client"];
    onset: Dated;
    check: Client(consumer_stalled);
}

fn consumer_stalled(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Answer {
    if c.transport != Via::Shm {
        return Err(Why::not_applicable("on the socket"));
    }
    let in_handler = handler_of_server(ctx, e, c).is_some();
    let (own, _) = ctx.client_slots(c.connection_id);
    let waits_for_none = own.is_some_and(|slot| slot.req.in_flight == 0);
    let wanted = replies_are_wanted(ctx, c, own);
    let rings = [
        (
            c.reply_ring(),
            "reply",
            Whom::client(ctx, e, c),
            &c.thread,
            "client",
        ),
        (
            c.request_ring(),
            "request",
            Whom::server(ctx, e, c),
            &c.server_thread,
            "server",
        ),
    ];
    let (mut unknown, mut lesser) = (None, None);
    for (ring, name, whom, thread, who) in rings {
        if in_handler && who == "server" || waits_for_none && who == "client" {
            continue;
        }
        let (occupied, frozen) = match (&ring.occupancy_bytes, &ring.moved_age_ns) {
            (Ok(0), _) => continue,
            (Ok(bytes), Ok(age)) => (*bytes, *age),
            (Ok(bytes), Err(why)) if why.kind == crate::reading::WhyKind::NotYet => {
                (*bytes, c.age_ns)
            }
            (_, Err(why)) | (Err(why), _) => {
                unknown = Some(why.clone());
                continue;
            }
        };
        if frozen <= LONG_NS {
            continue;
        }
        let is_lesser = match &wanted {
            Ok(wanted) => who == "client" && !wanted,
            Err(why) if who == "client" => {
                unknown = Some(why.clone());
                continue;
            }
            Err(_) => false,
        };
        let at = whereabouts(ctx, whom.pid.unwrap_or(0), thread);
        let is = at.as_ref().map_or_else(
            || format!("the state of the {who} ({}) can't be read", whom.name),
            |at| format!("the {who} ({}) is {at}", whom.name),
        );
        let fire = Fire::new(
            format!(
                "client {}: {} of {} unread for {}; {is}",
                c.number,
                text::bytes(occupied),
                plural(name),
                text::ns(frozen)
            ),
            whom.told(
                |pid| look_inside(ctx, pid, None, at.as_deref()),
                |name| format!("see what {name} waits for"),
            ),
        )
        .number(
            "occupancy",
            occupied as f64,
            "bytes",
            "stats page: house_*_occupancy_bytes",
            "> 0",
        )
        .number(
            "index frozen for",
            frozen as f64,
            "ns",
            "stats page: house_*_moved_ns",
            format!("> {LONG_NS}"),
        );
        let stat = format!("/proc/{}/stat", whom.pid.unwrap_or(0));
        let fire = with_state(fire, at, stat);
        if !is_lesser {
            return fire.fires();
        }
        // The server may have stopped reading besides, and that is worse.
        lesser = Some(fire.at(Severity::Info));
    }
    match lesser {
        Some(fire) => fire.fires(),
        None => unknown.map_or(QUIET, Err),
    }
}

/// Whether somebody is kept waiting by replies that lie unread: the server, which has no room for more, or the client, which is in a wait for one
/// and does not run. A client that runs, or sleeps elsewhere, collects them when it likes.
fn replies_are_wanted(ctx: &Context<'_>, c: &Client, own: Option<&Slot>) -> Reading<bool> {
    let ring = c.reply_ring();
    if ring.blocked_for_ns.is_ok() || ring.fill().is_some_and(|fill| fill > FULL) {
        return Ok(true);
    }
    let own = own.ok_or_else(|| {
        Why::not_visible("the client's own page is not visible: it may wait for no reply")
    })?;
    let runs = matches!(&c.thread, Ok(t) if matches!(t.state, Ok('R')));
    let since_ns = own.req.oldest_ns;
    Ok(since_ns != 0 && !runs && ctx.model.at_ns.saturating_sub(since_ns) > LONG_NS)
}

/// The age of a handler run that holds the server's reader of this connection: its own, or of another connection that the same
/// thread serves.
fn handler_of_server(ctx: &Context<'_>, e: &Endpoint, c: &Client) -> Option<u64> {
    if let Ok(age) = c.handler_running_ns {
        return Some(age);
    }
    let tid = c.server_thread.as_ref().ok()?.tid;
    ctx.handler_on(server_pid(e, c), tid)
}
