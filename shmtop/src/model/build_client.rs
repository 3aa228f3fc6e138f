//! The builder's part that joins the two sides of a connection into one row.

mod doubt;
mod moving;

use transport::stats::{Role, Slot};

use doubt::doubt;
use moving::moving;
pub(super) use moving::renewed;

use super::client::{Client, ClientState, PerfView};
use super::host::ThreadView;
use super::join::{Pair, Side, slot_at};
use super::measure::{NO_HANDLER_RUN, NO_ROUND_TRIP, latency, time};
use super::shared::Shared;
use super::{counters, machine, verdict};
use crate::history::History;
use crate::reading::{Reading, Why};
use crate::sample::Process;
use crate::text;

/// Without progress for longer than this a connection with work to do is stalled.
pub(crate) const STALL_NS: u64 = 1_000_000_000;

/// Share of wall time spinning that can't pass unseen in a thread's CPU time.
const MUCH_SPIN: f64 = 0.5;

/// The row of one connection.
pub(super) fn client<'a>(pair: &Pair<'a>, own: &Side<'a>) -> Client {
    let now_ns = pair.now.time.monotonic_ns;
    let info = &own.slot.info;
    let role = own.snapshot.role;
    let other = pair.other(own);
    let other = other.as_ref();
    let (server, client) = ends(own, other);
    let client_thread = client
        .ok_or_else(no_client)
        .and_then(|c| thread_that_waits(pair, c));
    let server_thread = server
        .ok_or_else(no_server)
        .and_then(|s| thread_of(pair, s.page.pid, waiter_tid(s)));
    let missing = |whose: Why| super::RttView {
        interval: Err(whose.clone()),
        recent: Err(whose.clone()),
        since_start: Err(whose),
    };
    let rtt = client.map_or_else(
        || missing(no_client()),
        |c| latency(c, |s| &s.rtt, NO_ROUND_TRIP),
    );
    let handler = server.map_or_else(
        || missing(no_server()),
        |s| latency(s, |s| &s.handler, NO_HANDLER_RUN),
    );
    let peer = pair.peer_process(own, other);
    let perf = match client {
        Some(c) => pair.perf(c, || {
            let moved = pair.messages_of_thread(c);
            counters::per_message(pair, c.slot.info.tid, &client_thread, &moved)
        }),
        None => PerfView::none(&no_client()).into(),
    };
    let m = moving(own, other, now_ns);
    let blocked = match role {
        Role::Server => &m.rx.blocked_ratio,
        Role::Client => &m.tx.blocked_ratio,
    };
    let time = m.wait.clone().and_then(|w| {
        let c = client.ok_or_else(no_client)?;
        time(
            c,
            &w,
            blocked.clone().unwrap_or(0.0),
            client_thread.as_deref().ok(),
        )
    });
    let peer_comm = peer
        .map(|p| text::clean(&p.comm))
        .filter(|c| !c.is_empty())
        .unwrap_or_else(|| text::clean(&info.peer_name));
    let mut row = Client {
        slot: own.slot.index,
        connection_id: info.connection_id,
        number: number(own.slot),
        role,
        shown_at_server: role == Role::Client && other.is_some(),
        peer_pid: pair.peer_pid(own, other),
        peer_uid: info.peer_uid,
        peer_name: Some(text::clean(&info.peer_name))
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| peer_comm.clone()),
        peer_comm,
        state: ClientState::Idle,
        state_for_ns: 0,
        transport: info.transport,
        wanted: info.wanted,
        fallback: info.fallback.clone(),
        age_ns: m.age_ns,
        tx: m.tx,
        rx: m.rx,
        requests_per_s: m.requests_per_s,
        bytes_per_s: m.bytes_per_s,
        in_flight: m.in_flight,
        oldest_age_ns: m.oldest_age_ns,
        timeouts: m.timeouts,
        late_replies: m.late_replies,
        errors: m.errors,
        wait: m.wait,
        rtt,
        handler,
        handler_running_ns: m.handler_running_ns,
        perf,
        time,
        thread: client_thread,
        server_thread,
        wait_policy: info.wait_policy,
        max_message_bytes: info.max_message,
        huge_pages: info.huge_pages,
        verdict: verdict::none().into(),
        doubt: server.zip(client).and_then(|(s, c)| doubt(s, c)),
        history: History::default(),
    };
    row.state = state(&row, own, peer, pair);
    row.verdict = verdict::of(&row).into();
    row
}

pub(crate) fn no_client() -> Why {
    Why::not_visible("the client's own page is not visible")
}

fn no_server() -> Why {
    Why::not_visible("the server's page is not visible")
}

/// The server's side and the client's.
fn ends<'s, 'a>(
    own: &'s Side<'a>,
    other: Option<&'s Side<'a>>,
) -> (Option<&'s Side<'a>>, Option<&'s Side<'a>>) {
    match own.snapshot.role {
        Role::Server => (Some(own), other),
        Role::Client => (other, Some(own)),
    }
}

/// Number of a connection for people.
pub(super) fn number(slot: &Slot) -> u32 {
    match slot.info.client_number {
        0 => slot.index + 1,
        number => number,
    }
}

fn has_moved(row: &Client) -> bool {
    [&row.tx.messages_per_s, &row.rx.messages_per_s]
        .iter()
        .any(|r| matches!(r, Ok(v) if *v > 0.0))
}

/// The thread that waits for a side: the poller's if one serves it.
fn waiter_tid(side: &Side<'_>) -> u32 {
    let poller = side
        .slot
        .info
        .poller_slot
        .and_then(|index| slot_at(side.snapshot, index));
    poller.map_or(side.slot.info.tid, |p| p.info.tid)
}

/// A thread by process and id, with its rates.
pub(super) fn thread_of(pair: &Pair<'_>, pid: u32, tid: u32) -> Reading<Shared<ThreadView>> {
    pair.thread(pid, tid, || make_thread(pair, pid, tid))
}

/// The thread that waits for a client's replies, if it is the one that the slot names: that may be who connected, and then handed the
/// connection on. Who spins uses its CPU, or waits for one; a thread that does neither is not the one that spins.
fn thread_that_waits<'a>(pair: &Pair<'a>, side: &Side<'a>) -> Reading<Shared<ThreadView>> {
    let (pid, tid) = (side.page.pid, side.slot.info.tid);
    let thread = thread_of(pair, pid, tid)?;
    let (Ok(cpu), Ok(delay)) = (&thread.cpu, &thread.run_delay) else {
        return Ok(thread);
    };
    let spun = pair.spin_of_thread(side);
    if spun > MUCH_SPIN && 2.0 * (cpu + delay) < spun {
        return Err(Why::not_there(format!(
            "which thread of pid {pid} spins can't be seen: thread {tid} opened the connection, and does not"
        )));
    }
    Ok(thread)
}

fn make_thread(pair: &Pair<'_>, pid: u32, tid: u32) -> Reading<ThreadView> {
    let (now, before) = pair
        .process(pid)
        .ok_or_else(|| Why::not_there("the process was not looked at"))?;
    // A slot keeps the number of the thread that opened it.
    let thread = now.thread(tid).ok_or_else(|| match tid {
        0 => Why::not_there(format!(
            "which thread of pid {pid} it is can't be seen from here"
        )),
        _ => Why::not_there(format!(
            "the thread of pid {pid} that opened the connection has ended"
        )),
    })?;
    let mut view = machine::thread(
        pair.now.host.ticks_per_second,
        before.and_then(|b| b.thread(tid)),
        thread,
    );
    view.counters = counters::of_thread(pair, tid);
    Ok(view)
}

fn state(row: &Client, own: &Side<'_>, peer: Option<&Process>, pair: &Pair<'_>) -> ClientState {
    if let Some(peer) = peer {
        let reused = pair.same_namespace(own.snapshot) && !peer.is_peer(&own.slot.info);
        if peer.is_dead() || reused {
            return ClientState::Dead;
        }
        // Under strace a process that works is found stopped now and then.
        if peer.is_stopped() && !has_moved(row) {
            return ClientState::Stopped;
        }
    }
    if has_moved(row) {
        return ClientState::Active;
    }
    let now_ns = pair.now.time.monotonic_ns;
    let progress =
        now_ns.saturating_sub(own.slot.req.last_progress_ns.max(own.slot.info.opened_ns));
    let rate_known = row.tx.messages_per_s.is_ok() || row.rx.messages_per_s.is_ok();
    if !rate_known && own.slot.req.last_progress_ns != 0 && progress < STALL_NS {
        return ClientState::Active;
    }
    let frozen = |r: &super::RingView| {
        matches!(r.occupancy_bytes, Ok(n) if n > 0)
            && r.moved_age_ns.clone().unwrap_or(progress) > STALL_NS
    };
    // Replies to requests that were given up stay where they are until the next call; of a client whose page can't be seen it takes a server that
    // has no room to say that they are others.
    let replies = row.reply_ring();
    let waits_for_some = matches!(row.in_flight, Ok(n) if n > 0);
    let replies_wait = (waits_for_some || replies.blocked_for_ns.is_ok()) && frozen(replies);
    // A client that spins does not say since when.
    let ages = [&row.oldest_age_ns, &row.handler_running_ns];
    let waits = ages
        .iter()
        .any(|age| age.as_ref().is_ok_and(|age| *age > STALL_NS));
    if waits || replies_wait || frozen(row.request_ring()) {
        ClientState::Stalled
    } else {
        ClientState::Idle
    }
}
