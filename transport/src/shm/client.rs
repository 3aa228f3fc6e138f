//! The client's half of a shared-memory connection: what it is made of, and how it ends. What it does stands in files by its side.

mod arrive;
mod call;
mod doorbell;
mod draft;
mod in_place;
mod into;
mod line;
mod looks;
mod pipeline;
mod publish;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use doorbell::FLOODED;
pub(crate) use in_place::Lying;
use line::Line;

use super::link::Rings;
use crate::calls::{Calls, RequestId};
use crate::clock::Ticks;
use crate::error::{CloseReason, Lost, RequestError};
use crate::mem::buffer::Buffer;
use crate::mem::fork;
use crate::ring::consumer::Consumer;
use crate::ring::producer::Producer;
use crate::ring::storage::Mapped;
use crate::stats::recorder::bump;
use crate::stats::slot::SlotWriter;
use crate::timing::Timing;
use crate::wait::policy::Waiter;

/// A client connection over shared memory: two rings, and one buffer of the largest message into which every
/// reply is copied, reused across calls. Nothing is allocated per request.
pub struct ShmClient {
    tx: Producer<Mapped>,
    rx: Consumer<Mapped>,
    line: Line,
    buffer: Buffer,
    calls: Calls,
    waiter: Waiter,
    timing: Timing,
    slot: Arc<SlotWriter>,
    timeout: Duration,
    /// The request that had to wait before it was sent, and since when: its reply is waited for as long as is left. 0 is none.
    blocked: (u64, Ticks),
    /// Ring bytes of replies released since the server's doorbell was last tried.
    released: u64,
    /// Requests were published since then whose bell was not rung.
    bell_due: bool,
    /// What the server was told of where we wait.
    told_cpu: u64,
    /// Fork generation of the owner.
    generation: u64,
    /// Since when the server is asked for a byte over the socket.
    armed: Option<Ticks>,
    /// Why it has ended, once a call has reported that.
    lost: Option<Box<Lost>>,
}

impl std::fmt::Debug for ShmClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShmClient")
            .field("in_flight", &self.calls.live())
            .field("lost", &self.lost)
            .finish()
    }
}

/// A reply that was found: already copied into the buffer.
struct Arrived {
    id: u64,
    length: usize,
    failed: bool,
}

impl ShmClient {
    pub(crate) fn new(
        rings: Rings,
        socket: UnixStream,
        calls: Calls,
        buffer: Buffer,
        waiter: Waiter,
        timeout: Duration,
        slot: Arc<SlotWriter>,
    ) -> Self {
        Self {
            tx: rings.tx,
            rx: rings.rx,
            line: Line::new(socket),
            buffer,
            calls,
            waiter,
            timing: Timing::new(&slot),
            slot,
            timeout,
            blocked: (0, Ticks::from_count(0)),
            released: 0,
            bell_due: false,
            told_cpu: 0,
            generation: fork::generation(),
            armed: None,
            lost: None,
        }
    }

    /// Largest payload of a request or reply, in bytes.
    pub fn max_message(&self) -> usize {
        self.buffer.len()
    }

    /// Requests waiting for a reply.
    pub fn in_flight(&self) -> usize {
        self.calls.live()
    }

    pub(crate) fn upcoming_id(&self) -> u64 {
        self.calls.upcoming_id()
    }

    /// Checks that the server still holds its end of the socket. For callers that only ever use [`Self::try_receive`].
    ///
    /// # Errors
    /// [`RequestError::Disconnected`] if not, and no reply is left in the ring.
    pub(crate) fn check_alive(&mut self) -> Result<(), RequestError> {
        self.not_lost()?;
        self.withdraw();
        match self.line.alive() {
            // What was committed before the end is still an answer. The end is found again after it.
            Err(_) if self.calls.live() > 0 && self.rx.is_ready() => Ok(()),
            Err(lost) => Err(self.lose(lost)),
            Ok(()) => Ok(()),
        }
    }

    /// Before a request is sent: nobody would carry it out once the end was met, and here that is still certain.
    #[inline(always)]
    fn usable(&self) -> Result<(), RequestError> {
        if self.line.is_open() {
            return Ok(());
        }
        Err(self.unusable())
    }

    #[cold]
    fn unusable(&self) -> RequestError {
        match (self.not_lost(), self.calls.live()) {
            (Err(error), _) => error,
            (Ok(()), 0) => lost_before(&self.line.end()),
            // The end is told once what was committed before it is received.
            (Ok(()), in_flight) => RequestError::Full { in_flight },
        }
    }

    /// Before replies are received: of an end that was met, what came before it is left.
    fn not_lost(&self) -> Result<(), RequestError> {
        if self.generation != fork::generation() {
            return Err(RequestError::Forked);
        }
        match &self.lost {
            None => Ok(()),
            Some(lost) => Err(lost_before(lost)),
        }
    }

    /// What is left of the timeout of a call that began then.
    fn left_since(&self, begun: Ticks) -> Duration {
        let waited = Duration::from_nanos(Ticks::now().waited_since(begun));
        self.timeout.saturating_sub(waited)
    }

    #[inline]
    fn deliver(&self, id: u64, length: usize, failed: bool) -> Result<&[u8], RequestError> {
        if failed {
            return Err(self.remote(id, length));
        }
        Ok(&self.buffer[..length])
    }

    #[cold]
    fn remote(&self, id: u64, length: usize) -> RequestError {
        bump(&self.slot.req().errors, 1);
        RequestError::Remote {
            id: RequestId(id),
            message: crate::stats::sanitise(&self.buffer[..length]),
        }
    }

    #[cold]
    fn lose(&mut self, reason: Lost) -> RequestError {
        let close = match &reason {
            Lost::Poisoned(_) | Lost::BadFrame(_) => CloseReason::Poisoned,
            Lost::Closed | Lost::PeerGone | Lost::Io(_) => CloseReason::PeerGone,
        };
        self.lost = Some(Box::new(reason.again()));
        self.slot.close(close);
        // The server must not wait for us any longer than we for it; errors don't matter, the end is the message.
        self.line.close();
        RequestError::Disconnected {
            reason,
            in_flight: self.calls.abandon_all(),
        }
    }
}

/// What every call after the one that met the end says: why, and that nothing of its own was sent.
fn lost_before(lost: &Lost) -> RequestError {
    RequestError::Disconnected {
        reason: lost.again(),
        in_flight: 0,
    }
}

#[cfg(test)]
mod brief_tests;
#[cfg(test)]
mod tests;
