//! Threats 29 to 31: who owns a socket's path, and what clients see when its owner is killed and another one comes.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::thread::JoinHandleExt;
use std::path::Path;
use std::time::Duration;

use transport::error::{BindError, ConnectError};
use transport::fault::{self, Action, Point};
use transport::{Membrane, Synapse};

use crate::role::{Process, WATCHDOG, required, say};
use crate::watch::{held, within};
use crate::world::{Ended, World, mix, own_config, ready};

#[test]
fn the_path_of_a_server_that_was_killed_is_taken_over() {
    let world = World::new();
    for _ in 0..5 {
        let mut server = ready(world.server());
        let inode = std::fs::metadata(world.path()).expect("its socket").ino();
        assert_eq!(world.page(&server).process.listener_inode, inode);
        server.kill();
        let left = std::fs::symlink_metadata(world.path()).expect("left behind");
        assert!(left.file_type().is_socket());
        assert!(matches!(
            Synapse::connect(world.path(), &world.config()),
            Err(ConnectError::NoServer { .. })
        ));
    }
    let _server = ready(world.server());
    assert!(matches!(mix(&mut world.connect(), 1, 0), Ended::Done));
}

/// Role `binder`: binds at once when told to, says how it went, and serves until its input ends; or leaves a dead server's socket behind.
pub(crate) fn bind_once() {
    let path = std::path::PathBuf::from(required("DIR")).join("s");
    let config = own_config();
    while let Some(line) = crate::role::command() {
        if line == "leave" {
            // Here, where nobody forks: of the test's own process, a child on its way to its exec would keep it alive.
            drop(std::os::unix::net::UnixListener::bind(&path).expect("a stale socket"));
            say(format_args!("left"));
            continue;
        }
        // Time for another one to come between the look and the deed.
        fault::arm(
            Point::PathProbed,
            1,
            Action::Delay(Duration::from_millis(10)),
        );
        match Membrane::bind(&path, &config, |_, _| {}) {
            Ok(server) => {
                say(format_args!("bound"));
                crate::role::command();
                server.shutdown();
                say(format_args!("ended"));
            }
            Err(BindError::InUse { .. }) => {
                say(format_args!("refused"));
                crate::role::command();
                say(format_args!("ended"));
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn of_servers_that_race_for_a_path_exactly_one_gets_it() {
    let world = World::new();
    let binder = || {
        crate::role::start("binder")
            .with("DIR", world.path().parent().expect("a directory"))
            .go()
    };
    let mut processes: [Process; 3] = std::array::from_fn(|_| binder());
    for round in 0..100 {
        // Every other time over a path that a dead server left.
        if round % 2 == 1 {
            processes[0].ask("leave", "left");
        }
        processes.iter_mut().for_each(|p| p.tell("bind"));
        let said: Vec<String> = processes.iter_mut().map(Process::line).collect();
        assert_eq!(
            said.iter().filter(|s| *s == "bound").count(),
            1,
            "round {round}: {said:?}"
        );
        let client = Synapse::connect(world.path(), &world.config());
        client.unwrap_or_else(|e| panic!("round {round}: the winner is not at the path: {e}"));
        processes.iter_mut().for_each(|p| p.tell("end"));
        processes.iter_mut().for_each(|p| drop(p.hear("ended")));
        assert!(!world.path().exists(), "round {round}");
    }
}

#[test]
fn what_is_no_socket_is_never_touched_and_a_live_servers_path_never_stolen() {
    let world = World::new();
    let place = world.path();
    let lock = place.with_file_name("s.lock");
    let try_bind = || {
        let bound = Membrane::bind(&place, &world.config(), |_, _| {}).map(drop);
        assert!(!lock.exists(), "{bound:?}: its lock file is left behind");
        bound
    };
    std::fs::write(&place, "precious").expect("a file");
    assert!(matches!(try_bind(), Err(BindError::NotASocket { .. })));
    assert_eq!(std::fs::read(&place).expect("still there"), b"precious");
    std::fs::remove_file(&place).expect("ours");
    std::fs::create_dir(&place).expect("a directory");
    assert!(matches!(try_bind(), Err(BindError::NotASocket { .. })));
    std::fs::remove_dir(&place).expect("still there, and empty");
    std::os::unix::fs::symlink("/etc/passwd", &place).expect("a link");
    assert!(matches!(try_bind(), Err(BindError::NotASocket { .. })));
    std::fs::remove_file(&place).expect("still there");

    // Somebody who does not know our lock file; with a full queue, too: probing must not wait for it.
    let foreign = std::os::unix::net::UnixListener::bind(&place).expect("a socket");
    let inode = std::fs::metadata(&place).expect("it").ino();
    assert!(matches!(try_bind(), Err(BindError::InUse { .. })));
    fill_the_queue(&place);
    assert!(matches!(try_bind(), Err(BindError::InUse { .. })));
    assert_eq!(std::fs::metadata(&place).expect("still there").ino(), inode);
    drop(foreign);
    // A child of another test may hold a copy of it for a moment, between its fork and its exec.
    within(WATCHDOG, "now it is free", try_bind);
}

/// Connects until nobody more fits into the queue.
fn fill_the_queue(path: &Path) {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use std::os::fd::AsRawFd;
    loop {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
        match connect(fd.as_raw_fd(), &UnixAddr::new(path).expect("short")) {
            // Left in the queue when we close our end.
            Ok(()) => {}
            Err(nix::errno::Errno::EAGAIN) => return,
            Err(e) => panic!("{e}"),
        }
    }
}

extern "C" fn nothing(_: libc::c_int) {}

#[test]
fn signals_do_not_prolong_the_wait_for_a_place_in_the_queue() {
    let world = World::new();
    let _stopped = std::os::unix::net::UnixListener::bind(world.path()).expect("a socket");
    fill_the_queue(&world.path());
    // Without SA_RESTART: each one interrupts the wait.
    let action = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::Handler(nothing),
        nix::sys::signal::SaFlags::empty(),
        nix::sys::signal::SigSet::empty(),
    );
    // SAFETY: the handler does nothing; the signal has no other user in this process.
    unsafe { nix::sys::signal::sigaction(nix::sys::signal::Signal::SIGUSR2, &action) }
        .expect("a handler");
    let config = transport::Config {
        handshake_timeout: Duration::from_millis(100),
        ..world.config()
    };
    let path = world.path();
    let waiting = std::thread::spawn(move || Synapse::connect(path, &config).map(drop));
    let begun = std::time::Instant::now();
    while !waiting.is_finished() && begun.elapsed() < WATCHDOG {
        // SAFETY: the thread is not joined yet, so its handle is valid.
        unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGUSR2) };
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(waiting.is_finished(), "each signal begins the wait anew");
    let ended = waiting.join().expect("no panic");
    assert!(
        matches!(ended, Err(ConnectError::Unresponsive { .. })),
        "{ended:?}"
    );
}

#[test]
fn clients_of_a_server_killed_under_load_are_told_that_the_outcome_is_unknown_and_connect_again() {
    let world = World::new();
    let mut server = ready(world.server());
    let mut clients: Vec<Process> = (0..8)
        .map(|i| {
            world
                .client()
                .with("TRANSPORT", if i % 4 == 3 { "socket" } else { "auto" })
                .go()
        })
        .collect();
    let mut before = None;
    for round in 0..5 {
        clients.iter_mut().for_each(|c| c.tell("go"));
        clients.iter_mut().for_each(|c| drop(c.hear("connected")));
        server.kill();
        for client in &mut clients {
            let how = client.hear("ended");
            assert!(how.starts_with("Lost"), "round {round}: {how}");
        }
        let now: Vec<_> = clients
            .iter()
            .map(|c| held(c.pid()))
            .map(|h| (h.fds, h.rings))
            .collect();
        assert_eq!(
            *before.get_or_insert_with(|| now.clone()),
            now,
            "round {round}: something is kept"
        );
        server = ready(world.server());
    }
    for client in &mut clients {
        client.tell("go 2");
        client.hear("connected");
        client.hear("ended Done");
    }
    within(WATCHDOG, "all have left", || {
        let open = world.page(&server).process.open_clients;
        (open == 0).then_some(()).ok_or(open)
    });
}
