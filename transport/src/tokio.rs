//! The client for services that run on tokio: one connection, any number of tasks (feature `tokio`).
//!
//! ```text
//!  tasks ── fire_bytes ──▶ Shared (mutex): Synapse, who waits for which reply
//!    ▲                        ▲ looks, hands replies out
//!    └──── waker ─────────────┤
//!  driver task ── epoll ── the connection's socket ◀── a byte: the server's doorbell, or the end
//! ```
//! Nobody polls and no timer ticks: whoever holds the mutex hands out what is there, and when something is still to come, the server
//! is asked for a byte over the socket, which the runtime waits for. On the fallback the socket is readable anyway.
//!
//! The mutex is held while a request is copied in, while the replies that are there are copied out, for a task alone also for about 2 µs in which
//! its reply is looked for, and for the system calls of a doorbell; never across an await, nor while anybody is woken: an executor may run the task then
//! and there. So with messages of MiB a task may keep the thread of another one for as long as copying some of them takes: give those a connection of
//! their own.

mod driver;
mod shared;
mod waiters;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;
use ::tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::error::{ConnectError, Fallback, RequestError, Step};
use crate::mem::fork::Unforked;
use crate::peer::ServerPeer;
use crate::synapse::Synapse;
use shared::{Shared, Submitted};

/// A connection that many tasks may use at once; cloning it gives another handle on the same connection, which ends with the last.
///
/// Requests are sent in the order of the calls, and pipelined: a task does not wait for another one's reply. All calls may be cancelled
/// by dropping their future: a request that was sent then is given up, its reply discarded and counted as late. Belongs to the runtime it
/// was made on, which needs its I/O and time drivers (`enable_all`).
#[derive(Clone, Debug)]
pub struct AsyncSynapse {
    shared: Arc<Shared>,
}

impl AsyncSynapse {
    /// As [`Synapse::connect`], on a thread where blocking is allowed. If dropped half way, the connection is made and closed again.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub async fn connect(path: impl Into<PathBuf>, config: &Config) -> Result<Self, ConnectError> {
        let (path, config) = (path.into(), config.clone());
        let connecting = ::tokio::task::spawn_blocking(move || Synapse::connect(path, &config));
        let synapse = match connecting.await {
            Ok(result) => result?,
            Err(stopped) => match stopped.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(stopped) => {
                    return Err(ConnectError::Io {
                        step: Step::Thread,
                        source: stopped.into(),
                    });
                }
            },
        };
        Self::new(synapse).map_err(|source| ConnectError::Io {
            step: Step::Socket,
            source,
        })
    }

    /// Takes a connection over. Requests in flight on it are given up. It costs one more descriptor, for epoll.
    ///
    /// # Errors
    /// Of duplicating the socket (EMFILE), or of epoll.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn new(mut synapse: Synapse) -> std::io::Result<Self> {
        synapse.cancel_all();
        let fd = match synapse.fd() {
            // A second descriptor of the socket, for the runtime to wait for.
            Some(fd) => Unforked::from(fd.try_clone_to_owned()?),
            None => return Err(std::io::ErrorKind::NotConnected.into()),
        };
        // On the socket, frames that did not fit go out when there is room.
        let interest = if synapse.is_shm() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        // SAFETY: the descriptor is owned by what is handed over: it is open, always the same, and closed only when that is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, interest) }?;
        let shared = Arc::new(Shared::new(synapse));
        // An event loop that drove it before may have left it armed: its page would say that it waits, however idle it is here. And what it
        // had in flight is given up, yet answered: replies without room keep the server from this connection, so their bell is asked for anew.
        shared.turn();
        ::tokio::spawn(driver::drive(fd, interest, Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Sends a request and waits for its reply, for at most the configured request timeout, room in the ring included. Requests that wait
    /// for room are sent in the order of the calls.
    ///
    /// So one whose future is kept but not polled, as by a `select!` on `&mut call` whose other branch then awaits something, holds up those behind
    /// it once its turn has come, until they time out with `Full`, as it would with tokio's own locks. Go on polling it, spawn it, or drop it.
    ///
    /// # Errors
    /// As [`Synapse::fire_bytes`]; `Full` only when the timeout passes before there is room. When the connection is lost, each task learns of
    /// its own request that its outcome is unknown (`Disconnected` with one in flight), or that it was not sent (with none).
    ///
    /// # Panics
    /// Where it would have to wait, on a runtime without the time driver (`enable_time`).
    pub async fn fire_bytes(&self, request: &[u8]) -> Result<Vec<u8>, RequestError> {
        self.fire_bytes_into(request, Vec::new()).await
    }

    /// The same, with the reply in a vector of yours. Nothing is allocated once that is large enough, and the connection has had as many
    /// requests at a time. What was in it is dropped; after an error or a cancellation it is lost.
    ///
    /// # Errors
    /// As [`Self::fire_bytes`].
    pub async fn fire_bytes_into(
        &self,
        request: &[u8],
        mut into: Vec<u8>,
    ) -> Result<Vec<u8>, RequestError> {
        // Replies that come at once must not keep the runtime from everything else.
        ::tokio::task::coop::consume_budget().await;
        let timeout = self.shared.facts.timeout;
        let now = Instant::now();
        // One that the clock can't express is a year, as everywhere.
        let year = Duration::from_secs(365 * 24 * 3600);
        let deadline = now.checked_add(timeout).unwrap_or(now + year);
        let mut place = None;
        loop {
            let in_line = match self.shared.submit(request, into, place)? {
                Submitted::Answered(reply) => return Ok(reply),
                Submitted::Waiting(mut waiting) => {
                    return match timeout_at(deadline, waiting.reply()).await {
                        Ok(answer) => answer,
                        Err(_) => waiting.timed_out(timeout),
                    };
                }
                Submitted::Full(back, in_line) => {
                    into = back;
                    in_line
                }
            };
            if timeout_at(deadline, in_line.called()).await.is_err() {
                return Err(RequestError::Full {
                    in_flight: self.shared.in_flight(),
                });
            }
            place = Some(in_line);
        }
    }

    /// True on shared memory.
    pub fn is_shm(&self) -> bool {
        self.shared.facts.is_shm
    }

    /// Why the connection is on the socket although shared memory was wanted.
    pub fn fallback(&self) -> Option<Fallback> {
        self.shared.facts.fallback
    }

    /// As [`Synapse::peer`].
    pub fn peer(&self) -> ServerPeer {
        self.shared.facts.peer
    }

    /// Drawn at random by the server; joins the two sides' slots in their stats pages.
    pub fn connection_id(&self) -> u64 {
        self.shared.facts.connection_id
    }

    /// Largest payload of a request or reply in bytes.
    pub fn max_message(&self) -> usize {
        self.shared.facts.max_message
    }

    /// Requests waiting for a reply, of all tasks.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight()
    }

    /// Waits until the server is gone. Never returns while it lives.
    pub async fn closed(&self) {
        self.shared.closed().await;
    }
}
