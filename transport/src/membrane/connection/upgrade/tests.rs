//! A place at a poller, and upgrades that meet a server's end.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use super::*;
use crate::config::{TransportChoice, WaitPolicy};
use crate::membrane::testing::{WATCHDOG, server_that, until};
use crate::ring::plan;
use crate::shm::says_farewell;
use crate::wire::frame::{HEADER_BYTES, Header, Kind};
use crate::wire::handshake::{ClientAction, ClientHandshake};
use crate::wire::messages::{Hello, Name};
use crate::{Config, Membrane, Synapse};

/// A server whose handlers wait if they are asked `b"held"`, and clients of it that are on the socket.
struct World {
    server: Membrane,
    /// Tells that a handler waits.
    waits: mpsc::Receiver<()>,
    /// Lets it go.
    go: mpsc::Sender<()>,
    /// Idle.
    bystander: Synapse,
    socket: UnixStream,
    machine: ClientHandshake,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with_client_of(TransportChoice::Socket)
    }

    /// What the client says that it wants.
    fn with_client_of(transport: TransportChoice) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (held, waits) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let gate = Mutex::new((held, gone));
        let work = move |request: &[u8]| {
            if request == b"held" {
                let gate = gate.lock().expect("no panic");
                gate.0.send(()).expect("somebody waits for it");
                // An error: the test has failed, and the server is to end.
                let _ = gate.1.recv();
            }
        };
        let (server, config) = server_that(dir.path(), WaitPolicy::Adaptive, work);
        let config = Config {
            transport: TransportChoice::Socket,
            ..config
        };
        let hello = Hello {
            pid: std::process::id(),
            wait_policy: config.wait.number(),
            features: 0,
            ring_bytes: config.ring_bytes as u64,
            max_message: config.max_message_bytes as u64,
            transport,
            name: Name::new("late"),
        };
        let bystander = Synapse::connect(server.path(), &config).expect("a client");
        let socket = UnixStream::connect(server.path()).expect("a connection");
        let (machine, _) =
            drive::connect(&socket, hello, layout::LAYOUT, WATCHDOG).expect("welcome");
        Self {
            server,
            waits,
            go,
            bystander,
            socket,
            machine,
            _dir: dir,
        }
    }
}

/// Begins to drain, and waits until all sockets that are to be shut are.
fn draining(server: Membrane, mut bystander: Synapse) -> JoinHandle<bool> {
    let draining = std::thread::spawn(move || server.drain(WATCHDOG));
    until("it is told", || bystander.check_alive().is_err());
    draining
}

#[test]
fn an_upgrade_that_a_drain_meets_half_way_is_finished_and_its_client_served() {
    let world = World::new();
    let (mut machine, socket) = (world.machine, world.socket);
    let mut drain = None;
    let upgraded = drive::upgrade(&socket, &mut machine, WATCHDOG, |fd, offer| {
        // It has its offer, and no answer of ours.
        drain = Some(draining(world.server, world.bystander));
        let mapping = Mapping::shared(fd.as_fd(), offer.total_bytes as usize)?;
        memfd::close(fd.as_fd())?;
        let capacity = offer.client_to_server_bytes as usize;
        let mut rings = Rings::client(&Arc::new(mapping), capacity, 64);
        // Now: a drain may end as soon as nothing stands in the ring.
        let sent = rings.tx.push(plan::Kind::Request, 1, b"late");
        sent.expect("room");
        Ok(rings)
    });
    let mut rings = match upgraded.expect("no end") {
        Upgraded::Shm(rings, _) => rings,
        Upgraded::Socket(why) => panic!("{why}"),
    };
    assert!(drain.expect("begun").join().expect("no panic"));
    let record = rings.rx.peek().expect("whole").expect("a reply");
    assert_eq!((record.kind, record.id), (plan::Kind::Reply, 1));
    let mut reply = [0; 64];
    assert!(rings.rx.read(&record, &mut reply).expect("whole"));
    assert_eq!(&reply[..record.length], b"late");
    assert!(says_farewell(&socket));
}

#[test]
fn an_upgrade_that_a_drain_has_come_before_is_told_farewell_after_the_replies() {
    let World {
        server,
        waits,
        go,
        bystander,
        mut socket,
        mut machine,
        _dir,
    } = World::new();
    let request = Header {
        kind: Kind::Request,
        id: 1,
        length: 4,
        aux: 0,
    };
    socket.write_all(&request.encode()).expect("sent");
    socket.write_all(b"held").expect("sent");
    waits.recv().expect("its handler runs");
    let message = machine.upgrade().expect("on the socket");
    socket.write_all(&message.encode()).expect("sent");
    let drain = draining(server, bystander);
    go.send(()).expect("it waits");
    socket.set_read_timeout(Some(WATCHDOG)).expect("a timeout");
    let (mut reply, mut farewell) = ([0; HEADER_BYTES + 4], [0; HANDSHAKE_BYTES]);
    socket.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply[HEADER_BYTES..], b"held");
    socket.read_exact(&mut farewell).expect("a message");
    match machine.on_message(&farewell, 0) {
        ClientAction::Close(Ending::Bye) => {}
        other => panic!("{other:?}"),
    }
    assert!(drain.join().expect("no panic"));
}

/// Begins to end, and waits until that socket takes nothing more.
fn shut(server: Membrane, socket: &UnixStream) -> JoinHandle<()> {
    let ending = std::thread::spawn(move || server.shutdown());
    until("it is shut", || {
        send(socket.as_raw_fd(), &[], MsgFlags::MSG_NOSIGNAL) == Err(Errno::EPIPE)
    });
    ending
}

#[test]
fn an_upgrade_that_a_shutdown_meets_half_way_is_told_farewell() {
    let world = World::new();
    let (mut machine, socket) = (world.machine, world.socket);
    let mut end = None;
    let upgraded = drive::upgrade(&socket, &mut machine, WATCHDOG, |_, _| {
        // It has its offer, and no answer of ours.
        end = Some(shut(world.server, &socket));
        Ok(())
    });
    assert_eq!(upgraded.map(|_| ()), Err(Ending::Bye));
    end.expect("begun").join().expect("no panic");
}

#[test]
fn an_upgrade_that_a_shutdown_has_come_before_is_told_farewell() {
    for transport in [TransportChoice::Socket, TransportChoice::Auto] {
        let world = World::with_client_of(transport);
        let (mut machine, socket) = (world.machine, world.socket);
        let end = shut(world.server, &socket);
        let upgraded = drive::upgrade(&socket, &mut machine, WATCHDOG, |_, _| Ok(()));
        assert_eq!(upgraded.map(|_| ()), Err(Ending::Bye), "{transport:?}");
        end.join().expect("no panic");
    }
}

#[test]
fn a_place_at_a_poller_is_held_once_and_its_inbox_no_longer_than_it_is_used() {
    let inbox = Arc::new(Inbox::default());
    let assigned = || {
        inbox.reserve(1);
        Assigned((Arc::clone(&inbox), None))
    };
    drop(assigned());
    assert_eq!(inbox.load(), 0, "given back");
    let taken = assigned().take();
    assert_eq!(inbox.load(), 1);
    drop(taken);
    assert_eq!(Arc::strong_count(&inbox), 1);
}
