//! What ends a poller's wait, and what it sleeps on.

use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::super::inbox::{Inbox, MAX_CONNECTIONS};
use super::super::server::ShmServer;
use crate::clock::monotonic_ns;
use crate::stats::recorder::set;
use crate::stats::slot::SlotWriter;
use crate::wait::Look;
use crate::wait::futex::{self, WaitWord};

/// How long a poller sleeps at most while a reply ring is full: its client rings the bell only now and then.
const BLOCKED_SLICE: Duration = Duration::from_millis(10);
/// How long a poller with connections sleeps at most on a kernel without `futex_waitv`.
const BLIND_SLICE: Duration = Duration::from_millis(1);

/// Whatever a poller can be waiting for.
pub(super) struct Anything<'a> {
    pub(super) connections: &'a mut [ShmServer],
    pub(super) inbox: &'a Inbox,
    pub(super) words: &'a mut Vec<WaitWord>,
    pub(super) seen: u32,
    pub(super) slot: &'a SlotWriter,
    /// All connections' words announce a sleep; to be taken back by the poller.
    pub(super) parked: bool,
    /// The connection whose word ended the last sleep.
    pub(super) woken: Option<usize>,
}

impl Look for Anything<'_> {
    type Found = ();

    #[inline]
    fn look(&mut self) -> Option<()> {
        let ready = self.woken.is_some_and(|i| self.connections[i].is_ready())
            || self.inbox.news().load(Ordering::Relaxed) != self.seen
            || self.connections.iter_mut().any(ShmServer::is_ready);
        ready.then_some(())
    }

    fn park(&mut self, limit: Duration) {
        if self.connections.is_empty() {
            self.park_alone(limit);
        } else {
            self.park_on_all(limit);
        }
    }

    fn tend(&mut self) -> Option<()> {
        self.connections.iter_mut().for_each(ShmServer::cross_check);
        self.look()
    }
}

impl Anything<'_> {
    /// Sleeps on the inbox's word. One needs no `futex_waitv`: without that a poller with nobody to serve still sleeps until there is news.
    fn park_alone(&mut self, limit: Duration) {
        self.woken = None;
        set(&self.slot.wait().waiting_since_ns, monotonic_ns());
        futex::wait(self.inbox.news(), self.seen, limit);
        set(&self.slot.wait().waiting_since_ns, 0);
    }

    /// Sleeps on the inbox's word and on one of each connection.
    fn park_on_all(&mut self, limit: Duration) {
        let mut limit = limit;
        self.words.clear();
        self.words.push(WaitWord::new(self.inbox.news(), self.seen));
        for connection in self.connections.iter().take(MAX_CONNECTIONS) {
            self.words.push(connection.announce_unfenced());
            if connection.is_blocked() {
                limit = limit.min(BLOCKED_SLICE);
            }
        }
        // One SeqCst fence for all announcements, so that the requests for their lines, each of which its client has, overlap. Partners: those in
        // `Producer::must_wake`, and before `Consumer::must_wake_fenced`.
        fence(Ordering::SeqCst);
        (self.parked, self.woken) = (true, None);
        fault_point!(Announced);
        if self.look().is_none() {
            set(&self.slot.wait().waiting_since_ns, monotonic_ns());
            match futex::wait_any(self.words, limit) {
                Ok(index) => self.woken = index.and_then(|i| i.checked_sub(1)),
                // No futex_waitv: sleep blindly, but briefly. Slower to wake, never deaf.
                Err(_) => std::thread::sleep(BLIND_SLICE.min(limit)),
            }
            set(&self.slot.wait().waiting_since_ns, 0);
        }
        fault_point!(Woken);
    }
}
