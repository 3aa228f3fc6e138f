//! Threats 11 and 12: a process that forks, and what its children inherit. What of it shows to others is in `orphans`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use transport::error::RequestError;
use transport::{AsyncSynapse, Membrane, Synapse, UpgradeError};

use crate::role::{WATCHDOG, required, say, start};

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
    numbers_stay_open_and_lead_nowhere(&before);
    what_a_fork_opens_is_not_taken_from_its_own_forks();
    tasks_wait_for_no_lock(Synapse::connect(dir.join("own"), &config).expect("a client"));
    begun_before_a_fork(&mut shm);
    with_requests_in_flight(&mut shm, &mut socket);
    the_servers_locks_may_be_held(&server, &dir.join("own"), &config);
    assert!(shm.fire_bytes(b"still").expect("a reply") == b"still");
    threads_of_a_fork_are_its_own(server);
    for (number, to) in inherited() {
        let new = !before.contains(&(number.clone(), to.clone()));
        // Numbers of pipes and of its own /proc differ from child to child.
        let own = to.starts_with("pipe:") || to.starts_with("/proc/");
        assert!(!new || own, "a child has inherited {number} -> {to}");
    }
    say(format_args!("done"));
}

/// Whether all is as it should be in a fork of this process, by the word of `right`, which runs there.
pub(crate) fn right_in_a_fork(right: impl FnOnce() -> bool) {
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

/// What owned a descriptor closes its number in a fork as well, which must not be another's by then.
fn numbers_stay_open_and_lead_nowhere(others: &[(String, String)]) {
    let links = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let sockets = links.flatten().filter(|link| {
        std::fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"))
    });
    let numbers: Vec<i32> = sockets
        .filter_map(|link| link.file_name().into_string().ok())
        .filter(|number| !others.iter().any(|(other, _)| other == number))
        .filter_map(|number| number.parse().ok())
        .collect();
    // The listener, two clients, and both ends of each.
    assert!(numbers.len() >= 5, "{numbers:?}");
    right_in_a_fork(|| {
        numbers.iter().all(|fd| {
            let peer = nix::sys::socket::getpeername::<nix::sys::socket::UnixAddr>(*fd);
            let listens = nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(*fd)
                .is_ok_and(|own| own.path().is_some());
            peer == Err(nix::errno::Errno::ENOTCONN) && !listens
        })
    });
}

/// A child that closes what it has inherited, as a daemon does, has files of its own under the numbers of its parent's sockets.
fn what_a_fork_opens_is_not_taken_from_its_own_forks() {
    right_in_a_fork(|| {
        for number in 3..256 {
            // SAFETY: all of this child's are its copies, and nothing that owns one is dropped: it leaves by _exit.
            unsafe { libc::close(number) };
        }
        let own = |_| std::fs::File::open("/proc/self/exe").expect("a file");
        let files: Vec<std::fs::File> = (0..64).map(own).collect();
        right_in_a_fork(|| {
            let is_file = |file: &std::fs::File| file.metadata().is_ok_and(|m| m.is_file());
            files.iter().all(is_file)
        });
        true
    });
}

/// Forks while another thread may hold the lock that the tasks of a connection share.
fn tasks_wait_for_no_lock(client: Synapse) {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let parents = runtime();
    let _inside = parents.enter();
    let client = AsyncSynapse::new(client).expect("a descriptor");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                std::hint::black_box(client.in_flight());
            }
        });
        for _ in 0..50 {
            right_in_a_fork(|| {
                // Ends a hang: the parent waits.
                nix::unistd::alarm::set(WATCHDOG.as_secs() as u32);
                let own = runtime();
                client.is_shm()
                    && client.in_flight() == 0
                    && matches!(
                        own.block_on(client.fire_bytes(b"from the child")),
                        Err(RequestError::Forked)
                    )
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    let reply = parents.block_on(client.fire_bytes(b"still"));
    assert_eq!(reply.expect("a reply"), b"still");
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

/// What waits for replies in the parent refuses in its fork just so, and touches none of the memory that a fork does not have.
fn with_requests_in_flight(shm: &mut Synapse, socket: &mut Synapse) {
    for client in [shm, socket] {
        let mut in_flight = 0;
        let request = vec![7; 10_000];
        while client.submit(&request).is_ok() {
            in_flight += 1;
        }
        assert!(in_flight > 0);
        right_in_a_fork(|| {
            let forked = |e: &RequestError| matches!(e, RequestError::Forked);
            client.notify();
            client.fire_bytes(&request).is_err_and(|e| forked(&e))
                && client.submit(&request).is_err_and(|e| forked(&e))
                && client.queue(&request).is_err_and(|e| forked(&e))
                && client.draft(1).is_err_and(|e| forked(&e))
                && client.receive().is_err_and(|e| forked(&e))
                && client.try_receive().is_err_and(|e| forked(&e))
                && client.check_alive().is_err_and(|e| forked(&e))
                && matches!(client.try_upgrade_to_shm(), Err(UpgradeError::Forked))
                && !client.is_usable()
                && client.cancel_all() == in_flight
                && matches!(client.try_upgrade_to_shm(), Err(UpgradeError::Forked))
        });
        for _ in 0..in_flight {
            assert!(client.receive().expect("a reply").1 == request);
        }
    }
}

/// Forks while a thread of the server may hold the lock of its clients: a fork asks nobody.
fn the_servers_locks_may_be_held(
    server: &Membrane,
    path: &std::path::Path,
    config: &transport::Config,
) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asks = || {
            while !over.load(Ordering::Relaxed) {
                std::hint::black_box(server.clients());
            }
        };
        scope.spawn(asks);
        for _ in 0..50 {
            right_in_a_fork(|| {
                // Ends a hang: the parent waits.
                nix::unistd::alarm::set(WATCHDOG.as_secs() as u32);
                server.clients() == 0
                    && server.shm_clients() == 0
                    && !format!("{server:?}").is_empty()
            });
        }
        over.store(true, Ordering::Relaxed);
    });
    Synapse::connect(path, config).expect("the parent's is none the worse");
}

/// The C library gives a thread of the fork the stack and the descriptor of one that the parent has and the fork has not: what a
/// fork's copy of the server does to the parent's threads, it does to the fork's own.
fn threads_of_a_fork_are_its_own(server: Membrane) {
    right_in_a_fork(move || {
        nix::unistd::alarm::set(WATCHDOG.as_secs() as u32);
        let go_on = std::sync::Arc::new(AtomicBool::new(false));
        // More than the server has, all at once.
        let start = |_| {
            let go_on = std::sync::Arc::clone(&go_on);
            std::thread::spawn(move || {
                while !go_on.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
            })
        };
        let threads: Vec<_> = (0..16).map(start).collect();
        drop(server);
        go_on.store(true, Ordering::Relaxed);
        threads.into_iter().all(|thread| thread.join().is_ok())
    });
}

#[test]
fn a_fork_can_neither_use_nor_harm_its_parents_connections_and_children_inherit_no_descriptor() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = start("forker").with("DIR", dir.path()).go();
    process.hear("done");
    process.finish();
}
