//! Requests allocate nothing: a promise of the pre-allocated buffers on both sides, counted by the allocator itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use transport::{Config, Membrane, Synapse, TransportChoice};

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);
static ON: AtomicBool = AtomicBool::new(false);

// SAFETY: hands every call on to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON.load(Ordering::Relaxed) {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Alone in this file, so that no other test's allocations are counted. Server and client are in this process: both are counted.
#[test]
fn a_request_allocates_nothing_on_either_side_and_either_transport() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            transport,
            stats_dir: Some(dir.path().join("stats")),
            ..Config::default()
        };
        let server_config = Config {
            transport: TransportChoice::Auto,
            ..config.clone()
        };
        let server = Membrane::bind(dir.path().join("s"), &server_config, |request, reply| {
            reply
                .extend_from_slice(request)
                .expect("as large as the request");
        })
        .expect("a server");
        let mut client = Synapse::connect(server.path(), &config).expect("a client");
        let request = vec![7u8; 1 << 20];
        let fire = |client: &mut Synapse| {
            for size in [0, 64, 20_000, 1 << 20] {
                for _ in 0..20 {
                    assert_eq!(
                        client.fire_bytes(&request[..size]).expect("a reply").len(),
                        size
                    );
                }
            }
        };
        fire(&mut client);
        ON.store(true, Ordering::Relaxed);
        fire(&mut client);
        ON.store(false, Ordering::Relaxed);
        assert_eq!(COUNT.swap(0, Ordering::Relaxed), 0, "{transport:?}");
    }
}
