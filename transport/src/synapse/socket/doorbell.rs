//! For callers that wait for descriptors instead of in here: what is readable, and calls that never wait.

use std::os::fd::{AsFd, BorrowedFd};

use super::SocketClient;
use crate::stats::recorder::set;

#[cfg(feature = "tokio")]
use super::Arrived;
use crate::calls::RequestId;
#[cfg(feature = "tokio")]
use crate::error::Lost;
use crate::error::RequestError;
#[cfg(feature = "tokio")]
use crate::shm::FLOODED;
#[cfg(feature = "tokio")]
use crate::wire::fdpass::try_recv;

impl SocketClient {
    /// What becomes readable with a reply, and when the server is gone.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether a look for a reply would find one, or the end, in what was received already. No system call.
    pub(crate) fn is_ready(&self) -> bool {
        self.lost.is_some() || self.decoder.is_ready()
    }

    /// False once the connection is lost, and in a forked child.
    pub(crate) fn is_usable(&self) -> bool {
        self.usable().is_ok()
    }

    /// Gives one request up.
    pub(crate) fn abandon(&mut self, id: u64) {
        self.calls.abandon(id);
        if self.generation == crate::mem::fork::generation() {
            set(&self.slot.taken().given_up, self.calls.given_up());
        }
    }

    /// As [`Self::submit`], but where that would wait, `Full` comes at once; what the socket does not take of the frame goes out with
    /// [`Self::flush`].
    pub(crate) fn try_submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        // What is lost is crowded for ever.
        self.usable()?;
        if request.len() <= self.max_message && self.crowded(request.len()) {
            crate::stats::recorder::bump(&self.slot.tx().tx_full, 1);
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        let (id, header, timed) = self.prepare(request)?;
        self.outgoing.0.extend_from_slice(&header.encode());
        self.outgoing.0.extend_from_slice(request);
        // A request that met the end here never went out whole: it must not be among those whose outcome is unknown.
        self.flush()?;
        self.book(id, timed, request.len());
        Ok(RequestId(id))
    }

    /// Whether a part of a frame is still to go out.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outgoing.0.is_empty()
    }
}

#[cfg(feature = "tokio")]
impl SocketClient {
    /// The next reply if it is there: its id, and what it says. `None` only once the socket has nothing more, so a flood of replies to
    /// nobody has to end the connection.
    #[expect(
        clippy::type_complexity,
        reason = "one use, and names would hide that an error reply has an id"
    )]
    pub(crate) fn next_reply(
        &mut self,
    ) -> Result<Option<(u64, Result<&[u8], RequestError>)>, RequestError> {
        self.usable()?;
        loop {
            if let Some(Arrived { id, failed }) = self.arrived()? {
                return Ok(Some((id, self.deliver(id, failed))));
            }
            if self.calls.is_flooded() {
                return Err(self.lose(Lost::BadFrame(FLOODED)));
            }
            match try_recv(self.stream.as_fd(), self.decoder.space()) {
                Ok(got) if got.bytes == 0 => return Err(self.lose(Lost::PeerGone)),
                Ok(got) => self.decoder.filled(got.bytes),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) => return Err(self.lose(self.gone_or_io(e))),
            }
        }
    }
}
