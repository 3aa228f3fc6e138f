//! The pollers: which there are, and who gets the next client.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::Shared;
use crate::shm::{Inbox, MAX_CONNECTIONS, Poller, handle_shm_loop};
use crate::stats::slot::{SlotFacts, SlotWriter};
use crate::stats::{SlotKind, Via};
use crate::wait::policy::Waiter;

/// One serving thread.
struct Worker {
    inbox: Arc<Inbox>,
    /// Its slot in the stats page.
    slot: Option<u32>,
    thread: JoinHandle<()>,
}

/// All serving threads. Threads are added, and taken away only when the server ends.
pub(super) struct Pool(Mutex<Vec<Worker>>);

impl Pool {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Ends and joins all; requests being handled are finished first.
    pub(super) fn stop(&self) {
        let workers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for worker in &workers {
            worker.inbox.stop();
        }
        for worker in workers {
            // A panic there was reported by the panic hook; handlers' panics are caught before.
            let _ = worker.thread.join();
        }
    }
}

/// Starts the configured number of pollers; with a thread per client, none yet.
pub(super) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    if shared.config.thread_per_client {
        return Ok(());
    }
    let mut workers = shared.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..shared.config.workers {
        let number = workers.len();
        match worker(shared, number) {
            Ok(worker) => workers.push(worker),
            Err(e) => {
                drop(workers);
                shared.pool.stop();
                return Err(e);
            }
        }
    }
    Ok(())
}

/// The poller for one more client: its inbox, and its slot in the stats page. Starts one if all have as many as they can sleep on.
pub(super) fn assign(shared: &Arc<Shared>) -> io::Result<(Arc<Inbox>, Option<u32>)> {
    let mut workers = shared.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Under the lock that `Pool::stop` takes after `stop` was set: a poller started after it would never be told to end.
    if shared.stopping() {
        return Err(io::Error::from_raw_os_error(libc::ECANCELED));
    }
    // In per-client mode a thread whose client has gone serves the next one.
    let most = if shared.config.thread_per_client {
        1
    } else {
        MAX_CONNECTIONS
    };
    let least = workers
        .iter()
        .min_by_key(|w| w.inbox.load())
        .filter(|w| w.inbox.load() < most);
    if let Some(worker) = least {
        worker.inbox.reserve();
        return Ok((Arc::clone(&worker.inbox), worker.slot));
    }
    let number = workers.len();
    let worker = worker(shared, number)?;
    worker.inbox.reserve();
    let assigned = (Arc::clone(&worker.inbox), worker.slot);
    workers.push(worker);
    Ok(assigned)
}

fn worker(shared: &Arc<Shared>, number: usize) -> io::Result<Worker> {
    let inbox = Arc::new(Inbox::default());
    let slot = shared
        .page
        .slot(SlotKind::Poller)
        .unwrap_or_else(|| SlotWriter::private(SlotKind::Poller));
    let index = slot.index();
    let thread = {
        let (shared, inbox) = (Arc::clone(shared), Arc::clone(&inbox));
        std::thread::Builder::new()
            .name(format!("shm-poller-{number}"))
            .spawn(move || {
                let policy = shared.config.wait;
                slot.publish_info(&SlotFacts {
                    open: true,
                    connection_id: number as u64,
                    transport: Via::Shm,
                    wanted: Via::Shm,
                    tid: nix::unistd::gettid().as_raw().unsigned_abs(),
                    wait_policy: policy,
                    max_message: shared.config.max_message_bytes as u64,
                    ..SlotFacts::default()
                });
                let poller = Poller::new(
                    inbox,
                    shared.config.max_message_bytes,
                    Waiter::new(policy),
                    slot,
                );
                handle_shm_loop(poller, &shared.handler);
            })?
    };
    Ok(Worker {
        inbox,
        slot: index,
        thread,
    })
}
