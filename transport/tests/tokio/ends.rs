//! Calls that end without a reply: given up, too late, or with the connection.

use std::time::Duration;

use super::{Gate, World, echo, everywhere, pattern, until};
use crate::server::Server;
use nix::sys::signal::Signal;
use transport::AsyncSynapse;
use transport::error::RequestError;

/// Asks until there is a reply in time, and counts how often there was none.
async fn answered(client: &AsyncSynapse, request: &[u8], timeouts: &mut u64) {
    loop {
        match client.fire_bytes(request).await {
            Ok(reply) => break assert_eq!(reply, request),
            Err(RequestError::Timeout { .. }) => *timeouts += 1,
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn a_request_without_a_reply_times_out_and_its_late_reply_is_nobodys() {
    everywhere(|mut world| async move {
        world.config.request_timeout = Duration::from_millis(50);
        let gate = Gate::default();
        let held = gate.clone();
        let _server = world.serve(move |request, reply| {
            if request == b"held" {
                held.wait();
            }
            echo(request, reply);
        });
        let client = world.client().await;
        let mut timeouts = 0;
        // On a busy machine the first may need longer than that.
        answered(&client, b"before", &mut timeouts).await;
        match client.fire_bytes(b"held").await {
            Err(RequestError::Timeout { timeout, .. }) => {
                assert_eq!(timeout, Duration::from_millis(50));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(client.in_flight(), 0);
        gate.open();
        timeouts += 1;
        // The first ones may still be behind the held one.
        answered(&client, b"after", &mut timeouts).await;
        let req = crate::own_page::slot_of(client.connection_id()).req;
        assert_eq!((req.timeouts, req.late_replies), (timeouts, timeouts));
    });
}

#[test]
fn a_dropped_call_gives_its_request_up_and_harms_no_other() {
    everywhere(|world| async move {
        let (_server, gate) = world.serve_held(echo);
        let client = world.client().await;
        let tasks: Vec<_> = (0..10usize)
            .map(|i| {
                let client = client.clone();
                tokio::spawn(async move { client.fire_bytes(&pattern(i, 100)).await })
            })
            .collect();
        until(|| client.in_flight() == 10).await;
        for task in tasks.iter().step_by(2) {
            task.abort();
        }
        until(|| client.in_flight() == 5).await;
        gate.open();
        for (i, task) in tasks.into_iter().enumerate() {
            match task.await {
                Ok(reply) => assert_eq!(reply.expect("a reply"), pattern(i, 100)),
                Err(e) => assert!(e.is_cancelled() && i % 2 == 0),
            }
        }
        assert_eq!(client.fire_bytes(b"on").await.expect("a reply"), b"on");
    });
}

/// A server that is a process, and a client that it has answered.
async fn up(world: &World) -> (Server, AsyncSynapse) {
    let server = Server::start(&world.path());
    let client = world.client().await;
    assert_eq!(client.fire_bytes(b"up").await.expect("a reply"), b"up");
    (server, client)
}

#[test]
fn a_killed_server_ends_all_calls_at_once_and_their_outcome_is_unknown() {
    everywhere(|world| async move {
        let (server, client) = up(&world).await;
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.fire_bytes(b"hold").await })
            })
            .collect();
        until(|| client.in_flight() == 4).await;
        server.signal(Signal::SIGKILL);
        client.closed().await;
        for task in tasks {
            match task.await.expect("no panic") {
                Err(RequestError::Disconnected { in_flight: 1, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        match client.fire_bytes(b"gone").await {
            Err(RequestError::Disconnected { in_flight: 0, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

/// Over the socket it is the kernel that refuses the request, so its outcome is known: nobody has seen it.
#[test]
fn who_meets_the_end_of_the_server_by_sending_has_asked_for_nothing() {
    everywhere(|world| async move {
        let (server, client) = up(&world).await;
        if client.is_shm() {
            return;
        }
        // Reaped, without a pause in which the runtime could have noticed.
        drop(server);
        match client.fire_bytes(b"gone").await {
            Err(RequestError::Disconnected { in_flight: 0, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_stopped_server_costs_a_timeout_and_one_that_goes_on_is_good_again() {
    everywhere(|mut world| async move {
        world.config.request_timeout = Duration::from_millis(50);
        let server = Server::start(&world.path());
        let client = world.client().await;
        server.signal(Signal::SIGSTOP);
        // Stopping is not at once; from some request on there is no reply.
        while client.fire_bytes(b"stopped").await.is_ok() {}
        server.signal(Signal::SIGCONT);
        answered(&client, b"on", &mut 0).await;
    });
}

#[test]
fn the_last_handle_ends_the_connection() {
    everywhere(|world| async move {
        let server = world.serve(echo);
        let client = world.client().await;
        let other = client.clone();
        drop(client);
        assert_eq!(other.fire_bytes(b"still").await.expect("a reply"), b"still");
        assert_eq!(server.clients(), 1);
        drop(other);
        until(|| server.clients() == 0).await;
    });
}
