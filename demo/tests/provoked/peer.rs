//! Processes that stop, die, stall, or say what is not so.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::sys::signal::Signal;
use transport::stats::schema::{self, header};

use crate::common::{Place, wait_until};
use crate::connection::{root, start};
use crate::doctor::{is_well, names};
use crate::page::Page;
use crate::{Outcome, Provocation, kernel, together};

pub(crate) const PROVOCATIONS: &[Provocation] = &[
    together("peer-stopped", peer_stopped),
    together("consumer-stalled", consumer_stalled),
    together("handler-stuck", handler_stuck),
    together("inconsistent-peer", inconsistent_peer),
    together("stats-frozen", stats_frozen),
    together("peer-gone", peer_gone),
    together("server-gone", server_gone),
];

/// One process with three clients is stopped: one finding, which names them all.
fn peer_stopped(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let mut trader = place.start("trader", "3 ping --think 5ms --duration forever");
    trader.line();
    trader.signal(Signal::SIGSTOP);
    let pid = trader.pid();
    names(place, exchange.pid(), "peer-stopped", "crit")
        .says(format!("client pid {pid} has been stopped for"))
        .says("clients 1, 2, 3")
        .fix(format!("kill -CONT {pid}"))
        .word("state", "T");
    trader.signal(Signal::SIGCONT);
    is_well(place, exchange.pid(), "peer-stopped");
    Ok(())
}

/// A client that never reads a reply.
fn consumer_stalled(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let client = start(place, "client deaf");
    let pid = client.pid();
    names(place, exchange.pid(), "consumer-stalled", "info")
        .says(format!("the client (pid {pid}) is S"))
        .fix(format!("gdb -p {pid}"))
        .shows(format!("==> /proc/{pid}/task/{pid}/wchan <=="))
        .number("occupancy", |n| n > 100.0)
        .number("index frozen for", |n| n > 1e9);
    drop(client);
    // Both rings full, for the same reason: the server is not to blame.
    let client = start(place, "client greedy");
    names(place, exchange.pid(), "consumer-stalled", "crit")
        .says(format!("the client (pid {})", client.pid()));
    drop(client);
    is_well(place, exchange.pid(), "consumer-stalled");
    Ok(())
}

/// A handler that waits for something for ever.
fn handler_stuck(place: &Place) -> Outcome {
    let exchange = place.exchange("--work 3600s");
    let client = start(place, "client plain");
    let pid = exchange.pid();
    names(place, pid, "handler-stuck", "crit")
        .says(format!("in the handler of pid {pid} for"))
        .fix(format!("gdb -p {pid}"))
        .shows(format!("==> /proc/{pid}/task/"))
        .number("handler runs for", |n| n > 1e9);
    drop((client, exchange));
    let exchange = place.exchange("");
    let _client = start(place, "client plain");
    is_well(place, exchange.pid(), "handler-stuck");
    Ok(())
}

/// Claims to have sent more than the ring holds and the server has received.
fn inconsistent_peer(place: &Place) -> Outcome {
    root()?;
    let exchange = place.exchange("");
    let client = start(place, "client plain");
    let word = schema::descriptors()
        .find(|d| d.name == "tx_ring_bytes")
        .and_then(|d| d.offset)
        .expect("in the page");
    let pid = client.pid();
    let page = Page::of(pid);
    // The client's own is the first slot.
    let sent = page.word(header::SLOTS_OFFSET) + word as u64;
    wait_until("its first request", || page.read(sent) > 0);
    // Until it stays: a request that is being counted meanwhile stores what it has loaded before.
    let (lies, until) = mpsc::channel::<()>();
    let liar = std::thread::spawn(move || {
        while until.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
            if page.read(sent) < 1 << 40 {
                page.write(sent, 1 << 40);
            }
        }
    });
    names(place, exchange.pid(), "inconsistent-peer", "warn")
        .says(format!("pid {pid}) contradicts the server"))
        .fix(format!("/proc/{pid}/exe"));
    drop(lies);
    liar.join().expect("the page was there");
    drop(client);
    let _client = start(place, "client plain");
    is_well(place, exchange.pid(), "inconsistent-peer");
    Ok(())
}

/// The thread of a server that keeps house.
fn control_thread(pid: i32) -> i32 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process of ours");
    let is_it = |t: &std::fs::DirEntry| {
        std::fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.contains("control"))
    };
    let thread = threads.flatten().find(is_it).expect("its control thread");
    thread.file_name().to_string_lossy().parse().expect("a tid")
}

/// The thread that keeps house is held by a debugger; the process runs.
fn stats_frozen(place: &Place) -> Outcome {
    root()?;
    let exchange = place.exchange("");
    let pid = exchange.pid();
    let heartbeat = schema::descriptors().find(|d| d.name == "heartbeat_ns");
    let heartbeat = heartbeat.and_then(|d| d.offset).expect("in the page") as u64;
    let page = Page::of(pid);
    wait_until("its first heartbeat", || page.read(heartbeat) > 0);
    let held = kernel::hold(control_thread(pid)).map_err(|e| format!("ptrace: {e}"))?;
    names(place, pid, "stats-frozen", "warn")
        .says(format!("(pid {pid}) are"))
        .fix(format!("gdb -p {pid}"))
        .shows(format!("==> /proc/{pid}/task/{pid}/wchan <=="))
        .number("age", |n| n > 3e9);
    drop(held);
    is_well(place, pid, "stats-frozen");
    Ok(())
}

/// Held like that, it does not see that a client has died.
fn peer_gone(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let pid = exchange.pid();
    let client = start(place, "client plain");
    let died = client.pid();
    let held = kernel::hold(control_thread(pid)).map_err(|e| format!("ptrace: {e}"))?;
    client.kill();
    names(place, pid, "peer-gone", "crit")
        .says(format!("pid {died} of client 1 died"))
        .fix(format!("-p {pid}"))
        .number("rings held", |n| n > 1e6);
    drop(held);
    let _client = start(place, "client plain");
    is_well(place, pid, "peer-gone");
    Ok(())
}

/// Its clients are left behind when it is killed, and neither when another is there nor when that one ends in good order.
fn server_gone(place: &Place) -> Outcome {
    let exchange = place.exchange("");
    let died = exchange.pid();
    let args = "2 ping --think 5ms --duration forever --reconnect 600s";
    let mut trader = place.start("trader", args);
    trader.line();
    let pid = trader.pid();
    exchange.kill();
    names(place, pid, "server-gone", "crit")
        .says(format!("(pid {pid}) is without a server: "))
        .says(format!("(pid {died}) died"))
        .fix(format!("{died}"))
        .number("without a server for", |n| n > 2e9);
    let again = place.exchange("");
    is_well(place, pid, "server-gone");
    again.signal(Signal::SIGTERM);
    assert_eq!(again.finish().code(), 0);
    is_well(place, pid, "server-gone");
    Ok(())
}
