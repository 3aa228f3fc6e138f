//! Connecting: the socket within a limit of time, the handshake, the first try at shared memory.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::upgrade::UpgradeError;
use super::{SocketClient, Synapse, Transport, page};
use crate::calls::Calls;
use crate::clock;
use crate::config::{Config, TransportChoice};
use crate::error::{ConnectError, Step};
use crate::layout;
use crate::limits::MAX_PATH_BYTES;
use crate::mem::fork::{NotInForks, Owner};
use crate::process::start_ticks;
use crate::stats::Via;
use crate::stats::slot::SlotFacts;
use crate::wire::drive;
use crate::wire::edge::Deadline;
use crate::wire::fdpass;
use crate::wire::frame::Decoder;
use crate::wire::handshake::Ending;
use crate::wire::messages::{Hello, Name};

impl Synapse {
    /// Connects to the server at `path`, and upgrades to shared memory unless the configuration says socket. With
    /// [`TransportChoice::Auto`] a failed upgrade is no error: the connection works over the socket, and [`Self::fallback`] says why.
    ///
    /// # Errors
    /// [`ConnectError`]; nothing is left behind then. Takes at most a few times the handshake timeout.
    pub fn connect(path: impl AsRef<Path>, config: &Config) -> Result<Self, ConnectError> {
        Self::connect_counting_from(1, path.as_ref(), config)
    }

    /// The same, with `first`, which is not 0, as the first request's id.
    pub(crate) fn connect_counting_from(
        first: u64,
        path: &Path,
        config: &Config,
    ) -> Result<Self, ConnectError> {
        config.check()?;
        clock::init();
        let timeout = config.handshake_timeout;
        let (stream, not_in_forks) = open(path, config)?;
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
        // At most what was asked for, and that is bounded by the configuration, far below 4 GiB.
        let decoder = Decoder::new(max_message as u32).ok_or_else(|| ConnectError::Io {
            step: Step::Mmap,
            source: Errno::ENOMEM.into(),
        })?;
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
            peer_start_ticks: start_ticks(peer.pid).unwrap_or(0),
            peer_name: welcome.name.to_string(),
            tid: nix::unistd::gettid().as_raw().unsigned_abs(),
            wait_policy: config.wait,
            max_message: welcome.max_message,
            ..SlotFacts::default()
        };
        slot.publish_info(&facts);
        let socket = SocketClient::new(
            stream,
            Calls::starting_at(first),
            decoder,
            max_message,
            config.request_timeout,
            Arc::clone(&slot),
        );
        let mut synapse = Self {
            _not_in_forks: not_in_forks,
            transport: Transport::Socket(socket),
            handshake,
            slot,
            facts,
            config: config.clone(),
            max_message,
            owner: Owner::this(),
        };
        if wanted == Via::Shm {
            match synapse.try_upgrade_to_shm() {
                Ok(()) => {}
                Err(UpgradeError::Fallback(why)) if config.transport == TransportChoice::Shm => {
                    return Err(ConnectError::NoSharedMemory(why));
                }
                Err(UpgradeError::Fallback(_)) => {}
                Err(UpgradeError::Lost(ending)) => return Err(refused(ending, path, config)),
                Err(UpgradeError::Busy { .. } | UpgradeError::Forked) => {
                    unreachable!("nothing was submitted yet, and this is who connected")
                }
            }
        } else {
            synapse.facts.open = true;
            synapse.slot.publish_info(&synapse.facts);
        }
        Ok(synapse)
    }
}

/// `connect()` with a limit in time: a server that is stopped, or whose accept queue is full, would block it for ever.
fn open(path: &Path, config: &Config) -> Result<(UnixStream, NotInForks), ConnectError> {
    use std::os::fd::AsRawFd;
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(ConnectError::NoPath { path: path.into() });
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Err(ConnectError::PathTooLong {
            path: path.into(),
            length: bytes.len(),
            limit: MAX_PATH_BYTES,
        });
    }
    let io = |step| {
        move |e: Errno| ConnectError::Io {
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
    // Before connect, which may take its time: a fork made meanwhile would keep the connection when we have gone.
    let not_in_forks = NotInForks::new(&fd);
    let deadline = Deadline::after(config.handshake_timeout);
    loop {
        // For a Unix socket, the send timeout is also how long connect() waits for a place in the accept queue. Set anew after a signal:
        // the wait begins anew, and signals must not prolong it.
        let left = deadline.left();
        let timeout = TimeVal::new(
            left.as_secs().min(3600) as i64,
            i64::from(left.subsec_micros().max(1)),
        );
        setsockopt(&fd, sockopt::SendTimeout, &timeout).map_err(io(Step::Socket))?;
        return match connect(fd.as_raw_fd(), &address) {
            Ok(()) => Ok((UnixStream::from(fd), not_in_forks)),
            Err(Errno::EINTR) => continue,
            Err(e @ (Errno::ENOENT | Errno::ECONNREFUSED)) => Err(ConnectError::NoServer {
                path: path.into(),
                source: e.into(),
            }),
            Err(e @ (Errno::EACCES | Errno::EPERM)) => Err(ConnectError::Denied {
                path: path.into(),
                source: e.into(),
            }),
            Err(Errno::EAGAIN) => Err(ConnectError::Unresponsive {
                path: path.into(),
                step: Step::Connect,
                timeout: config.handshake_timeout,
                source: Errno::EAGAIN.into(),
            }),
            Err(e) => Err(io(Step::Connect)(e)),
        };
    }
}

/// A handshake's end as an error of connecting.
fn refused(ending: impl Into<Ending>, path: &Path, config: &Config) -> ConnectError {
    let ending = ending.into();
    match (ending.refusal(), ending) {
        (Some(reason), _) => ConnectError::Refused { reason },
        (None, Ending::Failed(e)) => ConnectError::Io {
            step: e.step,
            source: std::io::Error::from_raw_os_error(e.errno),
        },
        (None, _) => ConnectError::Unresponsive {
            path: path.into(),
            step: Step::Handshake,
            timeout: config.handshake_timeout,
            source: std::io::ErrorKind::TimedOut.into(),
        },
    }
}
