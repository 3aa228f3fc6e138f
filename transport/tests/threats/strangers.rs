//! Threats 33 and 34, and what a sandbox forbids: other users, other pid namespaces, missing system calls.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use transport::error::{ConnectError, RequestError};
use transport::stats::{SlotKind, SlotState};
use transport::{Synapse, WaitPolicy};

use crate::payload;
use crate::role::{Process, WATCHDOG, in_a_pid_namespace, start_by};
use crate::skipped::skipped;
use crate::watch::{self, within};
use crate::world::{Ended, World, mix, ready};

/// Whether this may be another user, who gets at what the tests make. Root of a container may have no number but its own.
fn may_be_another() -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), mode).expect("ours");
    let searches = || dir.path().join(".").metadata().is_ok();
    nix::unistd::geteuid().is_root() && try_as_user(STRANGER, searches) == Some(true)
}

/// Runs `work` on a thread that is another user: on Linux, credentials are a thread's own. `None` if it can't be.
fn try_as_user<T: Send>(uid: libc::uid_t, work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: the raw call changes this thread's ids and touches no memory; the thread ends with `work`.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            (changed == 0).then(work)
        });
        thread.join().expect("the other user")
    })
}

fn as_user<T: Send>(uid: libc::uid_t, work: impl FnOnce() -> T + Send) -> T {
    try_as_user(uid, work).expect("setresuid")
}

const FRIEND: libc::uid_t = 61_001;

const STRANGER: libc::uid_t = 61_002;

/// One stranger was refused, and the page says which. It is told before it is counted.
fn is_counted(world: &World, server: &Process) {
    within(WATCHDOG, "the refusal is counted", || {
        let process = world.page(server).process;
        let who = (
            process.rejected_uid,
            process.last_rejected_uid,
            process.last_rejected_pid,
        );
        let right = (1, STRANGER.into(), std::process::id().into());
        (who == right).then_some(()).ok_or(who)
    });
}

#[test]
fn another_user_is_kept_out_by_the_files_mode_and_if_let_near_by_its_credentials() {
    if !may_be_another() {
        return skipped("needs root, other users and a temporary directory that they may search");
    }
    let world = World::new();
    let config = world.config();
    let open = |path: PathBuf, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours")
    };
    {
        let server = ready(world.server());
        assert_eq!(
            std::fs::metadata(world.path())
                .expect("it")
                .permissions()
                .mode()
                & 0o777,
            0o600
        );
        // Even where the directory lets everybody in.
        open(world.path().parent().expect("it").into(), 0o755);
        let error =
            as_user(STRANGER, || Synapse::connect(world.path(), &config)).expect_err("kept out");
        assert!(
            matches!(&error, ConnectError::Denied { path, source, .. }
                if *path == world.path() && source.raw_os_error() == Some(libc::EACCES)),
            "{error}"
        );
        // And where somebody opened the socket by hand.
        open(world.path(), 0o666);
        let error =
            as_user(STRANGER, || Synapse::connect(world.path(), &config)).expect_err("refused");
        assert!(
            error.to_string().contains("user 61002 is not allowed"),
            "{error}"
        );
        is_counted(&world, &server);
    }
    let server = ready(world.server().with("ALLOW_UID", FRIEND.to_string()));
    assert_eq!(
        std::fs::metadata(world.path())
            .expect("it")
            .permissions()
            .mode()
            & 0o777,
        0o666
    );
    assert!(
        matches!(mix(&mut world.connect(), 1, 0), Ended::Done),
        "the owner"
    );
    as_user(FRIEND, || {
        let mut friend = Synapse::connect(world.path(), &config).expect("allowed");
        assert!(friend.is_shm());
        assert!(matches!(mix(&mut friend, 1, 0), Ended::Done));
        let told = friend.fire_bytes(b"who").expect("a reply");
        assert_eq!(told, FRIEND.to_string().as_bytes());
    });
    let error = as_user(STRANGER, || Synapse::connect(world.path(), &config)).expect_err("refused");
    assert!(
        error.to_string().contains("user 61002 is not allowed"),
        "{error}"
    );
    is_counted(&world, &server);
}

/// 65534 is what the kernel calls each user whom the server's user namespace does not know.
#[test]
fn who_has_no_number_in_the_servers_user_namespace_is_not_taken_for_a_user_who_is_let_in() {
    let unshare = ["unshare", "--user", "--map-root-user"];
    let works = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .output();
    if !may_be_another() || !works.as_ref().is_ok_and(|o| o.status.success()) {
        return skipped(&format!(
            "needs root, other users who may search the temporary directory, and a user namespace ({works:?})"
        ));
    }
    let world = World::new();
    let (path, config) = (world.path(), world.config());
    let dir = path.parent().expect("a directory");
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).expect("ours");
    let server = start_by(&unshare, "server").with("DIR", dir);
    let _server = ready(server.with("ALLOW_UID", "65534"));
    let error = as_user(STRANGER, || Synapse::connect(&path, &config)).expect_err("refused");
    assert!(
        error.to_string().contains("user 65534 is not allowed"),
        "{error}"
    );
    assert!(matches!(mix(&mut world.connect(), 1, 0), Ended::Done));
}

#[test]
fn peers_in_another_pid_namespace_are_served_both_ways() {
    let Some(unshare) = in_a_pid_namespace() else {
        return;
    };
    let world = World::new();
    let dir = world.path();
    let dir = dir.parent().expect("a directory");
    {
        let server = ready(world.server());
        let mut client = start_by(&unshare, "client").with("DIR", dir).go();
        assert_eq!(client.ask("connect", "connected"), "shm");
        client.tell("mix 2");
        assert!(client.hear("ended").starts_with("Done"));
        let page = world.page(&server);
        let slot = page
            .slots
            .iter()
            .find(|s| s.info.peer_uid == page.uid && s.info.peer_pid != 0);
        assert!(slot.is_some(), "from outside it can be seen");
        client.kill();
    }
    let mut server = start_by(&unshare, "server").with("DIR", dir).go();
    server.hear("ready");
    let mut client = world.connect();
    assert!(matches!(mix(&mut client, 2, 0), Ended::Done));
    // From inside we have no pid, and the server is still right about everything else.
    let counts = server.ask("counts", "counts");
    assert!(counts.ends_with("corrupt=0"), "{counts}");
    server.kill();
    within(WATCHDOG, "the client notices", || {
        match client.check_alive() {
            Err(RequestError::Disconnected { .. }) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

#[test]
fn without_memfds_there_is_the_socket_and_without_futex_waitv_there_are_the_rings() {
    for (call, errno, transport, why) in [
        (
            libc::SYS_memfd_create,
            libc::EPERM,
            "socket",
            "memfd_create → EPERM (at the peer)",
        ),
        (
            libc::SYS_memfd_create,
            libc::ENOSYS,
            "socket",
            "memfd_create → ENOSYS (at the peer)",
        ),
        (libc::SYS_futex_waitv, libc::ENOSYS, "shm", ""),
        (libc::SYS_futex_waitv, libc::EPERM, "shm", ""),
    ] {
        let world = World::new();
        let _server = ready(world.server().with("FORBID", format!("{call} {errno}")));
        let mut client = world.client().go();
        let said = client.ask("connect", "connected");
        assert_eq!(said.trim_end(), format!("{transport} {why}").trim_end());
        client.tell("mix 3");
        assert!(client.hear("ended").starts_with("Done"), "{call} forbidden");
    }
    // And a client without: its page is its own, the rings are the server's.
    let world = World::new();
    let _server = ready(world.server());
    let mut client = world
        .client()
        .with(
            "FORBID",
            format!("{} {}", libc::SYS_memfd_create, libc::EPERM),
        )
        .go();
    assert_eq!(client.ask("connect", "connected"), "shm");
    client.tell("mix 3");
    assert!(client.hear("ended").starts_with("Done"));
}

/// Three clients that think for 3 ms between their requests, for as long as that.
fn think_while(world: &World, go_on: impl Fn() -> bool + Sync) {
    let config = transport::Config {
        wait: WaitPolicy::Adaptive,
        ..world.config()
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Synapse::connect(world.path(), &config).expect("a client");
                for n in (0..).take_while(|_| go_on()) {
                    let reply = client
                        .fire_bytes(&payload::request(n, 16, 8))
                        .expect("a reply");
                    assert!(reply == payload::expected(n, 8));
                    std::thread::sleep(Duration::from_millis(3));
                }
            });
        }
    });
}

/// Sleeps of each poller.
fn sleeps(world: &World, pid: u32) -> Vec<u64> {
    let page = watch::page(&world.stats(), pid).expect("a page");
    let slots = page.slots.iter();
    let pollers = slots.filter(|s| s.info.kind == SlotKind::Poller);
    pollers.map(|s| s.wait.sleeps).collect()
}

#[test]
fn without_futex_waitv_there_is_one_poller_that_looks_again_and_none_once_its_clients_have_gone() {
    let world = World::new();
    let adaptive = || world.server().with("ADAPTIVE", "yes");
    // Where the call is there, each has a poller before long.
    let server = ready(adaptive());
    let (pid, begun) = (server.pid(), Instant::now());
    think_while(&world, || {
        sleeps(&world, pid).len() < 3 && begun.elapsed() < WATCHDOG
    });
    let sufficed = begun.elapsed();
    assert_eq!(sleeps(&world, pid).len(), 3, "after {sufficed:?}");
    drop(server);

    let no_waitv = format!("{} {}", libc::SYS_futex_waitv, libc::ENOSYS);
    let server = ready(adaptive().with("FORBID", no_waitv));
    let begun = Instant::now();
    think_while(&world, || begun.elapsed() < 2 * sufficed);
    let sleeps = || sleeps(&world, server.pid());
    assert_eq!(sleeps().len(), 1, "a poller that is blind is enough");
    within(WATCHDOG, "they are gone", || {
        let page = world.page(&server);
        let mut clients = page
            .slots
            .iter()
            .filter(|s| s.info.kind != SlotKind::Poller);
        match clients.find(|s| s.info.state == SlotState::Open) {
            None => Ok(()),
            Some(slot) => Err(slot.info.client_number),
        }
    });
    let before = sleeps()[0];
    // One that looks every millisecond would sleep a hundred times.
    std::thread::sleep(Duration::from_millis(100));
    assert!(sleeps()[0] - before < 20, "it sleeps until there is news");
}
