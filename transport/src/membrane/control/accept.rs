//! Taking connections in: who waits at the listener, with which descriptor, and whether it may come in.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::socket::{MsgFlags, SockFlag, accept4, recv};

use super::{Control, LISTENER, reserve};
use crate::clock::monotonic_ns;
use crate::mem::fork::NotInForks;
use crate::mem::headroom;
use crate::membrane::descriptors::Wanted;
use crate::membrane::{connection, descriptors};
use crate::stats::recorder::set;
use crate::thread;
use crate::wire::drive;
use crate::wire::fdpass::{Credentials, peer_credentials};
use crate::wire::messages::Reject;

/// How long the listener is left alone when not even the reserve descriptor helps.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Accepts per round, so that a flood of connections can't keep housekeeping waiting.
const ACCEPTS_PER_ROUND: usize = 64;

impl Control {
    /// Takes in what waits in the queue.
    pub(super) fn accept(&mut self) {
        let shared = Arc::clone(&self.shared);
        let process = shared.page.process();
        let mut counted = None;
        for _ in 0..ACCEPTS_PER_ROUND {
            let returned = shared.descriptors.returned();
            match self.accept_one() {
                Ok(fd) => {
                    process.accepted.fetch_add(1, Ordering::Relaxed);
                    // SAFETY: accept4 just returned this descriptor to us, and nobody else knows it.
                    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
                    let not_in_forks = NotInForks::new(&socket);
                    self.waits_no_more();
                    self.admit(socket, not_in_forks);
                }
                Err(Errno::EAGAIN) => return self.waits_no_more(),
                // The peer gave up while it waited; the next one may not have.
                Err(Errno::ECONNABORTED | Errno::EINTR) => {}
                // accept takes a descriptor before it looks: a full table alone is no reason to hold others up, nor an error.
                Err(Errno::EMFILE | Errno::ENFILE) if !self.somebody_waits() => {
                    return self.waits_no_more();
                }
                Err(e) => {
                    if matches!(e, Errno::EMFILE | Errno::ENFILE) {
                        match self.waits_for_a_descriptor(returned) {
                            Wanted::Back => continue,
                            Wanted::OnLoan => return,
                            Wanted::Nowhere => {}
                        }
                    }
                    process.accept_errors.fetch_add(1, Ordering::Relaxed);
                    let shed = self.shed(e, &mut counted);
                    // Not before: the reserve is given up for this connection, and not for who takes descriptors on loan.
                    self.waits_no_more();
                    if !shed {
                        return;
                    }
                }
            }
        }
    }

    fn accept_one(&self) -> nix::Result<RawFd> {
        match &self.listener {
            Some(listener) => accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC),
            None => Err(Errno::EAGAIN),
        }
    }

    /// Takes the listener out of the epoll set.
    pub(super) fn go_deaf(&self) {
        if let Some(listener) = &self.listener {
            // ENOENT if it is out already.
            let _ = self.shared.epoll.delete(listener);
        }
    }

    /// accept found no descriptor, after so many had come back. If one is on loan, the connection stays in the queue for a
    /// while. A listener that epoll reports all the time would keep this thread spinning.
    fn waits_for_a_descriptor(&mut self, returned: u64) -> Wanted {
        let now_ns = monotonic_ns();
        let patience_ns = descriptors::PATIENCE.as_nanos() as u64;
        if self.waits_since_ns != 0 && now_ns - self.waits_since_ns > patience_ns {
            return Wanted::Nowhere;
        }
        let wanted = self.shared.descriptors.accept_waits(returned);
        if wanted == Wanted::OnLoan && self.waits_since_ns == 0 {
            self.waits_since_ns = now_ns;
            self.go_deaf();
        }
        wanted
    }

    fn waits_no_more(&mut self) {
        if std::mem::take(&mut self.waits_since_ns) != 0 {
            self.shared.descriptors.accept_goes_on();
            if self.deaf_until_ns == 0 {
                // Back into the set right now; or at the next tick if that fails, or if `shed` wants it left alone.
                self.deaf_until_ns = 1;
            }
            self.hear_again(monotonic_ns());
        }
    }

    /// Whether a connection is in the queue.
    fn somebody_waits(&self) -> bool {
        let Some(listener) = &self.listener else {
            return false;
        };
        let mut listener = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        // An error tells nothing: then accept's word counts.
        poll(&mut listener, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
    }

    /// Takes the listener back into the epoll set once its time has come.
    pub(super) fn hear_again(&mut self, now_ns: u64) {
        if self.deaf_until_ns != 0 && now_ns >= self.deaf_until_ns {
            self.deaf_until_ns = 0;
            let event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
            // ENOMEM, ENOSPC: try again at the next tick.
            if let Some(listener) = &self.listener
                && self.shared.epoll.add(listener, event).is_err()
            {
                self.deaf_until_ns = now_ns + ACCEPT_BACKOFF.as_nanos() as u64;
            }
        }
    }

    /// Descriptors (or memory) have run out: accepts one connection on the reserve and refuses it. False if that did not help:
    /// then the listener is left alone for a while, rather than asked again and again at full speed.
    ///
    /// `counted`: limit and use of the full table, counted once in a round, since counting takes a system call for each number.
    fn shed(&mut self, errno: Errno, counted: &mut Option<(Errno, (u64, u64))>) -> bool {
        if matches!(errno, Errno::EMFILE | Errno::ENFILE) && self.reserve.take().is_some() {
            let accepted = self.accept_one();
            if let Ok(fd) = accepted {
                // SAFETY: as in `accept`.
                let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
                if let Ok(peer) = peer_credentials(&socket) {
                    let process = self.shared.page.process();
                    set(&process.last_rejected_uid, peer.uid.into());
                    set(&process.last_rejected_pid, peer.pid.into());
                }
                let (limit, used) = match *counted {
                    Some((of, numbers)) if of == errno => numbers,
                    _ => {
                        counted
                            .insert((errno, headroom::full_table(errno as i32)))
                            .1
                    }
                };
                drive::turn_away(socket, Reject::Descriptors, limit, used);
            }
            self.reserve = reserve();
            match accepted {
                Ok(_) => return true,
                // Nobody waits any more.
                Err(Errno::EAGAIN) if self.reserve.is_some() => return false,
                Err(_) => {}
            }
        }
        self.go_deaf();
        self.deaf_until_ns = monotonic_ns() + ACCEPT_BACKOFF.as_nanos() as u64;
        false
    }

    /// Checks who it is and how many there are, then leaves the handshake to a thread of its own. Who is not admitted is
    /// told so at once, without a thread and without taking anybody's place.
    fn admit(&mut self, socket: UnixStream, not_in_forks: NotInForks) {
        let (shared, config) = (&self.shared, &self.shared.config);
        // Without credentials nobody is let in; the peer is gone then, most likely.
        let Ok(peer) = peer_credentials(&socket) else {
            return;
        };
        let socket = Arc::new(socket);
        // After the socket, and so dropped before it.
        let not_in_forks = not_in_forks;
        let mut table = shared.clients.lock();
        // Whoever comes and goes while a handler is busy must not pile up behind it.
        let clients = table.held();
        let (_, pending) = table.pending(peer.uid);
        let own = nix::unistd::geteuid().as_raw();
        let refused = if !shared.users.admits(peer.uid, own) {
            Some((Reject::Uid, 0, peer.uid.into()))
        } else if clients >= config.max_clients {
            Some((Reject::Full, config.max_clients, clients as u64))
        } else if pending >= config.max_pending_per_uid {
            Some((Reject::Pending, config.max_pending_per_uid, pending as u64))
        } else {
            None
        };
        if let Some((reason, limit, used)) = refused {
            drop(table);
            // A server that was stopped finds a queue of those who have given up meanwhile. Nobody is refused there.
            if reason != Reject::Uid && has_left(&socket) {
                return;
            }
            return self.refuse(&socket, peer, reason, limit as u64, used);
        }
        let (key, number) =
            table.insert(peer.uid, Arc::clone(&socket), not_in_forks, monotonic_ns());
        drop(table);
        let thread = {
            let (shared, socket) = (Arc::clone(shared), Arc::clone(&socket));
            thread::start(format!("shm-client-{number}"), shared.blocked, move || {
                connection::handle_connection(&shared, key, number, peer, &socket);
            })
        };
        match thread {
            Ok(thread) => drop(self.threads.insert(key, thread)),
            Err(_) => {
                shared.clients.lock().by_key.remove(&key);
                self.refuse(&socket, peer, Reject::Resources, 0, 0);
            }
        }
    }

    /// Says no at once.
    fn refuse(
        &self,
        socket: &UnixStream,
        peer: Credentials,
        reason: Reject,
        limit: u64,
        used: u64,
    ) {
        connection::count_reject(&self.shared, peer, Some(reason));
        drive::turn_away(socket, reason, limit, used);
    }
}

/// Whether the other side has closed without having said a word.
fn has_left(socket: &UnixStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    matches!(
        recv(socket.as_raw_fd(), &mut [0], flags),
        Ok(0) | Err(Errno::ECONNRESET)
    )
}
