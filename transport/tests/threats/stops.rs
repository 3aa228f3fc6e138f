//! Threats 10, 35, 36 and 37: peers that stop, replies that come late, rings that are full, handlers that panic. All of that is life.

use std::time::Duration;

use nix::sys::signal::Signal;
use transport::TransportChoice;
use transport::error::RequestError;
use transport::fault::Point;

use crate::harm::fault;
use crate::payload;
use crate::role::{Process, WATCHDOG};
use crate::watch::{client_page, is_stopped, own_page, page, within};
use crate::world::{Ended, MAX_MESSAGE, World, mix, ready};

fn stops(process: &Process, what: &str) {
    within(WATCHDOG, what, || {
        is_stopped(process.pid()).then_some(()).ok_or("it runs")
    });
}

/// Reads what a client says until its run has ended.
fn is_done(client: &mut Process, what: &str) {
    loop {
        let line = client.line();
        if let Some(how) = line.strip_prefix("ended ") {
            assert_eq!(how, "Done", "{what}");
            return;
        }
        assert!(line.starts_with("connected"), "{what}: {line}");
    }
}

/// How long, in milliseconds, the server takes for a client's first request: so that it is slept through where sleeping is the point. Every
/// policy yields first, and where the CPUs are busy a yield may take tens of milliseconds.
fn slowly(point: Point) -> &'static str {
    match point {
        Point::Announced | Point::Woken => "1000",
        _ => "1",
    }
}

/// Pings until there is an answer within the client's timeout, which may be short for a busy machine.
fn is_answered(client: &mut Process, what: &str) {
    within(WATCHDOG, what, || {
        client.tell("ping");
        let said = client.line();
        (said == "pong").then_some(()).ok_or(said)
    });
}

#[test]
fn a_client_stopped_anywhere_holds_nobody_up_and_goes_on_afterwards() {
    let world = World::new();
    let mut server = ready(world.server().with("HANDSHAKE_MS", "60000"));
    let mut bystander = world.connect();
    for point in Point::ALL.iter().copied().filter(|p| p.in_client()) {
        let what = format!("client stopped at {point:?} ({})", point.text());
        let transport = if point == Point::HalfFrame {
            "socket"
        } else {
            "auto"
        };
        let mut client = world
            .client()
            .with("FAULT", fault(point, 1, "stop"))
            .with("TRANSPORT", transport)
            .with("HANDSHAKE_MS", "60000")
            .with("SLOWLY", slowly(point))
            .go();
        client.tell("go 2");
        stops(&client, &what);
        assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done), "{what}");
        client.signal(Signal::SIGCONT);
        is_done(&mut client, &what);
        client.finish();
    }
    let counts = server.ask("counts", "counts");
    assert!(counts.ends_with(" corrupt=0"), "{counts}");
}

#[test]
fn a_server_stopped_anywhere_is_waited_for() {
    let world = World::new();
    for point in Point::ALL.iter().copied().filter(|p| p.in_server()) {
        let what = format!("server stopped at {point:?} ({})", point.text());
        let server = ready(
            world
                .server()
                .with("FAULT", fault(point, 1, "stop"))
                .with("HANDSHAKE_MS", "60000"),
        );
        let transport = if point == Point::HalfFrame {
            "socket"
        } else {
            "auto"
        };
        let mut client = world
            .client()
            .with("TRANSPORT", transport)
            .with("HANDSHAKE_MS", "60000")
            .with("SLOWLY", slowly(point))
            .go();
        client.tell("go 2");
        stops(&server, &what);
        server.signal(Signal::SIGCONT);
        is_done(&mut client, &what);
    }
}

#[test]
fn a_stopped_server_is_not_dead_requests_time_out_and_work_again_after() {
    for transport in ["shm", "socket"] {
        let world = World::new();
        let server = ready(world.server());
        let mut client = world
            .client()
            .with("TIMEOUT_MS", "100")
            .with("TRANSPORT", transport)
            .go();
        assert_eq!(client.ask("connect", "connected"), transport);
        is_answered(&mut client, transport);
        server.signal(Signal::SIGSTOP);
        stops(&server, transport);
        for _ in 0..3 {
            let why = client.ask("ping", "failed");
            assert!(why.contains("no reply within"), "{transport}: {why}");
        }
        server.signal(Signal::SIGCONT);
        is_answered(&mut client, transport);
        let page = client_page(&world.stats(), client.pid()).expect("the client's page");
        let req = page.slots[0].req;
        assert!(req.timeouts >= 3, "{transport}: {req:?}");
        within(WATCHDOG, "late replies are discarded and counted", || {
            is_answered(&mut client, transport);
            let req = client_page(&world.stats(), client.pid())
                .expect("its page")
                .slots[0]
                .req;
            (req.late_replies == req.timeouts).then_some(()).ok_or(req)
        });
    }
}

#[test]
fn a_request_that_a_stopped_server_took_a_part_of_times_out_and_the_connection_goes_on() {
    // Far more than the kernel's buffers take.
    const LARGE: usize = 1 << 20;
    let world = World::new();
    let server = ready(
        world
            .server()
            .with("RING_BYTES", (4 * LARGE).to_string())
            .with("MAX_MESSAGE", LARGE.to_string()),
    );
    let config = transport::Config {
        transport: TransportChoice::Socket,
        ring_bytes: 4 * LARGE,
        max_message_bytes: LARGE,
        request_timeout: Duration::from_millis(100),
        ..world.config()
    };
    let large = |number| payload::request(number, LARGE, 8);
    for submitted in [false, true] {
        let mut client = transport::Synapse::connect(world.path(), &config).expect("a client");
        let id = client.connection_id();
        server.signal(Signal::SIGSTOP);
        stops(&server, "the server");
        let first = if submitted {
            client.submit(&large(1)).map(drop)
        } else {
            client.fire_bytes(&large(1)).map(drop)
        };
        assert!(
            matches!(first, Err(RequestError::Timeout { .. })),
            "{first:?}"
        );
        assert_eq!(client.in_flight(), 0);
        // The rest of it is in the way of the next, small or large.
        for request in [payload::request(2, 16, 8), large(2)] {
            match client.fire_bytes(&request) {
                Err(RequestError::Full { in_flight: 0, .. }) => {}
                other => panic!("{:?}", other.map(<[u8]>::len)),
            }
        }
        server.signal(Signal::SIGCONT);
        let mut number = 2;
        within(WATCHDOG, "it answers again", || {
            number += 1;
            match client.fire_bytes(&payload::request(number, 16, 8)) {
                Ok(reply) => assert_eq!(reply, payload::expected(number, 8)),
                // While it is still at work on the large one.
                Err(e @ (RequestError::Full { .. } | RequestError::Timeout { .. })) => {
                    return Err(e);
                }
                Err(e) => panic!("{e}"),
            }
            Ok(())
        });
        let page = own_page().expect("our page");
        let slot = page.slots.iter().find(|s| s.info.connection_id == id);
        let slot = slot.expect("our slot");
        assert!(
            slot.req.timeouts >= 1 && slot.req.late_replies == slot.req.timeouts,
            "{:?}",
            slot.req
        );
    }
    let mut server = server;
    let counts = server.ask("counts", "counts");
    assert!(counts.ends_with(" corrupt=0"), "{counts}");
}

#[test]
fn cancelled_requests_never_answer_another_and_every_late_reply_is_counted() {
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let world = World::new();
        let _server = ready(world.server());
        let config = transport::Config {
            transport,
            ..world.config()
        };
        let mut client = transport::Synapse::connect(world.path(), &config).expect("a client");
        let id = client.connection_id();
        let (mut number, mut cancelled, mut dice) = (0u64, 0, 7u64);
        for _ in 0..400 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (depth, receive) = (1 + (dice >> 33) % 12, (dice >> 40) % 12);
            let mut sent = std::collections::VecDeque::new();
            for _ in 0..depth {
                number += 1;
                let length = 16 + ((dice >> 20) % 5000) as usize;
                match client.submit(&payload::request(number, length, length)) {
                    Ok(_) => sent.push_back((number, length)),
                    Err(RequestError::Full { .. }) => break,
                    Err(e) => panic!("{e}"),
                }
            }
            for _ in 0..receive {
                let Some((number, length)) = sent.pop_front() else {
                    break;
                };
                let (_, bytes) = client.receive().expect("a reply");
                assert!(
                    bytes == payload::expected(number, length),
                    "reply {number} is wrong"
                );
            }
            cancelled += client.cancel_all();
            assert_eq!(client.in_flight(), 0);
        }
        number += 1;
        let last = loop {
            match client.fire_bytes(&payload::request(number, 100, 100)) {
                Ok(bytes) => break bytes.to_vec(),
                Err(RequestError::Full { .. }) => {}
                Err(e) => panic!("{e}"),
            }
        };
        assert!(
            last == payload::expected(number, 100),
            "the reply after all the cancelled ones"
        );
        let page = own_page().expect("our page");
        let slot = page
            .slots
            .iter()
            .find(|s| s.info.connection_id == id)
            .expect("our slot");
        assert_eq!(
            (slot.req.late_replies, slot.rx.rx_invalid),
            (cancelled as u64, 0),
            "{transport:?}"
        );
        assert!(cancelled > 100, "{cancelled}");
    }
}

#[test]
fn a_client_that_never_reads_meets_a_bounded_wait_and_then_an_error_and_loses_nothing() {
    let world = World::new();
    let server = ready(world.server());
    let mut bystander = world.connect();
    let config = transport::Config {
        // Met once, at the end; no reply is to meet it.
        request_timeout: Duration::from_secs(2),
        ..world.config()
    };
    let mut client = transport::Synapse::connect(world.path(), &config).expect("a client");
    let id = client.connection_id();
    let mut sent = 0u64;
    // Until both rings are full and the server waits for room, then some more.
    for _ in 0..3 {
        loop {
            match client.submit(&payload::request(sent + 1, 5000, MAX_MESSAGE)) {
                Ok(_) => sent += 1,
                Err(RequestError::Full { in_flight, .. }) => {
                    break assert_eq!(in_flight as u64, sent);
                }
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert!(sent > 64 / 20, "{sent}");
    within(WATCHDOG, "the server sees the full ring", || {
        let page = page(&world.stats(), server.pid()).ok_or("no page")?;
        let slot = page
            .slots
            .iter()
            .find(|s| s.info.connection_id == id)
            .ok_or("no slot")?;
        (slot.tx.tx_full > 0 && slot.tx.tx_blocked_since_ns > 0)
            .then_some(())
            .ok_or("not blocked")
    });
    assert!(
        matches!(mix(&mut bystander, 2, 0), Ended::Done),
        "others are served"
    );
    for number in 1..=sent {
        let (_, bytes) = client.receive().expect("a reply");
        assert!(
            bytes == payload::expected(number, MAX_MESSAGE),
            "reply {number} is wrong"
        );
    }
    assert!(matches!(mix(&mut client, 2, 0), Ended::Done));

    // Nobody there to make room, and no reply to be received either.
    server.signal(Signal::SIGSTOP);
    stops(&server, "the server");
    let begun = std::time::Instant::now();
    let mut sent = 0;
    while client.submit(&payload::request(sent + 1, 5000, 8)).is_ok() {
        sent += 1;
    }
    assert!(begun.elapsed() < WATCHDOG, "waited {:?}", begun.elapsed());
    server.signal(Signal::SIGCONT);
    for number in 1..=sent {
        let (_, bytes) = client.receive().expect("a reply");
        assert!(
            bytes == payload::expected(number, 8),
            "reply {number} is wrong"
        );
    }
}

#[test]
fn a_panic_in_the_handler_is_one_error_reply_and_nobody_else_notices() {
    let world = World::new();
    let server = ready(world.server());
    let mut bystander = world.connect();
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let config = transport::Config {
            transport,
            ..world.config()
        };
        let mut client = transport::Synapse::connect(world.path(), &config).expect("a client");
        let id = client.connection_id();
        for _ in 0..3 {
            match client.fire_bytes(b"panic") {
                Err(RequestError::Remote { message, .. }) => {
                    assert!(message.contains("panicked"), "{message}")
                }
                other => panic!("{other:?}"),
            }
            assert!(matches!(mix(&mut bystander, 1, 0), Ended::Done));
        }
        assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
        let page = world.page(&server);
        let slot = page
            .slots
            .iter()
            .find(|s| s.info.connection_id == id)
            .expect("its slot");
        assert_eq!((slot.req.panics, slot.req.errors), (3, 3));
    }
}

#[test]
fn a_reply_read_in_place_is_all_there_however_slowly_it_was_written() {
    let world = World::new();
    let pause = fault(Point::Piece, 1, "50");
    let _server = ready(world.server().with("FAULT", pause));
    let mut client = world.connect();
    // SAFETY: the server is a `Membrane`, in a process of ours.
    let trusted = unsafe { transport::TrustedServer::promise() };
    for _ in 0..2 {
        let reply = client.fire_in_place(b"stream", trusted).expect("a reply");
        assert!(*reply == [7; MAX_MESSAGE], "a part of it");
    }
}
