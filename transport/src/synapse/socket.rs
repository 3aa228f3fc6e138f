//! The fallback: requests and replies as frames over the Unix socket, with the same calls and errors as shared memory.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use crate::calls::{Answered, Calls, RequestId, Timed};
use crate::clock::{Ticks, monotonic_ns};
use crate::error::{CloseReason, Lost, RequestError};
use crate::mem::fork;
use crate::stats::recorder::{bump, raise, set};
use crate::stats::sampler::Sampler;
use crate::stats::sanitise;
use crate::stats::slot::SlotWriter;
use crate::wire::edge::{Deadline, recv_until, send_until};
use crate::wire::fdpass::try_recv;
use crate::wire::frame::{Decoder, Header, Kind};

/// Unanswered requests, and their bytes, that surely fit into the kernel's socket buffer (212,992 bytes by default, of which a
/// small message takes about 1 KiB): a send within them never blocks on a server that is itself blocked on sending to us.
const MAX_UNANSWERED: usize = 64;
const MAX_UNANSWERED_BYTES: usize = 64 << 10;

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
    sampler: Sampler,
    last_sample: Ticks,
    slot: Arc<SlotWriter>,
    generation: u64,
    lost: bool,
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
        max_message: usize,
        timeout: Duration,
        slot: Arc<SlotWriter>,
    ) -> Self {
        Self {
            stream,
            // Messages are bounded by the configuration, far below 4 GiB.
            decoder: Decoder::new(max_message as u32),
            calls,
            unanswered: 0,
            unanswered_bytes: 0,
            max_message,
            timeout,
            sampler: Sampler::new(u64::from(slot.index().unwrap_or(0))),
            last_sample: Ticks::now(),
            slot,
            generation: fork::generation(),
            lost: false,
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

    /// As [`crate::Synapse::fire_bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn fire_bytes(&mut self, request: &[u8]) -> Result<&[u8], RequestError> {
        if self.calls.live() > 0 {
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        let id = self.send(request)?;
        match self.wait() {
            Ok(Arrived { failed, .. }) => self.deliver(failed),
            Err(error) => {
                self.calls.abandon(id);
                Err(error)
            }
        }
    }

    /// As [`crate::Synapse::submit`].
    ///
    /// # Errors
    /// As there.
    pub fn submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        // One that is too large is told so by `send`, not to wait for room.
        let fits = request.len() <= self.max_message;
        if fits && self.calls.live() == 0 && self.crowded(request.len()) {
            self.await_late(request.len())?;
        }
        if fits && self.crowded(request.len()) {
            bump(&self.slot.tx().tx_full, 1);
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        self.send(request).map(RequestId)
    }

    /// Whether one more request of this length might not fit into the kernel's buffer.
    fn crowded(&self, length: usize) -> bool {
        let bytes = self.unanswered_bytes.saturating_add(length);
        self.unanswered > 0 && (self.unanswered >= MAX_UNANSWERED || bytes > MAX_UNANSWERED_BYTES)
    }

    /// Waits for replies to given-up requests, which no call of the caller's receives, until they are not in the way of `length`
    /// bytes more; at most the request timeout. Only while nobody waits for a reply.
    #[cold]
    fn await_late(&mut self, length: usize) -> Result<(), RequestError> {
        self.usable()?;
        let deadline = Deadline::after(self.timeout);
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

    /// As [`crate::Synapse::receive`].
    ///
    /// # Errors
    /// As there.
    pub fn receive(&mut self) -> Result<(RequestId, &[u8]), RequestError> {
        self.usable()?;
        if self.calls.live() == 0 {
            return Err(RequestError::NothingInFlight);
        }
        let Arrived { id, failed } = self.wait()?;
        self.deliver(failed).map(|bytes| (RequestId(id), bytes))
    }

    /// As [`crate::Synapse::try_receive`].
    ///
    /// # Errors
    /// As there.
    pub fn try_receive(&mut self) -> Result<Option<(RequestId, &[u8])>, RequestError> {
        self.usable()?;
        let mut arrived = self.arrived()?;
        if arrived.is_none() {
            match try_recv(self.stream.as_fd(), self.decoder.space()) {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => self.decoder.filled(got.bytes),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(self.lose(Lost::Io(e))),
            }
            arrived = self.arrived()?;
        }
        match arrived {
            None => Ok(None),
            Some(Arrived { id, failed }) => self
                .deliver(failed)
                .map(|bytes| Some((RequestId(id), bytes))),
        }
    }

    /// As [`crate::Synapse::cancel_all`].
    pub fn cancel_all(&mut self) -> usize {
        let n = self.calls.abandon_all();
        if self.generation != fork::generation() {
            // A fork's copy: the stats page is not mapped here.
            return n;
        }
        set(&self.slot.req().in_flight, 0);
        n
    }

    /// As [`crate::Synapse::check_alive`].
    ///
    /// # Errors
    /// As there.
    pub fn check_alive(&mut self) -> Result<(), RequestError> {
        self.usable()?;
        match crate::shm::alive(&self.stream) {
            // Bytes that wait to be read are replies here, not the end.
            Err(Lost::PeerGone) if crate::shm::has_input(&self.stream) => Ok(()),
            Err(lost) => Err(self.lose(lost)),
            Ok(()) => Ok(()),
        }
    }

    fn usable(&self) -> Result<(), RequestError> {
        if self.generation != fork::generation() {
            return Err(RequestError::Forked);
        }
        if self.lost {
            return Err(RequestError::Disconnected {
                reason: Lost::PeerGone,
                in_flight: 0,
            });
        }
        Ok(())
    }

    fn send(&mut self, request: &[u8]) -> Result<u64, RequestError> {
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
        let timed = self.sampler.due().map(|weight| Timed {
            begun: Ticks::now(),
            weight,
        });
        // The length fits: it is at most the largest message.
        let header = Header {
            kind: Kind::Request,
            id,
            length: request.len() as u32,
            aux: 0,
        };
        let deadline = Deadline::after(self.timeout);
        if let Err(e) = send_until(&self.stream, &header.encode(), request, None, deadline) {
            if e.source.kind() == std::io::ErrorKind::TimedOut && e.sent == 0 {
                return Err(RequestError::Full {
                    in_flight: self.calls.live(),
                });
            }
            // Half a frame can't be taken back.
            return Err(self.lose(gone_or_io(e.source)));
        }
        self.calls.open(id, timed);
        self.unanswered += 1;
        self.unanswered_bytes += request.len();
        let tx = self.slot.tx();
        bump(&tx.tx_messages, 1);
        bump(&tx.tx_bytes, request.len() as u64);
        raise(&tx.tx_largest_bytes, request.len() as u64);
        let req = self.slot.req();
        bump(&req.requests, 1);
        bump(&req.socket_requests, 1);
        set(&req.in_flight, self.calls.live() as u64);
        Ok(id)
    }

    /// The next live reply that is already in the buffer.
    fn arrived(&mut self) -> Result<Option<Arrived>, RequestError> {
        loop {
            let header = match self.decoder.next() {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.header,
                Err(e) => return Err(self.lose(Lost::BadFrame(e.text()))),
            };
            let failed = match header.kind {
                Kind::Reply => false,
                Kind::ErrorReply => true,
                Kind::Bye => return Err(self.lose(Lost::PeerGone)),
                _ => return Err(self.lose(Lost::BadFrame("not a reply"))),
            };
            let (rx, req) = (self.slot.rx(), self.slot.req());
            bump(&rx.rx_messages, 1);
            bump(&rx.rx_bytes, u64::from(header.length));
            raise(&rx.rx_largest_bytes, u64::from(header.length));
            let answered = self.calls.answer(header.id);
            if !matches!(answered, Answered::Unknown) {
                self.unanswered = self.unanswered.saturating_sub(1);
                // Replies come in order, so the bytes of the answered request are not kept: all are settled at the end.
                if self.unanswered == 0 {
                    self.unanswered_bytes = 0;
                }
            }
            match answered {
                Answered::Live(timed) => {
                    bump(&req.replies, 1);
                    set(&req.in_flight, self.calls.live() as u64);
                    if let Some(timed) = timed {
                        let now = Ticks::now();
                        self.slot
                            .rtt()
                            .record(now.ns_since(timed.begun), timed.weight);
                        self.sampler.adapt(now.ns_since(self.last_sample));
                        self.last_sample = now;
                        set(&req.last_progress_ns, now.monotonic_ns());
                        set(&req.sample_period, self.sampler.period());
                    }
                    return Ok(Some(Arrived {
                        id: header.id,
                        failed,
                    }));
                }
                Answered::Late => bump(&req.late_replies, 1),
                Answered::Unknown => bump(&rx.rx_invalid, 1),
            }
        }
    }

    /// Waits for the next live reply.
    fn wait(&mut self) -> Result<Arrived, RequestError> {
        let deadline = Deadline::after(self.timeout);
        loop {
            if let Some(arrived) = self.arrived()? {
                return Ok(arrived);
            }
            if deadline.passed() {
                // Bytes may be there each time: a server that answers nobody's requests must not keep the caller for ever.
                bump(&self.slot.wait().timed_out, 1);
                bump(&self.slot.req().timeouts, 1);
                return Err(RequestError::Timeout {
                    timeout: self.timeout,
                });
            }
            let begun = Ticks::now();
            let (req, wait) = (self.slot.req(), self.slot.wait());
            let now = monotonic_ns();
            set(&req.oldest_ns, now);
            set(&wait.waiting_since_ns, now);
            let got = recv_until(&self.stream, self.decoder.space(), deadline);
            set(&req.oldest_ns, 0);
            set(&wait.waiting_since_ns, 0);
            let ns = Ticks::now().ns_since(begun);
            bump(&wait.waits, 1);
            bump(&wait.sleeps, 1);
            bump(&wait.sleep_ns, ns);
            self.sampler.paused();
            match got {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => {
                    bump(&wait.ended_sleep, 1);
                    self.decoder.filled(got.bytes);
                }
                Err(e) if e.kind() == std::io::ErrorKind::TimedOut => {
                    bump(&wait.timed_out, 1);
                    bump(&req.timeouts, 1);
                    return Err(RequestError::Timeout {
                        timeout: self.timeout,
                    });
                }
                Err(e) => return Err(self.lose(gone_or_io(e))),
            }
        }
    }

    fn deliver(&self, failed: bool) -> Result<&[u8], RequestError> {
        let bytes = self.decoder.last_payload();
        if failed {
            bump(&self.slot.req().errors, 1);
            return Err(RequestError::Remote {
                message: sanitise(bytes),
            });
        }
        Ok(bytes)
    }

    /// Ends the connection from our side.
    pub(super) fn give_up(&mut self, reason: CloseReason) {
        self.lost = true;
        self.slot.close(reason);
        // The end itself is the message; a socket that is gone already says the same.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }

    #[cold]
    fn lose(&mut self, reason: Lost) -> RequestError {
        self.give_up(match reason {
            Lost::BadFrame(_) | Lost::Poisoned(_) => CloseReason::Poisoned,
            Lost::PeerGone | Lost::Io(_) => CloseReason::PeerGone,
        });
        RequestError::Disconnected {
            reason,
            in_flight: self.calls.abandon_all(),
        }
    }
}

fn gone_or_io(e: std::io::Error) -> Lost {
    match e.kind() {
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => Lost::PeerGone,
        _ => Lost::Io(e),
    }
}
