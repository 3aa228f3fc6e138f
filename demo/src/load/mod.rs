//! Load on an exchange: what to send, and what the threads or processes that send it report.
//!
//! ```text
//!  trader (coordinator) ── go, stop ──▶ threads | processes ──▶ drive ──▶ lane ──▶ Synapse
//!         ▲──────────────── Event, progress ────┘
//! ```
//! [`lane`] is one connection, [`books`] its accounts, [`drive`] the loops that keep lanes busy, [`threads`] and
//! [`processes`] two ways of having many. Nothing here prints.

pub(crate) mod books;
pub(crate) mod drive;
pub(crate) mod lane;
pub(crate) mod processes;
pub(crate) mod reconnect;
pub(crate) mod threads;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use transport::Synapse;
use transport::stats::Histogram;

use crate::failure::Failure;
use crate::pin::Pin;
use crate::protocol::Mode;

/// What to do; the same for all clients.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) socket: PathBuf,
    pub(crate) config: transport::Config,
    pub(crate) clients: usize,
    pub(crate) mode: Mode,
    pub(crate) size: usize,
    /// Requests in flight per client at most.
    pub(crate) depth: usize,
    pub(crate) pace: Pace,
    /// Requests per client; `None` = until told to stop.
    pub(crate) requests: Option<u64>,
    /// Compare every byte of every reply.
    pub(crate) thorough: bool,
    /// How long to try to get back to an exchange that died.
    pub(crate) reconnect: Duration,
    /// Threads that share the clients.
    pub(crate) threads: usize,
    pub(crate) pin: Pin,
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// When a reply has come, after a pause. With several in flight the pause is between windows of `depth`.
    Closed {
        /// The pause; zero for none.
        think: Duration,
    },
    /// On a schedule, however slow the replies are.
    Open {
        /// Between two requests of one client, ns.
        interval_ns: f64,
    },
}

/// Which way a client is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// On shared memory.
    pub(crate) shm: bool,
    /// Why not, if it was wanted.
    pub(crate) why: Option<String>,
}

impl Way {
    /// That of a connection.
    pub(crate) fn of(synapse: &Synapse) -> Self {
        Self {
            shm: synapse.is_shm(),
            why: synapse.fallback().map(|f| f.to_string()),
        }
    }
}

/// What a client reports. Across processes: one line of JSON each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The client is connected and waits for the start.
    Connected(Way),
    /// The exchange did not come back; [`Event::Finished`] follows.
    GaveUp(Failure),
    /// So many clients end here and have no account: they could not start, or their process died.
    Died(usize, Failure),
    /// The connection broke; the outcome of `unknown` requests will never be known.
    Lost {
        /// The transport's words.
        reason: String,
        /// Requests that were in flight.
        unknown: usize,
    },
    /// Connected again after [`Event::Lost`], maybe another way than before.
    Back(Way),
    /// Requests answered so far (between processes, once a second).
    Progress(u64),
    /// The client is done.
    Finished(Account),
    /// The program was told to stop (never crosses a process border).
    #[serde(skip)]
    Stop,
}

/// One client's results.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Account {
    /// Number of the client, from 0.
    pub(crate) client: usize,
    /// Requests answered, right or wrong.
    pub(crate) requests: u64,
    /// Requests that were not answered, or with an error.
    pub(crate) errors: u64,
    /// Replies that failed verification.
    pub(crate) corrupt: u64,
    /// What the first error or wrong reply was.
    pub(crate) first_fault: Option<String>,
    /// The exchange died and did not come back.
    pub(crate) gave_up: bool,
    /// Latency of every request answered.
    pub(crate) rtt: Histogram,
    /// CPU time of the client's own process; 0 when it is a thread of ours.
    pub(crate) cpu_seconds: f64,
}

/// What the coordinator and the client threads of one process share.
pub(crate) struct Shared {
    stop: AtomicBool,
    start: Mutex<Option<Instant>>,
    started: Condvar,
    progress: Vec<Progress>,
}

/// A client's count, on cache lines of its own: the owner stores, the coordinator loads.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Progress(AtomicU64);

impl Progress {
    /// Relaxed: the number stands for itself.
    pub(crate) fn store(&self, requests: u64) {
        self.0.store(requests, Ordering::Relaxed);
    }
}

impl Shared {
    pub(crate) fn new(clients: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            start: Mutex::new(None),
            started: Condvar::new(),
            progress: (0..clients).map(|_| Progress::default()).collect(),
        }
    }

    /// Relaxed: nothing is published with the flag.
    #[inline]
    pub(crate) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Ends the run; also for clients that wait for its start.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.go(Instant::now());
    }

    /// Lets the clients start; only the first call counts.
    pub(crate) fn go(&self, at: Instant) {
        let mut start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        start.get_or_insert(at);
        self.started.notify_all();
    }

    /// Waits for [`Self::go`].
    fn wait_for_start(&self) -> Instant {
        let mut start = self.start.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(at) = *start {
                return at;
            }
            start = self
                .started
                .wait(start)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The count of the client in this place.
    pub(crate) fn progress(&self, place: usize) -> &Progress {
        &self.progress[place]
    }

    /// Requests answered so far by all.
    pub(crate) fn requests(&self) -> u64 {
        self.progress
            .iter()
            .map(|p| p.0.load(Ordering::Relaxed))
            .sum()
    }

    /// Sleeps until `due` or until the run is stopped, whichever is first. Late by the kernel's timer slack.
    pub(crate) fn sleep_until(&self, due: Instant) {
        /// How long a stop may go unnoticed.
        const NAP: Duration = Duration::from_millis(50);
        while !self.stopping() {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}

/// A running set of clients, in threads or in processes.
pub(crate) trait Crew {
    /// All clients start now.
    fn go(&mut self, at: Instant);
    /// All clients end: no new requests, replies in flight are still taken.
    fn stop(&mut self);
    /// Requests answered so far.
    fn requests(&self) -> u64;
    /// Waits until nothing of it is left. After [`Self::stop`], or when all have finished.
    fn join(self: Box<Self>);
}
