//! What is compared: one trait, and the list of all who implement it.
//!
//! A subject serves an echo and connects clients to it; the loops that drive them, the payloads, the clocks and the checks are
//! [`drive`]'s and the same for all. `how` says how the subject is used, and ends up in docs/benchmarks.md.

pub(crate) mod drive;
mod futex;
#[cfg(feature = "peers")]
mod iceoryx;
#[cfg(feature = "peers")]
mod iceoryx_events;
#[cfg(feature = "peers")]
mod iceoryx_pubsub;
mod old;
mod old_ring;
mod ours;
mod ours_tokio;
#[cfg(feature = "peers")]
mod rtrb;
#[cfg(feature = "peers")]
mod shmipc;
mod tokio_unix;
mod unix;

use std::io;

use crate::gate::{Gate, Stop};
use crate::job::{ClientReport, Job, Shape};

/// Whether a subject is in the table unless asked otherwise.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// Yes.
    Always,
    /// Only if named.
    OnRequest,
}

/// One of those compared.
pub(crate) trait Subject: Sync {
    /// What it is called on the command line and in JSON.
    fn id(&self) -> &'static str;
    /// What it is called in the table.
    fn title(&self) -> &'static str;
    /// How it is used, and who recommends it.
    fn how(&self) -> &'static str;
    /// Whether it is part of the table.
    fn listed(&self) -> Listed {
        Listed::Always
    }
    /// Whether it can do a kind of work with so many clients.
    fn does(&self, shape: Shape, clients: usize) -> bool;
    /// True if server and clients have to be one process.
    fn one_process(&self) -> bool {
        false
    }
    /// Serves the echo until `stop`; tells it once clients may connect.
    fn serve(&self, job: &Job, stop: &Stop) -> io::Result<()>;
    /// Connects this process's clients, passes the gate and works.
    fn clients(&self, job: &Job, gate: &Gate) -> io::Result<Vec<ClientReport>>;
}

/// Everybody, in the order of the table.
pub(crate) const ALL: &[&dyn Subject] = &[
    &ours::SHM,
    &ours::SOCKET,
    &ours_tokio::Tokio,
    &ours::SPIN,
    &ours::PARK,
    &ours::DOCUMENT,
    &ours::THREADS,
    &old::SPINNING,
    &old::YIELDING,
    #[cfg(feature = "peers")]
    &iceoryx::RequestResponse,
    #[cfg(feature = "peers")]
    &iceoryx_events::Events,
    #[cfg(feature = "peers")]
    &iceoryx_pubsub::PublishSubscribe,
    #[cfg(feature = "peers")]
    &shmipc::EVENTFD,
    #[cfg(feature = "peers")]
    &shmipc::LEGACY,
    #[cfg(feature = "peers")]
    &rtrb::Rtrb,
    &unix::Unix,
    &tokio_unix::TokioUnix,
    &futex::Futex,
];

/// The transport as it comes: what is compared with itself.
pub(crate) const OURS: ours::Ours = ours::SHM;

/// The one with this id.
pub(crate) fn named(id: &str) -> Option<&'static dyn Subject> {
    ALL.iter().copied().find(|subject| subject.id() == id)
}

/// Any error as an I/O error: all that is done with one is to report it.
pub(crate) fn other(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

/// Waits by polling, the way most peers' documentation does it: with a core to itself without ever giving it up, else giving
/// it up each time there is nothing (spinning would only keep the one waited for from running).
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    crowded: bool,
}

impl Patience {
    /// For this job.
    pub(crate) fn of(job: &Job) -> Self {
        Self {
            crowded: job.crowded(),
        }
    }

    /// Nothing there: give the core up if others need it. For subjects whose poll is long enough without a pause.
    #[cfg(feature = "peers")]
    #[inline(always)]
    pub(crate) fn pause_only_if_crowded(self) {
        if self.crowded {
            std::thread::yield_now();
        }
    }

    /// Nothing there: wait a little.
    #[inline(always)]
    pub(crate) fn pause(self) {
        if self.crowded {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
    }
}
