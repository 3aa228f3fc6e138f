//! The fallback: requests and replies as frames over the Unix socket, with the same calls and errors as shared memory.

mod doorbell;
#[cfg(test)]
mod end_tests;
mod into;
mod receive;
mod send;

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::calls::Calls;
use crate::error::{CloseReason, Lost, RequestError};
use crate::mem::fork;
use crate::stats::recorder::{bump, set};
use crate::stats::slot::SlotWriter;
use crate::timing::Timing;
use crate::wire::edge::Deadline;
use crate::wire::frame::Decoder;

/// A client connection over the socket.
pub struct SocketClient {
    stream: UnixStream,
    decoder: Decoder,
    calls: Calls,
    /// Sent and not answered, given-up ones included.
    unanswered: usize,
    unanswered_bytes: usize,
    max_message: usize,
    timeout: Duration,
    timing: Timing,
    slot: Arc<SlotWriter>,
    generation: u64,
    /// Of frames booked as sent: what the socket has not taken yet, and how much of it has gone since; empty otherwise.
    outgoing: (Vec<u8>, usize),
    /// Why it has ended.
    lost: Option<Lost>,
}

impl std::fmt::Debug for SocketClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketClient")
            .field("in_flight", &self.calls.live())
            .field("lost", &self.lost)
            .finish()
    }
}

/// Where in the decoder's buffer a reply stands.
struct Arrived {
    id: u64,
    failed: bool,
}

impl SocketClient {
    pub(super) fn new(
        stream: UnixStream,
        calls: Calls,
        decoder: Decoder,
        max_message: usize,
        timeout: Duration,
        slot: Arc<SlotWriter>,
    ) -> Self {
        Self {
            stream,
            decoder,
            calls,
            unanswered: 0,
            unanswered_bytes: 0,
            max_message,
            timeout,
            timing: Timing::new(&slot),
            slot,
            generation: fork::generation(),
            outgoing: (Vec::new(), 0),
            lost: None,
        }
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// For the upgrade; nothing is unanswered then.
    pub(super) fn into_parts(self) -> (UnixStream, Calls) {
        (self.stream, self.calls)
    }

    /// Requests sent and not answered, given-up ones included.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Requests waiting for a reply.
    pub fn in_flight(&self) -> usize {
        self.calls.live()
    }

    pub(super) fn upcoming_id(&self) -> u64 {
        self.calls.upcoming_id()
    }

    /// As [`crate::Synapse::fire_bytes`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn fire_bytes(&mut self, request: &[u8]) -> Result<&[u8], RequestError> {
        let Arrived { id, failed } = self.fire(request)?;
        self.deliver(id, failed)
    }

    fn fire(&mut self, request: &[u8]) -> Result<Arrived, RequestError> {
        if self.calls.live() > 0 {
            self.usable()?;
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        let deadline = Deadline::after(self.timeout);
        let id = self.send(request, deadline)?;
        let arrived = self.wait(deadline);
        if let Err(error) = &arrived {
            self.abandon(id);
            if let RequestError::Timeout { .. } = error {
                bump(&self.slot.req().timeouts, 1);
            }
        }
        arrived
    }

    /// Waits for room for one request, as [`crate::Synapse::draft`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn reserve(&mut self, room: usize) -> Result<(), RequestError> {
        self.usable()?;
        if room > self.max_message {
            return Err(RequestError::TooLarge {
                size: room,
                limit: self.max_message,
            });
        }
        // Now, because what is refused once it has been written is lost.
        self.await_room(room, Deadline::after(self.timeout))
    }

    /// The reply that was received last, until the next call that receives.
    pub(crate) fn last_reply(&self) -> &[u8] {
        self.decoder.last_payload()
    }

    /// As [`crate::Synapse::cancel_all`].
    pub(crate) fn cancel_all(&mut self) -> usize {
        let n = self.calls.abandon_all();
        if self.generation != fork::generation() {
            // A fork's copy: the stats page is not mapped here.
            return n;
        }
        set(&self.slot.taken().given_up, self.calls.given_up());
        n
    }

    /// As [`crate::Synapse::check_alive`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn check_alive(&mut self) -> Result<(), RequestError> {
        self.usable()?;
        if self.calls.live() == 0 {
            return self.check_past_late();
        }
        let Err(lost) = crate::shm::alive(&self.stream) else {
            return Ok(());
        };
        if self.is_told_farewell() {
            return Err(self.lose(Lost::Closed));
        }
        // Other bytes, received or not, are replies here, and not the end.
        let is_end = matches!(lost, Lost::Closed | Lost::PeerGone);
        if is_end && (self.decoder.is_ready() || crate::shm::has_input(&self.stream)) {
            return Ok(());
        }
        Err(self.lose(lost))
    }

    /// Whether the next that was or will be received is the server's farewell.
    fn is_told_farewell(&self) -> bool {
        let received = self.decoder.unread();
        if received.is_empty() {
            crate::shm::says_farewell(&self.stream)
        } else {
            crate::shm::is_whole_farewell(received)
        }
    }

    /// Why it has ended, once a call has reported that.
    pub(super) fn lost(&self) -> Option<&Lost> {
        self.lost.as_ref()
    }

    pub(super) fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    fn usable(&self) -> Result<(), RequestError> {
        if self.is_forked() {
            return Err(RequestError::Forked);
        }
        match &self.lost {
            None => Ok(()),
            Some(lost) => Err(RequestError::Disconnected {
                reason: lost.again(),
                in_flight: 0,
            }),
        }
    }

    /// Ends the connection from our side: the page says `reason`, and calls from now on `lost`.
    pub(super) fn give_up(&mut self, reason: CloseReason, lost: Lost) {
        self.lost = Some(lost);
        self.slot.close(reason);
        // The end itself is the message; a socket that is gone already says the same.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    #[cold]
    fn lose(&mut self, reason: Lost) -> RequestError {
        let close = match reason {
            Lost::BadFrame(_) | Lost::Poisoned(_) => CloseReason::Poisoned,
            Lost::Closed | Lost::PeerGone | Lost::Io(_) => CloseReason::PeerGone,
        };
        self.give_up(close, reason.again());
        RequestError::Disconnected {
            reason,
            in_flight: self.calls.abandon_all(),
        }
    }

    /// Why a read failed: all that had come was read before.
    #[cold]
    fn gone_or_io(&self, e: io::Error) -> Lost {
        if is_end(&e) {
            Lost::PeerGone
        } else {
            Lost::Io(e)
        }
    }
}

/// Whether the server closed the socket, or its reading half.
fn is_end(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

#[cfg(test)]
mod tests {
    use crate::error::{Lost, RequestError};
    use crate::membrane::testing::{WATCHDOG, server_and_client_on_socket};

    #[test]
    fn a_farewell_that_was_received_together_with_replies_is_told_after_them() {
        let dir = tempfile::tempdir().expect("a directory");
        let (server, mut client) = server_and_client_on_socket(dir.path());
        let asked = [b"one", b"two"];
        for request in asked {
            client.submit(request).expect("room");
        }
        assert!(server.drain(WATCHDOG));
        for request in asked {
            client.check_alive().expect("a reply is there");
            assert_eq!(client.receive().expect("a reply").1, request);
        }
        match client.check_alive() {
            Err(RequestError::Disconnected {
                reason: Lost::Closed,
                in_flight: 0,
            }) => {}
            other => panic!("{other:?}"),
        }
    }
}
