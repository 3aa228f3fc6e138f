//! Threats 24, 26 to 28, 32 and 38: file sizes, address space, memory and huge pages that run out, and core dumps. What can't be had is refused
//! with step and numbers, and others are served meanwhile.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use transport::error::{ConnectError, Refusal, Step};
use transport::stats::{SlotInfo, SlotKind};
use transport::{Config, Synapse, TransportChoice};

use crate::punched::huge_pages;
use crate::role::{Process, WATCHDOG};
use crate::skipped::skipped;
use crate::watch::within;
use crate::world::{Ended, RING_BYTES, World, mix, ready};

/// Sets a soft limit of another process.
pub(crate) fn limit(process: &Process, resource: libc::__rlimit_resource_t, soft: u64) {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pid = process.pid().cast_signed();
    // SAFETY: `now` is a valid struct for the kernel to fill; nothing is set.
    let got = unsafe { libc::prlimit(pid, resource, std::ptr::null(), &mut now) };
    assert_eq!(got, 0, "prlimit");
    now.rlim_cur = soft.min(now.rlim_max);
    // SAFETY: `now` is a valid struct for the kernel to read.
    let set = unsafe { libc::prlimit(pid, resource, &now, std::ptr::null_mut()) };
    assert_eq!(set, 0, "prlimit");
}

/// What a server has of it, in bytes, once its poller runs: a thread takes some when it begins.
fn address_space(world: &World, process: &Process) -> u64 {
    within(WATCHDOG, "a poller", || {
        let slots = world.page(process).slots;
        // The slot is there before the thread, which says its number.
        let says = |info: &SlotInfo| info.kind == SlotKind::Poller && info.tid != 0;
        let runs = slots.iter().any(|slot| says(&slot.info));
        runs.then_some(()).ok_or(slots.len())
    });
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", process.pid())).expect("statm");
    let pages: Option<u64> = statm.split(' ').next().and_then(|n| n.parse().ok());
    pages.expect("pages") * 4096
}

#[test]
fn a_file_size_limit_is_a_fallback_and_no_signal() {
    let world = World::new();
    let server = ready(world.server());
    limit(&server, libc::RLIMIT_FSIZE, 65_536);
    let mut client = Synapse::connect(world.path(), &world.config()).expect("a client");
    let why = client.fallback().expect("rings of 132 KiB can't be had");
    assert_eq!(
        (why.step, why.errno, why.limit, why.at_peer),
        (Step::Headroom, libc::EFBIG, 65_536, true)
    );
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
    limit(&server, libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);
    client.try_upgrade_to_shm().expect("now they can");
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
}

#[test]
fn an_address_space_limit_is_a_fallback() {
    let world = World::new();
    let server = ready(world.server().with("RING_BYTES", (256 << 20).to_string()));
    // Room for threads and their stacks, not for half a gigabyte of rings.
    let used = address_space(&world, &server);
    limit(&server, libc::RLIMIT_AS, used + (200 << 20));
    let config = Config {
        ring_bytes: 256 << 20,
        ..world.config()
    };
    let mut client = Synapse::connect(world.path(), &config).expect("a client");
    let why = client.fallback().expect("no room");
    assert_eq!(
        (why.step, why.errno, why.at_peer),
        (Step::Headroom, libc::ENOMEM, true),
        "{why}"
    );
    assert!(matches!(mix(&mut client, 1, 0), Ended::Done));
}

/// Each client on the socket has buffers of the largest message, and a thread. One too many is told so, and is not the end of the others.
#[test]
fn who_comes_when_the_address_space_is_used_up_is_refused_and_alone() {
    let world = World::new();
    let large = 64 << 20;
    let start = world.server().with("RING_BYTES", (4 * large).to_string());
    let server = ready(start.with("MAX_MESSAGE", large.to_string()));
    let config = Config {
        ring_bytes: 4 * large,
        max_message_bytes: large,
        transport: TransportChoice::Socket,
        ..world.config()
    };
    let connect = || Synapse::connect(world.path(), &config);
    let mut first = connect().expect("a client");
    let used = address_space(&world, &server);
    // Room for no thread, but for what others allocate meanwhile, which can't be refused; for one and whatever it brings along, and not for two
    // such buffers.
    for (n, room) in [(1, 1 << 20), (2, 100 << 20), (3, 100 << 20)] {
        limit(&server, libc::RLIMIT_AS, used + room);
        match connect() {
            Err(ConnectError::Refused { reason, .. }) => {
                assert_eq!(reason, Refusal::Resources);
                assert!(reason.may_pass());
            }
            other => panic!("{other:?}"),
        }
        within(WATCHDOG, "to be counted", || {
            let counted = world.page(&server).process;
            let refused = (counted.rejected_resources, counted.accept_errors);
            (refused == (n, 0)).then_some(()).ok_or(refused)
        });
        let ended = mix(&mut first, 1, 0);
        assert!(matches!(ended, Ended::Done), "{ended:?} with {room}");
    }
    limit(&server, libc::RLIMIT_AS, libc::RLIM_INFINITY);
    let mut again = connect().expect("room again");
    assert!(matches!(mix(&mut again, 1, 0), Ended::Done));
}

/// Where just a thread's stack fits, or just its buffers beside it, what is allocated next can't be had, nor refused: it ended the server.
#[test]
fn however_little_address_space_is_left_the_server_outlives_who_comes() {
    const PAGE: u64 = 4096;
    const RINGS: usize = 8 << 20;
    const MAX_MESSAGE: u64 = 2 << 20;
    let (stack, buffers) = (2 << 20, 2 * MAX_MESSAGE);
    let pages = [1, 3, 5, 10, 15, 20, 25, 30];
    for room in [stack, stack + buffers]
        .into_iter()
        .flat_map(|large| pages.map(|n| large + n * PAGE))
    {
        let world = World::new();
        let start = world.server().with("RING_BYTES", RINGS.to_string());
        let server = ready(start.with("MAX_MESSAGE", MAX_MESSAGE.to_string()));
        let config = Config {
            ring_bytes: RINGS,
            max_message_bytes: MAX_MESSAGE as usize,
            transport: TransportChoice::Socket,
            ..world.config()
        };
        let connect = || Synapse::connect(world.path(), &config);
        let mut first = connect().expect("a client");
        limit(
            &server,
            libc::RLIMIT_AS,
            address_space(&world, &server) + room,
        );
        match connect() {
            Ok(mut client) => assert!(matches!(mix(&mut client, 1, 0), Ended::Done), "{room}"),
            Err(ConnectError::Refused { reason, .. }) => {
                assert_eq!(reason, Refusal::Resources, "{room}");
            }
            other => panic!("{room}: {other:?}"),
        }
        assert!(matches!(mix(&mut first, 1, 0), Ended::Done), "{room}");
    }
}

/// A memory cgroup of this limit, removed on drop; or why there is none.
struct Group(std::path::PathBuf);

impl Group {
    fn new(limit: u64) -> Result<Self, String> {
        let name = format!("transport-threats-{}", std::process::id());
        let (dir, file) = if std::path::Path::new("/sys/fs/cgroup/memory").is_dir() {
            (
                format!("/sys/fs/cgroup/memory/{name}"),
                "memory.limit_in_bytes",
            )
        } else {
            (format!("/sys/fs/cgroup/{name}"), "memory.max")
        };
        std::fs::create_dir(&dir).map_err(|e| format!("{dir}: {e}"))?;
        let group = Self(dir.into());
        let file = group.0.join(file);
        std::fs::write(&file, limit.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok(group)
    }

    fn take_in(&self, pid: u32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string())
            .expect("a process for the group");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Busy until its last process has been reaped, which it was before: the group is declared before the process.
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_small_memory_cgroup_costs_a_client_its_rings_and_nobody_the_server() {
    let group = match Group::new(48 << 20) {
        Ok(group) => group,
        Err(why) => return skipped(&format!("no memory cgroup can be made here ({why})")),
    };
    let world = World::new();
    let mut server = ready(world.server().with("RING_BYTES", (32 << 20).to_string()));
    group.take_in(server.pid());
    let config = Config {
        ring_bytes: 32 << 20,
        ..world.config()
    };
    let mut client = Synapse::connect(world.path(), &config).expect("a client");
    let why = client.fallback().expect("64 MiB of rings in a group of 48");
    assert_eq!(
        (why.step, why.limit, why.at_peer),
        (Step::Headroom, 48 << 20, true),
        "{why}"
    );
    assert!(matches!(mix(&mut client, 2, 0), Ended::Done));
    // One that asks for less gets it.
    let mut small = world.connect();
    assert!(matches!(mix(&mut small, 2, 0), Ended::Done));
    server.ask("counts", "counts");
    drop(server);
}

#[test]
fn huge_pages_that_are_not_there_become_small_ones_and_the_page_says_so() {
    let _alone = huge_pages();
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.as_deref().map_or("0", str::trim) != "0" {
        return skipped(&format!("this machine has free huge pages ({free:?})"));
    }
    let world = World::new();
    let server = ready(world.server().with("HUGE", ""));
    let mut client = world.connect();
    assert!(matches!(mix(&mut client, 2, 0), Ended::Done));
    let page = world.page(&server);
    let slot = page
        .slots
        .iter()
        .find(|s| s.info.connection_id == client.connection_id());
    let setting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let setting = std::fs::read_to_string(setting).unwrap_or_default();
    let transparent = ["[always]", "[within_size]", "[advise]", "[force]"]
        .iter()
        .any(|choice| setting.contains(choice));
    assert_eq!(
        slot.expect("its slot").info.huge_pages,
        if transparent { 3 } else { 2 },
        "asked for and short; {setting:?}"
    );
}

#[test]
fn a_memory_budget_is_kept_and_whoever_is_above_it_goes_over_the_socket() {
    let world = World::new();
    let one = 4096 + 2 * RING_BYTES;
    let server = ready(world.server().with("BUDGET", (3 * one).to_string()));
    let mut within_it: Vec<Synapse> = (0..3).map(|_| world.connect()).collect();
    let mut above = Synapse::connect(world.path(), &world.config()).expect("a client");
    let why = above.fallback().expect("the budget is used up");
    assert_eq!(
        (why.step, why.limit, why.used),
        (Step::Headroom, 3 * one as u64, 3 * one as u64)
    );
    assert!(matches!(mix(&mut above, 1, 0), Ended::Done));
    assert_eq!(world.page(&server).process.fallbacks, 1);
    within_it.pop();
    within(WATCHDOG, "room again", || above.try_upgrade_to_shm());
    assert!(matches!(mix(&mut above, 1, 0), Ended::Done));
}

#[test]
fn clients_that_come_at_once_do_not_exceed_the_memory_budget_between_them() {
    let world = World::new();
    let one = 4096 + 2 * RING_BYTES;
    let _server = ready(world.server().with("BUDGET", (3 * one).to_string()));
    for _ in 0..10 {
        let start = std::sync::Barrier::new(12);
        let all: Vec<Synapse> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..12)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        Synapse::connect(world.path(), &world.config()).expect("a client")
                    })
                })
                .collect();
            let done = threads.into_iter().map(|t| t.join().expect("a client"));
            done.collect()
        });
        let on_shm = all.iter().filter(|c| c.is_shm()).count();
        assert!(on_shm <= 3, "{on_shm} have rings where the budget is for 3");
        for client in all.iter().filter(|c| !c.is_shm()) {
            let why = client.fallback().expect("a reason");
            assert_eq!((why.step, why.limit), (Step::Headroom, 3 * one as u64));
        }
    }
}

#[test]
fn a_core_dump_does_not_hold_the_rings() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.trim() != "core" {
        return skipped(&format!("core dumps go to {:?} here", pattern.trim()));
    }
    const RING: u64 = 64 << 20;
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE).expect("a limit");
    if hard < 2 * RING {
        // None would be written, or one that is cut short whatever it held.
        return skipped(&format!("a core dump may have {hard} bytes here"));
    }
    let dir = tempfile::tempdir().expect("a directory");
    let world = World::new();
    let big = RING.to_string();
    let server = ready(world.server().with("RING_BYTES", &big));
    let mut start = world
        .client()
        .with("RING_BYTES", &big)
        .with("TIMEOUT_MS", "100");
    start.command().current_dir(dir.path());
    let mut client = start.go();
    assert_eq!(client.ask("connect", "connected"), "shm");
    server.signal(Signal::SIGSTOP);
    within(WATCHDOG, "all of its threads to stop", || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("threads");
        let state = |task: &Path| std::fs::read_to_string(task.join("stat")).ok();
        let states: Vec<_> = tasks.map(|t| state(&t.expect("a thread").path())).collect();
        let stopped = |stat: &Option<String>| stat.as_ref().is_none_or(|s| s.contains(") T "));
        states.iter().all(stopped).then_some(()).ok_or(states)
    });
    client.ask("fill", "filled");
    let resident =
        std::fs::read_to_string(format!("/proc/{}/status", client.pid())).expect("status");
    let shared = resident
        .lines()
        .find_map(|l| l.strip_prefix("RssShmem:"))
        .expect("RssShmem");
    let kib: u64 = shared
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    assert!(kib > 32 << 10, "the ring is in memory: {shared}");
    limit(&client, libc::RLIMIT_CORE, libc::RLIM_INFINITY);
    client.signal(Signal::SIGABRT);
    assert!(client.ends().core_dumped(), "no core was written");
    let core = std::fs::read_dir(dir.path())
        .expect("the directory")
        .flatten()
        .next();
    let core = core.expect("a core");
    // A sparse file's blocks are what was written.
    let meta = std::os::unix::fs::MetadataExt::blocks(&core.metadata().expect("the core")) * 512;
    println!("{kib} KiB of rings in memory, a core of {} KiB", meta >> 10);
    assert!(meta < 24 << 20, "a core of {meta} bytes");
}
