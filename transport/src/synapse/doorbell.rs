//! For those that wait for many connections, or for descriptors: the same few calls on either transport.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Synapse, Transport, lost};
use crate::calls::RequestId;
use crate::error::RequestError;
use crate::shm::Drained;
#[cfg(feature = "tokio")]
use crate::stats::recorder::bump;

impl Synapse {
    /// What becomes readable when an armed doorbell rings, and when the server is gone.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.transport {
            Transport::Shm(shm) => Some(shm.fd()),
            Transport::Socket(socket) => Some(socket.fd()),
            Transport::Changing => None,
        }
    }

    /// Ends the connection for every descriptor of its socket; unless it has ended, or this is a fork's copy, and the connection its parent's.
    pub(crate) fn hang_up(&self) {
        // A child of a raw clone(2) is told by its pid alone.
        if let Some(fd) = self
            .fd()
            .filter(|_| self.is_usable() && self.owner.is_this())
        {
            // The end itself is the message; a socket that is gone already says the same.
            let _ = nix::sys::socket::shutdown(fd.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }

    /// True in a forked child, where nothing of this connection may be touched.
    #[inline]
    pub(crate) fn is_forked(&self) -> bool {
        match &self.transport {
            Transport::Shm(shm) => !shm.is_of_this_process(),
            Transport::Socket(socket) => socket.is_forked(),
            Transport::Changing => false,
        }
    }

    /// Whether a look for a reply would find one, or the end. No system call: on the socket, of what was received already.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        match &self.transport {
            Transport::Shm(shm) => shm.is_ready(),
            Transport::Socket(socket) => socket.is_ready(),
            Transport::Changing => true,
        }
    }

    /// Has the next reply make [`Self::fd`] readable. False: something is there already.
    pub(crate) fn arm(&mut self) -> Result<bool, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.arm(),
            Transport::Socket(socket) => Ok(!socket.is_ready()),
            Transport::Changing => Err(lost()),
        }
    }

    /// Takes [`Self::arm`] back, and doorbells off the socket.
    pub(crate) fn disarm(&mut self) -> Drained {
        match &mut self.transport {
            Transport::Shm(shm) => shm.disarm(),
            Transport::Socket(_) => Drained::Empty,
            Transport::Changing => Drained::Ended,
        }
    }

    /// Gives one request up: its reply will be discarded and counted as late. One that was answered is left alone.
    pub fn cancel(&mut self, id: RequestId) {
        match &mut self.transport {
            Transport::Shm(shm) => shm.abandon(id.0),
            Transport::Socket(socket) => socket.abandon(id.0),
            Transport::Changing => {}
        }
    }
}

#[cfg(feature = "tokio")]
impl Synapse {
    /// As [`Self::submit`], but where that would wait, `Full` comes at once.
    pub(crate) fn submit_now(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.submit_now(request),
            Transport::Socket(socket) => socket.submit_now(request),
            Transport::Changing => Err(lost()),
        }
    }

    /// The next reply if it is there: its id, and what it says.
    #[expect(
        clippy::type_complexity,
        reason = "one use, and names would hide that an error reply has an id"
    )]
    pub(crate) fn next_reply(
        &mut self,
    ) -> Result<Option<(u64, Result<&[u8], RequestError>)>, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.next_reply(),
            Transport::Socket(socket) => socket.next_reply(),
            Transport::Changing => Err(lost()),
        }
    }

    /// Sends what has to go out, as far as the socket takes it. True if nothing is left.
    pub(crate) fn flush(&mut self) -> Result<bool, RequestError> {
        match &mut self.transport {
            Transport::Shm(_) => Ok(true),
            Transport::Socket(socket) => socket.flush(),
            Transport::Changing => Err(lost()),
        }
    }

    /// Requests whose reply has not come, given-up ones included.
    pub(crate) fn unanswered(&self) -> usize {
        match &self.transport {
            Transport::Shm(shm) => shm.unanswered(),
            Transport::Socket(socket) => socket.unanswered(),
            Transport::Changing => 0,
        }
    }

    /// Counts a request that was not answered in time.
    pub(crate) fn book_timeout(&self) {
        bump(&self.slot.req().timeouts, 1);
    }

    /// How long a request may take.
    pub(crate) fn timeout(&self) -> std::time::Duration {
        self.config.request_timeout
    }
}

#[cfg(test)]
mod tests {
    use crate::Synapse;
    use crate::membrane::testing::{server, until};

    #[test]
    fn a_connection_that_is_dropped_has_ended_whoever_has_a_copy_of_its_socket() {
        let dir = tempfile::tempdir().expect("a directory");
        let (server, config) = server(dir.path());
        let client = Synapse::connect(server.path(), &config).expect("a client");
        // As a fork has that another thread makes in the middle of it.
        let copy = client.fd().expect("a socket").try_clone_to_owned();
        drop(client);
        until("the server learns of it", || server.clients() == 0);
        drop(copy);
    }
}
