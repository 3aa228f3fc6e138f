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
use crate::thread::{self, Blocked};
use crate::wait::policy::Waiter;

/// Threads that pollers which are merely faster leave to others: who connects needs one for the handshake.
const SPARE_THREADS: usize = 4;

/// One serving thread.
struct Worker {
    inbox: Arc<Inbox>,
    slot: Arc<SlotWriter>,
    thread: JoinHandle<()>,
}

/// All of them together.
#[derive(Clone, Copy, Default)]
pub(super) struct Load {
    /// How many there are, busy or not.
    pub(super) pollers: usize,
    /// Time that they have spent on requests, as far as it is booked.
    pub(super) useful_ns: u64,
}

/// All serving threads. Threads are added, and taken away only when the server ends; or at once, if not as many could be had as are of use.
pub(super) struct Pool(Mutex<Vec<Worker>>);

impl Pool {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// What they have done. Waits for who starts a poller, so not to be called with the table of clients locked.
    pub(super) fn load(&self) -> Load {
        let workers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let useful = |w: &Worker| w.slot.wait().useful_ns.load(Ordering::Relaxed);
        Load {
            pollers: workers.len(),
            useful_ns: workers.iter().map(useful).sum(),
        }
    }

    /// Ends and joins all; requests being handled are finished first.
    pub(super) fn stop(&self) {
        let workers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        end(workers);
    }
}

fn end(workers: Vec<Worker>) {
    for worker in &workers {
        worker.inbox.stop();
    }
    for worker in workers {
        // A panic there was reported by the panic hook; handlers' panics are caught before.
        let _ = worker.thread.join();
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

/// The first `count` pollers, started if there are fewer. All that are missing or none: a few more are of no use, and threads that others need.
///
/// # Errors
/// A thread or its memory could not be had, or no [`SPARE_THREADS`] beside them.
pub(super) fn first(shared: &Arc<Shared>, count: usize) -> io::Result<Vec<Arc<Inbox>>> {
    first_by(shared, count, worker, spare)
}

fn first_by(
    shared: &Arc<Shared>,
    count: usize,
    mut worker: impl FnMut(&Arc<Shared>, usize) -> io::Result<Worker>,
    spare: impl FnOnce() -> io::Result<()>,
) -> io::Result<Vec<Arc<Inbox>>> {
    let mut workers = shared.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
    let before = workers.len();
    if before < count {
        let started = (before..count).try_for_each(|number| {
            workers.push(worker(shared, number)?);
            Ok(())
        });
        if let Err(e) = started.and_then(|()| spare()) {
            // Nobody was given a place there: the lock is still held.
            let useless = workers.split_off(before);
            drop(workers);
            end(useless);
            return Err(e);
        }
    }
    Ok(workers
        .iter()
        .take(count)
        .map(|w| Arc::clone(&w.inbox))
        .collect())
}

/// Whether [`SPARE_THREADS`] can be had; they have ended then.
fn spare() -> io::Result<()> {
    let until_all_are_there = Arc::new(Mutex::new(()));
    let not_yet = until_all_are_there.lock();
    let mut threads = Vec::new();
    let started = (0..SPARE_THREADS).try_for_each(|n| {
        let gate = Arc::clone(&until_all_are_there);
        let wait = move || drop(gate.lock());
        let name = format!("shm-spare-{n}");
        threads.push(thread::start(name, Blocked::all(), wait)?);
        Ok(())
    });
    drop(not_yet);
    for thread in threads {
        // Nothing there panics.
        let _ = thread.join();
    }
    started
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
        let name = format!("shm-poller-{number}");
        thread::start(name, shared.blocked, move || {
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
            let unsent = handle_shm_loop(poller, &shared.handler);
            // Relaxed: read by who has waited for this thread's end.
            shared.unsent.fetch_add(unsent, Ordering::Relaxed);
        })?
    };
    Ok(Worker {
        inbox,
        slot,
        thread,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::fault::{self, Action, Point};
    use crate::mem::limit_tests::alone;
    use crate::membrane::testing::{WATCHDOG, until};
    use crate::{Config, Membrane, Synapse};

    /// Drains a server whose last answer is not begun before the drain has seen everything served, and outgrows the room that the client has left.
    fn drained(client_takes: bool) -> bool {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            ring_bytes: 64 << 10,
            max_message_bytes: 16_000,
            stats_dir: Some(dir.path().into()),
            request_timeout: WATCHDOG,
            ..Config::default()
        };
        let (held, is_held) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let gate = Mutex::new((held, gone));
        let server = Membrane::bind(dir.path().join("s"), &config, move |request, reply| {
            let length = match request {
                b"small" => 8,
                b"half" => 8_000,
                b"held" => {
                    let gate = gate.lock().expect("no panic");
                    gate.0.send(()).expect("somebody waits for it");
                    // An error: the test has failed, and the server is to end.
                    let _ = gate.1.recv();
                    16_000
                }
                _ => 16_000,
            };
            let fits = reply.extend_from_slice(&vec![7; length]);
            fits.expect("within the limit");
        })
        .expect("a server");
        let mut client = Synapse::connect(server.path(), &config).expect("a client");
        assert!(client.is_shm());
        // As large as the one before is what is expected: the last one is begun, and does not fit.
        let requests: [&[u8]; 7] = [b"", b"", b"", b"small", b"half", b"small", b"held"];
        for request in requests {
            client.submit(request).expect("room");
        }
        is_held.recv_timeout(WATCHDOG).expect("a handler");
        let shared = Arc::clone(&server.shared);
        if client_takes {
            let workers = shared.pool.0.lock().expect("a pool");
            workers.iter().for_each(|w| w.inbox.set_farewell(WATCHDOG));
        }
        let drain = std::thread::spawn(move || server.drain(WATCHDOG));
        until("it has seen all", || shared.stopping());
        go.send(()).expect("it waits");
        if client_takes {
            for _ in requests {
                client.receive().expect("a reply");
            }
        }
        drain.join().expect("no panic")
    }

    #[test]
    fn a_drain_is_whole_only_if_the_last_answer_found_room() {
        assert!(drained(true));
        assert!(!drained(false));
    }

    /// The thread that did the handshake may come late to what is left for it, while the client has all but its last answer.
    #[test]
    fn an_answer_that_has_not_found_room_yet_is_not_cut_off_by_the_thread_that_handed_the_connection_over()
     {
        let test = "membrane::pool::tests::an_answer_that_has_not_found_room_yet_is_not_cut_off_by_the_thread_that_handed_the_connection_over";
        alone(test, || {
            let late = Action::Delay(Duration::from_millis(500));
            fault::arm(Point::HandedOver, 1, late);
            assert!(!drained(false));
        });
    }

    #[test]
    fn pollers_that_would_take_the_last_threads_are_given_back_and_those_there_were_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            stats_dir: Some(dir.path().into()),
            ..Config::default()
        };
        let server = Membrane::bind(dir.path().join("s"), &config, |_, _| ()).expect("a server");
        let shared = &server.shared;
        let count = || shared.pool.0.lock().expect("a pool").len();
        let mut inboxes = Vec::new();
        let refused = || io::Error::from_raw_os_error(libc::EAGAIN);
        let with_threads = |most: usize, inboxes: &mut Vec<_>| {
            let worker = |shared: &Arc<Shared>, number: usize| {
                let worker = worker(shared, (number < most).then_some(number).ok_or(refused())?)?;
                inboxes.push(Arc::downgrade(&worker.inbox));
                Ok(worker)
            };
            let spare = || (most >= 8 + SPARE_THREADS).then_some(()).ok_or(refused());
            first_by(shared, 8, worker, spare).map(|inboxes| inboxes.len())
        };
        for most in [1, 5, 8, 8 + SPARE_THREADS - 1] {
            with_threads(most, &mut inboxes).expect_err("not enough");
            assert_eq!(inboxes.len(), most.min(8) - 1, "tried");
            assert!(inboxes.drain(..).all(|i| i.strong_count() == 0), "joined");
            assert_eq!(count(), 1, "of {most} threads");
        }
        let all = with_threads(8 + SPARE_THREADS, &mut inboxes);
        assert_eq!((all.expect("enough"), count()), (8, 8));
        assert_eq!(first(shared, 9).expect("threads").len(), 9);
    }
}
