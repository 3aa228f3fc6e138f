//! `AsyncSynapse` keeps what the blocking client promises, on shared memory and on the socket, and ends with its server.

mod ends;
#[path = "../own_page/mod.rs"]
mod own_page;
mod room;
#[path = "../server/mod.rs"]
mod server;
mod taken;
mod wakers;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;

use server::WATCHDOG;
use transport::error::RequestError;
use transport::{AsyncSynapse, Config, Membrane, Reply, TransportChoice};

const BOTH: [TransportChoice; 2] = [TransportChoice::Shm, TransportChoice::Socket];

struct World {
    dir: tempfile::TempDir,
    config: Config,
}

impl World {
    fn new(transport: TransportChoice) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            ring_bytes: 256 << 10,
            max_message_bytes: 100_000,
            transport,
            request_timeout: WATCHDOG,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        Self { dir, config }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("s")
    }

    fn serve(&self, handler: impl Fn(&[u8], &mut Reply<'_>) + Send + Sync + 'static) -> Membrane {
        let config = Config {
            transport: TransportChoice::Auto,
            ..self.config.clone()
        };
        Membrane::bind(self.path(), &config, handler).expect("a server")
    }

    /// A server whose handlers wait until the gate is opened.
    fn serve_held(
        &self,
        handler: impl Fn(&[u8], &mut Reply<'_>) + Send + Sync + 'static,
    ) -> (Membrane, Gate) {
        let gate = Gate::default();
        let held = gate.clone();
        let server = self.serve(move |request, reply| {
            held.wait();
            handler(request, reply);
        });
        (server, gate)
    }

    async fn client(&self) -> AsyncSynapse {
        let client = AsyncSynapse::connect(self.path(), &self.config)
            .await
            .expect("a client");
        assert_eq!(
            client.is_shm(),
            self.config.transport == TransportChoice::Shm
        );
        client
    }
}

/// Runs the test on either transport, on one thread and on two.
pub(crate) fn everywhere<F: Future<Output = ()>>(test: impl Fn(World) -> F) {
    for transport in BOTH {
        for threads in [1, 2] {
            let mut builder = if threads == 1 {
                tokio::runtime::Builder::new_current_thread()
            } else {
                tokio::runtime::Builder::new_multi_thread()
            };
            let runtime = builder
                .worker_threads(threads)
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                tokio::time::timeout(WATCHDOG, test(World::new(transport)))
                    .await
                    .expect("no hang");
            });
        }
    }
}

pub(crate) fn echo(request: &[u8], reply: &mut Reply<'_>) {
    reply
        .extend_from_slice(request)
        .expect("as large as the request");
}

pub(crate) fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (seed * 31 + i * 7) as u8).collect()
}

/// Keeps handlers waiting until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn wait(&self) {
        let guard = self.0.0.lock().expect("no panic");
        let (_open, waited) = self
            .0
            .1
            .wait_timeout_while(guard, WATCHDOG, |open| !*open)
            .expect("no panic");
        assert!(!waited.timed_out(), "the gate was never opened");
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("no panic") = true;
        self.0.1.notify_all();
    }

    fn is_open(&self) -> bool {
        *self.0.0.lock().expect("no panic")
    }
}

/// A request that has been sent, and not only handed to a task that will run some time.
struct Call<'a> {
    rest: Pin<Box<dyn Future<Output = Result<Vec<u8>, RequestError>> + 'a>>,
    reply: Option<Vec<u8>>,
}

impl<'a> Call<'a> {
    async fn send(client: &'a AsyncSynapse, request: &'a [u8]) -> Self {
        let mut rest: Pin<Box<dyn Future<Output = _> + 'a>> = Box::pin(client.fire_bytes(request));
        let polled = poll_fn(|context| Poll::Ready(rest.as_mut().poll(context))).await;
        let reply = match polled {
            Poll::Ready(answer) => Some(answer.expect("a reply")),
            Poll::Pending => None,
        };
        Self { rest, reply }
    }

    async fn reply(&mut self) -> Vec<u8> {
        match self.reply.take() {
            Some(reply) => reply,
            None => self.rest.as_mut().await.expect("a reply"),
        }
    }
}

/// Runs other tasks until `done`.
async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn every_size_comes_back_whole() {
    everywhere(|world| async move {
        let _server = world.serve(echo);
        let client = world.client().await;
        let mut reply = Vec::new();
        for (i, n) in [0, 1, 7, 64, 4096, 12_288, 20_000, 65_536, 99_999, 100_000]
            .into_iter()
            .cycle()
            .take(60)
            .enumerate()
        {
            let request = pattern(i, n);
            reply = client
                .fire_bytes_into(&request, reply)
                .await
                .expect("a reply");
            assert!(reply == request, "{n} bytes");
        }
        match client.fire_bytes(&[0; 100_001]).await {
            Err(RequestError::TooLarge {
                size: 100_001,
                limit: 100_000,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(
            client.fire_bytes(b"on").await.expect("as good as before"),
            b"on"
        );
    });
}

#[test]
fn a_message_larger_than_a_sockets_buffer_comes_back_whole() {
    everywhere(|mut world| async move {
        world.config.ring_bytes = 4 << 20;
        world.config.max_message_bytes = 1 << 20;
        let _server = world.serve(echo);
        let client = world.client().await;
        let request = pattern(3, 1 << 20);
        let (one, other) = tokio::join!(client.fire_bytes(&request), client.fire_bytes(&request));
        assert!(one.expect("a reply") == request && other.expect("a reply") == request);
    });
}

#[test]
fn many_tasks_share_a_connection_and_each_gets_its_own_reply() {
    everywhere(|world| async move {
        // The server must sleep now and then, and its replies must come while others are being sent.
        let _server = world.serve(echo);
        let client = world.client().await;
        let tasks: Vec<_> = (0..40usize)
            .map(|task| {
                let client = client.clone();
                tokio::spawn(async move {
                    for i in 0..50 {
                        let request = pattern(task * 1000 + i, (task * 977 + i * 131) % 9000);
                        let reply = client.fire_bytes(&request).await.expect("a reply");
                        assert!(reply == request, "task {task}");
                        if i % 10 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(client.in_flight(), 0);
    });
}

#[test]
fn an_error_reaches_the_task_whose_request_it_answers() {
    everywhere(|world| async move {
        let _server = world.serve(|request, reply| match request {
            b"bad" => reply.fail("no such thing"),
            // A panic as any other, but without a message, whose backtrace can take seconds where the CPUs are busy.
            b"panic" => std::panic::resume_unwind(Box::new("the handler's own affair")),
            other => echo(other, reply),
        });
        let client = world.client().await;
        let (bad, good, panicked) = tokio::join!(
            client.fire_bytes(b"bad"),
            client.fire_bytes(b"good"),
            client.fire_bytes(b"panic"),
        );
        assert_eq!(good.expect("a reply"), b"good");
        for (error, says) in [(bad, "no such thing"), (panicked, "panicked")] {
            match error {
                Err(RequestError::Remote { message, .. }) => {
                    assert!(message.contains(says), "{message}")
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_reply_does_not_wait_for_the_handler_of_the_next_request() {
    everywhere(|world| async move {
        let (other, last, entered) = (Gate::default(), Gate::default(), Gate::default());
        let gates = [Some(other.clone()), None, Some(last.clone())];
        let enter = entered.clone();
        let _server = world.serve(move |request, reply| {
            if let Some(gate) = &gates[usize::from(request[0])] {
                enter.open();
                gate.wait();
            }
            echo(request, reply);
        });
        // While another one's handler runs, both requests are sent, one after the other, so that they are found together (on the socket
        // each has a thread, and the quick one may be answered at once).
        let (busy, client) = (world.client().await, world.client().await);
        let mut held = Call::send(&busy, &[0]).await;
        until(|| entered.is_open()).await;
        let mut quick = Call::send(&client, &[1]).await;
        let mut long = Call::send(&client, &[2]).await;
        other.open();
        let answer = tokio::time::timeout(WATCHDOG / 2, quick.reply()).await;
        assert_eq!(answer.expect("a reply that was written"), [1]);
        assert!(client.in_flight() == 1, "the long one still runs");
        last.open();
        assert_eq!((held.reply().await, long.reply().await), (vec![0], vec![2]));
    });
}

#[test]
fn a_task_whose_calls_end_at_once_lets_others_run() {
    everywhere(|world| async move {
        let _server = world.serve(echo);
        let client = world.client().await;
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let busy = tokio::spawn({
            let stop = Arc::clone(&stop);
            async move {
                let begun = std::time::Instant::now();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    // Never waits, as a reply that is there at once does not.
                    client
                        .fire_bytes(&[0; 100_001])
                        .await
                        .expect_err("too large");
                    // The runtime's own clock would stand still.
                    assert!(begun.elapsed() < WATCHDOG / 6, "nobody else ran");
                }
            }
        });
        // On a single thread, this runs only if the other task pauses.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        busy.await.expect("no panic");
    });
}
