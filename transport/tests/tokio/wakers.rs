//! Executors that run a task where it is woken, and not later.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;

use super::{BOTH, World, echo, everywhere, until};
use crate::server::WATCHDOG;
use transport::AsyncSynapse;
use transport::error::RequestError;

/// A task that is run by whoever wakes it, unless it is being run: then whoever does that runs it again.
struct Inline {
    task: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    /// Times that it was woken, and not run since.
    woken: AtomicUsize,
    /// Tasks that are over.
    over: Arc<AtomicUsize>,
}

impl Inline {
    fn spawn(over: &Arc<AtomicUsize>, task: impl Future<Output = ()> + Send + 'static) {
        let task = Self {
            task: Mutex::new(Some(Box::pin(task))),
            woken: AtomicUsize::new(0),
            over: Arc::clone(over),
        };
        Arc::new(task).wake();
    }
}

impl Inline {
    fn run(&self, waker: &Waker) {
        let mut place = self.task.lock().expect("nobody else runs it");
        if let Some(task) = place.as_mut()
            && task
                .as_mut()
                .poll(&mut Context::from_waker(waker))
                .is_ready()
        {
            *place = None;
            self.over.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        // Not 0: it is being run, by another thread or further up on this very one.
        if self.woken.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let waker = Waker::from(Arc::clone(&self));
        loop {
            let seen = self.woken.load(Ordering::Acquire);
            self.run(&waker);
            if self.woken.fetch_sub(seen, Ordering::AcqRel) == seen {
                return;
            }
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
    // More than are woken in one go, and over the socket more than have room at a time.
    const TASKS: usize = 100;
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

/// Polls a task with a waker that panics; its panic is not printed.
struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        std::panic::resume_unwind(Box::new("a waker's defect, on purpose"));
    }
}

#[test]
fn a_waker_that_panics_keeps_nobody_else_asleep() {
    everywhere(|world| async move {
        let (server, gate) = world.serve_held(echo);
        let client = world.client().await;
        let ask = |n: usize| {
            let client = client.clone();
            Box::pin(async move { client.fire_bytes(&n.to_le_bytes()).await })
        };
        let panics = Waker::from(Arc::new(Panics));
        // Every third, so that there are some in front of it, and some behind.
        let mut defective: Vec<_> = (0..10).map(|n| ask(3 * n)).collect();
        let mut others = Vec::new();
        for (n, task) in defective.iter_mut().enumerate() {
            let polled = task.as_mut().poll(&mut Context::from_waker(&panics));
            assert!(polled.is_pending());
            others.extend([3 * n + 1, 3 * n + 2].map(|n| (n, tokio::spawn(ask(n)))));
            until(|| client.in_flight() == 3 * (n + 1)).await;
        }
        gate.open();
        for (n, other) in others {
            let reply = other.await.expect("no panic").expect("a reply");
            assert_eq!(reply, n.to_le_bytes());
        }
        for (n, task) in defective.into_iter().enumerate() {
            assert_eq!(task.await.expect("a reply"), (3 * n).to_le_bytes());
        }
        // Nor does one that waits for the end.
        let mut closed = Box::pin(client.closed());
        let polled = closed.as_mut().poll(&mut Context::from_waker(&panics));
        assert!(polled.is_pending());
        drop(server);
        client.closed().await;
        match client.fire_bytes(b"more?").await {
            Err(RequestError::Disconnected { .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}
