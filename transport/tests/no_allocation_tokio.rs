//! What `no_allocation` counts for the blocking client, for the one of tokio: with vectors that are handed in, and whether a reply is there at
//! once, has to be waited for, or the request itself has to wait for room.

mod counting;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;

use transport::{AsyncSynapse, Config, Membrane, TransportChoice};

/// Not even three of these have room in the ring, or over the socket.
const LARGE: usize = 100_000;

/// Lets a call do what it does before it waits. True if it waits.
async fn begin<F: Future>(call: &mut Pin<&mut F>) -> bool {
    poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await
}

/// The vectors that go in and come back.
type Vectors = [Vec<u8>; 4];

/// Alone in this file, so that no other test's allocations are counted. Server and client are in this process: both are counted.
#[test]
fn a_request_of_a_task_allocates_nothing_whether_it_waits_or_not() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            transport,
            ring_bytes: 256 << 10,
            max_message_bytes: LARGE,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let server_config = Config {
            transport: TransportChoice::Auto,
            ..config.clone()
        };
        let open = Arc::new(AtomicBool::new(true));
        let gate = Arc::clone(&open);
        let handler = move |request: &[u8], reply: &mut transport::Reply<'_>| {
            while !gate.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            let part = request.len().min(20_000);
            reply.extend_from_slice(&request[..part]).expect("room");
        };
        let server =
            Membrane::bind(dir.path().join("s"), &server_config, handler).expect("a server");
        let request = vec![7u8; LARGE];
        let answered_at_once = async |client: &AsyncSynapse, mut vectors: Vectors| {
            for size in [0, 64, 20_000, 64] {
                let vector = std::mem::take(&mut vectors[0]);
                let reply = client.fire_bytes_into(&request[..size], vector).await;
                vectors[0] = reply.expect("a reply");
                assert_eq!(vectors[0].len(), size);
            }
            vectors
        };
        let held_up = async |client: &AsyncSynapse, size: usize, vectors: Vectors| {
            open.store(false, Ordering::Relaxed);
            let [a, b, c, d] = vectors.map(|v| client.fire_bytes_into(&request[..size], v));
            let (mut a, mut b, mut c, mut d) = (pin!(a), pin!(b), pin!(c), pin!(d));
            let all_wait = begin(&mut a).await
                && begin(&mut b).await
                && begin(&mut c).await
                && begin(&mut d).await;
            assert!(all_wait, "the handler waits");
            let sent = client.in_flight();
            assert_eq!(sent < 4, size == LARGE, "{transport:?}: {sent} were sent");
            open.store(true, Ordering::Relaxed);
            [a.await, b.await, c.await, d.await].map(|reply| reply.expect("a reply"))
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let client = AsyncSynapse::connect(server.path(), &config)
                .await
                .expect("a client");
            let mut vectors = Vectors::default();
            for is_counted in [false, true] {
                for _ in 0..20 {
                    let begin = || {
                        if is_counted {
                            counting::begin();
                        }
                    };
                    begin();
                    vectors = answered_at_once(&client, vectors).await;
                    assert_eq!(counting::end(), 0, "{transport:?}: answered at once");
                    begin();
                    vectors = held_up(&client, 64, vectors).await;
                    assert_eq!(counting::end(), 0, "{transport:?}: waited for");
                    begin();
                    vectors = held_up(&client, LARGE, vectors).await;
                    assert_eq!(counting::end(), 0, "{transport:?}: waited for room");
                }
            }
        });
    }
}
