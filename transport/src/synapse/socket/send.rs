//! Sending frames, never more than surely fit while the server may be blocked on sending to us.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::PollFlags;

use super::{SocketClient, is_end};
use crate::calls::{RequestId, Timed};
use crate::error::{Lost, RequestError};
use crate::stats::recorder::{bump, raise, set};
use crate::wire::edge::{Deadline, ready, send_until};
use crate::wire::fdpass::{try_recv, try_send};
use crate::wire::frame::{Header, Kind};

/// Unanswered requests, and their bytes, that surely fit into the kernel's socket buffer (212,992 bytes by default, of which a
/// small message takes about 1 KiB): a send within them never blocks on a server that is itself blocked on sending to us.
const MAX_UNANSWERED: usize = 64;
const MAX_UNANSWERED_BYTES: usize = 64 << 10;

/// Reads for the farewell of a server that takes nothing more: one that never stops sending must not keep the caller.
const MAX_LAST_READS: usize = 1024;

/// More than the kernel mostly takes from refusing what is sent to a process that dies to showing that it has closed its end. A process that is kept off its
/// CPU in between is taken for one that ended on purpose.
const DYING: Duration = Duration::from_millis(1);

impl SocketClient {
    /// As [`crate::Synapse::submit`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        self.send(request, Deadline::after(self.timeout))
            .map(RequestId)
    }

    /// Sees to it that a request of this length is not [`Self::crowded`] out, nor the rest of another frame in its way; `Full` as long as the
    /// replies that would make room are the caller's to receive.
    pub(super) fn await_room(
        &mut self,
        length: usize,
        deadline: Deadline,
    ) -> Result<(), RequestError> {
        if !self.has_room(length) {
            self.usable()?;
            if self.calls.live() == 0 {
                self.await_late(length, deadline)?;
            } else {
                self.flush()?;
            }
            if !self.has_room(length) {
                bump(&self.slot.tx().tx_full, 1);
                return Err(RequestError::Full {
                    in_flight: self.calls.live(),
                });
            }
        }
        Ok(())
    }

    fn has_room(&self, length: usize) -> bool {
        self.outgoing.0.is_empty() && !self.crowded(length)
    }

    /// Whether one more request of this length might not fit into the kernel's buffer.
    pub(super) fn crowded(&self, length: usize) -> bool {
        let bytes = self.unanswered_bytes.saturating_add(length);
        self.unanswered > 0 && (self.unanswered >= MAX_UNANSWERED || bytes > MAX_UNANSWERED_BYTES)
    }

    /// Finishes a frame that was given up half way, and waits for replies to given-up requests, which no call of the caller's receives, until
    /// neither is in the way of `length` bytes more; until the deadline, and at least one look long. Only while nobody waits for a reply. It does both at once: a
    /// server may send its replies before it reads on.
    #[cold]
    fn await_late(&mut self, length: usize, deadline: Deadline) -> Result<(), RequestError> {
        let mut looked = false;
        loop {
            let sent = self.flush()?;
            if self.arrived()?.is_some() || self.has_room(length) || (looked && deadline.passed()) {
                return Ok(());
            }
            looked = true;
            match try_recv(self.stream.as_fd(), self.decoder.space()) {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => self.decoder.filled(got.bytes),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let writable = if sent {
                        PollFlags::empty()
                    } else {
                        PollFlags::POLLOUT
                    };
                    match ready(self.stream.as_fd(), PollFlags::POLLIN | writable, deadline) {
                        Err(e) if e.kind() != ErrorKind::TimedOut => {
                            return Err(self.lose(Lost::Io(e)));
                        }
                        _ => {}
                    }
                }
                Err(e) => return Err(self.lose(self.gone_or_io(e))),
            }
        }
    }

    /// Sends a request as soon as there is room for it. `Full`: nothing went out; `Timeout`: a part did, the request is given up, and the rest goes
    /// before the next one.
    pub(super) fn send(&mut self, request: &[u8], deadline: Deadline) -> Result<u64, RequestError> {
        // One that is too large is told so, not to wait for room.
        if request.len() <= self.max_message {
            self.await_room(request.len(), deadline)?;
        }
        let (id, header, timed) = self.prepare(request)?;
        let header = header.encode();
        let Err(e) = send_until(&self.stream, &header, request, None, deadline) else {
            self.book(id, timed, request.len());
            return Ok(id);
        };
        if e.source.kind() != ErrorKind::TimedOut {
            return Err(self.cut_off(e.source));
        }
        if e.sent == 0 {
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        // Half a frame can't be taken back.
        let of_header = e.sent.min(header.len());
        self.outgoing.0.extend_from_slice(&header[of_header..]);
        self.outgoing
            .0
            .extend_from_slice(&request[e.sent - of_header..]);
        self.book(id, timed, request.len());
        self.abandon(id);
        bump(&self.slot.req().timeouts, 1);
        Err(RequestError::Timeout {
            timeout: self.timeout,
        })
    }

    /// Sends what is still to go out, as far as the socket takes it. True if nothing is left.
    pub(super) fn flush(&mut self) -> Result<bool, RequestError> {
        self.try_flush().map_err(|e| self.cut_off(e))
    }

    /// As [`Self::flush`], for who reads on: of a server that takes nothing more, the replies that it gave before are still to be read, and its end behind
    /// them. What did not go out is dropped then. After an error, the next call that sends meets it again.
    pub(crate) fn send_on(&mut self) -> io::Result<bool> {
        match self.try_flush() {
            Err(e) if is_end(&e) => {
                self.all_out();
                Ok(true)
            }
            other => other,
        }
    }

    fn try_flush(&mut self) -> io::Result<bool> {
        while self.outgoing.1 < self.outgoing.0.len() {
            match try_send(
                self.stream.as_fd(),
                &self.outgoing.0[self.outgoing.1..],
                &[],
                None,
            ) {
                Ok(n) => self.outgoing.1 += n,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        self.all_out();
        Ok(true)
    }

    fn all_out(&mut self) {
        self.outgoing.0.clear();
        self.outgoing.1 = 0;
    }

    /// Nothing can be sent any more, and the rest of what was begun is dropped. No reply is hidden by that: as long as some are there, or may yet come, the
    /// caller is sent to them first, as on shared memory, and the end is told behind them.
    #[cold]
    fn cut_off(&mut self, e: io::Error) -> RequestError {
        self.all_out();
        if !is_end(&e) {
            return self.lose(Lost::Io(e));
        }
        let in_flight = self.calls.live();
        if in_flight > 0 {
            return match self.check_alive() {
                Ok(()) => RequestError::Full { in_flight },
                Err(end) => end,
            };
        }
        let lost = self.last_word();
        self.lose(lost)
    }

    /// Whether a server that takes nothing more ends on purpose, where nobody waits for a reply. It says so, once it has answered what came
    /// before. Hardly waits: as long as there is no end behind what it said, it lives, and only who ends on purpose takes nothing more and lives.
    /// But of one that dies the kernel tells who writes before who reads.
    fn last_word(&mut self) -> Lost {
        let mut has_waited = false;
        for _ in 0..MAX_LAST_READS {
            loop {
                match self.decoder.next() {
                    Ok(Some(frame)) if frame.header.kind == Kind::Bye => return Lost::Closed,
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Lost::PeerGone,
                }
            }
            match try_recv(self.stream.as_fd(), self.decoder.space()) {
                Ok(got) if got.bytes > 0 => self.decoder.filled(got.bytes),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    let deadline = Deadline::after(DYING);
                    if has_waited
                        || ready(self.stream.as_fd(), PollFlags::POLLIN, deadline).is_err()
                    {
                        return Lost::Closed;
                    }
                    has_waited = true;
                }
                _ => return Lost::PeerGone,
            }
        }
        // More than the dead leave behind.
        Lost::Closed
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
