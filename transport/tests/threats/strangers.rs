//! Rows 7, 11, 12, 33, 34 and 41, and what a sandbox forbids: forks, exec, other users, other pid namespaces, missing system calls, and viewers.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use transport::error::{ConnectError, RequestError};
use transport::stats::PageReader;
use transport::{Membrane, Synapse};

use crate::role::{Process, WATCHDOG, required, say, start, start_by};
use crate::watch::{is_stopped, within};
use crate::world::{Ended, World, mix, ready};

/// The descriptors that a child sees: number and what it leads to.
fn inherited() -> Vec<(String, String)> {
    let output = std::process::Command::new("ls")
        .args(["-l", "/proc/self/fd"])
        .output()
        .expect("ls");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen = text.lines().filter_map(|line| {
        let (left, to) = line.split_once(" -> ")?;
        Some((left.rsplit(' ').next()?.to_owned(), to.to_owned()))
    });
    seen.collect()
}

/// Role `forker`: a server and a client of this process, and a fork of it. Says what the child saw.
pub(crate) fn fork() {
    let dir = PathBuf::from(required("DIR"));
    let config = transport::Config {
        ring_bytes: 1 << 16,
        max_message_bytes: 20_000,
        stats_dir: Some(dir.join("stats")),
        ..transport::Config::default()
    };
    // What this process was itself given.
    let before = inherited();
    let server = Membrane::bind(dir.join("own"), &config, |request, reply| {
        reply.extend_from_slice(request).expect("it fits");
    })
    .expect("a server");
    let mut shm = Synapse::connect(dir.join("own"), &config).expect("a client");
    assert!(shm.is_shm());
    let socket_only = transport::Config {
        transport: transport::TransportChoice::Socket,
        ..config.clone()
    };
    let mut socket = Synapse::connect(dir.join("own"), &socket_only).expect("a client");
    for round in 0..20u8 {
        // SAFETY: the child touches its copy of the connections, which refuse without allocating or locking, and leaves
        // by _exit.
        match unsafe { libc::fork() } {
            0 => {
                let forked = |result: Result<&[u8], RequestError>| {
                    matches!(result, Err(RequestError::Forked))
                };
                let mut code = 0;
                code |= i32::from(!forked(shm.fire_bytes(b"from the child")));
                code |= 2 * i32::from(!forked(socket.fire_bytes(b"from the child")));
                code |= 4 * i32::from(!matches!(
                    shm.submit(b"from the child"),
                    Err(RequestError::Forked)
                ));
                code |= 8 * i32::from(!matches!(shm.receive(), Err(RequestError::Forked)));
                code |= 16 * i32::from(!matches!(shm.try_receive(), Err(RequestError::Forked)));
                // It gives up nothing of the parent's, and touches no memory that is not mapped here.
                shm.cancel_all();
                socket.cancel_all();
                // Dropping closes its copies of the descriptors and nothing else.
                drop(shm);
                drop(socket);
                drop(server);
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(code) }
            }
            child => {
                for n in 0..50u8 {
                    let request = vec![round ^ n; 5000];
                    assert!(shm.fire_bytes(&request).expect("a reply") == request);
                    assert!(socket.fire_bytes(&request).expect("a reply") == request);
                }
                let mut status = 0;
                // SAFETY: our child, waited for once, into a valid int.
                unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!(status, 0, "what the child could do (bits), or its signal");
            }
        }
    }
    begun_before_a_fork(&mut shm);
    assert!(shm.fire_bytes(b"still").expect("a reply") == b"still");
    for (number, to) in inherited() {
        let new = !before.contains(&(number.clone(), to.clone()));
        // Numbers of pipes and of its own /proc differ from child to child.
        let own = to.starts_with("pipe:") || to.starts_with("/proc/");
        assert!(!new || own, "a child has inherited {number} -> {to}");
    }
    say(format_args!("done"));
}

/// Whether all is as it should be in a fork of this process, by the word of `right`, which runs there.
fn right_in_a_fork(right: impl FnOnce() -> bool) {
    // SAFETY: the child does not return from here: it leaves by _exit, without running anything of the parent's. If it allocates or panics,
    // the C library keeps its allocator usable for that.
    match unsafe { libc::fork() } {
        0 => {
            std::panic::set_hook(Box::new(|_| {}));
            let right = catch_unwind(AssertUnwindSafe(right)).unwrap_or(false);
            // SAFETY: as said.
            unsafe { libc::_exit(i32::from(!right)) }
        }
        child => {
            let mut status = 0;
            // SAFETY: our child, waited for once, into a valid int.
            unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(status, 0, "wrong in the child (256), or its signal");
        }
    }
}

/// What was begun before a fork can't be gone on with in it, and its parent's is none the worse.
fn begun_before_a_fork(shm: &mut Synapse) {
    let forked = |e: RequestError| matches!(e, RequestError::Forked);
    // SAFETY: the server is a `Membrane` of this process.
    let trusted = unsafe { transport::TrustedServer::promise() };
    // A reply that lies in the ring, which a fork does not have: reading it there is a panic, and not a fault.
    let reply = shm.fire_in_place(b"in place", trusted).expect("a reply");
    right_in_a_fork(|| catch_unwind(AssertUnwindSafe(|| reply.len())).is_err());
    assert_eq!(&*reply, b"in place");
    // Nor does giving it back touch what is not there; it is dropped here too.
    right_in_a_fork(move || {
        drop(reply);
        true
    });

    let mut draft = shm.draft(20).expect("room");
    draft.extend_from_slice(b"ours").expect("room");
    right_in_a_fork(|| draft.extend_from_slice(b"theirs").is_err_and(forked));
    draft.extend_from_slice(b", whole").expect("room");
    assert_eq!(draft.fire().expect("a reply"), b"ours, whole");

    shm.submit(b"in flight").expect("room");
    right_in_a_fork(|| {
        let mut group = transport::Group::new(transport::WaitPolicy::Park);
        let members = std::slice::from_mut(&mut *shm);
        group.wait(members, WATCHDOG).is_err_and(forked)
    });
    assert_eq!(shm.receive().expect("a reply").1, b"in flight");
}

#[test]
fn a_fork_can_neither_use_nor_harm_its_parents_connections_and_children_inherit_no_descriptor() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = start("forker").with("DIR", dir.path()).go();
    process.hear("done");
    process.finish();
}

/// Role `parent`: a server and a client (of another server at `PEER`, if that is given), and a fork that keeps on living without exec,
/// whose pid it says. Both wait until they are killed.
pub(crate) fn leave_a_fork_behind() {
    let dir = PathBuf::from(required("DIR"));
    let config = transport::Config {
        ring_bytes: 1 << 16,
        max_message_bytes: 20_000,
        stats_dir: Some(dir.join("stats")),
        transport: match required("TRANSPORT").as_str() {
            "socket" => transport::TransportChoice::Socket,
            _ => transport::TransportChoice::Shm,
        },
        ..transport::Config::default()
    };
    let server = (required("ROLE_OF_PARENT") == "server").then(|| {
        Membrane::bind(dir.join("s"), &config, |request, reply| {
            reply.extend_from_slice(request).expect("it fits");
        })
        .expect("a server")
    });
    say(format_args!("bound"));
    // The other side is there.
    crate::role::command();
    let client = server
        .is_none()
        .then(|| Synapse::connect(dir.join("s"), &config).expect("a server"));
    // With another descriptor of the same socket.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let on_tokio = required("ROLE_OF_PARENT") == "async";
    let (client, on_tokio) = if on_tokio {
        let _inside = runtime.enter();
        let client = client.map(|c| transport::AsyncSynapse::new(c).expect("a descriptor"));
        (None, client)
    } else {
        (client, None)
    };
    // SAFETY: the child calls nothing but pause.
    match unsafe { libc::fork() } {
        0 => loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        },
        child => say(format_args!("forked {child}")),
    }
    crate::role::command();
    drop((server, client, on_tokio));
}

/// A fork, killed with the test.
struct Orphan(nix::unistd::Pid);

impl Orphan {
    fn of(parent: &mut Process) -> Self {
        let pid = parent.ask("fork", "forked");
        Self(nix::unistd::Pid::from_raw(pid.parse().expect("a pid")))
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        // It does nothing else than waiting for this.
        let _ = nix::sys::signal::kill(self.0, Signal::SIGKILL);
    }
}

#[test]
fn the_death_of_a_process_is_noticed_although_a_fork_of_it_lives_on() {
    for transport in ["shm", "socket"] {
        let world = World::new();
        let parent = |world: &World, role: &str| {
            let dir = world.path();
            let mut parent = start("parent")
                .with("DIR", dir.parent().expect("a directory"))
                .with("TRANSPORT", transport)
                .with("ROLE_OF_PARENT", role)
                .go();
            parent.hear("bound");
            parent
        };
        let config = transport::Config {
            transport: transport::TransportChoice::Auto,
            ..world.config()
        };
        {
            let mut server = parent(&world, "server");
            let mut client = Synapse::connect(world.path(), &config).expect("a client");
            let _orphan = Orphan::of(&mut server);
            assert_eq!(client.fire_bytes(b"there").expect("a reply"), b"there");
            server.kill();
            // Not a timeout of 20 s.
            let begun = std::time::Instant::now();
            let lost = client.fire_bytes(b"gone?").map(<[u8]>::to_vec);
            assert!(
                matches!(lost, Err(RequestError::Disconnected { .. })),
                "{lost:?}"
            );
            println!("server's death noticed after {:?}", begun.elapsed());
            // Nor is the path held by somebody who accepts nothing.
            let next = Synapse::connect(world.path(), &config);
            assert!(
                matches!(next, Err(ConnectError::NoServer { .. })),
                "{next:?}"
            );
        }
        for role in ["client", "async"] {
            let world = World::new();
            let server = ready(world.server());
            let mut client = parent(&world, role);
            let _orphan = Orphan::of(&mut client);
            assert_eq!(world.page(&server).process.accepted, 1);
            client.kill();
            within(WATCHDOG, "the client's death is noticed", || {
                let held = crate::watch::held(server.pid());
                let open = world.page(&server).process.open_clients;
                (open == 0 && held.rings == 0)
                    .then_some(())
                    .ok_or((role, open, held))
            });
        }
    }
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs `work` on a thread that is another user: on Linux, credentials are a thread's own.
fn as_user<T: Send>(uid: libc::uid_t, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: the raw call changes this thread's ids and touches no memory; the thread ends with `work`.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
            assert_eq!(changed, 0, "setresuid");
            work()
        });
        thread.join().expect("the other user")
    })
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
    if !is_root() {
        return println!("SKIPPED: only root can be somebody else");
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
            matches!(&error, ConnectError::Io { source, .. } if source.raw_os_error() == Some(libc::EACCES)),
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
    });
    let error = as_user(STRANGER, || Synapse::connect(world.path(), &config)).expect_err("refused");
    assert!(
        error.to_string().contains("user 61002 is not allowed"),
        "{error}"
    );
    is_counted(&world, &server);
}

#[test]
fn peers_in_another_pid_namespace_are_served_both_ways() {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let works = std::process::Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .output();
    if !works.as_ref().is_ok_and(|o| o.status.success()) {
        return println!("SKIPPED: no pid namespace can be made here ({works:?})");
    }
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

/// The stats page's descriptor of another process.
fn page_of(pid: u32) -> PathBuf {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let mut paths = fds.flatten().map(|fd| fd.path());
    let is_page = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("shmtop-stats"))
    };
    paths.find(is_page).expect("its page")
}

#[test]
fn a_stranger_who_opens_the_stats_page_can_read_it_and_nothing_else() {
    let world = World::new();
    let server = ready(world.server());
    let path = page_of(server.pid());
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .expect("by its owner it can be opened");
    let length = file.metadata().expect("its size").len();
    let map = |protection| {
        // SAFETY: a new mapping at a place of the kernel's choice; never touched.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().raw_os_error());
        }
        Ok(at)
    };
    assert_eq!(
        map(libc::PROT_READ | libc::PROT_WRITE),
        Err(Some(libc::EPERM))
    );
    let readable = map(libc::PROT_READ).expect("readable");
    // SAFETY: the mapping just made; the call changes its protection or fails.
    let upgraded = unsafe { libc::mprotect(readable, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    assert_eq!(upgraded, -1, "made writable afterwards");
    // SAFETY: mapped above, used by nobody.
    unsafe { libc::munmap(readable, 4096) };
    assert!(std::io::Write::write(&mut (&file), b"forged").is_err());
    for size in [0, length - 1, length + 1] {
        assert!(file.set_len(size).is_err(), "{size}");
    }
    use nix::fcntl::{FallocateFlags, fallocate};
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    assert!(fallocate(&file, punch, 0, length as i64).is_err());
    PageReader::open(&path)
        .and_then(|r| r.snapshot())
        .expect("and it is whole");
}

/// Role `viewer`: takes snapshots of the page at `PAGE` as fast as it can.
pub(crate) fn view() {
    let reader = PageReader::open(required("PAGE")).expect("a page");
    let mut said = false;
    loop {
        if reader.snapshot().is_err() {
            return;
        }
        if !std::mem::replace(&mut said, true) {
            say(format_args!("seen"));
        }
    }
}

fn viewer(page: &Path) -> Process {
    let mut viewer = start("viewer").with("PAGE", page).go();
    viewer.hear("seen");
    viewer
}

#[test]
fn a_viewer_that_is_stopped_or_killed_or_greedy_is_never_waited_for() {
    let world = World::new();
    let server = ready(world.server());
    let mut client = world.connect();
    let page = page_of(server.pid());
    let mut viewers: Vec<Process> = (0..3).map(|_| viewer(&page)).collect();
    assert!(
        matches!(mix(&mut client, 5, 0), Ended::Done),
        "while they look"
    );
    for viewer in &viewers {
        viewer.signal(Signal::SIGSTOP);
        within(WATCHDOG, "stopped", || {
            is_stopped(viewer.pid()).then_some(()).ok_or("it runs")
        });
    }
    assert!(
        matches!(mix(&mut client, 20, 0), Ended::Done),
        "while they are stopped in the middle of it"
    );
    assert!(
        matches!(mix(&mut world.connect(), 1, 0), Ended::Done),
        "a new client"
    );
    viewers.iter_mut().for_each(Process::kill);
    assert!(
        matches!(mix(&mut client, 5, 0), Ended::Done),
        "and after they are gone"
    );
}
