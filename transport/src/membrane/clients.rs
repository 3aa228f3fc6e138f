//! Who is connected: one entry per accepted connection, from accept to close.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::house::House;
use crate::mem::fork::NotInForks;
use crate::shm::{Ends, HouseView, Kept};
use crate::stats::slot::SlotWriter;

/// A connection's key: never reused, and what epoll gives back.
pub(super) type Key = u64;

/// One accepted connection.
pub(super) struct Client {
    /// Small number, from 1, reused after close.
    pub(super) number: u32,
    pub(super) uid: u32,
    /// Before the socket: dropped first.
    _not_in_forks: NotInForks,
    /// Shared with the handshake thread, and with `shutdown`, which ends whatever blocks on it.
    pub(super) socket: Arc<UnixStream>,
    /// CLOCK_MONOTONIC ns of the accept while the handshake is pending; 0 after.
    pub(super) pending_since_ns: u64,
    /// On the socket, and about to leave it.
    pub(super) upgrading: bool,
    /// Set once it is on shared memory.
    pub(super) shm: Option<ShmPart>,
}

/// What the control thread keeps of a client on shared memory.
pub(super) struct ShmPart {
    pub(super) slot: Arc<SlotWriter>,
    pub(super) view: HouseView,
    pub(super) house: House,
    pub(super) ends: Arc<Ends>,
    /// Its part of the memory budget. Last: given back after the memory.
    pub(super) _kept: Kept,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) by_key: BTreeMap<Key, Client>,
    last_key: Key,
    /// Of clients that have gone, and whose poller still holds their memory and socket: it is in a handler.
    leaving: Vec<Arc<Ends>>,
}

impl Table {
    /// Enters a connection that was just accepted.
    pub(super) fn insert(
        &mut self,
        uid: u32,
        socket: Arc<UnixStream>,
        not_in_forks: NotInForks,
        now_ns: u64,
    ) -> (Key, u32) {
        self.last_key += 1;
        let mut taken: Vec<u32> = self.by_key.values().map(|c| c.number).collect();
        taken.sort_unstable();
        let number = (1..)
            .zip(&taken)
            .find(|(n, t)| n != *t)
            .map_or(taken.len() as u32 + 1, |(n, _)| n);
        let client = Client {
            number,
            uid,
            _not_in_forks: not_in_forks,
            socket,
            pending_since_ns: now_ns,
            upgrading: false,
            shm: None,
        };
        self.by_key.insert(self.last_key, client);
        (self.last_key, number)
    }

    /// Enters one that has gone, until its poller has let go of it.
    pub(super) fn leaves(&mut self, ends: &Arc<Ends>) {
        self.leaving.push(Arc::clone(ends));
    }

    /// Connections there are, with those whose memory and socket are still held.
    pub(super) fn held(&mut self) -> usize {
        self.leaving.retain(|ends| !ends.is_over());
        self.by_key.len() + self.leaving.len()
    }

    /// Notes that a client which is on the socket leaves it, unless the server is `ending`, by now: then its socket may be shut for good.
    pub(super) fn begin_upgrade(&mut self, key: Key, ending: impl Fn() -> bool) -> bool {
        match self.by_key.get_mut(&key) {
            // Asked under the lock, which the control thread takes after it has learnt of the end, and before it shuts sockets.
            Some(client) if !ending() => {
                client.upgrading = true;
                true
            }
            _ => false,
        }
    }

    /// Whether no client has sent anything that has no answer yet, as far as can be seen; a request whose handler runs counts as answered, since
    /// no poller ends within one, and what it answers is kept for a moment if there is no room, and counted if there is none then. Who is on the socket leaves once it is served, and is
    /// waited for.
    pub(super) fn are_served(&self) -> bool {
        self.by_key.values().all(|client| {
            client.shm.as_ref().is_some_and(|shm| {
                // Relaxed: a hint. Not 0: an answer waits for room in its ring.
                let blocked = shm.slot.tx().tx_blocked_since_ns.load(Ordering::Relaxed) != 0;
                !shm.view.holds_requests() && !blocked
            })
        })
    }

    /// Handshakes under way: all, and of this user.
    pub(super) fn pending(&self, uid: u32) -> (usize, usize) {
        let pending = self.by_key.values().filter(|c| c.pending_since_ns != 0);
        pending.fold((0, 0), |(all, own), c| {
            (all + 1, own + usize::from(c.uid == uid))
        })
    }
}

/// The table, locked. Never held across a call that blocks.
pub(super) struct Clients(Mutex<Table>);

impl Clients {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections, handshakes included.
    pub(super) fn len(&self) -> usize {
        self.lock().by_key.len()
    }

    /// Connections on shared memory.
    pub(super) fn on_shm(&self) -> usize {
        self.lock()
            .by_key
            .values()
            .filter(|c| c.shm.is_some())
            .count()
    }
}
