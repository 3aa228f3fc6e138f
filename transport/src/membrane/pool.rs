//! The pollers: which there are, and who gets the next client.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;

use super::Shared;
use crate::mem::buffer::Buffer;
use crate::shm::{Inbox, MAX_CONNECTIONS, Poller, handle_shm_loop};
use crate::stats::slot::{SlotFacts, SlotWriter};
use crate::stats::{SlotKind, Via};
use crate::wait::policy::Waiter;

/// One serving thread.
struct Worker {
    inbox: Arc<Inbox>,
    slot: Arc<SlotWriter>,
    thread: JoinHandle<()>,
}

/// All serving threads. Threads are added, and taken away only when the server ends.
pub(super) struct Pool(Mutex<Vec<Worker>>);

impl Pool {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Time that all of them have spent on requests, in ns, as far as it is booked.
    pub(super) fn useful_ns(&self) -> u64 {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let useful = |w: &Worker| w.slot.wait().useful_ns.load(Ordering::Relaxed);
        workers.iter().map(useful).sum()
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
    for _ in 0..shared.config.workers.max(1) {
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
    // The least loaded of those asked for; of others the first, since who is in a crowd is found a poller later.
    let place = if shared.config.workers == 0 {
        workers.iter().find(|w| w.inbox.load() < most)
    } else {
        workers.iter().min_by_key(|w| w.inbox.load())
    };
    if let Some(worker) = place
        && worker.inbox.reserve(most)
    {
        return Ok((Arc::clone(&worker.inbox), worker.slot.index()));
    }
    let number = workers.len();
    let worker = worker(shared, number)?;
    worker.inbox.reserve(most);
    let assigned = (Arc::clone(&worker.inbox), worker.slot.index());
    workers.push(worker);
    Ok(assigned)
}

/// The first `count` pollers, started if there are fewer.
pub(super) fn first(shared: &Arc<Shared>, count: usize) -> io::Result<Vec<Arc<Inbox>>> {
    let mut workers = shared.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
    while workers.len() < count {
        let worker = worker(shared, workers.len())?;
        workers.push(worker);
    }
    Ok(workers
        .iter()
        .take(count)
        .map(|w| Arc::clone(&w.inbox))
        .collect())
}

fn worker(shared: &Arc<Shared>, number: usize) -> io::Result<Worker> {
    // Before there is a thread: one more than the address space allows is refused, and does not end the process.
    let buffer = Buffer::zeroed(shared.config.max_message_bytes).ok_or(Errno::ENOMEM)?;
    let inbox = Arc::new(Inbox::default());
    let slot = shared
        .page
        .slot(SlotKind::Poller)
        .unwrap_or_else(|| SlotWriter::private(SlotKind::Poller));
    let slot = Arc::new(slot);
    let thread = {
        let (shared, inbox, slot) = (Arc::clone(shared), Arc::clone(&inbox), Arc::clone(&slot));
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
                let poller = Poller::new(inbox, buffer, Waiter::new(policy), slot);
                handle_shm_loop(poller, &shared.handler);
            })?
    };
    Ok(Worker {
        inbox,
        slot,
        thread,
    })
}
