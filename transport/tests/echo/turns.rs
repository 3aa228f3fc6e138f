//! Whose turn it is at a server of one thread: nobody waits for more than a bounded part of what another client has in flight.

use std::cell::RefCell;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{WATCHDOG, World};
use transport::{Membrane, Synapse, TransportChoice, WaitPolicy};

/// A server of one thread whose handler takes what it is told, notes what came in which order, and is held up by a request of `held`.
struct Held {
    /// First, so that a test that fails ends: the server waits for its handler.
    go: Sender<()>,
    is_held: Receiver<()>,
    _server: Membrane,
    world: World,
    order: Arc<Mutex<Vec<Vec<u8>>>>,
    holder: Synapse,
    times: usize,
}

impl Held {
    fn new(ring_bytes: usize) -> Self {
        let mut world = World::new(TransportChoice::Shm, WaitPolicy::Adaptive);
        world.config.ring_bytes = ring_bytes;
        world.config.workers = 1;
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        let (held, is_held) = channel();
        let (go, gone) = channel::<()>();
        let gone = Mutex::new((held, gone));
        let server = world.serve(move |request, _| {
            match request {
                b"held" => {
                    let gate = gone.lock().expect("no panic");
                    gate.0.send(()).expect("the test waits");
                    gate.1.recv().expect("told");
                }
                b"long" => std::thread::sleep(Duration::from_millis(1)),
                _ => {}
            }
            let note = request[..request.len().min(8)].to_vec();
            seen.lock().expect("no panic").push(note);
        });
        let holder = world.client();
        Self {
            go,
            is_held,
            _server: server,
            world,
            order,
            holder,
            times: 0,
        }
    }

    /// What is served, and in which order, of what `ask` asks for while the handler is held up, and `answered` waits for afterwards.
    fn order(&mut self, ask: impl FnOnce(), answered: impl FnOnce()) -> Vec<Vec<u8>> {
        // Rounds that serve nobody else: whose turn is first changes from one to the next, and so from time to time.
        for _ in 0..self.times % 5 {
            self.holder.fire_bytes(b"once more").expect("a reply");
        }
        self.times += 1;
        self.order.lock().expect("no panic").clear();
        self.holder.submit(b"held").expect("room");
        self.is_held.recv().expect("the handler");
        ask();
        self.go.send(()).expect("the handler waits");
        self.holder.receive().expect("a reply");
        answered();
        std::mem::take(&mut *self.order.lock().expect("no panic"))
    }
}

/// Of `count` requests like this one that a client has in flight, no more than twice `turn` may come before another client's: its turn in the
/// round of the held request may have passed before it was sent, and in the next one the other may come first again.
fn another_client_waits_for_two_turns(request: &[u8], count: usize, turn: usize) {
    for times in 0..10 {
        // A ring that was walked through before may have less room behind a server that is held up.
        let mut held = Held::new(4 << 20);
        held.times = times;
        let [slow, quick] = std::array::from_fn(|_| {
            let mut client = held.world.client();
            // Once it is answered, the poller has the connection; a handshake's thread may hand it over later than the client knows.
            client.fire_bytes(b"here").expect("a reply");
            RefCell::new(client)
        });
        let order = held.order(
            || {
                for _ in 0..count {
                    slow.borrow_mut().submit(request).expect("room");
                }
                quick.borrow_mut().submit(b"quick").expect("room");
            },
            || {
                quick.borrow_mut().receive().expect("a reply");
                for _ in 0..count {
                    slow.borrow_mut().receive().expect("a reply");
                }
            },
        );
        let before = order.iter().position(|r| r == b"quick");
        let before = before.expect("served") - 1;
        assert!(before <= 2 * turn, "{before} of another client's before it");
    }
}

#[test]
fn requests_with_long_handlers_do_not_hold_up_other_clients() {
    another_client_waits_for_two_turns(b"long", 16, 1);
}

#[test]
fn many_or_large_requests_of_one_client_do_not_hold_up_others() {
    another_client_waits_for_two_turns(b"short", 1000, 16);
    // 256 KiB make a turn, and what goes beyond.
    another_client_waits_for_two_turns(&[7; 100_000], 12, 3);
}

#[test]
fn nobody_is_always_behind_the_same_neighbour() {
    let mut held = Held::new(256 << 10);
    let [first, second] = std::array::from_fn(|_| RefCell::new(held.world.client()));
    let (mut seen, begun) = ([false; 2], Instant::now());
    loop {
        let both = [&first, &second];
        let order = held.order(
            || {
                for (client, name) in both.into_iter().zip(["first", "second"]) {
                    client.borrow_mut().submit(name.as_bytes()).expect("room");
                }
            },
            || {
                for client in both {
                    client.borrow_mut().receive().expect("a reply");
                }
            },
        );
        seen[usize::from(order[1] == b"first")] = true;
        if seen == [true, true] {
            return;
        }
        assert!(
            begun.elapsed() < WATCHDOG,
            "{seen:?} after {} times",
            held.times
        );
    }
}
