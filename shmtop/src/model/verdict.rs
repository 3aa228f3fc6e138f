//! What bounds a connection's speed: a decision list over one row, each answer with the numbers that decided.
//!
//! The order is the argument: what makes the question moot comes first (socket, no traffic, a stopped peer), then what
//! can be measured directly (no core, a full ring, the handler), then what is left. A number that is missing never
//! decides; if too many are missing the verdict is `unknown`.

use transport::error::Step;
use transport::stats::{FallbackFact, Via};

use super::client::{Bound, Client, ClientState, Verdict};
use super::finding::Evidence;
use crate::text;

/// Share of wall time without a core from which the scheduler is what bounds.
const NO_CORE: f64 = 0.2;
/// Share of time blocked on a full ring from which its consumer is what bounds.
const BLOCKED: f64 = 0.1;
/// Share of the round trip in the handler from which it is what bounds.
const HANDLER: f64 = 0.5;
/// Mean payload from which copying is what a busy thread does.
const LARGE_BYTES: f64 = 4096.0;

/// No verdict yet.
pub(super) fn none() -> Verdict {
    verdict(
        Bound::Unknown,
        "too little is visible to say".into(),
        Vec::new(),
    )
}

/// The verdict on a row.
pub(super) fn of(c: &Client) -> Verdict {
    socket(c)
        .or_else(|| halted(c))
        .or_else(|| idle(c))
        .or_else(|| scheduler(c))
        .or_else(|| full(c))
        .or_else(|| handler(c))
        .or_else(|| memory(c))
        .or_else(|| producer(c))
        .unwrap_or_else(none)
}

fn verdict(bound: Bound, says: String, evidence: Vec<Evidence>) -> Verdict {
    Verdict {
        bound,
        since_ns: 0,
        says,
        evidence,
    }
}

/// `memfd_create → EMFILE, 64/64`, in the words of the transport's own fallback.
pub(crate) fn fallback_text(f: &FallbackFact) -> String {
    let step = Step::from_number(f.step);
    let mut out = step.map_or("unknown step", Step::name).to_owned();
    if f.errno != 0 {
        out += &format!(" → {}", transport::error::errno_name(f.errno));
    }
    match step {
        _ if f.limit == 0 => {}
        Some(Step::Validate | Step::Layout) => {
            out += &format!(", {} offered, {} expected", f.used, f.limit);
        }
        _ => out += &format!(", {}/{}", f.used, f.limit),
    }
    if f.at_peer {
        out += " (at the peer)";
    }
    out
}

fn socket(c: &Client) -> Option<Verdict> {
    if c.transport != Via::Socket {
        return None;
    }
    let why = match (&c.fallback, c.wanted) {
        (Some(f), _) => fallback_text(f),
        (None, Via::Socket) => "as asked for".into(),
        (None, Via::Shm) => "shared memory was not agreed yet".into(),
    };
    Some(verdict(
        Bound::Socket,
        format!("on the socket: {why}"),
        vec![Evidence::state(
            "transport",
            "socket",
            "stats page: slot info",
        )],
    ))
}

fn halted(c: &Client) -> Option<Verdict> {
    let request = c.request_ring().occupancy_bytes.clone().unwrap_or(0);
    let reply = c.reply_ring().occupancy_bytes.clone().unwrap_or(0);
    let age = text::ns(c.state_for_ns.max(c.oldest_age_ns.clone().unwrap_or(0)));
    match c.state {
        ClientState::Dead => Some(verdict(
            Bound::Idle,
            format!("the peer (pid {}) is gone", c.peer_pid),
            vec![Evidence::state(
                "state",
                "dead",
                format!("/proc/{}", c.peer_pid),
            )],
        )),
        ClientState::Stopped => Some(verdict(
            if reply > 0 {
                Bound::Consumer
            } else {
                Bound::Producer
            },
            format!(
                "the peer (pid {}) is stopped: it neither sends nor reads",
                c.peer_pid
            ),
            vec![Evidence::state(
                "state",
                "stopped",
                format!("/proc/{}/stat", c.peer_pid),
            )],
        )),
        ClientState::Stalled => {
            let (bound, who, bytes) = match (c.handler_running_ns.is_ok(), reply > request) {
                (true, _) => (Bound::Handler, "the handler has not returned", request),
                (false, true) => (
                    Bound::Consumer,
                    "the client does not read its replies",
                    reply,
                ),
                (false, false) => (
                    Bound::Consumer,
                    "the server does not take the requests",
                    request,
                ),
            };
            Some(verdict(
                bound,
                format!(
                    "{who}: nothing moved for {age}, {} wait",
                    text::bytes(bytes)
                ),
                vec![
                    Evidence::number(
                        "request ring",
                        request as f64,
                        "bytes",
                        "house_rx_occupancy_bytes",
                        "",
                    ),
                    Evidence::number(
                        "reply ring",
                        reply as f64,
                        "bytes",
                        "house_tx_occupancy_bytes",
                        "",
                    ),
                ],
            ))
        }
        ClientState::Active | ClientState::Idle => None,
    }
}

fn idle(c: &Client) -> Option<Verdict> {
    let rate = *c.requests_per_s.as_ref().ok()?;
    (rate < 1.0 && !matches!(c.in_flight, Ok(1..))).then(|| {
        verdict(
            Bound::Idle,
            "no traffic".into(),
            vec![Evidence::number(
                "requests",
                rate,
                "1/s",
                "stats page: requests",
                "< 1",
            )],
        )
    })
}

fn scheduler(c: &Client) -> Option<Verdict> {
    let delay = |t: &crate::reading::Reading<super::Shared<super::ThreadView>>| {
        t.as_ref()
            .ok()
            .and_then(|t| t.run_delay.clone().ok().map(|d| (t.tid, d)))
    };
    let client = delay(&c.thread);
    let server = delay(&c.server_thread);
    let (who, tid, share) = match (client, server) {
        (Some((tid, d)), Some((_, e))) if d >= e => ("client", tid, d),
        (_, Some((tid, e))) => ("server", tid, e),
        (Some((tid, d)), None) => ("client", tid, d),
        (None, None) => return None,
    };
    (share > NO_CORE).then(|| {
        verdict(
            Bound::Scheduler,
            format!(
                "the {who}'s thread {tid} waited {} of the time for a core",
                text::percent(share)
            ),
            vec![Evidence::number(
                "run delay",
                share * 100.0,
                "%",
                format!("/proc/{tid}/schedstat"),
                format!("> {}", NO_CORE * 100.0),
            )],
        )
    })
}

fn full(c: &Client) -> Option<Verdict> {
    for (ring, what, reader) in [
        (c.request_ring(), "request", "server"),
        (c.reply_ring(), "reply", "client"),
    ] {
        // At an early wrap a producer waits for its reader at a few per cent occupancy; that bounds nothing.
        let is_full = ring.last_seen().is_some_and(|p| p >= 0.4);
        let blocked = ring.blocked_ratio.clone().unwrap_or(0.0);
        let blocked = if is_full { blocked } else { 0.0 };
        let fill = ring.fill().unwrap_or(0.0);
        if blocked > BLOCKED || fill > 0.8 {
            if reader == "server"
                && let Some(v) = handler(c)
            {
                return Some(v);
            }
            return Some(verdict(
                Bound::Consumer,
                format!(
                    "the {reader} does not drain the {what} ring: {} full, its writer blocked {} of the time",
                    text::percent(fill),
                    text::percent(blocked)
                ),
                vec![
                    Evidence::number(
                        "blocked",
                        blocked * 100.0,
                        "%",
                        "tx_blocked_ns",
                        format!("> {}", BLOCKED * 100.0),
                    ),
                    Evidence::number(
                        "occupancy",
                        fill * 100.0,
                        "%",
                        "house_*_occupancy_bytes",
                        "> 80",
                    ),
                ],
            ));
        }
    }
    None
}

/// Share of the round trip that the handler takes, by medians.
pub(crate) fn handler_share(c: &Client) -> Option<f64> {
    let rtt = c.rtt.interval.as_ref().ok()?;
    let handler = c.handler.interval.as_ref().ok()?;
    (rtt.p50 > 0).then(|| (handler.p50 as f64 / rtt.p50 as f64).min(1.0))
}

fn handler(c: &Client) -> Option<Verdict> {
    let share = handler_share(c)?;
    let (rtt, handler) = (
        c.rtt.interval.as_ref().ok()?,
        c.handler.interval.as_ref().ok()?,
    );
    (share > HANDLER).then(|| {
        verdict(
            Bound::Handler,
            format!(
                "the handler takes {} of the {} round trip",
                text::ns(handler.p50),
                text::ns(rtt.p50)
            ),
            vec![
                Evidence::number(
                    "handler p50",
                    handler.p50 as f64,
                    "ns",
                    "handler_time_ns",
                    "",
                ),
                Evidence::number("round trip p50", rtt.p50 as f64, "ns", "rtt_ns", ""),
            ],
        )
    })
}

fn memory(c: &Client) -> Option<Verdict> {
    let mean =
        c.tx.mean_bytes
            .clone()
            .unwrap_or(0.0)
            .max(c.rx.mean_bytes.clone().unwrap_or(0.0));
    let useful = c.time.as_ref().ok()?.useful;
    (mean >= LARGE_BYTES && useful > 0.5).then(|| {
        verdict(
            Bound::Memory,
            format!(
                "copies: {} per message, the client's thread useful {} of the time",
                text::bytes(mean as u64),
                text::percent(useful)
            ),
            vec![
                Evidence::number(
                    "mean payload",
                    mean,
                    "bytes",
                    "tx_bytes / tx_messages",
                    format!(">= {LARGE_BYTES}"),
                ),
                Evidence::number("useful", useful * 100.0, "%", "useful_ns", "> 50"),
            ],
        )
    })
}

fn producer(c: &Client) -> Option<Verdict> {
    let rate = *c.requests_per_s.as_ref().ok()?;
    let empty = c.request_ring().fill().is_none_or(|f| f < 0.5);
    // Without the rate: that of this window would stand beside the steady one.
    let says = match &c.time {
        Ok(t) => format!(
            "the client offers no more; its thread: {} useful, {} waiting for replies",
            text::percent(t.useful),
            text::percent(t.spin + t.yielding + t.sleep)
        ),
        Err(_) => "the client offers no more, and the rings stay empty".to_owned(),
    };
    empty.then(|| {
        verdict(
            Bound::Producer,
            says,
            vec![Evidence::number(
                "requests",
                rate,
                "1/s",
                "stats page: requests",
                "",
            )],
        )
    })
}
