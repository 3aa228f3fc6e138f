//! A server: listens on a Unix socket, admits clients, upgrades them to shared memory, runs the handler.
//!
//! ```text
//! control thread      accepts, checks credentials and limits, watches every client's socket, housekeeping ten times a second
//! handshake threads   one per connection until it is decided: `handle_connection`; a client that stays on the socket keeps it
//! pollers             serve the clients on shared memory: `shm::handle_shm_loop`
//! ```
//! `listener` owns the path, `users` says who may, `clients` is the table of who is, `control` the control thread, `connection` a
//! handshake thread, `pool` the pollers, `house` what is done ten times a second, `spread` and `pairs` which poller serves whom, `descriptors` and `budget` what clients
//! that come at the same time have to share.

mod budget;
mod clients;
mod connection;
mod control;
mod descriptors;
mod house;
mod listener;
mod pairs;
mod pause;
mod pool;
mod spread;
#[cfg(test)]
pub(crate) mod testing;
mod users;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::clock;
use crate::config::Config;
use crate::error::{BindError, BindStep};
use crate::handler::Handler;
use crate::mem::fork;
use crate::reply::Reply;
use crate::stats::Role;
use crate::stats::page::{PageDescription, PageWriter};
use crate::stats::recorder::set;
use crate::stats::registry::{self, Announcement};
use crate::thread::Blocked;
use budget::Budget;
use clients::Clients;
use control::Control;
use descriptors::Descriptors;
use pool::Pool;
use users::Users;

/// Between two looks whether all is served. Who drains sends nothing, so it is in no hurry.
const DRAIN_LOOK: Duration = Duration::from_millis(1);

/// A running server: [`Membrane::bind`] starts it, and dropping it or [`Membrane::shutdown`] stops it.
///
/// Requests are handled on threads of the server's own, so the thread that called `bind` is free for other work. It must keep this value.
///
/// ```no_run
/// use transport::{Config, Membrane};
///
/// let config = Config::default();
/// let server = Membrane::bind("/run/user/1000/quotes.sock", &config, |request, reply| {
///     if let Err(error) = reply.extend_from_slice(request) {
///         reply.fail(error);
///     }
/// })?;
/// println!("listening on {}", server.path().display());
/// // … until the program is told to end.
/// server.shutdown();
/// # Ok::<(), transport::error::BindError>(())
/// ```
pub struct Membrane {
    shared: Arc<Shared>,
    control: Option<JoinHandle<()>>,
    path: PathBuf,
    announcement: Option<Announcement>,
    unannounced: Option<String>,
    generation: u64,
}

impl std::fmt::Debug for Membrane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membrane")
            .field("path", &self.path)
            .field("clients", &self.clients())
            .finish()
    }
}

/// What all threads of a server share.
struct Shared {
    config: Config,
    handler: Box<Handler>,
    page: Arc<PageWriter>,
    clients: Clients,
    users: Users,
    pool: Pool,
    descriptors: Descriptors,
    budget: Arc<Budget>,
    epoll: Epoll,
    /// The signals that the thread which called [`Membrane::bind`] had blocked: threads that run the handler block the same.
    blocked: Blocked,
    /// Makes the control thread look around.
    wake: EventFd,
    stop: AtomicBool,
    /// Nobody is to come any more; who is there is served on until `stop`.
    drain: AtomicBool,
    /// Answers that pollers which have ended found no room for.
    unsent: AtomicUsize,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Whether it stops, or is about to.
    fn ending(&self) -> bool {
        self.stopping() || self.drain.load(Ordering::Relaxed)
    }

    /// Makes the control thread look around now.
    fn nudge(&self) {
        // EAGAIN: the counter is at its maximum, so the thread is being woken already. Nothing else can fail on our own fd.
        let _ = self.wake.write(1);
    }
}

impl Membrane {
    /// Starts a server that listens on the Unix socket `path` and answers each request with `handler`. Clients can connect as soon as this
    /// returns.
    ///
    /// `handler` gets a private copy of the request, 0 bytes to the connection's largest message, and the reply to fill in. Requests of one
    /// connection are handled one at a time and in order; those of different connections may be handled on several threads at once. A handler
    /// that blocks holds up the other clients that its thread serves, see [`Config::workers`] and [`Config::thread_per_client`]. If it panics,
    /// the client receives an error reply ([`RequestError::Remote`](crate::error::RequestError::Remote)) and the connection lives on; in a program that
    /// is built with `panic = "abort"` it ends the program, as any panic does.
    ///
    /// A handler is an ordinary function, with no way to answer later: one that waits, for a lock, a disk or a future, holds its thread. For handlers that
    /// wait, set [`Config::thread_per_client`]; what is async goes into the runtime with `Handle::block_on`, from there: see `examples/async_server.rs`.
    /// Nothing is told of a client's end: what is kept per [`Peer::connection_id`](crate::Peer::connection_id) has to be bounded or aged by its owner.
    ///
    /// All threads inherit the CPUs that the caller of `bind` may run on, and its scheduling class: there is no setting for either. To place
    /// pollers elsewhere, or to give them a priority, do it in the handler at its first call on a thread (`thread_local!`).
    ///
    /// A handler finds the signal mask that the caller of `bind` had, and so does what it starts, be it a thread or a
    /// [`std::process::Command`]. To have signals handled on threads of your own only, block them before you call `bind`: sigwait(3) and
    /// signalfd(2) ask for that anyway. The server's other threads block all signals but those of faults.
    ///
    /// The socket file gets mode 0600, or 0666 if [`Config::allowed_uids`] names other users. A socket file that a dead server left behind is
    /// replaced. That of a live server, and any file that is no socket, is left alone. Only paths are supported: no abstract names, and no socket that is
    /// already listening (socket activation).
    ///
    /// # Errors
    /// [`BindError`]: the configuration contradicts itself, the path is too long or taken, or a system call failed. Nothing is left behind.
    pub fn bind(
        path: impl AsRef<Path>,
        config: &Config,
        handler: impl Fn(&[u8], &mut Reply<'_>) + Send + Sync + 'static,
    ) -> Result<Self, BindError> {
        Self::bind_with(path.as_ref(), config, Box::new(handler), Control::run)
    }

    fn bind_with(
        path: &Path,
        config: &Config,
        handler: Box<Handler>,
        control: fn(&mut Control),
    ) -> Result<Self, BindError> {
        config.check()?;
        clock::init();
        let listener = listener::bind(path, !config.allowed_uids.is_empty())?;
        let io = |step: BindStep| {
            move |source: std::io::Error| BindError::Io {
                step,
                path: path.into(),
                source,
            }
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|e| io(BindStep::Epoll)(e.into()))?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| io(BindStep::EventFd)(e.into()))?;
        let page = PageWriter::create(&PageDescription {
            name: &config.name,
            role: Role::Server,
            socket_path: listener.path(),
            slots: slots(config),
        });
        let process = page.process();
        set(&process.max_clients, config.max_clients as u64);
        set(&process.fds_per_client, 1);
        set(
            &process.ring_bytes,
            crate::ring::storage::connection_bytes(config.ring_bytes) as u64,
        );
        set(&process.listener_inode, listener.inode());
        let long_ns = u64::try_from(config.long_handler.as_nanos()).unwrap_or(u64::MAX);
        set(&process.long_handler_ns, long_ns);

        let dir = config
            .stats_dir
            .clone()
            .unwrap_or_else(registry::default_dir);
        let (announcement, unannounced) = match (page.fd(), page.unpublished()) {
            (Some(fd), _) => match registry::announce(&dir, &config.name, std::process::id(), fd) {
                Ok(announcement) => (Some(announcement), None),
                Err(e) => (None, Some(format!("{}: {e}", dir.display()))),
            },
            (None, Some((step, errno))) => (
                None,
                Some(format!(
                    "{}: {}",
                    step.name(),
                    crate::error::errno_name(errno)
                )),
            ),
            (None, None) => (None, None),
        };
        let shared = Arc::new(Shared {
            config: config.clone(),
            handler,
            clients: Clients::new(),
            users: Users::new(&config.allowed_uids),
            pool: Pool::new(),
            descriptors: Descriptors::default(),
            budget: Budget::new(config.memory_budget_bytes),
            page,
            epoll,
            blocked: Blocked::as_here().map_err(io(BindStep::SignalMask))?,
            wake,
            stop: AtomicBool::new(false),
            drain: AtomicBool::new(false),
            unsent: AtomicUsize::new(0),
        });
        pool::start(&shared).map_err(io(BindStep::Thread))?;
        let control = control::start(Arc::clone(&shared), listener, control).map_err(|e| {
            shared.pool.stop();
            io(BindStep::Thread)(e)
        })?;
        Ok(Self {
            shared,
            control: Some(control),
            path: path.into(),
            announcement,
            unannounced,
            generation: fork::generation(),
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of clients connected now, on shared memory or on the socket. 0 in a forked child: they are the parent's.
    pub fn clients(&self) -> usize {
        if self.is_forked() {
            return 0;
        }
        self.shared.clients.len()
    }

    /// Number of clients on shared memory now. 0 in a forked child.
    pub fn shm_clients(&self) -> usize {
        if self.is_forked() {
            return 0;
        }
        self.shared.clients.on_shm()
    }

    /// Whether this is a fork's copy: the threads are not here, and one of them may have held any lock when it was made.
    fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    /// Why the stats page could not be announced to viewers such as `shmtop`; `None` if it was. The server works either way, and a viewer
    /// with the permission to search /proc still finds the page.
    pub fn unannounced(&self) -> Option<&str> {
        self.unannounced.as_deref()
    }

    /// Stops the server and waits until it has stopped: handlers that are running finish, clients see their connection end, all threads are
    /// joined, and the socket file is removed. No handler runs once this has returned.
    ///
    /// Requests that no handler has begun with are dropped, and not carried out: clients are told [`Lost::Closed`](crate::error::Lost::Closed), and
    /// how many of theirs have no reply. [`Self::drain`] serves them first. It waits for as long as a handler runs, for up to a second more if a
    /// client's ring has no room for what a handler has answered, and for up to another if one on the socket takes no replies. A handler must not call it, nor drop the
    /// server: it would wait for itself. In async code it blocks the thread: `spawn_blocking(move || server.shutdown())`.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Stops the server as [`Self::shutdown`] does, and with its waits, but serves first what clients have sent, for at most `limit`. True if it
    /// found nothing left to serve; if not, the rest is dropped as there. An answer that a handler still works at by then has a second to find room: false, too, if a client
    /// left it none.
    ///
    /// From the beginning on nobody can connect: the socket file is removed, so that another server may already take the path. Clients on shared memory
    /// go on meanwhile, and those who never pause may keep it for all of `limit`; it ends once it has found nothing in each ring, one after the other: what is sent
    /// into one behind its look is dropped, and told as by [`Self::shutdown`]. What those on the
    /// socket have sent by the beginning is answered, and nothing later: a client there that sends on meanwhile is told to receive first (`Full`, nothing was
    /// sent) as long as replies are left, and then of the end. Who was accepted before and is still shaking hands, or is upgrading then, is waited for, for at most
    /// [`Config::handshake_timeout`] a step.
    pub fn drain(self, limit: Duration) -> bool {
        if self.is_forked() {
            return false;
        }
        self.shared.drain.store(true, Ordering::Relaxed);
        self.shared.nudge();
        let begun = Instant::now();
        let served = loop {
            let served = self.shared.clients.lock().are_served();
            if served || begun.elapsed() >= limit {
                break served;
            }
            std::thread::sleep(DRAIN_LOOK.min(limit));
        };
        let shared = Arc::clone(&self.shared);
        // Waits for the pollers.
        drop(self);
        served && shared.unsent.load(Ordering::Relaxed) == 0
    }
}

/// Slots of the page: each client and each poller takes one, and closed ones stay readable for a while. Pollers are one per client where
/// that is asked for. Else they are few: one for 120 clients, one for each CPU, one for each client while 2 to 32 of them think;
/// the last term has room for those.
fn slots(config: &Config) -> usize {
    let pollers = if config.thread_per_client {
        config.max_clients
    } else {
        config.max_clients / 32 + config.workers
    };
    config.max_clients + pollers + 64
}

impl Drop for Membrane {
    fn drop(&mut self) {
        if self.is_forked() {
            // The socket is the parent's; and so is the thread, whose handle, dropped, would detach a thread of this process that has come
            // by its stack.
            std::mem::forget((self.announcement.take(), self.control.take()));
            return;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.nudge();
        if let Some(control) = self.control.take() {
            // A panic there was reported by the panic hook, and the server ended all the same.
            let _ = control.join();
        }
    }
}
