//! A client's connection: over the Unix socket at first, upgraded to shared memory if it can be had.
//!
//! Which calls go where is decided in [`Transport`]; the handshake is `wire::drive`'s. A connection that is lost stays lost: whether to
//! connect again, and what to do about requests whose outcome is unknown, only the caller can decide.

mod batch;
mod connect;
mod doorbell;
mod page;
mod socket;
mod upgrade;
mod zero_copy;

pub use socket::SocketClient;
pub use upgrade::{HandshakeEnd, UpgradeError};

use std::sync::Arc;

use crate::calls::RequestId;
use crate::config::Config;
use crate::error::{Fallback, RequestError};
use crate::mem::fork::NotInForks;
use crate::shm::ShmClient;
use crate::stats::slot::{SlotFacts, SlotWriter};
use crate::wire::handshake::ClientHandshake;

/// Longest path a socket address takes: `sun_path` less its final zero.
pub(crate) const MAX_PATH_BYTES: usize = 107;

/// What carries the requests of a [`Synapse`].
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per connection, and the fast one must not cost a pointer"
)]
#[non_exhaustive]
pub enum Transport {
    /// Frames over the Unix socket.
    Socket(SocketClient),
    /// Records in shared memory.
    Shm(ShmClient),
    /// In the middle of changing from one to the other; never seen from outside unless that panicked.
    #[doc(hidden)]
    Changing,
}

/// A client connection. One request/response stream: `&mut self`, may move between threads, is not shared.
///
/// Dropping it closes the connection. Requests in flight are abandoned: whether the server carries them out is not known.
pub struct Synapse {
    /// Before the socket: dropped first.
    _not_in_forks: NotInForks,
    transport: Transport,
    handshake: ClientHandshake,
    slot: Arc<SlotWriter>,
    facts: SlotFacts,
    config: Config,
    max_message: usize,
}

impl std::fmt::Debug for Synapse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Synapse")
            .field("transport", &self.transport)
            .field("connection_id", &self.facts.connection_id)
            .field("fallback", &self.facts.fallback)
            .field("max_message", &self.max_message)
            .finish()
    }
}

impl Synapse {
    /// What carries the requests.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// True on shared memory.
    pub fn is_shm(&self) -> bool {
        matches!(self.transport, Transport::Shm(_))
    }

    /// Why the connection is on the socket although shared memory was wanted.
    pub fn fallback(&self) -> Option<Fallback> {
        self.facts.fallback
    }

    /// Drawn at random by the server; joins the two sides' slots in their stats pages.
    pub fn connection_id(&self) -> u64 {
        self.facts.connection_id
    }

    /// Largest payload of a request or reply in bytes: the smaller of what the two sides are configured for.
    pub fn max_message(&self) -> usize {
        self.max_message
    }

    /// False once the connection is lost, and in a forked child: connect again. True says nothing about the server's health, see
    /// [`Self::check_alive`].
    pub fn is_usable(&self) -> bool {
        match &self.transport {
            Transport::Shm(shm) => shm.is_usable(),
            Transport::Socket(socket) => socket.is_usable(),
            Transport::Changing => false,
        }
    }

    /// Requests waiting for a reply.
    pub fn in_flight(&self) -> usize {
        match &self.transport {
            Transport::Socket(socket) => socket.in_flight(),
            Transport::Shm(shm) => shm.in_flight(),
            Transport::Changing => 0,
        }
    }

    /// Sends a request and waits for its reply, at most the configured request timeout. The reply is valid until the next call.
    ///
    /// # Errors
    /// [`RequestError`]. `Full` also if other requests are in flight: receive their replies first.
    #[inline]
    pub fn fire_bytes(&mut self, request: &[u8]) -> Result<&[u8], RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.fire_bytes(request),
            Transport::Socket(socket) => socket.fire_bytes(request),
            Transport::Changing => Err(lost()),
        }
    }

    /// Sends a request without waiting for its reply.
    ///
    /// # Errors
    /// [`RequestError`]; after `Full` nothing was sent: receive a reply, then try again.
    #[inline]
    pub fn submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.submit(request),
            Transport::Socket(socket) => socket.submit(request),
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::submit`], but a sleeping server is woken only by the next call that is not `queue`: for many requests at once, followed
    /// by a call that receives or by [`Self::notify`].
    ///
    /// # Errors
    /// As [`Self::submit`].
    #[inline]
    pub fn queue(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.queue(request),
            Transport::Socket(socket) => socket.submit(request),
            Transport::Changing => Err(lost()),
        }
    }

    /// Wakes the server, if it sleeps, for what was [`queue`](Self::queue)d.
    #[inline]
    pub fn notify(&mut self) {
        if let Transport::Shm(shm) = &mut self.transport {
            shm.notify();
        }
    }

    /// Waits for the next reply, at most the configured request timeout. Replies come in the order of submission. The slice is
    /// valid until the next call.
    ///
    /// # Errors
    /// [`RequestError`]; after `Timeout` and `Remote` the connection is as good as before.
    #[inline]
    pub fn receive(&mut self) -> Result<(RequestId, &[u8]), RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.receive(),
            Transport::Socket(socket) => socket.receive(),
            Transport::Changing => Err(lost()),
        }
    }

    /// The next reply if it is there already. To learn that the server is gone, call [`Self::receive`] or [`Self::check_alive`] now and then.
    ///
    /// # Errors
    /// As [`Self::receive`], without `Timeout`.
    #[inline]
    pub fn try_receive(&mut self) -> Result<Option<(RequestId, &[u8])>, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.try_receive(),
            Transport::Socket(socket) => socket.try_receive(),
            Transport::Changing => Err(lost()),
        }
    }

    /// Gives up all requests in flight: their replies will be discarded and counted as late. Returns how many.
    pub fn cancel_all(&mut self) -> usize {
        match &mut self.transport {
            Transport::Shm(shm) => shm.cancel_all(),
            Transport::Socket(socket) => socket.cancel_all(),
            Transport::Changing => 0,
        }
    }

    /// Checks that the server still holds its end. For callers that only ever use [`Self::try_receive`].
    ///
    /// # Errors
    /// [`RequestError::Disconnected`] if not.
    pub fn check_alive(&mut self) -> Result<(), RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.check_alive(),
            Transport::Socket(socket) => socket.check_alive(),
            Transport::Changing => Err(lost()),
        }
    }
}

impl AsMut<Synapse> for Synapse {
    fn as_mut(&mut self) -> &mut Synapse {
        self
    }
}

fn lost() -> RequestError {
    RequestError::Disconnected {
        reason: crate::error::Lost::PeerGone,
        in_flight: 0,
    }
}
