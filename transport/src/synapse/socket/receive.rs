//! Receiving frames: matching replies to calls, and waiting for them.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use nix::poll::PollFlags;

use super::{Arrived, SocketClient};
use crate::calls::{Answered, RequestId};
use crate::clock::{Ticks, monotonic_ns};
use crate::error::{Lost, RequestError};
use crate::shm::FLOODED;
use crate::stats::recorder::{bump, raise, set};
use crate::stats::sanitise;
use crate::wire::edge::{Deadline, ready, recv_until};
use crate::wire::fdpass::{Received, try_recv};
use crate::wire::frame::Kind;

/// Reads that a look past late replies takes at most: a server that never stops sending must not keep the caller.
const MAX_LATE_READS: usize = 1024;

impl SocketClient {
    /// As [`crate::Synapse::receive`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn receive(&mut self) -> Result<(RequestId, &[u8]), RequestError> {
        let Arrived { id, failed } = self.receive_one()?;
        self.deliver(id, failed).map(|bytes| (RequestId(id), bytes))
    }

    pub(super) fn receive_one(&mut self) -> Result<Arrived, RequestError> {
        self.usable()?;
        if self.calls.live() == 0 {
            return Err(RequestError::NothingInFlight);
        }
        self.wait(Deadline::after(self.timeout))
    }

    /// As [`crate::Synapse::try_receive`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn try_receive(&mut self) -> Result<Option<(RequestId, &[u8])>, RequestError> {
        self.usable()?;
        let mut arrived = self.arrived()?;
        if arrived.is_none() {
            match try_recv(self.stream.as_fd(), self.decoder.space()) {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => self.decoder.filled(got.bytes),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    self.send_on().map_err(|e| self.lose(Lost::Io(e)))?;
                    return Ok(None);
                }
                Err(e) => return Err(self.lose(self.gone_or_io(e))),
            }
            arrived = self.arrived()?;
        }
        match arrived {
            // Who looks here has no clock that would end it.
            None if self.calls.is_flooded() => Err(self.lose(Lost::BadFrame(FLOODED))),
            None => Ok(None),
            Some(Arrived { id, failed }) => self
                .deliver(id, failed)
                .map(|bytes| Some((RequestId(id), bytes))),
        }
    }

    /// The next live reply that is already in the buffer.
    pub(super) fn arrived(&mut self) -> Result<Option<Arrived>, RequestError> {
        loop {
            let header = match self.decoder.next() {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => frame.header,
                Err(e) => return Err(self.lose(Lost::BadFrame(e.text()))),
            };
            let failed = match header.kind {
                Kind::Reply => false,
                Kind::ErrorReply => true,
                Kind::Bye => return Err(self.lose(Lost::Closed)),
                _ => return Err(self.lose(Lost::BadFrame("not a reply"))),
            };
            let taken = self.slot.taken();
            bump(&taken.rx_socket_bytes, u64::from(header.length));
            raise(&taken.rx_peak_bytes, u64::from(header.length));
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
                    bump(&taken.rx_socket_messages, 1);
                    if let Some(timed) = timed {
                        self.timing.replied(&self.slot, timed);
                    }
                    return Ok(Some(Arrived {
                        id: header.id,
                        failed,
                    }));
                }
                Answered::Late => bump(&self.slot.req().late_replies, 1),
                Answered::Unknown => bump(&self.slot.rx().rx_invalid, 1),
            }
            bump(&taken.rx_socket_void, 1);
        }
    }

    /// Whether the server lives, where nobody waits for a reply: those that are there are late, and what is behind them, be it the end, is not seen before
    /// they are taken. Nobody else may ever take them.
    pub(super) fn check_past_late(&mut self) -> Result<(), RequestError> {
        for _ in 0..MAX_LATE_READS {
            self.arrived()?;
            if self.calls.is_flooded() {
                return Err(self.lose(Lost::BadFrame(FLOODED)));
            }
            match try_recv(self.stream.as_fd(), self.decoder.space()) {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => self.decoder.filled(got.bytes),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(self.lose(self.gone_or_io(e))),
            }
        }
        // Or more came than one look takes: it lives.
        Ok(())
    }

    /// Waits for the next live reply. Looks once even if the deadline has passed.
    pub(super) fn wait(&mut self, deadline: Deadline) -> Result<Arrived, RequestError> {
        let mut looked = false;
        loop {
            if let Some(arrived) = self.arrived()? {
                return Ok(arrived);
            }
            if looked && deadline.passed() {
                // Bytes may be there each time: a server that answers nobody's requests must not keep the caller for ever.
                bump(&self.slot.wait().timed_out, 1);
                return Err(RequestError::Timeout {
                    timeout: self.timeout,
                });
            }
            self.slot.waits_here();
            let begun = Ticks::now();
            let now = monotonic_ns();
            set(&self.slot.req().oldest_ns, self.calls.waited_since(now));
            set(&self.slot.wait().waiting_since_ns, now);
            let got = self.receive_some(deadline);
            let (req, wait) = (self.slot.req(), self.slot.wait());
            set(&req.oldest_ns, 0);
            set(&wait.waiting_since_ns, 0);
            let ns = Ticks::now().ns_since(begun);
            bump(&wait.waits, 1);
            bump(&wait.sleeps, 1);
            bump(&wait.sleep_ns, ns);
            self.timing.paused();
            looked = true;
            match got {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => {
                    bump(&wait.ended_sleep, 1);
                    self.decoder.filled(got.bytes);
                }
                Err(e) if e.kind() == ErrorKind::TimedOut => {
                    bump(&wait.timed_out, 1);
                    return Err(RequestError::Timeout {
                        timeout: self.timeout,
                    });
                }
                Err(e) => return Err(self.lose(self.gone_or_io(e))),
            }
        }
    }

    /// Receives what comes first. What is still to be sent goes out meanwhile: the server waits for the rest of a request before it answers that.
    fn receive_some(&mut self, deadline: Deadline) -> io::Result<Received> {
        while !self.send_on()? {
            match try_recv(self.stream.as_fd(), self.decoder.space()) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                got => return got,
            }
            let either = PollFlags::POLLIN | PollFlags::POLLOUT;
            ready(self.stream.as_fd(), either, deadline)?;
        }
        recv_until(&self.stream, self.decoder.space(), deadline)
    }

    pub(super) fn deliver(&self, id: u64, failed: bool) -> Result<&[u8], RequestError> {
        let bytes = self.decoder.last_payload();
        if failed {
            bump(&self.slot.req().errors, 1);
            return Err(RequestError::Remote {
                id: RequestId(id),
                message: sanitise(bytes),
            });
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::calls::Calls;
    use crate::stats::SlotKind;
    use crate::stats::slot::SlotWriter;
    use crate::wire::frame::Decoder;

    #[test]
    fn a_server_that_dies_with_a_request_unread_is_gone_whichever_call_finds_it_out() {
        type Look = fn(&mut SocketClient) -> Result<(), RequestError>;
        let looks: [(&str, Look); 2] = [
            ("receive", |client| client.receive().map(|_| ())),
            ("try_receive", |client| client.try_receive().map(|_| ())),
        ];
        for (name, look) in looks {
            let (ours, theirs) = UnixStream::pair().expect("sockets");
            let mut client = SocketClient::new(
                ours,
                Calls::new(),
                Decoder::new(64).expect("memory"),
                64,
                Duration::from_secs(20),
                Arc::new(SlotWriter::private(SlotKind::Connection)),
            );
            client.submit(b"unread").expect("room");
            // Not what a close without unread bytes says: the kernel resets the connection.
            drop(theirs);
            match look(&mut client) {
                Err(RequestError::Disconnected {
                    reason: Lost::PeerGone,
                    ..
                }) => {}
                other => panic!("{name}: {other:?}"),
            }
        }
    }
}
