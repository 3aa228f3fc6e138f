//! What shmtop knows at one moment: plain data, computed from samples, borrowed read-only by every view.
//!
//! `builder` makes it; `judge` has the rules of `hint` add the findings; `report` and `view` show it. Nothing
//! here reads a clock, a file or a page. A value that can't be had is an `Err(Why)`, never 0.

pub(crate) mod asked;
mod build;
pub(crate) mod build_client;
pub(crate) mod builder;
pub mod client;
pub mod counters;
pub mod finding;
mod glance;
pub mod host;
pub(crate) mod join;
pub mod listing;
pub(crate) mod machine;
pub(crate) mod measure;
mod past;
mod ring;
mod shared;
mod shown;
mod slow;
pub(crate) mod time;
pub(crate) mod verdict;

pub use asked::Choice;
pub(crate) use build::{build, rejected, rejected_of};
pub(crate) use builder::LONGEST_NS;
pub use client::{
    Bound, Client, ClientState, Percentiles, PerfView, RingView, RttView, Verdict, WaitView,
};
pub use counters::CountersView;
pub use finding::{Evidence, Explained, Finding, Severity, Subject, UnknownRule};
pub use host::{CpuView, HostView, LimitsView, ProcessView, ThreadView};
pub(crate) use past::RECENT_NS;
pub(crate) use ring::touched;
pub use shared::Shared;
pub use shown::Quantile;
pub use time::{TimeShares, TimeUse};

use std::collections::HashMap;

use transport::stats::Role;

use crate::history::History;
use crate::reading::{Reading, Why};

/// Everything shmtop knows at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// CLOCK_MONOTONIC ns of the sample.
    pub at_ns: u64,
    /// CLOCK_REALTIME ns of the same moment.
    pub at_realtime_ns: u64,
    /// Time since the sample before, in ns: what the `_per_s` values are averages over.
    pub interval_ns: Reading<u64>,
    /// The machine.
    pub host: Shared<HostView>,
    /// Processes with a stats page, servers first, then by name and pid.
    pub endpoints: Vec<Shared<Endpoint>>,
    /// Servers that were left out, since others were asked for, and serve some of those.
    pub left_out: Shared<Vec<LeftOut>>,
    /// Processes with a stats page that nobody asked for.
    pub others: usize,
    /// Pages that were found and can't be shown.
    pub unreadable: Vec<Unreadable>,
    /// Of those, the ones that nobody asked for: they were left out.
    pub others_unreadable: usize,
    /// Processes that may have a page, and whose descriptors the viewer may not see.
    pub unsearched: u32,
    /// Whether the viewer was root already.
    pub viewer_is_root: bool,
    /// What is wrong, gravest first, root causes only; consequences stand in [`Finding::explains`].
    pub findings: Shared<Vec<Finding>>,
    /// What could not be checked, and why.
    pub unknown: Shared<Vec<UnknownRule>>,
    /// Rules that looked at least at one subject or found none that concerns them.
    pub checked: Shared<Vec<&'static str>>,
    /// Share of one CPU that shmtop itself uses (1.0 = a whole one).
    pub viewer_cpu: Reading<f64>,
    /// Seconds until every rule has as much data as it needs; 0 when all have.
    pub needs_s: u32,
}

impl Model {
    /// A model of nothing: what a dashboard shows before the first sample.
    pub fn empty() -> Self {
        Self {
            at_ns: 0,
            at_realtime_ns: 0,
            interval_ns: Err(Why::not_yet("no sample yet")),
            host: HostView::unknown().into(),
            endpoints: Vec::new(),
            left_out: Shared::default(),
            others: 0,
            unreadable: Vec::new(),
            others_unreadable: 0,
            unsearched: 0,
            viewer_is_root: false,
            findings: Shared::default(),
            unknown: Shared::default(),
            checked: Shared::default(),
            viewer_cpu: Err(Why::not_yet("no sample yet")),
            needs_s: 0,
        }
    }

    /// The clients of all servers; clients' own endpoints when their server is not visible.
    pub fn rows(&self) -> impl Iterator<Item = (&Endpoint, &Client)> {
        self.endpoints
            .iter()
            .flat_map(|e| e.clients.iter().map(move |c| (&**e, &**c)))
            .filter(|(e, c)| e.role == Role::Server || !c.shown_at_server)
    }

    /// Whose connection is which, by the clients' own pages: a server in a container knows other pids.
    pub(crate) fn processes_of_connections(&self) -> HashMap<u64, u32> {
        let clients = self.endpoints.iter().filter(|e| e.role == Role::Client);
        let connection = |e: &Endpoint, c: &Client| (c.connection_id, e.pid);
        clients
            .flat_map(|e| e.clients.iter().map(move |c| connection(e, c)))
            .collect()
    }

    /// Gravest severity among the findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|f| f.severity).max()
    }
}

/// A server that is there, and not shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// As of its endpoint.
    pub key: EndpointKey,
    /// Processes connected to it, of those that are shown.
    pub clients: Vec<u32>,
    /// Their connections to it.
    pub connections: Vec<u64>,
}

/// A process that embeds the transport, through one of its stats pages.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Stable over samples; another process with the same pid has another key.
    pub key: EndpointKey,
    /// Name from the page, sanitised.
    pub name: String,
    /// Pid as this viewer sees it.
    pub pid: u32,
    /// Server or client.
    pub role: Role,
    /// Effective uid.
    pub uid: u32,
    /// If it lives elsewhere than this viewer: container, or the namespaces that differ, and its pid inside.
    pub place: Option<String>,
    /// `comm` of the process, sanitised; the page's name if it can't be read.
    pub comm: String,
    /// Path of the server's socket, sanitised.
    pub socket_path: String,
    /// Version of the library in the process.
    pub library: String,
    /// Layout version of the page.
    pub version: (u32, u32),
    /// True for a build with debug assertions.
    pub debug_build: bool,
    /// How long the page exists, in ns.
    pub age_ns: u64,
    /// Time since the page was last touched by its housekeeping, ns. Not applicable to a client.
    pub heartbeat_age_ns: Reading<u64>,
    /// What the kernel says about the process.
    pub process: ProcessView,
    /// What bounds it.
    pub limits: LimitsView,
    /// Threads that serve several clients.
    pub pollers: Vec<Poller>,
    /// One per connection, by number.
    pub clients: Vec<Shared<Client>>,
    /// Sums over the clients.
    pub totals: Totals,
    /// Admission of clients (servers).
    pub admission: Admission,
    /// Slots that kept changing while being read, in this sample.
    pub torn_slots: u32,
}

/// What names an endpoint for good.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// Pid as this viewer sees it.
    pub pid: u32,
    /// Start time of the process in clock ticks.
    pub start_ticks: u64,
    /// Name from the page.
    pub name: String,
    /// Creation time of the page, ns: a process may make several pages of one name.
    pub created_ns: u64,
}

/// A server thread that waits for several clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Poller {
    /// Slot in the page.
    pub slot: u32,
    /// Number, from 0; of a thread that serves one client, the client's.
    pub number: u64,
    /// It serves the one client whose number it has: one on the socket, say.
    pub is_of_client: bool,
    /// Its thread.
    pub tid: u32,
    /// How it waits.
    pub wait: WaitView,
    /// Rounds over its clients per second.
    pub polls_per_s: Reading<f64>,
    /// Where its time goes.
    pub time: Reading<TimeShares>,
    /// What the kernel says about the thread.
    pub thread: Reading<Shared<ThreadView>>,
    /// Time since a message last moved, ns.
    pub progress_age_ns: Reading<u64>,
}

/// Sums over an endpoint's clients.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Connections.
    pub clients: usize,
    /// Of them on shared memory.
    pub shm: usize,
    /// Of them on the socket.
    pub socket: usize,
    /// Requests per second.
    pub requests_per_s: Reading<f64>,
    /// Payload bytes per second, both directions.
    pub bytes_per_s: Reading<f64>,
    /// Ring bytes reserved, both directions.
    pub ring_reserved_bytes: u64,
    /// Ring bytes ever touched, both directions, as far as the producers are visible.
    pub ring_touched_bytes: u64,
    /// Requests without a reply; `Err` if one client's page is not visible.
    pub in_flight: Reading<u64>,
    /// Past values of the sums.
    pub history: History,
}

/// How a server admits clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Clients admitted at most.
    pub max_clients: u64,
    /// Handshakes under way.
    pub pending: u64,
    /// Age of the oldest of them, ns; 0 if none.
    pub oldest_pending_ns: u64,
    /// Connections accepted since start.
    pub accepted: u64,
    /// Handshakes completed since start.
    pub handshakes: u64,
    /// Connections switched to shared memory since start.
    pub upgrades: u64,
    /// Connections that wanted shared memory and did not get it, since start.
    pub fallbacks: u64,
    /// Handshakes refused since start, all kinds.
    pub rejected: u64,
    /// The same by kind: magic, version, layout, uid, timeout, full, pending, resources.
    pub rejected_by: [(&'static str, u64); 8],
    /// Connections since start that could not be accepted: no descriptor or memory; at servers before page 2.1 also no thread.
    pub accept_errors: u64,
    /// Descriptors that one more client costs.
    pub fds_per_client: u64,
    /// Ring memory that one more client costs, bytes.
    pub ring_bytes: u64,
    /// Longest handshake since start, ns.
    pub handshake_max_ns: u64,
}

impl Admission {
    /// Whether a server with so many clients admits one more.
    pub fn may_come(&self, clients: usize) -> bool {
        self.max_clients > clients as u64
    }
}

/// A page that was found and can't be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Pid, as far as known.
    pub pid: Option<u32>,
    /// Name of the link or file, sanitised.
    pub name: String,
    /// Why.
    pub why: Why,
    /// Layout version of the page, if that is the reason.
    pub version: Option<(u32, u32)>,
}
