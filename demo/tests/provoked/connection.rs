//! Faults of the upgrade to shared memory, each met by a real server or client.

use std::io::Write;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;

use crate::common::{Place, Running};
use crate::doctor::{ask, is_well, names};
use crate::kernel::{NOBODY, leave_descriptors, limit};
use crate::limits::settle;
use crate::{Outcome, Provocation, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    together("socket-fallback", socket_fallback),
    together("fallback-eagain", fallback_eagain),
    together("fd-truncated", fd_truncated),
    together("inflight-fds", inflight_fds),
    together("memfd-blocked", memfd_blocked),
    together("unsealed-ring", unsealed_ring),
    together("accept-queue", accept_queue),
    together("handshake-rejected", handshake_rejected),
    together("fallback-churn", fallback_churn),
];

/// Whether these tests may become other users, raise limits, look into anybody's files.
pub(crate) fn root() -> Outcome {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err("needs root".into())
}

/// Starts a part of the test program and waits for its first line.
#[track_caller]
pub(crate) fn start(place: &Place, words: &str) -> Running {
    let mut part = place.start("self", words);
    let line = part.line();
    assert!(!line.is_empty(), "{words}: {:?}", part.finish());
    part
}

/// A place that nobody may use, too.
pub(crate) fn for_nobody(place: &Place) {
    chown(place.dir(), Some(NOBODY), Some(NOBODY)).expect("we are root");
}

/// One descriptor short: the client is served, on the socket. The hint stays, and comes first, when the limit has been raised but the
/// client has not reconnected.
fn socket_fallback(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let server = exchange.pid();
    let _first = start(place, "client plain");
    settle(server);
    leave_descriptors(server, 1).expect("lowered");
    let mut second = place.start("self", "client plain");
    assert_eq!(second.line(), "on the socket\n");
    limit(server, libc::RLIMIT_NOFILE, None).expect("raised");
    names(place, server, "socket-fallback", "warn")
        .says(format!(
            "1 of 2 clients is on the socket (pid {})",
            second.pid()
        ))
        .says("memfd_create → EMFILE")
        .fix(format!("let pid {} connect again", second.pid()))
        .word("errno", "EMFILE")
        .number("limit then", |n| n > 3.0);
    second.kill();
    let _second = start(place, "client plain");
    is_well(place, server, "socket-fallback");
    Ok(())
}

/// Memory that is locked as it is mapped, by somebody who may lock little: mmap says EAGAIN.
fn fallback_eagain(place: &Place) -> Outcome {
    root()?;
    for_nobody(place);
    let server = start(place, "nobody exchange");
    let mut client = place.start(
        "self",
        "memlock=8000000 nobody lock-what-comes client plain",
    );
    assert_eq!(client.line(), "on the socket\n");
    names(place, client.pid(), "fallback-eagain", "warn")
        .says("mmap → EAGAIN")
        .says("RLIMIT_MEMLOCK")
        .fix(format!("prlimit --pid {} --memlock=", client.pid()))
        .explains("socket-fallback");
    client.kill();
    let _client = start(place, "nobody client plain");
    is_well(place, server.pid(), "fallback-eagain");
    Ok(())
}

/// The client's table is full when the rings' descriptor comes.
fn fd_truncated(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let mut client = place.start("self", "client no-room 1");
    assert_eq!(client.line(), "on the socket\n");
    let pid = client.pid();
    names(place, exchange.pid(), "fd-truncated", "crit")
        .says(format!("did not reach pid {pid}"))
        .fix(format!("prlimit --pid {pid} --nofile="))
        .explains("socket-fallback");
    client.kill();
    let _client = start(place, "client plain");
    is_well(place, exchange.pid(), "fd-truncated");
    Ok(())
}

/// The server's user has as many descriptors under way as it may have open.
fn inflight_fds(place: &Place) -> Outcome {
    root()?;
    for_nobody(place);
    let server = start(place, "nofile=64 nobody server in-flight");
    let mut client = place.start("self", "nobody client plain");
    assert_eq!(client.line(), "on the socket\n");
    names(place, server.pid(), "inflight-fds", "warn")
        .says(format!("pid {}", server.pid()))
        .fix(format!("prlimit --pid {} --nofile=", server.pid()))
        .word("errno", "ETOOMANYREFS")
        .explains("socket-fallback");
    drop((client, server));
    let server = start(place, "nofile=64 nobody server");
    let _client = start(place, "nobody client plain");
    is_well(place, server.pid(), "inflight-fds");
    Ok(())
}

/// A seccomp filter as containers have them.
fn memfd_blocked(place: &Place) -> Outcome {
    let server = start(place, "server no-memfd");
    let mut client = place.start("self", "client plain");
    assert_eq!(client.line(), "on the socket\n");
    let pid = server.pid();
    names(place, pid, "memfd-blocked", "crit")
        .says(format!("pid {pid} may not call memfd_create (EPERM)"))
        .fix(format!("allow memfd_create for pid {pid}"))
        .explains("socket-fallback");
    drop((client, server));
    let server = start(place, "server");
    let _client = start(place, "client plain");
    is_well(place, server.pid(), "memfd-blocked");
    Ok(())
}

/// A server whose seals are never set offers memory that it could shrink.
fn unsealed_ring(place: &Place) -> Outcome {
    let server = start(place, "server no-seals");
    let mut client = place.start("self", "client plain");
    assert_eq!(client.line(), "on the socket\n");
    names(place, client.pid(), "unsealed-ring", "crit")
        .says(format!("pid {}", server.pid()))
        .fix(format!("/proc/{}/exe", server.pid()))
        .explains("socket-fallback");
    drop((client, server));
    let _server = start(place, "server");
    let client = start(place, "client plain");
    is_well(place, client.pid(), "unsealed-ring");
    Ok(())
}

/// A server that does not accept, and many who want to come in.
fn accept_queue(place: &Place) -> Outcome {
    let most =
        std::fs::read_to_string("/proc/sys/net/core/somaxconn").map_err(|e| e.to_string())?;
    if most.trim().parse().is_ok_and(|n: u32| n < 1024) {
        // The queue would be full before all of them wait, and the next would wait for ever.
        return Err(format!("somaxconn is {}", most.trim()));
    }
    limit(0, libc::RLIMIT_NOFILE, None).map_err(|e| e.to_string())?;
    let exchange = place.exchange("");
    exchange.signal(Signal::SIGSTOP);
    let waiting: Vec<UnixStream> = (0..900)
        .map(|_| UnixStream::connect(place.socket()).expect("a place in the queue"))
        .collect();
    let pid = exchange.pid();
    names(place, pid, "accept-queue", "warn")
        .says(format!("pid {pid}"))
        .fix(format!("kill -CONT {pid}"))
        // A stop takes effect a moment after the call: the first one or two may have been let in.
        .number("queue", |n| n > 0.8 * 1024.0 && n <= 900.0)
        .number("backlog", |n| n == 1024.0);
    drop(waiting);
    exchange.signal(Signal::SIGCONT);
    is_well(place, pid, "accept-queue");
    Ok(())
}

/// Strangers who speak another language.
fn handshake_rejected(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let pid = exchange.pid();
    let report = std::thread::scope(|s| {
        let watching = s.spawn(|| ask(place, &format!("-p {pid} --for 6s")));
        crate::common::wait_until("doctor to look, then refusals", || {
            for _ in 0..5 {
                let mut stream = UnixStream::connect(place.socket()).expect("it listens");
                stream
                    .write_all(&b"GET / HTTP/1.1\r\n".repeat(32))
                    .expect("sent");
            }
            std::thread::sleep(std::time::Duration::from_millis(500));
            watching.is_finished()
        });
        watching.join().expect("doctor ends")
    });
    report
        .first("handshake-rejected", "warn")
        .says(format!("pid {}", std::process::id()))
        .fix(format!("/proc/{}/exe", std::process::id()))
        .number("refused", |n| n >= 3.0);
    is_well(place, pid, "handshake-rejected");
    Ok(())
}

/// Clients that come one after the other, and have gone before a second is over, to a server that may make no memfd.
fn fallback_churn(place: &Place) -> Outcome {
    let server = start(place, "server no-memfd");
    let pid = server.pid();
    let report = std::thread::scope(|s| {
        let watching = s.spawn(|| ask(place, &format!("-p {pid} --for 6s")));
        crate::common::wait_until("doctor to look, and clients to come and go", || {
            let mut client = place.start("self", "client plain");
            assert_eq!(client.line(), "on the socket\n");
            client.kill();
            watching.is_finished()
        });
        watching.join().expect("doctor ends")
    });
    report
        .first("fallback-churn", "warn")
        .says("memfd_create → EPERM")
        .fix(format!("in pid {pid}"))
        .word("errno", "EPERM")
        .number("fell back and went", |n| n >= 3.0);
    is_well(place, pid, "fallback-churn");
    Ok(())
}
