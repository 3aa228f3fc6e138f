//! What the page says of a client that never sleeps: whose it is, and since when it waits.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{WATCHDOG, World, echo};
use crate::own_page::slot_of;
use transport::{TransportChoice, WaitPolicy};

fn this_thread() -> u32 {
    nix::unistd::gettid().as_raw().unsigned_abs()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < WATCHDOG, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_connection_that_is_handed_to_another_thread_is_that_threads_although_it_never_sleeps() {
    let world = World::new(TransportChoice::Shm, WaitPolicy::Spin);
    let _server = world.serve(echo);
    let mut client = world.client();
    let id = client.connection_id();
    // To a thread, and on to another one.
    for _ in 0..2 {
        client = std::thread::scope(|scope| {
            let used = scope.spawn(|| {
                // As many as the longest stride has, and what is left of the one before.
                for _ in 0..600 {
                    client.fire_bytes(b"mine").expect("a reply");
                    if slot_of(id).info.tid == this_thread() {
                        return client;
                    }
                }
                panic!("{:?}", slot_of(id).info);
            });
            used.join().expect("no panic")
        });
    }
}

#[test]
fn a_client_that_spins_for_a_reply_says_since_when() {
    let world = World::new(TransportChoice::Shm, WaitPolicy::Spin);
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let _server = world.serve(move |_, _| {
        // An error: the test has failed, and the server is to end.
        let _ = gone.lock().expect("no panic").recv();
    });
    let mut client = world.client();
    let id = client.connection_id();
    std::thread::scope(|scope| {
        // Dropped when the test fails: the client is answered then.
        let go = go;
        scope.spawn(move || client.fire_bytes(b"there?").map(|_| ()).expect("a reply"));
        until("it says so", || slot_of(id).req.oldest_ns != 0);
        let slot = slot_of(id);
        assert_eq!(slot.wait.waiting_since_ns, 0, "it does not sleep");
        assert_ne!(slot.info.tid, this_thread());
        go.send(()).expect("the handler waits");
        until("it is answered", || slot_of(id).req.oldest_ns == 0);
    });
}
