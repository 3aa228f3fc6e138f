//! For those that wait for many connections, or for descriptors: the same few calls on either transport. Public is what an event loop of the caller's
//! needs: a descriptor, and to have it made readable.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Synapse, Transport, lost};
use crate::calls::RequestId;
use crate::error::RequestError;
#[cfg(feature = "tokio")]
use crate::stats::recorder::bump;

impl Synapse {
    /// The descriptor that tells an event loop of yours of the next reply: poll, level-triggered epoll or the like wait for it to be readable, beside whatever
    /// else they wait for. It rings once [`Self::arm_doorbell`] has asked for that; the end of the server makes it readable in any case.
    ///
    /// For waiting only: who reads from it takes bells away from this connection, or replies, and who writes to it is thrown out by the server. It stays
    /// the same for as long as the connection lives, upgrades included; [`Reconnecting`](crate::Reconnecting) has another one after each new connection.
    ///
    /// ```no_run
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    /// use transport::{Config, Synapse};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut client = Synapse::connect("/run/quotes.sock", &Config::default())?;
    /// client.try_submit(b"price of tea?")?;
    /// while client.in_flight() > 0 {
    ///     while let Some((id, reply)) = client.try_receive()? {
    ///         println!("{id:?}: {} bytes", reply.len());
    ///     }
    ///     // False: a reply has come since that look.
    ///     if client.arm_doorbell()? {
    ///         let stdin = std::io::stdin();
    ///         let mut fds = [
    ///             PollFd::new(client.doorbell()?, PollFlags::POLLIN),
    ///             PollFd::new(std::os::fd::AsFd::as_fd(&stdin), PollFlags::POLLIN),
    ///         ];
    ///         poll(&mut fds, PollTimeout::NONE)?;
    ///         // … what was typed, with `try_submit`: `submit` would keep the loop from all else while there is no room.
    ///         client.disarm_doorbell();
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RequestError::Forked`] in a forked child, which has no socket of this connection. Not after the end: a loop finds the descriptor readable then, and
    /// [`Self::try_receive`] says why.
    pub fn doorbell(&self) -> Result<BorrowedFd<'_>, RequestError> {
        if self.is_forked() {
            return Err(RequestError::Forked);
        }
        self.fd().ok_or_else(lost)
    }

    /// As [`Self::submit`], but never waits: where that would, `Full` comes at once, and nothing was sent. (On the socket the last call, that finds the server
    /// ending, may take a millisecond to tell why.) For event loops, in which one connection whose
    /// server stands still must not keep the others waiting.
    ///
    /// After `Full`, receive what there is ([`Self::try_receive`]), be it nothing, as that also clears late replies away, and try again. Where that does not
    /// help, go on with the loop: the next reply makes room, and it rings the doorbell ([`Self::arm_doorbell`]), also if all in flight were given up.
    ///
    /// On the socket, of a request larger than the kernel's buffer only a part may go out at once: see [`Self::wants_write`].
    ///
    /// # Errors
    /// As [`Self::submit`], without `Timeout`.
    pub fn try_submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.try_submit(request),
            Transport::Socket(socket) => socket.try_submit(request),
            Transport::Changing => Err(lost()),
        }
    }

    /// Whether a part of a request that [`Self::try_submit`] took is still to be sent, which only happens on the socket. An event loop waits for
    /// [`Self::doorbell`] to be writable as well then; [`Self::try_receive`] sends on, and calls that wait do so by themselves.
    pub fn wants_write(&self) -> bool {
        match &self.transport {
            Transport::Socket(socket) => socket.wants_write(),
            Transport::Shm(_) | Transport::Changing => false,
        }
    }

    /// Has the next reply make [`Self::doorbell`] readable: to be called right before waiting for that, after [`Self::try_receive`] has found nothing. False:
    /// something is there already, be it the end; look again instead of waiting.
    ///
    /// No reply is missed: the server is told before the ring is looked at once more. Rarely it rings for a part of one, or late, for one that was found
    /// otherwise, and [`Self::try_receive`] finds nothing: arm again, and wait on. It holds until the next call on this connection; call it again before each wait. Once all
    /// that was sent is answered, be it to nobody ([`Self::cancel`]), there is nothing to ring for but the end.
    ///
    /// Waiting in a loop has no timeout of its own: [`Self::cancel`] what has taken too long. It costs the server a system call per reply that finds you
    /// waiting, and you two: to wait for a single connection, [`Self::receive`] is sooner.
    ///
    /// # Errors
    /// [`RequestError::Disconnected`], [`RequestError::Forked`].
    pub fn arm_doorbell(&mut self) -> Result<bool, RequestError> {
        // Also for replies to what was given up: they fill the ring, and a server without room for them serves nobody else.
        if self.unanswered() > 0 {
            if let Transport::Shm(shm) = &mut self.transport {
                shm.let_go();
            }
            return self.arm();
        }
        // Who does not disarm after the wait learns of the end here.
        self.disarm();
        // The page would say of an idle client that it waits for a reply.
        if self.is_forked() {
            return Err(RequestError::Forked);
        }
        self.notify();
        Ok(!self.is_ready())
    }

    /// Takes [`Self::arm_doorbell`] back, and off the descriptor what has rung: to be called after the wait, for whatever reason it ended, and whether anything
    /// was armed or not: a bell may come late. Until then the descriptor stays readable, servers ring for replies that nobody waits for, and viewers see a client
    /// that waits.
    pub fn disarm_doorbell(&mut self) {
        self.disarm();
    }

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
    pub(crate) fn disarm(&mut self) {
        if let Transport::Shm(shm) = &mut self.transport {
            shm.disarm();
        }
    }

    /// The same where [`Self::fd`] was not waited for, or not readable: no system call, but for a bell that is under way.
    pub(crate) fn withdraw(&mut self) {
        if let Transport::Shm(shm) = &mut self.transport {
            shm.withdraw();
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

    /// Gives one request up: its reply will be discarded and counted as late. One that was answered is left alone.
    pub fn cancel(&mut self, id: RequestId) {
        match &mut self.transport {
            Transport::Shm(shm) => shm.abandon(id.0),
            Transport::Socket(socket) => socket.abandon(id.0),
            Transport::Changing => {}
        }
    }
}

impl Synapse {
    /// Sends what has to go out, as far as the socket takes it. True if nothing is left. An end is not met here but where replies are looked for.
    pub(crate) fn send_on(&mut self) -> std::io::Result<bool> {
        match &mut self.transport {
            Transport::Socket(socket) => socket.send_on(),
            Transport::Shm(_) | Transport::Changing => Ok(true),
        }
    }
}

#[cfg(feature = "tokio")]
impl Synapse {
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
