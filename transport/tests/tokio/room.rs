//! Requests for which there is no room yet: they wait in line.

use std::sync::{Arc, Mutex};

use super::{echo, everywhere, pattern, until};
use crate::server::{Server, WATCHDOG};
use transport::error::RequestError;

#[test]
fn requests_beyond_the_room_wait_for_it_and_are_answered() {
    everywhere(|world| async move {
        let (_server, gate) = world.serve_held(echo);
        let client = world.client().await;
        // 6 MB through a ring of 256 KiB.
        let tasks: Vec<_> = (0..60usize)
            .map(|i| {
                let client = client.clone();
                tokio::spawn(async move {
                    let request = pattern(i, 99_000);
                    client
                        .fire_bytes(&request)
                        .await
                        .map(|reply| reply == request)
                })
            })
            .collect();
        until(|| client.in_flight() > 0).await;
        gate.open();
        for task in tasks {
            assert!(task.await.expect("no panic").expect("a reply"));
        }
    });
}

/// Lets a call do what it does before it waits.
async fn begin<F: Future + Unpin>(call: &mut F) {
    std::future::poll_fn(|cx| {
        let _ = std::pin::Pin::new(&mut *call).poll(cx);
        std::task::Poll::Ready(())
    })
    .await;
}

#[test]
fn who_waits_for_room_is_not_overtaken_by_who_comes_later() {
    everywhere(|world| async move {
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&order);
        let (_server, gate) = world.serve_held(move |request, reply| {
            seen.lock().expect("no panic").push(request[0]);
            echo(&request[..1], reply);
        });
        let client = world.client().await;
        let ask = |number: u8| {
            let client = client.clone();
            let mut request = vec![0; 60_000];
            request[0] = number;
            let reply = async move { client.fire_bytes(&request).await.expect("a reply") };
            Box::pin(reply)
        };
        // One after the other, more than there is room for: each has sent its request, or waits for room, before the next one comes.
        let mut all: Vec<_> = (0..12).map(ask).collect();
        for asked in &mut all {
            begin(asked).await;
        }
        gate.open();
        // Room appears, and nobody is told before this thread looks: the latest comer is the first to see it.
        let handled = if client.is_shm() { 2 } else { 1 };
        let begun = std::time::Instant::now();
        while order.lock().expect("no panic").len() < handled {
            assert!(begun.elapsed() < WATCHDOG, "nothing is handled");
            std::thread::yield_now();
        }
        all.push(ask(99));
        begin(&mut all[12]).await;
        let tasks: Vec<_> = all.into_iter().map(tokio::spawn).collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        let order = order.lock().expect("no panic");
        assert_eq!(order.last(), Some(&99), "{order:?}");
    });
}

#[test]
fn who_finds_no_room_and_the_end_at_once_is_told_of_the_end() {
    everywhere(|mut world| async move {
        world.config.request_timeout = 2 * WATCHDOG;
        let server = Server::start(&world.path());
        let client = world.client().await;
        let ask = |request: Vec<u8>| {
            let client = client.clone();
            Box::pin(async move { client.fire_bytes(&request).await })
        };
        // Over the socket, six of these are as many as fit while the server is busy with the first.
        let mut all = vec![ask(b"hold".to_vec())];
        all.extend((0..6).map(|_| ask(vec![1; 10_000])));
        for asked in &mut all {
            begin(asked).await;
        }
        // Dead and waited for, before anybody looks.
        drop(server);
        all.push(ask(vec![1; 10_000]));
        for asked in all.into_iter().rev() {
            match asked.await {
                Err(RequestError::Disconnected { in_flight, .. }) => assert!(in_flight <= 1),
                other => panic!("{other:?}"),
            }
        }
    });
}
