//! Sending frames, never more than surely fit while the server may be blocked on sending to us.

use super::{SocketClient, gone_or_io};
use crate::calls::{RequestId, Timed};
use crate::error::{Lost, RequestError};
use crate::stats::recorder::{bump, raise, set};
use crate::wire::edge::{Deadline, recv_until, send_until};
use crate::wire::frame::{Header, Kind};

/// Unanswered requests, and their bytes, that surely fit into the kernel's socket buffer (212,992 bytes by default, of which a
/// small message takes about 1 KiB): a send within them never blocks on a server that is itself blocked on sending to us.
const MAX_UNANSWERED: usize = 64;
const MAX_UNANSWERED_BYTES: usize = 64 << 10;

impl SocketClient {
    /// As [`crate::Synapse::submit`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        let deadline = Deadline::after(self.timeout);
        // One that is too large is told so by `send`, not to wait for room.
        if request.len() <= self.max_message {
            self.await_room(request.len(), deadline)?;
        }
        self.send(request, deadline).map(RequestId)
    }

    /// Sees to it that a request of this length is not [`Self::crowded`] out; `Full` as long as the replies that would make room are the caller's
    /// to receive.
    pub(super) fn await_room(
        &mut self,
        length: usize,
        deadline: Deadline,
    ) -> Result<(), RequestError> {
        if self.calls.live() == 0 && self.crowded(length) {
            self.await_late(length, deadline)?;
        }
        if self.crowded(length) {
            self.usable()?;
            bump(&self.slot.tx().tx_full, 1);
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        Ok(())
    }

    /// Whether one more request of this length might not fit into the kernel's buffer.
    pub(super) fn crowded(&self, length: usize) -> bool {
        let bytes = self.unanswered_bytes.saturating_add(length);
        self.unanswered > 0 && (self.unanswered >= MAX_UNANSWERED || bytes > MAX_UNANSWERED_BYTES)
    }

    /// Waits for replies to given-up requests, which no call of the caller's receives, until they are not in the way of `length`
    /// bytes more; until the deadline. Only while nobody waits for a reply.
    #[cold]
    fn await_late(&mut self, length: usize, deadline: Deadline) -> Result<(), RequestError> {
        self.usable()?;
        while self.arrived()?.is_none() && self.crowded(length) && !deadline.passed() {
            match recv_until(&self.stream, self.decoder.space(), deadline) {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => self.decoder.filled(got.bytes),
                Err(e) if e.kind() == std::io::ErrorKind::TimedOut => break,
                Err(e) => return Err(self.lose(gone_or_io(e))),
            }
        }
        Ok(())
    }

    pub(super) fn send(&mut self, request: &[u8], deadline: Deadline) -> Result<u64, RequestError> {
        let (id, header, timed) = self.prepare(request)?;
        if let Err(e) = send_until(&self.stream, &header.encode(), request, None, deadline) {
            if e.source.kind() == std::io::ErrorKind::TimedOut && e.sent == 0 {
                return Err(RequestError::Full {
                    in_flight: self.calls.live(),
                });
            }
            // Half a frame can't be taken back.
            return Err(self.lose(gone_or_io(e.source)));
        }
        self.book(id, timed, request.len());
        Ok(id)
    }

    /// Whether the request may be sent, and the frame's header.
    pub(super) fn prepare(
        &mut self,
        request: &[u8],
    ) -> Result<(u64, Header, Option<Timed>), RequestError> {
        self.usable()?;
        let tx = self.slot.tx();
        if request.len() > self.max_message {
            bump(&tx.tx_rejected_size, 1);
            set(&tx.tx_rejected_bytes, request.len() as u64);
            return Err(RequestError::TooLarge {
                size: request.len(),
                limit: self.max_message,
            });
        }
        let Some(id) = self.calls.next_id() else {
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        };
        let timed = self.timing.begin().then(|| self.timing.begun());
        // The length fits: it is at most the largest message.
        let header = Header {
            kind: Kind::Request,
            id,
            length: request.len() as u32,
            aux: 0,
        };
        Ok((id, header, timed))
    }

    /// Books a request that was sent.
    pub(super) fn book(&mut self, id: u64, timed: Option<Timed>, length: usize) {
        self.calls.open(id, timed);
        self.unanswered += 1;
        self.unanswered_bytes += length;
        let sent = self.slot.sent();
        bump(&sent.tx_socket_messages, 1);
        bump(&sent.tx_socket_bytes, length as u64);
        raise(&sent.tx_peak_bytes, length as u64);
        bump(&self.slot.req().socket_requests, 1);
    }
}
