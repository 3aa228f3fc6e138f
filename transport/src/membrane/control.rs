//! The control thread: accepts, notices who has gone, keeps house, and ends the server.

mod accept;

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};

use super::clients::Key;
use super::listener::Listener;
use super::pairs::Pairs;
use super::spread::Spread;
use super::{Shared, house};
use crate::clock::monotonic_ns;
use crate::error::CloseReason;
use crate::stats::recorder::{raise, set};
use crate::thread::{self, Blocked};
use crate::wire::drive;

/// epoll data of the listener and of the wake-up; clients' keys count from 1.
const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
/// Housekeeping with clients, and without.
const BUSY_TICK: Duration = Duration::from_millis(100);
const IDLE_TICK: Duration = Duration::from_secs(1);
/// How often a server that ends looks, a millisecond apart, whether the threads that answer over a socket have done so: a second and a little. A client that
/// takes no replies would keep it for far longer. Counted and not read off a clock: after a second in which the machine stood still nobody has had that second.
const FAREWELL_LOOKS: u32 = 1000;
const FAREWELL_LOOK: Duration = Duration::from_millis(1);

pub(super) struct Control {
    shared: Arc<Shared>,
    /// None once nobody may come any more.
    listener: Option<Listener>,
    /// Given up to accept, and so get rid of, a connection when descriptors have run out: else it would stay in the
    /// queue and epoll report it for ever.
    reserve: Option<OwnedFd>,
    /// Until when (monotonic ns) the listener is out of the epoll set.
    deaf_until_ns: u64,
    /// Since when (monotonic ns) a connection waits for a descriptor that is on loan, with the listener out of the epoll set; or 0.
    waits_since_ns: u64,
    last_tick_ns: u64,
    spread: Spread,
    pairs: Pairs,
    /// Of connections whose thread has not been joined yet.
    threads: BTreeMap<Key, JoinHandle<()>>,
}

/// Starts the thread, which does `work` and then ends the server; as it does if that panics (which the panic hook has reported): or there
/// would be a server that serves and that nobody can stop.
pub(super) fn start(
    shared: Arc<Shared>,
    listener: Listener,
    work: fn(&mut Control),
) -> io::Result<JoinHandle<()>> {
    let event = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
    shared.epoll.add(&listener, event(LISTENER))?;
    shared.epoll.add(&shared.wake, event(WAKE))?;
    let mut control = Control {
        shared,
        listener: Some(listener),
        reserve: reserve(),
        deaf_until_ns: 0,
        waits_since_ns: 0,
        last_tick_ns: 0,
        spread: Spread::default(),
        pairs: Pairs::default(),
        threads: BTreeMap::new(),
    };
    thread::start("shm-control".into(), Blocked::all(), move || {
        // Unwind safe: `end` takes what there is, and asks nothing of it.
        let _ = catch_unwind(AssertUnwindSafe(|| work(&mut control)));
        control.end();
    })
}

/// A descriptor to give up: a second one of a file that every process has.
fn reserve() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").ok().map(OwnedFd::from)
}

impl Control {
    pub(super) fn run(&mut self) {
        while !self.shared.ending() {
            self.round();
        }
        self.close_door();
        while !self.shared.stopping() {
            self.let_finish();
            self.round();
        }
    }

    /// Lets nobody in any more. An end, and no failure: the page says so before the path goes.
    fn close_door(&mut self) {
        self.tell_end();
        // Closing does not do it where a process that nobody can reach (a raw clone(2)'s child) has the listener, too: it would be reported for ever.
        self.go_deaf();
        self.listener = None;
        (self.deaf_until_ns, self.waits_since_ns) = (0, 0);
        self.shared.descriptors.accept_goes_on();
    }

    /// The page says since when it ends; the first word holds.
    fn tell_end(&self) {
        let since_ns = &self.shared.page.process().stopping_since_ns;
        // Relaxed: this thread alone writes it.
        if since_ns.load(Ordering::Relaxed) == 0 {
            set(since_ns, monotonic_ns());
        }
    }

    /// Who serves a client over its socket answers what was sent, and finds the end there. Handshakes and upgrades go on: at their end it is known what
    /// carries the requests.
    fn let_finish(&self) {
        for client in self.shared.clients.lock().by_key.values() {
            if client.shm.is_none() && client.pending_since_ns == 0 && !client.upgrading {
                let _ = client.socket.shutdown(Shutdown::Read);
            }
        }
    }

    fn round(&mut self) {
        let mut events = [EpollEvent::empty(); 64];
        // A listener left alone is taken back at a tick, clients or not.
        let tick = if self.shared.clients.len() == 0 && self.deaf_until_ns == 0 {
            IDLE_TICK
        } else {
            BUSY_TICK
        };
        let timeout = EpollTimeout::try_from(tick).unwrap_or(EpollTimeout::ZERO);
        // EINTR: nothing happened. Other errors can't be: the epoll instance and the buffer are ours.
        let n = self.shared.epoll.wait(&mut events, timeout).unwrap_or(0);
        for event in &events[..n] {
            match event.data() {
                LISTENER => self.accept(),
                WAKE => {
                    // The counter's value means nothing; EAGAIN: somebody else read it.
                    let _ = self.shared.wake.read();
                }
                key => self.ended(key, CloseReason::PeerGone),
            }
        }
        if self.waits_since_ns != 0 {
            // Something has come back, or it has waited long enough.
            self.accept();
        }
        let now_ns = monotonic_ns();
        if now_ns - self.last_tick_ns >= BUSY_TICK.as_nanos() as u64 {
            self.tick(now_ns);
        }
    }

    /// Housekeeping.
    fn tick(&mut self, now_ns: u64) {
        self.last_tick_ns = now_ns;
        self.hear_again(now_ns);
        if self.reserve.is_none() {
            self.reserve = reserve();
        }
        self.join_finished();
        let pool = self.shared.pool.load();
        let mut table = self.shared.clients.lock();
        house::keep(&mut table, now_ns);
        let spread = self.spread.is_on();
        let alone = self.pairs.keep(&self.shared, &table, pool, spread, now_ns);
        let crowd = if self.pairs.is_on() {
            None
        } else {
            self.spread.keep(&self.shared, &table, pool, now_ns)
        };
        let over: Vec<Key> = table
            .by_key
            .iter()
            .filter(|(_, c)| c.shm.as_ref().is_some_and(|s| s.ends.is_over()))
            .map(|(key, _)| *key)
            .collect();
        let pending = table
            .by_key
            .values()
            .filter(|c| c.pending_since_ns != 0)
            .map(|c| c.pending_since_ns);
        let (pending, oldest) = pending.fold((0, u64::MAX), |(n, oldest), since| {
            (n + 1, oldest.min(since))
        });
        let process = self.shared.page.process();
        set(&process.open_clients, table.by_key.len() as u64 - pending);
        set(&process.pending_handshakes, pending);
        set(
            &process.oldest_pending_ns,
            if pending == 0 { 0 } else { oldest },
        );
        set(&process.heartbeat_ns, now_ns);
        drop(table);
        match (alone, crowd) {
            (Some(clients), _) => self.pairs.begin(&self.shared, clients),
            (None, Some(clients)) => self.spread.begin(&self.shared, &clients),
            (None, None) => {}
        }
        for key in over {
            self.ended(key, CloseReason::Poisoned);
        }
    }

    /// Threads of connections that are over, or on shared memory.
    fn join_finished(&mut self) {
        for (_, thread) in self.threads.extract_if(.., |_, t| t.is_finished()) {
            // A panic there was reported by the panic hook; handlers' panics are caught before.
            let _ = thread.join();
        }
    }

    /// A client on shared memory has ended, or its poller gave it up.
    fn ended(&self, key: Key, reason: CloseReason) {
        let mut table = self.shared.clients.lock();
        let Some(client) = table.by_key.remove(&key) else {
            return;
        };
        if let Some(shm) = client.shm.as_ref().filter(|s| !s.ends.is_over()) {
            table.leaves(&shm.ends);
        }
        drop(table);
        // Its descriptor leaves the epoll set when it is closed; the other holder, if any, is about to.
        let _ = self.shared.epoll.delete(&*client.socket);
        // The end is the message; a socket that has ended already says the same.
        let _ = client.socket.shutdown(Shutdown::Both);
        if let Some(shm) = client.shm {
            shm.slot.close(reason);
            shm.ends.set_gone();
        }
    }

    /// Ends the server.
    fn end(self) {
        let shared = &self.shared;
        // If nobody asked for it.
        shared.stop.store(true, Ordering::Relaxed);
        // Before the path goes: nobody does the housekeeping from here on, and a handler may run for long. That is an end, and no failure.
        raise(&shared.page.process().heartbeat_ns, monotonic_ns());
        self.tell_end();
        drop(self.listener);
        let clients = std::mem::take(&mut shared.clients.lock().by_key);
        shared.descriptors.accept_goes_on();
        // Before the pollers, one of which may be in a handler for long: who serves a client over its socket answers what it was asked, and
        // finds the end there.
        for client in clients.values().filter(|c| c.shm.is_none()) {
            let _ = client.socket.shutdown(Shutdown::Read);
        }
        shared.pool.stop();
        // Who has something to answer, and the client takes it: a moment to do that, and to say goodbye.
        for _ in 0..FAREWELL_LOOKS {
            if self.threads.values().all(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(FAREWELL_LOOK);
        }
        for client in clients.values() {
            if client.shm.is_some() {
                drive::bye(&*client.socket);
            }
            // Wakes handshake and socket threads out of whatever they wait for.
            let _ = client.socket.shutdown(Shutdown::Both);
            if let Some(shm) = &client.shm {
                shm.slot.close(CloseReason::Shutdown);
            }
        }
        for thread in self.threads.into_values() {
            // As in `join_finished`.
            let _ = thread.join();
        }
        raise(&shared.page.process().heartbeat_ns, monotonic_ns());
    }
}

#[cfg(test)]
mod tests {
    use super::super::Membrane;
    use super::super::testing::{WATCHDOG, until};
    use super::*;
    use crate::error::RequestError;
    use crate::{Config, Synapse};
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_control_thread_that_panics_ends_the_server_for_all() {
        static SERVED: AtomicBool = AtomicBool::new(false);
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let config = Config {
            request_timeout: WATCHDOG,
            stats_dir: Some(dir.path().into()),
            ..Config::default()
        };
        let serve: Box<crate::handler::Handler> =
            Box::new(|_, _| SERVED.store(true, Ordering::Relaxed));
        let server = Membrane::bind_with(&path, &config, serve, |control| {
            while !SERVED.load(Ordering::Relaxed) {
                control.round();
            }
            // A panic as any other, without a message on standard error.
            std::panic::resume_unwind(Box::new("a defect, on purpose"));
        })
        .expect("a server");
        let mut client = Synapse::connect(&path, &config).expect("a client");
        let mut ask = || client.fire_bytes(b"there?").map(|_| ());
        until("its clients learn of it", || {
            matches!(ask(), Err(RequestError::Disconnected { .. }))
        });
        until("nobody waits for it", || {
            server.shared.pool.load().pollers == 0 && !path.exists()
        });
        server.shutdown();
    }
}
