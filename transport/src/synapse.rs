//! A client's connection: over the Unix socket at first, upgraded to shared memory if it can be had.
//!
//! Which calls go where is decided in [`Transport`]; the handshake is `wire::drive`'s. A connection that is lost stays lost: whether to
//! connect again, and what to do about requests whose outcome is unknown, only the caller can decide.

mod batch;
mod connect;
mod doorbell;
mod into;
mod page;
mod socket;
mod upgrade;

pub use socket::SocketClient;
pub use upgrade::{HandshakeEnd, UpgradeError};

use std::sync::Arc;

use crate::calls::RequestId;
use crate::config::Config;
use crate::error::{Fallback, RequestError};
use crate::mem::fork::{NotInForks, Owner};
use crate::peer::ServerPeer;
use crate::shm::ShmClient;
use crate::stats::slot::{SlotFacts, SlotWriter};
use crate::wire::handshake::ClientHandshake;

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

/// A client's connection to a [`Membrane`](crate::Membrane).
///
/// One thread uses it at a time (every call takes `&mut self`); it may move between threads. Replies come in the order in which requests were
/// sent. Once it is lost it stays lost, and every call says so: connect again, or use [`Reconnecting`](crate::Reconnecting).
///
/// A call that blocks is ended by its reply, by [`Config::request_timeout`] or a limit of its own ([`Self::fire_bytes_within`]), or by the end of the
/// server: not by a signal, nor by another thread.
///
/// Dropping it closes the connection. Requests in flight are abandoned: whether the server carries them out is not known. A process that ends
/// without dropping it (it stands in a `static`, [`std::process::exit`], a signal that nobody handles) looks as if it had been killed:
/// `shmtop check` counts a death.
///
/// ```no_run
/// use transport::{Config, Synapse};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = Synapse::connect("/run/user/1000/quotes.sock", &Config::default())?;
/// // One at a time …
/// println!("{} bytes", client.fire_bytes(b"price of tea?")?.len());
/// // … or several in flight.
/// for n in 0u64..8 {
///     client.submit(&n.to_le_bytes())?;
/// }
/// while client.in_flight() > 0 {
///     let (id, reply) = client.receive()?;
///     println!("{id:?}: {} bytes", reply.len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Synapse {
    /// Before the socket: dropped first.
    _not_in_forks: NotInForks,
    transport: Transport,
    handshake: ClientHandshake,
    slot: Arc<SlotWriter>,
    facts: SlotFacts,
    config: Config,
    max_message: usize,
    /// Who connected.
    owner: Owner,
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
    /// What carries the requests: shared memory or the socket.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    #[inline]
    pub(crate) fn transport_mut(&mut self) -> &mut Transport {
        &mut self.transport
    }

    /// True on shared memory.
    pub fn is_shm(&self) -> bool {
        matches!(self.transport, Transport::Shm(_))
    }

    /// Why the connection is on the socket although shared memory was wanted: the step that failed, its errno and the limit in the way. `None` on
    /// shared memory, and where the socket was asked for.
    pub fn fallback(&self) -> Option<Fallback> {
        self.facts.fallback
    }

    /// Who the server is. In a directory where anybody may make files, such as `/tmp`, anybody may be: a client that minds looks here before it
    /// sends, since there is no setting for it.
    pub fn peer(&self) -> ServerPeer {
        ServerPeer {
            pid: self.facts.peer_pid,
            uid: self.facts.peer_uid,
        }
    }

    /// Identifies this connection in the stats pages of both sides. Drawn at random by the server.
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

    /// Number of requests that wait for their reply, at most [`MAX_IN_FLIGHT`](crate::MAX_IN_FLIGHT).
    pub fn in_flight(&self) -> usize {
        match &self.transport {
            Transport::Socket(socket) => socket.in_flight(),
            Transport::Shm(shm) => shm.in_flight(),
            Transport::Changing => 0,
        }
    }

    /// The id that the next request gets; `None` where that can't be known any more.
    pub(crate) fn upcoming_id(&self) -> Option<u64> {
        match &self.transport {
            Transport::Socket(socket) => Some(socket.upcoming_id()),
            Transport::Shm(shm) => Some(shm.upcoming_id()),
            Transport::Changing => None,
        }
    }

    /// Sends a request and blocks until its reply is there, for at most [`Config::request_timeout`].
    ///
    /// A request has 0 to [`Self::max_message`] bytes. The reply is a private copy, valid until the next call. Nothing is allocated.
    ///
    /// # Errors
    /// [`RequestError`]. With other requests in flight it is `Full`, and nothing was sent: receive their replies first. After `Timeout` and
    /// `Remote` the connection goes on; a reply that comes after its `Timeout` is discarded.
    #[inline]
    pub fn fire_bytes(&mut self, request: &[u8]) -> Result<&[u8], RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.fire_bytes(request),
            Transport::Socket(socket) => socket.fire_bytes(request),
            Transport::Changing => Err(lost()),
        }
    }

    /// Sends a request without waiting for its reply: [`Self::receive`] returns it. While the ring is full this blocks, for at most
    /// [`Config::request_timeout`].
    ///
    /// # Errors
    /// [`RequestError`]. After `Full` nothing was sent: receive a reply, then try again. `Timeout`, on the socket only: the server took a part of
    /// a request larger than the kernel's buffer and then stood still; it is given up as one of [`Self::fire_bytes`] is.
    #[inline]
    pub fn submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.submit(request),
            Transport::Socket(socket) => socket.submit(request),
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::submit`], but does not wake a server that sleeps: that is left to the next call that receives or submits, or to
    /// [`Self::notify`]. For many requests at once, of which only the last has to look whether the server sleeps. [`Self::try_receive`] is certain to wake it
    /// once it finds nothing: who works on a reply before that calls [`Self::notify`] first.
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

    /// Blocks until the next reply is there, for at most [`Config::request_timeout`]. Replies come in the order of submission. The slice is a
    /// private copy, valid until the next call.
    ///
    /// # Errors
    /// [`RequestError`]: `NothingInFlight` if no reply is waited for. After `Timeout` and `Remote` the connection goes on.
    #[inline]
    pub fn receive(&mut self) -> Result<(RequestId, &[u8]), RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.receive(),
            Transport::Socket(socket) => socket.receive(),
            Transport::Changing => Err(lost()),
        }
    }

    /// Returns the next reply if it is there, without waiting. It looks at the ring only: call [`Self::check_alive`] now and then to learn that
    /// the server is gone.
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

    /// Gives up all requests in flight, and returns how many. The server may still carry them out; their replies are discarded and counted as late.
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
    /// [`RequestError::Disconnected`] if not, once the replies are received that came before the end.
    pub fn check_alive(&mut self) -> Result<(), RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.check_alive(),
            Transport::Socket(socket) => socket.check_alive(),
            Transport::Changing => Err(lost()),
        }
    }
}

impl Drop for Synapse {
    /// A fork that another thread makes between the two steps of closing keeps a copy of the socket: this ends the connection all the same.
    fn drop(&mut self) {
        self.hang_up();
    }
}

impl AsMut<Synapse> for Synapse {
    fn as_mut(&mut self) -> &mut Synapse {
        self
    }
}

pub(crate) fn lost() -> RequestError {
    RequestError::Disconnected {
        reason: crate::error::Lost::PeerGone,
        in_flight: 0,
    }
}
