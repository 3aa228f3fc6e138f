//! From the socket to shared memory, and why not.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::{Synapse, Transport};
use crate::error::{CloseReason, Fallback, Lost, Step};
use crate::mem::buffer::Buffer;
use crate::mem::fork::Unforked;
use crate::mem::mapping::Mapping;
use crate::mem::{StepError, headroom, memfd};
use crate::shm::{Rings, ShmClient};
use crate::stats::Via;
use crate::wait::policy::Waiter;
use crate::wire::drive::{self, Upgraded};
use crate::wire::handshake::Ending;
use crate::wire::messages::Offer;

/// Why [`Synapse::try_upgrade_to_shm`] did not change the transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// This process is a fork of the one that connected: the connection is the parent's.
    #[error("the connection belongs to the process that this one is a fork of; connect anew")]
    Forked,
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

/// What became of mapping an offer.
struct Mapped {
    rings: Rings,
    inode: u64,
    /// Where replies are copied to.
    buffer: Buffer,
}

impl Synapse {
    /// Tries to move the connection to shared memory: at connecting, or again later when what stood in the way may be gone.
    /// `Ok` too if it is there already.
    ///
    /// # Errors
    /// [`UpgradeError::Fallback`]: it stays on the socket and works. [`UpgradeError::Busy`]: receive what is in flight first.
    /// [`UpgradeError::Forked`]: in a forked child, also if it is on shared memory already. [`UpgradeError::Lost`]: in doubt, so the
    /// connection is closed.
    pub fn try_upgrade_to_shm(&mut self) -> Result<(), UpgradeError> {
        if self.is_forked() {
            return Err(UpgradeError::Forked);
        }
        let socket = match std::mem::replace(&mut self.transport, Transport::Changing) {
            Transport::Socket(socket) => socket,
            other => {
                self.transport = other;
                return Ok(());
            }
        };
        let known = match socket.lost() {
            // A farewell that was received must not turn into a crash because nobody answers any more.
            Some(Lost::Closed) => Some(UpgradeError::Lost(Ending::Bye.into())),
            Some(_) => Some(UpgradeError::Lost(Ending::PeerGone.into())),
            None => match socket.unanswered() {
                0 => None,
                in_flight => Some(UpgradeError::Busy { in_flight }),
            },
        };
        if let Some(known) = known {
            self.transport = Transport::Socket(socket);
            return Err(known);
        }
        let huge = self.config.huge_pages;
        let map =
            |fd: std::os::fd::OwnedFd, offer: &Offer| map_offer(fd, offer, self.max_message, huge);
        let timeout = self.config.handshake_timeout;
        match drive::upgrade(socket.stream(), &mut self.handshake, timeout, map) {
            Ok(Upgraded::Shm(mapped, offer)) => {
                let (stream, calls) = socket.into_parts();
                self.facts.open = true;
                self.facts.transport = Via::Shm;
                self.facts.fallback = None;
                self.facts.tx_capacity = offer.client_to_server_bytes;
                self.facts.rx_capacity = offer.server_to_client_bytes;
                self.facts.ring_inode = mapped.inode;
                self.slot.publish_info(&self.facts);
                self.transport = Transport::Shm(ShmClient::new(
                    mapped.rings,
                    stream,
                    calls,
                    mapped.buffer,
                    Waiter::of_client(self.config.wait),
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
                let lost = match ending {
                    Ending::Broken { what, .. } => Lost::BadFrame(what),
                    Ending::Bye => Lost::Closed,
                    _ => Lost::PeerGone,
                };
                socket.give_up(CloseReason::Handshake, lost);
                self.transport = Transport::Socket(socket);
                Err(UpgradeError::Lost(ending.into()))
            }
        }
    }
}

/// Validates and maps what the server sent. The descriptor is closed on return: mapped, it is not needed.
fn map_offer(
    fd: std::os::fd::OwnedFd,
    offer: &Offer,
    max_message: usize,
    huge: bool,
) -> Result<Mapped, StepError> {
    let fd = Unforked::from(fd);
    memfd::validate(fd.as_fd(), offer.total_bytes)?;
    let mapping = Arc::new(Mapping::shared(fd.as_fd(), offer.total_bytes as usize)?);
    if offer.client_to_server_bytes != offer.server_to_client_bytes {
        // The protocol allows it; this version makes and takes rings of one size.
        return Err(StepError {
            limit: offer.client_to_server_bytes,
            used: offer.server_to_client_bytes,
            ..StepError::new(Step::Layout, 0)
        });
    }
    if huge {
        // Whoever touches a page first decides; of reserved ones this is no news. What became of it is in the server's page.
        let _ = mapping.advise_huge_pages();
    }
    let Some(buffer) = Buffer::zeroed(max_message) else {
        let (limit, used) = headroom::address_space_usage();
        return Err(StepError {
            limit,
            used,
            ..StepError::new(Step::Mmap, nix::libc::ENOMEM)
        });
    };
    memfd::close(fd.as_fd())?;
    let inode = nix::sys::stat::fstat(&fd).map_or(0, |s| s.st_ino);
    Ok(Mapped {
        rings: Rings::client(&mapping, offer.client_to_server_bytes as usize, max_message),
        inode,
        buffer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RequestError;
    use crate::membrane::testing::server_and_client_on_socket;

    #[test]
    fn an_upgrade_of_a_connection_that_has_ended_says_so_and_leaves_why() {
        let dir = tempfile::tempdir().expect("a directory");
        let (server, mut client) = server_and_client_on_socket(dir.path());
        client.submit(b"one").expect("room");
        server.shutdown();
        let told = |result: Result<(), RequestError>| match result {
            Err(RequestError::Disconnected {
                reason: Lost::Closed,
                ..
            }) => {}
            other => panic!("{other:?}"),
        };
        // It may have been answered before.
        let _reply_or_end = client.receive().map(|_| ());
        told(client.check_alive());
        match client.try_upgrade_to_shm() {
            Err(UpgradeError::Lost(end)) => assert_eq!(Ending::from(end), Ending::Bye),
            other => panic!("{other:?}"),
        }
        told(client.fire_bytes(b"two").map(|_| ()));
    }
}
