//! A server: listens on a Unix socket, admits clients, upgrades them to shared memory, runs the handler.
//!
//! ```text
//! control thread      accepts, checks credentials and limits, watches every client's socket, housekeeping ten times a second
//! handshake threads   one per connection until it is decided: `handle_connection`; a client that stays on the socket keeps it
//! pollers             serve the clients on shared memory: `shm::handle_shm_loop`
//! ```
//! `listener` owns the path, `clients` is the table of who is connected, `control` the control thread, `connection` a
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
mod pool;
mod spread;
#[cfg(test)]
mod testing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::clock;
use crate::config::Config;
use crate::error::{BindError, Step};
use crate::handler::Handler;
use crate::mem::fork;
use crate::reply::Reply;
use crate::stats::Role;
use crate::stats::page::{PageDescription, PageWriter};
use crate::stats::recorder::set;
use crate::stats::registry::{self, Announcement};
use budget::Budget;
use clients::Clients;
use descriptors::Descriptors;
use pool::Pool;

/// A running server. Dropping it (or [`Membrane::shutdown`]) ends it: clients are told, all threads joined, the socket removed.
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
    pool: Pool,
    descriptors: Descriptors,
    budget: Arc<Budget>,
    epoll: Epoll,
    /// Makes the control thread look around.
    wake: EventFd,
    stop: AtomicBool,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes the control thread look around now.
    fn nudge(&self) {
        // EAGAIN: the counter is at its maximum, so the thread is being woken already. Nothing else can fail on our own fd.
        let _ = self.wake.write(1);
    }
}

impl Membrane {
    /// Starts a server at `path`, answering each request with `handler`, which may run on several threads at once. A panic in it
    /// becomes an error reply; the connection lives on.
    ///
    /// The path's socket file is made with mode 0600 (0666 if the configuration admits other users); a path
    /// left behind by a dead server is taken over, a live server's never.
    ///
    /// # Errors
    /// [`BindError`]; nothing is left behind then.
    pub fn bind(
        path: impl AsRef<Path>,
        config: &Config,
        handler: impl Fn(&[u8], &mut Reply<'_>) + Send + Sync + 'static,
    ) -> Result<Self, BindError> {
        config.check()?;
        clock::init();
        let path = path.as_ref();
        let listener = listener::bind(path, !config.allowed_uids.is_empty())?;
        let io = |step: &'static str| {
            move |source: std::io::Error| BindError::Io {
                step,
                path: path.into(),
                source,
            }
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
            .map_err(|e| io("epoll_create")(e.into()))?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|e| io("eventfd")(e.into()))?;
        let page = PageWriter::create(&PageDescription {
            name: &config.name,
            role: Role::Server,
            socket_path: path,
            // A client takes a slot, so does a poller (one for each of 32 clients that think), and closed ones stay readable for a while.
            slots: config.max_clients + config.max_clients / 32 + config.workers + 64,
        });
        let process = page.process();
        set(&process.max_clients, config.max_clients as u64);
        set(&process.fds_per_client, 1);
        set(
            &process.ring_bytes,
            crate::ring::storage::connection_bytes(config.ring_bytes) as u64,
        );
        set(&process.listener_inode, listener.inode());

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
            handler: Box::new(handler),
            clients: Clients::new(),
            pool: Pool::new(),
            descriptors: Descriptors::default(),
            budget: Budget::new(config.memory_budget_bytes),
            page,
            epoll,
            wake,
            stop: AtomicBool::new(false),
        });
        pool::start(&shared).map_err(io(Step::Thread.name()))?;
        let control = control::start(Arc::clone(&shared), listener).map_err(|e| {
            shared.pool.stop();
            io(Step::Thread.name())(e)
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

    /// Clients connected now, on either transport.
    pub fn clients(&self) -> usize {
        self.shared.clients.len()
    }

    /// Clients on shared memory now.
    pub fn shm_clients(&self) -> usize {
        self.shared.clients.on_shm()
    }

    /// Why viewers can't find the stats page by its link, if so. The server works all the same, and a viewer that may scan /proc
    /// may find it nevertheless.
    pub fn unannounced(&self) -> Option<&str> {
        self.unannounced.as_deref()
    }

    /// Ends the server: clients see the connection end, requests being handled are finished (so a handler that never returns keeps
    /// this call waiting, and one that calls it waits for itself), all threads are joined, the socket is removed. No handler runs once this has returned.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Membrane {
    fn drop(&mut self) {
        if self.generation != fork::generation() {
            // A fork's copy: the threads are not here, and the socket is the parent's.
            std::mem::forget(self.announcement.take());
            return;
        }
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.nudge();
        if let Some(control) = self.control.take() {
            // A panic there was reported by the panic hook; what is left to do is the same.
            let _ = control.join();
        }
    }
}
