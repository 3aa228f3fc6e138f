//! How other threads reach a poller, and a connection wherever it is served.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::server::ShmServer;
use crate::error::CloseReason;
use crate::wait::futex;

/// Connections one poller can sleep on: `futex_waitv` takes 128 words, one is the inbox's.
pub(crate) const MAX_CONNECTIONS: usize = 120;

/// How long a poller that ends keeps answers for which there is no room: as long as who answers over a socket has.
const FAREWELL: Duration = Duration::from_secs(1);

/// Places taken of an inbox whose poller has ended: more than anybody asks for, and far from where the counter ends.
const CLOSED: usize = usize::MAX / 2;

/// How others reach a poller: new connections, ended ones, those to be handed on, shutdown.
pub(crate) struct Inbox {
    /// Changes whenever there is news; the poller sleeps on it.
    news: AtomicU32,
    /// `Err`: the poller takes nobody in any more, and why.
    arrivals: Mutex<Result<Vec<ShmServer>, CloseReason>>,
    stop: AtomicBool,
    /// Connections handed over, or about to be, and not yet dropped or handed on.
    load: AtomicUsize,
    /// The CPU where its clients are, and 1; 0 = wherever the kernel puts it.
    seat: AtomicUsize,
    /// It has one client, who thinks for long between requests.
    paired: AtomicBool,
    /// How long it keeps answers at its end for which there is no room.
    farewell_ns: AtomicU64,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            news: AtomicU32::new(0),
            arrivals: Mutex::new(Ok(Vec::new())),
            stop: AtomicBool::new(false),
            load: AtomicUsize::new(0),
            seat: AtomicUsize::new(0),
            paired: AtomicBool::new(false),
            farewell_ns: AtomicU64::new(FAREWELL.as_nanos() as u64),
        }
    }
}

impl Inbox {
    /// Takes a place for a connection that will be handed over, or [`Self::cancel`]led; false if there are `most` already.
    pub(crate) fn reserve(&self, most: usize) -> bool {
        // Relaxed: a number, not a message.
        self.load
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |load| {
                (load < most).then_some(load + 1)
            })
            .is_ok()
    }

    /// Gives a place back.
    pub(crate) fn cancel(&self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }

    /// Hands over a connection whose place was reserved. It is ended if the poller has, for the same reason.
    pub(crate) fn hand_over(&self, connection: ShmServer) {
        if let Some((connection, reason)) = self.offer(connection) {
            connection.end(reason);
        }
    }

    /// The same; given back, and why, if the poller has ended.
    pub(super) fn offer(&self, connection: ShmServer) -> Option<(ShmServer, CloseReason)> {
        match &mut *self.arrivals() {
            Ok(arrivals) => {
                arrivals.push(connection);
                self.nudge();
                None
            }
            Err(reason) => Some((connection, *reason)),
        }
    }

    fn arrivals(&self) -> MutexGuard<'_, Result<Vec<ShmServer>, CloseReason>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_arrivals(&self) -> Vec<ShmServer> {
        self.arrivals()
            .as_mut()
            .map_or_else(|_| Vec::new(), std::mem::take)
    }

    /// The poller ends: nobody is given a place here any more, and who had one already is not kept. Gives the last arrivals back. The first reason
    /// holds.
    pub(super) fn close(&self, reason: CloseReason) -> Vec<ShmServer> {
        let mut arrivals = self.arrivals();
        match &mut *arrivals {
            Ok(last) => {
                let last = std::mem::take(last);
                self.load.fetch_add(CLOSED, Ordering::Relaxed);
                *arrivals = Err(reason);
                last
            }
            Err(_) => Vec::new(),
        }
    }

    /// Makes the poller look around: a connection's `gone` was set, or something arrived.
    pub(crate) fn nudge(&self) {
        // Release pairs with the Acquire in `handle_shm_loop`: what was done before the nudge is seen after it.
        self.news.fetch_add(1, Ordering::Release);
        futex::wake(&self.news);
    }

    /// The word that [`Self::nudge`] changes.
    #[inline(always)]
    pub(super) fn news(&self) -> &AtomicU32 {
        &self.news
    }

    /// Ends the poller.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.nudge();
    }

    /// How long the poller keeps answers at its end for which there is no room.
    pub(super) fn farewell(&self) -> Duration {
        // Relaxed: a number, which publishes nothing.
        Duration::from_nanos(self.farewell_ns.load(Ordering::Relaxed))
    }

    /// For a test, which must not depend on who runs when within a second.
    #[cfg(test)]
    pub(crate) fn set_farewell(&self, farewell: Duration) {
        let ns = farewell.as_nanos() as u64;
        self.farewell_ns.store(ns, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Connections this poller has.
    pub(crate) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Where the poller is to run; `None`: wherever the kernel puts it.
    pub(crate) fn set_seat(&self, cpu: Option<usize>) {
        self.seat
            .store(cpu.map_or(0, |cpu| cpu + 1), Ordering::Relaxed);
    }

    /// Whether the poller is there for one client, who thinks for long between requests.
    pub(crate) fn set_paired(&self, paired: bool) {
        self.paired.store(paired, Ordering::Relaxed);
    }

    pub(super) fn is_paired(&self) -> bool {
        self.paired.load(Ordering::Relaxed)
    }

    pub(super) fn seat(&self) -> Option<usize> {
        self.seat.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// How the serving thread and the control thread tell each other of a connection's end, and of where it is to be served.
pub(crate) struct Ends {
    /// Control → poller: the client's socket has ended.
    gone: AtomicBool,
    /// Poller → control: the connection was given up, and its memory let go of.
    over: AtomicBool,
    home: Mutex<Home>,
}

/// Weak: a connection in an inbox whose poller has ended must not keep that inbox.
struct Home {
    /// The inbox of the poller that has the connection, or is about to find it among its arrivals.
    at: Weak<Inbox>,
    /// Where it is to be served instead.
    wanted: Option<Weak<Inbox>>,
}

impl Ends {
    /// Of a connection that is handed over to `inbox` first.
    pub(crate) fn new(inbox: &Arc<Inbox>) -> Self {
        Self {
            gone: AtomicBool::new(false),
            over: AtomicBool::new(false),
            home: Mutex::new(Home {
                at: Arc::downgrade(inbox),
                wanted: None,
            }),
        }
    }

    fn home(&self) -> MutexGuard<'_, Home> {
        self.home.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's socket has ended: the poller lets go of it.
    ///
    /// Also on its way from one poller to the next: `leave` names the next one before it is handed over, and who takes it in looks
    /// whether it is gone. Either the lock there comes after ours, and then so does that look; or it came before, and we nudge the next one.
    pub(crate) fn set_gone(&self) {
        // Release pairs with the Acquire in `is_gone`.
        self.gone.store(true, Ordering::Release);
        self.nudge(&self.home());
    }

    fn nudge(&self, home: &Home) {
        // One that has ended has nobody to be told.
        if let Some(at) = home.at.upgrade() {
            at.nudge();
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        // Acquire pairs with the Release in `set_gone`.
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn set_over(&self) {
        // Release pairs with the Acquire in `is_over`.
        self.over.store(true, Ordering::Release);
    }

    /// Whether the poller has given the connection up.
    pub(crate) fn is_over(&self) -> bool {
        // Acquire pairs with the Release in `set_over`.
        self.over.load(Ordering::Acquire)
    }

    /// Asks the poller that has it to hand it on to another one. The last wish counts.
    pub(crate) fn move_to(&self, inbox: &Arc<Inbox>) {
        let mut home = self.home();
        let wanted = Arc::downgrade(inbox);
        let target = home.wanted.as_ref().unwrap_or(&home.at);
        if !target.ptr_eq(&wanted) {
            home.wanted = Some(wanted);
            self.nudge(&home);
        }
    }

    /// Whether the poller of that inbox has it, or is about to find it among its arrivals.
    #[cfg(test)]
    pub(crate) fn is_at(&self, inbox: &Arc<Inbox>) -> bool {
        self.home().at.ptr_eq(&Arc::downgrade(inbox))
    }

    /// The poller that has it lets it go, if it is to be served elsewhere and there is room: to whom to hand it over.
    pub(super) fn leave(&self) -> Option<Arc<Inbox>> {
        let mut home = self.home();
        let wanted = home.wanted.take()?;
        if wanted.ptr_eq(&home.at) {
            return None;
        }
        let inbox = wanted.upgrade().filter(|i| i.reserve(MAX_CONNECTIONS))?;
        home.at = wanted;
        Some(inbox)
    }
}
