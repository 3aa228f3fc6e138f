//! One connection as the views show it: rings, waits, round trips, where the time goes, and a verdict.
//!
//! A row of a server joins what the server's page says with what the client's own page says about the same
//! connection id; the client's numbers are claims, and [`Client::doubt`] says when the server contradicts them.

use transport::config::PolicyKind;
use transport::stats::{FallbackFact, Role, Via};

use super::finding::Evidence;
use super::host::ThreadView;
use super::shared::Shared;
use super::time::TimeShares;
use crate::history::History;
use crate::reading::{Reading, Why};

/// One connection, seen from the endpoint it is listed under.
#[derive(Clone, Debug, PartialEq)]
pub struct Client {
    /// Slot in the page; with the connection id a stable key.
    pub slot: u32,
    /// Joins the two sides.
    pub connection_id: u64,
    /// Small number for people, from 1.
    pub number: u32,
    /// Whose side this is: decides which ring carries requests.
    pub role: Role,
    /// True for a client's own row when its server's row shows the same connection.
    pub shown_at_server: bool,
    /// Pid of the other side as this viewer sees it; 0 if it is in another pid namespace and its own page is not visible.
    pub peer_pid: u32,
    /// Uid of the other side.
    pub peer_uid: u32,
    /// What the other side calls itself (its `Config::name`), as hints and its own page do; its program's name if it has none. Sanitised.
    pub peer_name: String,
    /// `comm` of the other side, or the name it gave itself; sanitised.
    pub peer_comm: String,
    /// What it is doing.
    pub state: ClientState,
    /// How long it has been in that state, ns, as far as seen.
    pub state_for_ns: u64,
    /// Transport in use.
    pub transport: Via,
    /// Transport that was asked for.
    pub wanted: Via,
    /// Why they differ.
    pub fallback: Option<FallbackFact>,
    /// Time since it was opened, ns.
    pub age_ns: u64,
    /// Outgoing ring of this endpoint.
    pub tx: RingView,
    /// Incoming ring of this endpoint.
    pub rx: RingView,
    /// Requests per second.
    pub requests_per_s: Reading<f64>,
    /// Payload bytes per second, both directions.
    pub bytes_per_s: Reading<f64>,
    /// Requests without a reply (from the client's page, which alone counts them).
    pub in_flight: Reading<u64>,
    /// Age of the oldest of them, ns; `Err` if there is none or the writer does not say.
    pub oldest_age_ns: Reading<u64>,
    /// Timeouts since the connection opened (from the client's page).
    pub timeouts: Reading<u64>,
    /// Late replies since the connection opened (from the client's page).
    pub late_replies: Reading<u64>,
    /// Error replies since the connection opened.
    pub errors: u64,
    /// How the client waits (for a server's row: from the client's own page).
    pub wait: Reading<WaitView>,
    /// Round trips (from the client's page).
    pub rtt: RttView,
    /// Time in the handler (from the server's page).
    pub handler: RttView,
    /// Age of the handler's current run, ns; `Err` if none runs.
    pub handler_running_ns: Reading<u64>,
    /// Hardware and software events per message.
    pub perf: Shared<PerfView>,
    /// Where the time of the client's thread goes.
    pub time: Reading<TimeShares>,
    /// The client's thread.
    pub thread: Reading<Shared<ThreadView>>,
    /// The server's thread that serves this connection.
    pub server_thread: Reading<Shared<ThreadView>>,
    /// The wait policy on this side.
    pub wait_policy: PolicyKind,
    /// Largest payload allowed, bytes.
    pub max_message_bytes: u64,
    /// 0 not asked, 1 in use, 2 asked but short, 3 short and transparent ones instead.
    pub huge_pages: u32,
    /// What bounds its speed.
    pub verdict: Shared<Verdict>,
    /// Why the client's own numbers are not believed, if so.
    pub doubt: Option<String>,
    /// Past values.
    pub history: History,
}

impl Client {
    /// The ring that carries requests.
    pub fn request_ring(&self) -> &RingView {
        match self.role {
            Role::Server => &self.rx,
            Role::Client => &self.tx,
        }
    }

    /// The ring that carries replies.
    pub fn reply_ring(&self) -> &RingView {
        match self.role {
            Role::Server => &self.tx,
            Role::Client => &self.rx,
        }
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClientState {
    /// Messages moved in the last interval.
    Active,
    /// Nothing to do: no messages, nothing waiting.
    Idle,
    /// Something waits and nothing moved for more than a second.
    Stalled,
    /// The peer's process is stopped (SIGSTOP, debugger).
    Stopped,
    /// The peer's process is gone.
    Dead,
}

impl ClientState {
    /// Stopped, stalled or dead: it neither works nor waits for work.
    pub fn stands_still(self) -> bool {
        !matches!(self, Self::Active | Self::Idle)
    }

    /// Name in JSON and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
            Self::Dead => "dead",
        }
    }
}

/// One ring. On the socket the ring's own numbers are `Err`, messages and bytes still count.
#[derive(Clone, Debug, PartialEq)]
pub struct RingView {
    /// Capacity.
    pub capacity_bytes: Reading<u64>,
    /// Bytes in it, padding not counted.
    pub occupancy_bytes: Reading<u64>,
    /// Most bytes ever in it.
    pub high_water_bytes: Reading<u64>,
    /// Most bytes that were in it when it was last looked at: by housekeeping, or by its producer when it ran out of known room.
    pub last_seen_bytes: Reading<u64>,
    /// Messages per second.
    pub messages_per_s: Reading<f64>,
    /// Payload bytes per second.
    pub bytes_per_s: Reading<f64>,
    /// Share of messages that needed no look at the other side's index (0..=1).
    pub cached_index_hit_ratio: Reading<f64>,
    /// Looks at the other side's index per second.
    pub index_loads_per_s: Reading<f64>,
    /// Share of the interval that the producer waited for room (0..=1).
    pub blocked_ratio: Reading<f64>,
    /// Since when the producer waits for room, as an age in ns; `Err` if it does not wait.
    pub blocked_for_ns: Reading<u64>,
    /// How far into the ring's memory was ever written.
    pub touched_bytes: Reading<u64>,
    /// Where the producer wraps while the consumer keeps up.
    pub window_bytes: Reading<u64>,
    /// Time since the consumer's index was last seen to move, ns.
    pub moved_age_ns: Reading<u64>,
    /// Share of ring bytes that was padding (0..=1), since start.
    pub padding_ratio: Reading<f64>,
    /// Largest payload so far, bytes.
    pub largest_bytes: Reading<u64>,
    /// Mean payload in the interval, bytes.
    pub mean_bytes: Reading<f64>,
    /// Messages refused for their size, since start.
    pub rejected: Reading<u64>,
}

impl RingView {
    /// Occupancy as a share of the capacity (0..=1).
    pub fn fill(&self) -> Option<f64> {
        share(&self.occupancy_bytes, &self.capacity_bytes)
    }

    /// What was in it at the last look, as a share of the capacity (0..=1).
    pub fn last_seen(&self) -> Option<f64> {
        share(&self.last_seen_bytes, &self.capacity_bytes)
    }

    /// High water as a share of the capacity (0..=1).
    pub fn peak(&self) -> Option<f64> {
        share(&self.high_water_bytes, &self.capacity_bytes)
    }
}

fn share(part: &Reading<u64>, whole: &Reading<u64>) -> Option<f64> {
    match (part, whole) {
        (Ok(p), Ok(w)) if *w > 0 => Some((*p as f64 / *w as f64).clamp(0.0, 1.0)),
        _ => None,
    }
}

/// How a waiter waits.
#[derive(Clone, Debug, PartialEq)]
pub struct WaitView {
    /// Waits that began, per second.
    pub waits_per_s: Reading<f64>,
    /// Spin iterations per second.
    pub spins_per_s: Reading<f64>,
    /// sched_yield calls per second.
    pub yields_per_s: Reading<f64>,
    /// Sleeps and parks per second.
    pub sleeps_per_s: Reading<f64>,
    /// Share of wall time spinning (0..=1); ×1e9 = ns per second.
    pub spin_share: Reading<f64>,
    /// Share of wall time yielding.
    pub yield_share: Reading<f64>,
    /// Share of wall time asleep or parked, the sleep under way included.
    pub sleep_share: Reading<f64>,
    /// Of the waits: ended while spinning / yielding / after a sleep (0..=1 each).
    pub ended: Reading<[f64; 3]>,
    /// How long a sleep really lasts (interval and since start).
    pub park: RttView,
    /// What a sleep asks for, ns; `Err` when parking.
    pub asked_sleep_ns: Reading<u64>,
    /// The policy in force.
    pub policy: PolicyKind,
    /// True while the waiter takes the CPUs to be oversubscribed.
    pub crowded: bool,
    /// Spin time after which it parks at the moment, ns.
    pub spin_budget_ns: u64,
}

/// Percentiles of one interval, in ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    /// Median.
    pub p50: u64,
    /// 90 %.
    pub p90: u64,
    /// 99 %.
    pub p99: u64,
    /// 99.9 %.
    pub p999: u64,
    /// Largest (of an interval: upper bound of the highest bucket that grew).
    pub max: u64,
    /// Values, weighted by the sampling period.
    pub count: u64,
}

/// A latency: the last interval beside the whole life.
#[derive(Clone, Debug, PartialEq)]
pub struct RttView {
    /// Of the last interval.
    pub interval: Reading<Percentiles>,
    /// Of the last ten seconds, for figures that a short interval can't carry.
    pub recent: Reading<Percentiles>,
    /// Since the connection opened.
    pub since_start: Reading<Percentiles>,
}

/// Events per message of the interval.
#[derive(Clone, Debug, PartialEq)]
pub struct PerfView {
    /// Messages that the thread moved, over the very interval that the rest is about; that may be longer ago than what glances show.
    pub messages_per_s: Reading<f64>,
    /// Cache misses (hardware).
    pub cache_misses_per_message: Reading<f64>,
    /// References to (usually) the last-level cache (hardware).
    pub cache_references_per_message: Reading<f64>,
    /// Reads that missed the first-level data cache (hardware).
    pub l1d_misses_per_message: Reading<f64>,
    /// Reads that missed the last-level cache (hardware).
    pub llc_misses_per_message: Reading<f64>,
    /// Instructions in user space (hardware).
    pub instructions_per_message: Reading<f64>,
    /// Instructions per cycle (hardware).
    pub instructions_per_cycle: Reading<f64>,
    /// Share of the time the hardware counters really counted (0..=1).
    pub counted_share: Reading<f64>,
    /// Page faults.
    pub faults_per_message: Reading<f64>,
    /// Context switches.
    pub context_switches_per_message: Reading<f64>,
}

impl PerfView {
    /// Nothing, for this reason.
    pub fn none(why: &Why) -> Self {
        Self {
            messages_per_s: Err(why.clone()),
            cache_misses_per_message: Err(why.clone()),
            cache_references_per_message: Err(why.clone()),
            l1d_misses_per_message: Err(why.clone()),
            llc_misses_per_message: Err(why.clone()),
            instructions_per_message: Err(why.clone()),
            instructions_per_cycle: Err(why.clone()),
            counted_share: Err(why.clone()),
            faults_per_message: Err(why.clone()),
            context_switches_per_message: Err(why.clone()),
        }
    }
}

/// What bounds a connection's speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bound {
    /// The client does not send more.
    Producer,
    /// The reader of a ring does not keep up.
    Consumer,
    /// The server's handler.
    Handler,
    /// Threads wait for a core.
    Scheduler,
    /// Copies and cache misses.
    Memory,
    /// It is on the socket.
    Socket,
    /// There is no traffic.
    Idle,
    /// Too little is visible to say.
    Unknown,
}

impl Bound {
    /// Name in tables, JSON and filters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Handler => "handler",
            Self::Scheduler => "scheduler",
            Self::Memory => "memory",
            Self::Socket => "socket",
            Self::Idle => "idle",
            Self::Unknown => "unknown",
        }
    }
}

/// The verdict on one connection, with the numbers that decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What bounds it.
    pub bound: Bound,
    /// CLOCK_MONOTONIC ns since when.
    pub since_ns: u64,
    /// One sentence with the deciding numbers.
    pub says: String,
    /// The deciding numbers.
    pub evidence: Vec<Evidence>,
}
