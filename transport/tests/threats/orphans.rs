//! Threat 11: forks that go on without exec hide neither the death of their parent nor that of their parent's clients.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use transport::error::{ConnectError, RequestError};
use transport::{Membrane, Synapse};

use crate::role::{Process, WATCHDOG, parameter, required, say, start};
use crate::watch::within;
use crate::world::{World, ready};

/// Role `parent`: a server, or a client of one, and a fork that keeps on living without exec, whose pid it says. With
/// `DESCRIPTORS`, made when there is none left (`full`), or when the limit is below those that are open and one below it is free (`lowered`). Both wait
/// until they are killed.
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
    let low = OwnedFd::from(std::fs::File::open("/dev/null").expect("a descriptor"));
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
    let _rest = match parameter("DESCRIPTORS").as_deref() {
        Some("full") => all_descriptors(),
        Some("lowered") => {
            limit_descriptors(low.as_raw_fd() as u64 + 1);
            drop(low);
            Vec::new()
        }
        _ => Vec::new(),
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

/// All that this process may have: few more than it has.
fn all_descriptors() -> Vec<OwnedFd> {
    let any = OwnedFd::from(std::fs::File::open("/dev/null").expect("a descriptor"));
    let highest = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let numbers = highest.flat_map(|fd| fd.ok()?.file_name().to_str()?.parse::<u64>().ok());
    limit_descriptors(numbers.max().expect("some") + 1);
    let mut all: Vec<OwnedFd> = std::iter::from_fn(|| any.try_clone().ok()).collect();
    all.push(any);
    all
}

fn limit_descriptors(limit: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).expect("lower");
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
    for (transport, descriptors) in [
        ("shm", ""),
        ("socket", ""),
        ("shm", "full"),
        ("shm", "lowered"),
    ] {
        let world = World::new();
        let parent = |world: &World, role: &str| {
            let dir = world.path();
            let mut parent = start("parent")
                .with("DIR", dir.parent().expect("a directory"))
                .with("TRANSPORT", transport)
                .with("DESCRIPTORS", descriptors)
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
