//! Connections that an event loop of the caller's has used before, and left armed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use transport::error::RequestError;
use transport::{AsyncSynapse, Synapse, WaitPolicy};

use super::{Call, Gate, echo, everywhere, own_page};

/// Few of these fill a ring, or a socket.
static LARGE: [u8; 90_000] = [7; 90_000];

#[test]
fn one_that_slept_elsewhere_since_hears_every_reply() {
    everywhere(|mut world| async move {
        world.config.wait = WaitPolicy::Park;
        let gates = [Gate::default(), Gate::default()];
        let held = gates.clone();
        let _server = world.serve(move |request, reply| {
            held[usize::from(request[0])].wait();
            echo(request, reply);
        });
        let mut client = Synapse::connect(world.path(), &world.config).expect("a client");
        client.submit(&[0]).expect("room");
        assert!(client.arm_doorbell().expect("alive"));
        match client.receive_within(Duration::from_millis(1)) {
            Err(RequestError::Timeout { .. }) => {}
            other => panic!("{other:?}"),
        }
        gates[0].open();
        assert_eq!(client.receive().expect("a reply").1, [0]);
        let client = AsyncSynapse::new(client).expect("a runtime");
        let mut call = Call::send(&client, &[1]).await;
        gates[1].open();
        assert_eq!(call.reply().await, [1]);
    });
}

#[test]
fn one_that_is_idle_from_then_on_is_not_seen_to_wait() {
    everywhere(|world| async move {
        let (_server, gate) = world.serve_held(echo);
        let mut client = Synapse::connect(world.path(), &world.config).expect("a client");
        client.submit(b"answered").expect("room");
        assert!(client.arm_doorbell().expect("alive"));
        gate.open();
        // And no `disarm_doorbell`.
        while client.try_receive().expect("alive").is_none() {
            tokio::task::yield_now().await;
        }
        let client = AsyncSynapse::new(client).expect("a runtime");
        let slot = own_page::slot_of(client.connection_id());
        assert_eq!((slot.wait.waiting_since_ns, slot.req.oldest_ns), (0, 0));
        assert_eq!(client.fire_bytes(b"on").await.expect("a reply"), b"on");
    });
}

#[test]
fn replies_that_were_given_up_keep_no_server_from_an_idle_one() {
    const REQUESTS: usize = 20;
    for armed in [false, true] {
        everywhere(|world| async move {
            let served = Arc::new(AtomicUsize::new(0));
            let count = served.clone();
            let _server = world.serve(move |_, reply| {
                reply.extend_from_slice(&LARGE).expect("small enough");
                count.fetch_add(1, Relaxed);
            });
            let mut client = Synapse::connect(world.path(), &world.config).expect("a client");
            for _ in 0..REQUESTS {
                client.submit(b"given up").expect("room");
            }
            if armed {
                let _asleep = client.arm_doorbell().expect("alive");
            }
            let _client = AsyncSynapse::new(client).expect("a runtime");
            while served.load(Relaxed) < REQUESTS {
                tokio::task::yield_now().await;
            }
        });
    }
}

#[test]
fn its_page_says_that_it_waits_as_long_as_a_task_does_and_no_longer() {
    everywhere(|world| async move {
        let (_server, gate) = world.serve_held(echo);
        let mut client = Synapse::connect(world.path(), &world.config).expect("a client");
        client.submit(b"given up").expect("room");
        let client = AsyncSynapse::new(client).expect("a runtime");
        let oldest = || own_page::slot_of(client.connection_id()).req.oldest_ns;
        assert_eq!(oldest(), 0, "for what was given up nobody waits");
        let call = Call::send(&client, b"a task's").await;
        if client.is_shm() {
            assert_ne!(oldest(), 0);
        }
        drop(call);
        assert_eq!(oldest(), 0, "given up as well");
        gate.open();
    });
}
