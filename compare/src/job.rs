//! What one role has to do, as it travels from the conductor to the role's process, and what comes back.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::histogram::Sparse;

/// How the clients of a run are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// Each client is a process.
    Processes,
    /// All clients are threads (or tasks, where that is the subject's way) of one process.
    Threads,
    /// One thread drives all connections, several requests in flight on each.
    Pipelined,
    /// Each client is a process and does nothing; then one request now and then.
    Idle,
}

/// The orders for one process. The server gets the same, with `first` 0.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Id of the subject.
    pub(crate) subject: String,
    pub(crate) shape: Shape,
    /// Payload bytes.
    pub(crate) size: usize,
    /// Clients of the whole run.
    pub(crate) clients: usize,
    /// Clients in this process.
    pub(crate) here: usize,
    /// Number of the first of them.
    pub(crate) first: usize,
    /// Requests in flight per connection, for [`Shape::Pipelined`].
    pub(crate) depth: usize,
    /// How long each client sleeps between a reply and its next request. If not zero, its process has no other.
    pub(crate) think: Duration,
    /// The run's own directory, for sockets and names.
    pub(crate) dir: PathBuf,
    /// A name nobody else uses, for what can't live in `dir`.
    pub(crate) name: String,
    /// The CPU of the server and of the client, for runs with one client thread.
    pub(crate) pin: Option<(usize, usize)>,
}

impl Job {
    /// True if there are more threads than CPUs, so that whoever busy-waits keeps the others from running.
    pub(crate) fn crowded(&self) -> bool {
        self.clients > 1 && self.shape != Shape::Pipelined
    }
}

/// When to begin and to end counting, in CLOCK_MONOTONIC ns. Clients work from the moment they get it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) begin_ns: u64,
    pub(crate) end_ns: u64,
}

/// What one client did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientReport {
    /// Requests answered within the plan.
    pub(crate) requests: u64,
    /// Their round trips, and the one under way at the end.
    pub(crate) round_trips: Sparse,
}

/// What a role says on its standard output, one line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Said {
    /// The server listens; or all clients of the process are connected.
    Ready {
        /// Whether the transport in this binary records statistics.
        records: bool,
    },
    /// The plan is over.
    Done {
        /// CPU time of the process within the plan.
        cpu_ns: u64,
        /// One per client; none from a server.
        clients: Vec<ClientReport>,
    },
    /// It went wrong.
    Failed(String),
}
