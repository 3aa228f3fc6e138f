//! Executors that run a task where it is woken, and not later.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;

use super::{BOTH, World, echo, until};
use crate::server::WATCHDOG;
use transport::AsyncSynapse;

/// A task that is run by whoever wakes it.
struct Inline {
    task: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// Tasks that are over.
    over: Arc<AtomicUsize>,
}

impl Inline {
    fn spawn(over: &Arc<AtomicUsize>, task: impl Future<Output = ()> + Send + 'static) {
        let task = Self {
            task: Mutex::new(Some(Box::pin(task))),
            over: Arc::clone(over),
        };
        Arc::new(task).wake();
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let waker = Waker::from(Arc::clone(&self));
        let mut place = self.task.lock().expect("no panic");
        if let Some(task) = place.as_mut()
            && task
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_ready()
        {
            *place = None;
            self.over.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A thread that hangs in a lock has no timer that could end it: so another one waits for it.
fn watched(test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let test = thread::spawn(move || {
        test();
        done.send(()).expect("somebody waits");
    });
    let ended = is_done.recv_timeout(WATCHDOG);
    if ended != Err(mpsc::RecvTimeoutError::Timeout) {
        test.join().expect("no panic");
    }
    ended.expect("no hang");
}

async fn asks(client: AsyncSynapse, n: usize, answered: Sender<usize>) {
    // The second one from within the waker.
    for _ in 0..2 {
        let request = n.to_le_bytes();
        match client.fire_bytes(&request).await {
            Ok(reply) => assert_eq!(reply, request),
            Err(error) => {
                answered.send(usize::MAX).expect("somebody counts");
                panic!("{error}");
            }
        }
    }
    answered.send(n).expect("somebody counts");
}

#[test]
fn a_waker_that_runs_its_task_at_once_finds_the_connection_free() {
    const TASKS: usize = 20;
    for transport in BOTH {
        watched(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let world = World::new(transport);
                let (_server, gate) = world.serve_held(echo);
                let client = world.client().await;
                let over = Arc::default();
                let (answered, answers) = mpsc::channel();
                for n in 0..TASKS {
                    let task = asks(client.clone(), n, answered.clone());
                    // With no budget that a waker could spend in vain: it would be called again at once.
                    Inline::spawn(&over, tokio::task::unconstrained(task));
                }
                assert!(client.in_flight() > 1, "they wait");
                gate.open();
                until(|| over.load(Ordering::Relaxed) == TASKS).await;
                drop(answered);
                let mut answers: Vec<_> = answers.iter().collect();
                answers.sort_unstable();
                assert!(answers.into_iter().eq(0..TASKS));
            });
        });
    }
}
