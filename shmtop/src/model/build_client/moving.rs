//! What a row has from the counters of its two slots alone: what a glance can renew.

use transport::stats::{ReqCounters, Role, Slot};

use super::{ends, has_moved, no_client, no_server};
use crate::model::client::{Client, ClientState, RingView, WaitView};
use crate::model::join::Side;
use crate::model::measure::{past, wait};
use crate::model::ring::{End, House, ring};
use crate::reading::{Reading, Why};

/// See the module.
pub(super) struct Moving {
    pub(super) age_ns: u64,
    pub(super) tx: RingView,
    pub(super) rx: RingView,
    pub(super) requests_per_s: Reading<f64>,
    pub(super) bytes_per_s: Reading<f64>,
    pub(super) in_flight: Reading<u64>,
    pub(super) oldest_age_ns: Reading<u64>,
    pub(super) timeouts: Reading<u64>,
    pub(super) late_replies: Reading<u64>,
    pub(super) errors: u64,
    pub(super) wait: Reading<WaitView>,
    pub(super) handler_running_ns: Reading<u64>,
}

pub(super) fn moving(own: &Side<'_>, other: Option<&Side<'_>>, now_ns: u64) -> Moving {
    let (server, client) = ends(own, other);
    let house = server.map(|s| &s.slot.house).filter(|h| h.house_ns != 0);
    let requests = house.map(|h| House {
        occupancy: h.house_rx_occupancy_bytes,
        high_water: h.house_rx_high_water_bytes,
        moved_ns: h.house_rx_moved_ns,
        seen_ns: h.house_ns,
    });
    let replies = house.map(|h| House {
        occupancy: h.house_tx_occupancy_bytes,
        high_water: h.house_tx_high_water_bytes,
        moved_ns: h.house_tx_moved_ns,
        seen_ns: h.house_ns,
    });
    let (tx_house, rx_house) = match own.snapshot.role {
        Role::Server => (replies, requests),
        Role::Client => (requests, replies),
    };
    let tx = ring(own, other, End::Producer, tx_house, now_ns);
    let rx = ring(own, other, End::Consumer, rx_house, now_ns);
    let req = &own.slot.req;
    // At a server these words are 0 and mean nothing.
    let claimed = |f: fn(&ReqCounters) -> u64| {
        let client = client.ok_or_else(no_client);
        client.map(|c| f(&c.slot.req))
    };
    Moving {
        age_ns: now_ns.saturating_sub(own.slot.info.opened_ns),
        requests_per_s: past(own)
            .and_then(|(old, span)| span.per_second(old.req.requests, req.requests)),
        bytes_per_s: tx
            .bytes_per_s
            .clone()
            .and_then(|t| rx.bytes_per_s.clone().map(|r| t + r)),
        tx,
        rx,
        in_flight: claimed(|r| r.in_flight),
        oldest_age_ns: [client, server]
            .into_iter()
            .flatten()
            .map(|s| s.slot.req.oldest_ns)
            .find(|at| *at != 0)
            .map(|at| now_ns.saturating_sub(at))
            .ok_or_else(|| Why::not_applicable("no request waits")),
        timeouts: claimed(|r| r.timeouts),
        late_replies: claimed(|r| r.late_replies),
        errors: req.errors,
        wait: client.ok_or_else(no_client).map(|c| wait(c, now_ns)),
        handler_running_ns: server.ok_or_else(no_server).and_then(|s| {
            match s.slot.req.handler_since_ns {
                0 => untimed_handler(s, requests, now_ns),
                since => Ok(now_ns.saturating_sub(since)),
            }
        }),
    }
}

/// For how long a run of the handler has lasted whose beginning was not timed, ns: of most it is not. A request that was taken and has no answer is in
/// the handler, unless its answer waits for room. That is said of one that was there a look ago already, and of rings alone: on the socket an answer
/// that waits for its client looks the same, and nothing tells since when.
fn untimed_handler(server: &Side<'_>, house: Option<House>, now_ns: u64) -> Reading<u64> {
    let none = || Err(Why::not_applicable("the handler does not run"));
    let counted = |s: &Slot| (s.req.requests, s.req.replies);
    let (taken, answered) = counted(server.slot);
    let Ok((old, span)) = past(server) else {
        return none();
    };
    let waits_for_room = server.slot.tx.tx_blocked_since_ns != 0;
    if taken <= answered || counted(old) != (taken, answered) || waits_for_room {
        return none();
    }
    // The request left the ring when it was taken: that was seen to a tenth of a second.
    match house.map_or(0, |h| h.moved_ns) {
        0 => none(),
        moved_ns => {
            let taken_ns = moved_ns.max(server.slot.info.opened_ns);
            Ok(now_ns.saturating_sub(taken_ns).max(span.ns()))
        }
    }
}

/// A row of the last model with what a glance saw. Latencies, threads, shares of time and the verdict are a second's business and stay. Not a
/// copy that is changed: what changes is most of a row, and would be copied for nothing.
pub(in crate::model) fn renewed(
    row: &Client,
    own: &Side<'_>,
    other: Option<&Side<'_>>,
    now_ns: u64,
) -> Client {
    let mut m = moving(own, other, now_ns);
    if let (Ok(new), Ok(old)) = (&mut m.wait, &row.wait) {
        // Its histogram was not read.
        new.park = old.park.clone();
    }
    let mut new = Client {
        slot: row.slot,
        connection_id: row.connection_id,
        number: row.number,
        role: row.role,
        shown_at_server: row.shown_at_server,
        peer_pid: row.peer_pid,
        peer_uid: row.peer_uid,
        peer_name: row.peer_name.clone(),
        peer_comm: row.peer_comm.clone(),
        state: row.state,
        state_for_ns: row.state_for_ns,
        transport: row.transport,
        wanted: row.wanted,
        fallback: row.fallback.clone(),
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
        rtt: row.rtt.clone(),
        handler: row.handler.clone(),
        handler_running_ns: m.handler_running_ns,
        perf: row.perf.clone(),
        time: row.time.clone(),
        thread: row.thread.clone(),
        server_thread: row.server_thread.clone(),
        wait_policy: row.wait_policy,
        max_message_bytes: row.max_message_bytes,
        huge_pages: row.huge_pages,
        verdict: row.verdict.clone(),
        doubt: row.doubt.clone(),
        history: row.history.clone(),
    };
    // It takes a look at the process to call it stopped, and a second to call it idle or stalled.
    if matches!(new.state, ClientState::Idle | ClientState::Stalled) && has_moved(&new) {
        new.state = ClientState::Active;
    }
    new
}
