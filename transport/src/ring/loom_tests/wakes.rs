//! Announcements and wake-ups: whoever sleeps is woken, on a futex and on a socket.

use super::super::consumer::Consumer;
use super::super::plan::{Kind, Plan};
use super::super::producer::{NoSlot, Producer};
use super::super::storage::{Bell, Flag, Storage};
use super::{CAPACITY, Loom, message, model, push, take};

#[test]
fn no_wake_up_of_a_sleeping_consumer_is_lost() {
    model(3, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        let mut producer = Producer::new(ring.clone(), plan);
        let mut consumer = Consumer::new(ring.clone(), plan);
        let bell = ring.clone();
        let thread = loom::thread::spawn(move || {
            for id in 0..2 {
                push(&mut producer, id, &message(id, 1));
                if producer.must_wake().is_some() {
                    bell.wake();
                }
            }
        });
        let mut id = 0;
        while id < 2 {
            if let Some(got) = take(&mut consumer) {
                assert_eq!(got, (id, message(id, 1)));
                id += 1;
                continue;
            }
            // Announce, fence, look again, sleep. A lost wake-up is a deadlock here, which loom reports.
            consumer.announce(Bell::Futex);
            if !consumer.is_ready() {
                ring.sleep(Flag::Empty);
            }
            consumer.retract();
        }
        thread.join().expect("producer");
    });
}

#[test]
fn no_wake_up_of_who_sleeps_on_two_rings_behind_one_fence_is_lost() {
    model(2, || {
        let first = Loom::new();
        let rings = [first.clone(), Loom::under(first.0.kernel.clone())];
        let plan = Plan::new(CAPACITY, 64);
        let senders = rings.clone().map(|ring| {
            loom::thread::spawn(move || {
                let mut producer = Producer::new(ring.clone(), plan);
                push(&mut producer, 0, &message(0, 1));
                if producer.must_wake().is_some() {
                    ring.wake();
                }
            })
        });
        let mut consumers = rings.clone().map(|ring| Consumer::new(ring, plan));
        let mut left = 2;
        while left > 0 {
            let taken: usize = consumers.iter_mut().map(|c| take(c).iter().count()).sum();
            left -= taken;
            if taken > 0 {
                continue;
            }
            for consumer in &consumers {
                consumer.announce_unfenced(Bell::Futex);
            }
            rings[0].fence();
            if !consumers.iter().any(Consumer::is_ready) {
                Loom::sleep_on_either(&rings[0], &rings[1], Flag::Empty);
            }
            for consumer in &consumers {
                consumer.retract();
            }
        }
        for sender in senders {
            sender.join().expect("producer");
        }
    });
}

#[test]
fn no_wake_up_of_a_producer_waiting_for_room_is_lost() {
    model(2, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        let mut producer = Producer::new(ring.clone(), plan);
        let mut consumer = Consumer::new(ring.clone(), plan);
        for id in 0..2 {
            push(&mut producer, id, &message(id, 8));
        }
        let bell = ring.clone();
        let thread = loom::thread::spawn(move || {
            for id in 0..2 {
                assert_eq!(take(&mut consumer), Some((id, message(id, 8))));
                bell.fence();
                if consumer.must_wake_fenced() {
                    bell.wake();
                }
            }
            consumer
        });
        // 3 × 80 bytes and a terminator fit; the fourth does not until the first is released.
        for id in 2..4 {
            while let Err(NoSlot::Full { .. }) = producer.push(Kind::Request, id, &message(id, 8)) {
                producer.announce();
                if matches!(producer.reserve(64), Err(NoSlot::Full { .. })) {
                    ring.sleep(Flag::Full);
                }
                producer.retract();
            }
        }
        thread.join().expect("consumer");
    });
}

#[test]
fn no_wake_up_of_a_consumer_asleep_on_its_socket_is_lost_and_none_rings_that_was_taken_back() {
    model(3, || {
        let ring = Loom::new();
        let plan = Plan::new(CAPACITY, 64);
        let mut producer = Producer::new(ring.clone(), plan);
        let mut consumer = Consumer::new(ring.clone(), plan);
        let bell = ring.clone();
        let thread = loom::thread::spawn(move || {
            for id in 0..2 {
                push(&mut producer, id, &message(id, 1));
                match producer.must_wake() {
                    None => {}
                    Some(Bell::Socket) => bell.ring_socket(),
                    Some(Bell::Futex) => panic!("nobody sleeps on a futex"),
                }
            }
        });
        let (mut id, mut due) = (0, 0);
        while id < 2 {
            if let Some(got) = take(&mut consumer) {
                assert_eq!(got, (id, message(id, 1)));
                id += 1;
                continue;
            }
            due += 1;
            consumer.announce(Bell::Socket);
            if !consumer.is_ready() {
                due -= ring.sleep_on_socket();
                assert!(due >= 0, "more bells than were asked for");
            }
            due -= i64::from(consumer.withdraw());
        }
        thread.join().expect("producer");
        // Those that are not heard yet. No equality: loom lets a swap pass over a store that nothing orders with it.
        assert!(ring.unread() <= due);
    });
}

/// An asynchronous client that waits for room announces for replies only: the turn that makes room answers, and rings for that.
#[test]
fn a_reply_wakes_a_client_that_waits_for_room() {
    model(2, || {
        let (requests, replies) = (Loom::new(), Loom::new());
        let plan = Plan::new(CAPACITY, 64);
        let mut to_server = Producer::new(requests.clone(), plan);
        let mut at_server = Consumer::new(requests, plan);
        let mut to_client = Producer::new(replies.clone(), plan);
        let mut at_client = Consumer::new(replies.clone(), plan);
        // The request ring is full: 3 × 64 bytes and a terminator; the fourth goes behind them once the first is released.
        for id in 0..3 {
            push(&mut to_server, id, &message(id, 6));
        }
        let bell = replies.clone();
        let thread = loom::thread::spawn(move || {
            assert_eq!(take(&mut at_server), Some((0, message(0, 6))));
            push(&mut to_client, 0, &message(0, 1));
            if to_client.must_wake() == Some(Bell::Socket) {
                bell.ring_socket();
            }
            (at_server, to_client)
        });
        let (mut sent, mut answered) = (false, false);
        while !(sent && answered) {
            sent = sent || to_server.push(Kind::Request, 3, &message(3, 6)).is_ok();
            answered = answered || take(&mut at_client).is_some();
            if sent && answered {
                break;
            }
            at_client.announce(Bell::Socket);
            let room = !sent && to_server.reserve(48).is_ok();
            if !room && !at_client.is_ready() {
                replies.sleep_on_socket();
            }
            at_client.withdraw();
        }
        thread.join().expect("server");
    });
}
