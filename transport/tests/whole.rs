//! Replies that are sent as a whole, and requests that are queued: on both transports alike.

use std::time::{Duration, Instant};

use transport::error::RequestError;
use transport::{Config, Membrane, Reply, Synapse, TransportChoice, WaitPolicy};

fn on_both(
    handler: fn(&[u8], &mut Reply<'_>),
    wait: WaitPolicy,
    test: impl Fn(&mut Synapse, TransportChoice),
) {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            name: "whole".into(),
            ring_bytes: 256 << 10,
            max_message_bytes: 100_000,
            wait,
            stats_dir: Some(dir.path().join("stats")),
            request_timeout: Duration::from_secs(20),
            ..Config::default()
        };
        let path = dir.path().join("s");
        let _server = Membrane::bind(&path, &config, handler).expect("a server");
        let config = Config {
            transport,
            ..config
        };
        let mut client = Synapse::connect(&path, &config).expect("a client");
        test(&mut client, transport);
    }
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|i| (seed * 31 + i * 7) as u8).collect()
}

#[test]
fn an_answer_sent_whole_arrives_whole_whatever_its_size_and_that_of_the_last() {
    let echo = |request: &[u8], reply: &mut Reply<'_>| reply.send(request).expect("it fits");
    on_both(echo, WaitPolicy::Adaptive, |client, transport| {
        let sizes = [0, 1, 8_191, 100_000, 8, 8_192, 65_536, 20_000, 0, 99_999];
        for (n, size) in sizes.into_iter().cycle().take(300).enumerate() {
            let request = pattern(n, size);
            let reply = client.fire_bytes(&request).expect("a reply");
            assert!(reply == request, "{size} bytes over {transport:?}");
        }
    });
}

#[test]
fn an_answer_sent_whole_stands_whatever_the_handler_does_next() {
    fn handler(request: &[u8], reply: &mut Reply<'_>) {
        reply.send(request).expect("it fits");
        assert_eq!(reply.remaining(), 0);
        assert_eq!(reply.len(), request.len());
        assert!(reply.extend_from_slice(b"more").is_err());
        assert!(reply.send(b"another").is_err());
        reply.fail("too late");
        if request.first() == Some(&1) {
            panic!("after the answer was sent");
        }
    }
    on_both(handler, WaitPolicy::Adaptive, |client, transport| {
        for size in [64, 20_000] {
            for first in [0, 1, 0] {
                let mut request = pattern(3, size);
                request[0] = first;
                let reply = client
                    .fire_bytes(&request)
                    .expect("the answer, not a failure");
                assert!(reply == request, "{size} bytes over {transport:?}");
            }
        }
    });
}

#[test]
fn an_answer_too_large_to_be_sent_can_still_be_refused() {
    fn handler(request: &[u8], reply: &mut Reply<'_>) {
        let twice = [request, request].concat();
        if let Err(too_large) = reply.send(&twice) {
            reply.fail(too_large);
        }
    }
    on_both(handler, WaitPolicy::Adaptive, |client, _| {
        let error = client.fire_bytes(&[7; 60_000]).expect_err("120,000 bytes");
        assert!(
            matches!(&error, RequestError::Remote { message } if message.contains("120000")),
            "{error}"
        );
        assert_eq!(
            client
                .fire_bytes(&[7; 50_000])
                .expect("100,000 bytes")
                .len(),
            100_000
        );
    });
}

#[test]
fn what_was_queued_wakes_a_sleeping_server_with_the_next_call_that_is_not_queue() {
    let echo = |request: &[u8], reply: &mut Reply<'_>| reply.send(request).expect("it fits");
    on_both(echo, WaitPolicy::Park, |client, _| {
        for round in 0..30 {
            // The server parks at once; until somebody rings, it looks by itself ten times a second.
            let begun = Instant::now();
            let ids: Vec<_> = (0..5)
                .map(|n| client.queue(&pattern(n, 100)).expect("room"))
                .collect();
            if round % 2 == 0 {
                client.notify();
            }
            for (n, id) in ids.into_iter().enumerate() {
                let (found, reply) = client.receive().expect("a reply");
                assert_eq!((found, reply), (id, &pattern(n, 100)[..]));
            }
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        assert!(matches!(
            client.receive(),
            Err(RequestError::NothingInFlight)
        ));
    });
}
