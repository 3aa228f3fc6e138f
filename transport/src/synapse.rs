//! A client's connection: over the Unix socket at first, upgraded to shared memory if it can be had.
//!
//! Which calls go where is decided in [`Transport`]; the handshake is `wire::drive`'s. A connection that is lost stays lost: whether to
//! connect again, and what to do about requests whose outcome is unknown, only the caller can decide.

mod page;
mod socket;

pub use socket::SocketClient;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket, sockopt};

use crate::calls::{Calls, RequestId};
use crate::clock;
use crate::config::{Config, TransportChoice};
use crate::error::{CloseReason, ConnectError, Fallback, RequestError, Step};
use crate::layout;
use crate::mem::mapping::Mapping;
use crate::mem::{StepError, memfd};
use crate::shm::{Rings, ShmClient};
use crate::stats::Via;
use crate::stats::slot::{SlotFacts, SlotWriter};
use crate::wait::policy::Waiter;
use crate::wire::drive::{self, Upgraded};
use crate::wire::fdpass;
use crate::wire::handshake::{ClientHandshake, Ending};
use crate::wire::messages::{Hello, Name, Offer};

/// Longest path a socket address takes: `sun_path` less its final zero.
pub(crate) const MAX_PATH_BYTES: usize = 107;

/// What carries the requests of a [`Synapse`].
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one per connection, and the fast one must not cost a pointer"
)]
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
#[derive(Debug)]
pub struct Synapse {
    transport: Transport,
    handshake: ClientHandshake,
    slot: Arc<SlotWriter>,
    facts: SlotFacts,
    config: Config,
    max_message: usize,
}

/// What became of mapping an offer.
struct Mapped {
    rings: Rings,
    inode: u64,
}

impl Synapse {
    /// Connects to the server at `path`, and upgrades to shared memory unless the configuration says socket. With
    /// [`TransportChoice::Auto`] a failed upgrade is no error: the connection works over the socket, and [`Self::fallback`] says why.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing is left behind then. Takes at most a few times the handshake timeout.
    pub fn connect(path: impl AsRef<Path>, config: &Config) -> Result<Self, ConnectError> {
        config.check()?;
        clock::init();
        let path = path.as_ref();
        let timeout = config.handshake_timeout;
        let stream = open(path, config)?;
        let hello = Hello {
            pid: std::process::id(),
            wait_policy: config.wait.number(),
            features: 0,
            ring_bytes: config.ring_bytes as u64,
            max_message: config.max_message_bytes as u64,
            transport: config.transport,
            name: Name::new(&config.name),
        };
        let (handshake, welcome) = drive::connect(&stream, hello, layout::LAYOUT, timeout)
            .map_err(|e| refused(e, path, config))?;
        let peer = fdpass::peer_credentials(&stream).map_err(|source| ConnectError::Io {
            step: Step::Handshake,
            source,
        })?;
        let max_message = welcome.max_message as usize;
        let slot = Arc::new(page::slot(path, config));
        let wanted = if config.transport == TransportChoice::Socket {
            Via::Socket
        } else {
            Via::Shm
        };
        let facts = SlotFacts {
            connection_id: welcome.connection_id,
            client_number: welcome.client_number,
            wanted,
            peer_pid: peer.pid,
            peer_uid: peer.uid,
            peer_start_ticks: fdpass::start_ticks(peer.pid).unwrap_or(0),
            peer_name: welcome.name.to_string(),
            tid: nix::unistd::gettid().as_raw().unsigned_abs(),
            wait_policy: config.wait,
            max_message: welcome.max_message,
            ..SlotFacts::default()
        };
        slot.publish_info(&facts);
        let socket = SocketClient::new(
            stream,
            Calls::new(),
            max_message,
            config.request_timeout,
            Arc::clone(&slot),
        );
        let mut synapse = Self {
            transport: Transport::Socket(socket),
            handshake,
            slot,
            facts,
            config: config.clone(),
            max_message,
        };
        if wanted == Via::Shm {
            match synapse.try_upgrade_to_shm() {
                Ok(()) => {}
                Err(UpgradeError::Fallback(why)) if config.transport == TransportChoice::Shm => {
                    return Err(ConnectError::NoSharedMemory(why));
                }
                Err(UpgradeError::Fallback(_)) => {}
                Err(UpgradeError::Lost(ending)) => return Err(refused(ending, path, config)),
                Err(UpgradeError::Busy { .. }) => unreachable!("nothing was submitted yet"),
            }
        } else {
            synapse.facts.open = true;
            synapse.slot.publish_info(&synapse.facts);
        }
        Ok(synapse)
    }

    /// Tries to move the connection to shared memory: at connecting, or again later when what stood in the way may be gone.
    /// `Ok` too if it is there already.
    ///
    /// # Errors
    /// [`UpgradeError::Fallback`]: it stays on the socket and works. [`UpgradeError::Busy`]: receive what is in flight first.
    /// [`UpgradeError::Lost`]: in doubt, so the connection is closed.
    pub fn try_upgrade_to_shm(&mut self) -> Result<(), UpgradeError> {
        let socket = match std::mem::replace(&mut self.transport, Transport::Changing) {
            Transport::Socket(socket) => socket,
            other => {
                self.transport = other;
                return Ok(());
            }
        };
        if socket.unanswered() > 0 {
            let in_flight = socket.unanswered();
            self.transport = Transport::Socket(socket);
            return Err(UpgradeError::Busy { in_flight });
        }
        let map = |fd: std::os::fd::OwnedFd, offer: &Offer| map_offer(fd, offer, self.max_message);
        let timeout = self.config.handshake_timeout;
        match drive::upgrade(socket.stream(), &mut self.handshake, timeout, map) {
            Ok(Upgraded::Shm(Mapped { rings, inode }, offer)) => {
                let (stream, calls) = socket.into_parts();
                self.facts.open = true;
                self.facts.transport = Via::Shm;
                self.facts.fallback = None;
                self.facts.tx_capacity = offer.client_to_server_bytes;
                self.facts.rx_capacity = offer.server_to_client_bytes;
                self.facts.ring_inode = inode;
                self.slot.publish_info(&self.facts);
                self.transport = Transport::Shm(ShmClient::new(
                    rings,
                    stream,
                    calls,
                    self.max_message,
                    Waiter::new(self.config.wait),
                    self.config.request_timeout,
                    Arc::clone(&self.slot),
                ));
                Ok(())
            }
            Ok(Upgraded::Socket(why)) => {
                self.transport = Transport::Socket(socket);
                self.facts.open = true;
                self.facts.fallback = Some(why);
                self.slot.publish_info(&self.facts);
                Err(UpgradeError::Fallback(why))
            }
            Err(ending) => {
                let mut socket = socket;
                socket.give_up(CloseReason::Handshake);
                self.transport = Transport::Socket(socket);
                Err(UpgradeError::Lost(ending.into()))
            }
        }
    }

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

    /// Sends all requests, pipelined as far as the connection allows, and calls `on_reply` with each one's index and reply, in order.
    ///
    /// # Errors
    /// The first error. Requests then still in flight are given up; how many replies came before tells `on_reply`.
    pub fn fire_batch<R: AsRef<[u8]>>(
        &mut self,
        requests: &[R],
        mut on_reply: impl FnMut(usize, &[u8]),
    ) -> Result<(), RequestError> {
        if self.in_flight() > 0 {
            return Err(RequestError::Full {
                in_flight: self.in_flight(),
            });
        }
        let result = self.run_batch(requests, &mut on_reply);
        if result.is_err() {
            self.cancel_all();
        }
        result
    }

    fn run_batch<R: AsRef<[u8]>>(
        &mut self,
        requests: &[R],
        on_reply: &mut impl FnMut(usize, &[u8]),
    ) -> Result<(), RequestError> {
        let (mut sent, mut answered) = (0, 0);
        while answered < requests.len() {
            while sent < requests.len() {
                match self.submit(requests[sent].as_ref()) {
                    Ok(_) => sent += 1,
                    Err(RequestError::Full { .. }) if sent > answered => break,
                    Err(error) => return Err(error),
                }
                while let Some((_, reply)) = self.try_receive()? {
                    on_reply(answered, reply);
                    answered += 1;
                }
            }
            if answered < sent {
                let (_, reply) = self.receive()?;
                on_reply(answered, reply);
                answered += 1;
            }
        }
        Ok(())
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

fn lost() -> RequestError {
    RequestError::Disconnected {
        reason: crate::error::Lost::PeerGone,
        in_flight: 0,
    }
}

/// Why [`Synapse::try_upgrade_to_shm`] did not change the transport.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// Shared memory can't be had; the connection works on over the socket.
    #[error("shared memory can't be had: {0}")]
    Fallback(Fallback),
    /// Requests are in flight; receive their replies first.
    #[error("{in_flight} request(s) in flight: receive their replies before upgrading")]
    Busy {
        /// How many, given-up ones included.
        in_flight: usize,
    },
    /// The connection ended on the way.
    #[error("connection lost during the upgrade: {0}")]
    Lost(HandshakeEnd),
}

/// How a handshake ended; prints as a sentence.
#[derive(Clone, Copy, Debug)]
pub struct HandshakeEnd(Ending);

impl std::fmt::Display for HandshakeEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Ending> for HandshakeEnd {
    fn from(ending: Ending) -> Self {
        Self(ending)
    }
}

impl From<HandshakeEnd> for Ending {
    fn from(end: HandshakeEnd) -> Self {
        end.0
    }
}

/// Validates and maps what the server sent. The descriptor is closed on return: mapped, it is not needed.
fn map_offer(
    fd: std::os::fd::OwnedFd,
    offer: &Offer,
    max_message: usize,
) -> Result<Mapped, StepError> {
    use std::os::fd::AsFd;
    memfd::validate(fd.as_fd(), offer.total_bytes)?;
    let mapping = Arc::new(Mapping::shared(fd.as_fd(), offer.total_bytes as usize)?);
    if offer.client_to_server_bytes != offer.server_to_client_bytes {
        // The protocol allows it; this version makes and takes rings of one size.
        return Err(StepError {
            limit: offer.client_to_server_bytes,
            used: offer.server_to_client_bytes,
            ..StepError::new(Step::Validate, 0)
        });
    }
    memfd::close(fd.as_fd())?;
    let inode = nix::sys::stat::fstat(&fd).map_or(0, |s| s.st_ino);
    Ok(Mapped {
        rings: Rings::client(&mapping, offer.client_to_server_bytes as usize, max_message),
        inode,
    })
}

/// `connect()` with a limit in time: a server that is stopped, or whose accept queue is full, would block it for ever.
fn open(path: &Path, config: &Config) -> Result<UnixStream, ConnectError> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    let length = path.as_os_str().as_bytes().len();
    if length > MAX_PATH_BYTES {
        return Err(ConnectError::PathTooLong {
            path: path.into(),
            length,
            limit: MAX_PATH_BYTES,
        });
    }
    let io = |step| {
        move |e: nix::errno::Errno| ConnectError::Io {
            step,
            source: e.into(),
        }
    };
    let address = UnixAddr::new(path).map_err(io(Step::Connect))?;
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(io(Step::Socket))?;
    // For a Unix socket, the send timeout is also how long connect() waits for a place in the accept queue.
    let timeout = nix::sys::time::TimeVal::new(
        config.handshake_timeout.as_secs().min(3600) as i64,
        i64::from(config.handshake_timeout.subsec_micros().max(1)),
    );
    nix::sys::socket::setsockopt(&fd, sockopt::SendTimeout, &timeout).map_err(io(Step::Socket))?;
    loop {
        return match connect(fd.as_raw_fd(), &address) {
            Ok(()) => Ok(UnixStream::from(fd)),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(e @ (nix::errno::Errno::ENOENT | nix::errno::Errno::ECONNREFUSED)) => {
                Err(ConnectError::NoServer {
                    path: path.into(),
                    source: e.into(),
                })
            }
            Err(nix::errno::Errno::EAGAIN) => Err(ConnectError::Unresponsive {
                path: path.into(),
                step: Step::Connect,
                timeout: config.handshake_timeout,
                source: nix::errno::Errno::EAGAIN.into(),
            }),
            Err(e) => Err(io(Step::Connect)(e)),
        };
    }
}

/// A handshake's end as an error of connecting.
fn refused(ending: impl Into<Ending>, path: &Path, config: &Config) -> ConnectError {
    match ending.into() {
        Ending::Timeout => ConnectError::Unresponsive {
            path: path.into(),
            step: Step::Handshake,
            timeout: config.handshake_timeout,
            source: std::io::ErrorKind::TimedOut.into(),
        },
        Ending::Failed(e) => ConnectError::Io {
            step: e.step,
            source: std::io::Error::from_raw_os_error(e.errno),
        },
        other => ConnectError::Refused {
            reason: other.to_string(),
        },
    }
}
