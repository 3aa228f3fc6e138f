//! Promises about real processes: pages are found, threads are timed, the dead are seen to be dead.
//!
//! The processes are this test binary again, running only [`child`], which publishes a page like an embedder of the
//! transport and then does what its standard input says.

use crate::sample::{FoundBy, PageContent, Sample};
use crate::source::pages::PageStore;
use crate::source::{Options, PerfScope, World, clock};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use transport::stats::page::{PageDescription, PageWriter};
use transport::stats::slot::SlotFacts;
use transport::stats::{Role, SlotKind, registry};

const DIR_VARIABLE: &str = "SHMTOP_TEST_CHILD_DIR";
const WATCHDOG: Duration = Duration::from_secs(30);

#[test]
fn counters_are_of_the_moment_that_a_sample_says_and_not_of_the_end_of_a_search() {
    let dir = tempfile::tempdir().unwrap();
    let sample = World::new(Options {
        runtime_dir: dir.path().into(),
        perf: PerfScope::Off,
        ..Options::default()
    })
    .sample();
    let searched_ns = sample.discovery.scan.known().unwrap().at_ns;
    assert!(searched_ns <= sample.time.monotonic_ns);
}

#[test]
fn who_holds_a_ring_for_a_moment_is_not_said_to_hold_it_until_the_next_scan() {
    let fd = memfd_create(c"shm-ring", MFdFlags::MFD_CLOEXEC).unwrap();
    let ring = std::fs::File::from(fd);
    let inode = ring.metadata().unwrap().ino();
    let dir = tempfile::tempdir().unwrap();
    let mut pages = PageStore::new(&Options {
        runtime_dir: dir.path().into(),
        ..Options::default()
    });
    let mut holds = |now_ns| {
        pages.look_for(now_ns);
        let holders = pages.discovery().ring_holders.known().unwrap();
        // On other file systems the number is somebody else's.
        let own = std::process::id();
        holders.iter().any(|h| h.inode == inode && h.pid == own)
    };
    let now_ns = clock::monotonic_ns();
    assert!(holds(now_ns));
    assert!(holds(now_ns + 1_000_000_000));
    drop(ring);
    assert!(!holds(now_ns + 2_000_000_000));
}

/// Not a promise: what the processes of the other tests run. Quiet unless started by one.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else {
        return;
    };
    let page = PageWriter::create(&PageDescription {
        name: "child",
        role: Role::Client,
        socket_path: Path::new("/nowhere"),
        slots: 4,
    });
    let slot = page.slot(SlotKind::Connection).unwrap();
    slot.publish_info(&SlotFacts {
        open: true,
        peer_pid: std::os::unix::process::parent_id(),
        tid: nix::unistd::gettid().as_raw() as u32,
        ..SlotFacts::default()
    });
    let announced = std::env::var_os("SHMTOP_TEST_HIDDEN").is_none();
    let _announcement = announced.then(|| {
        registry::announce(
            Path::new(&dir),
            "child",
            std::process::id(),
            page.fd().unwrap(),
        )
        .unwrap()
    });
    println!("ready");
    let mut order = [0];
    while std::io::stdin().read(&mut order).is_ok_and(|n| n == 1) {
        // 's': spin for 20 ms of CPU time, then say so.
        let start = clock::own_cpu_ns();
        while clock::own_cpu_ns() - start < 20_000_000 {
            std::hint::spin_loop();
        }
        println!("done");
    }
}

struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Process {
    fn start(dir: &Path, hidden: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "source::tests::live::child",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(DIR_VARIABLE, dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if hidden {
            command.env("SHMTOP_TEST_HIDDEN", "1");
        }
        let mut child = command.spawn().unwrap();
        let mut process = Self {
            orders: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        process.wait_for("ready");
        process
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(word) {
            line.clear();
            assert!(
                self.answers.read_line(&mut line).unwrap() > 0,
                "the child ended"
            );
        }
    }

    fn spin(&mut self) {
        self.orders.write_all(b"s").unwrap();
        self.wait_for("done");
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn world(dir: &Path, scan: bool) -> World {
    World::new(Options {
        runtime_dir: dir.to_owned(),
        scan,
        perf: PerfScope::All,
        ..Options::default()
    })
}

/// Looks until `enough`: the world refreshes what changes slowly at its own pace.
fn until(world: &mut World, enough: impl Fn(&Sample) -> bool) -> Sample {
    let start = Instant::now();
    loop {
        let sample = world.sample();
        if enough(&sample) {
            return sample;
        }
        assert!(start.elapsed() < WATCHDOG, "never seen: {sample:#?}");
        std::thread::yield_now();
    }
}

#[test]
fn an_announced_page_is_found_with_its_process_its_peer_and_its_thread() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), false);
    let sample = world(dir.path(), false).sample();
    assert_eq!(sample.pages.len(), 1);
    let page = &sample.pages[0];
    assert_eq!(page.link, format!("{}-child", process.pid()));
    assert_eq!(
        (page.pid, page.found_by),
        (process.pid(), FoundBy::Registry)
    );
    let snapshot = page.snapshot().unwrap();
    assert_eq!(snapshot.name, "child");

    let seen = sample.process(process.pid()).unwrap();
    assert_eq!(seen.start_ticks.get(), Ok(snapshot.start_ticks));
    assert_eq!(seen.uid.get(), Ok(nix::unistd::getuid().as_raw()));
    assert_eq!(seen.ppid.get(), Ok(std::process::id()));
    assert_eq!(seen.pid_ns_inode.get(), Ok(snapshot.pid_ns_inode));
    assert!(seen.fds.get().unwrap() >= 4);
    assert!(seen.memory.get().unwrap().rss_bytes > 0);
    let thread = seen.thread(snapshot.slots[0].info.tid).unwrap();
    assert!(!thread.allowed_cpus.as_reading().unwrap().is_empty());
    let cpu = thread.last_cpu.get().unwrap();
    assert!(
        sample.host.cpus.iter().any(|c| c.cpu == cpu),
        "CPU {cpu} is online"
    );
    assert!(
        sample.process(std::process::id()).is_some(),
        "the peer is looked at, too"
    );
    assert_eq!(sample.perf.len(), 1);
    assert!(sample.time.took_ns > 0);
}

#[test]
fn the_scan_finds_pages_without_a_link_and_no_page_twice() {
    let dir = tempfile::tempdir().unwrap();
    let announced = Process::start(dir.path(), false);
    let process = Process::start(dir.path(), true);
    let links = |sample: &Sample, process: &Process| -> Vec<(FoundBy, String)> {
        let pages = sample.pages.iter().filter(|p| p.pid == process.pid());
        pages.map(|p| (p.found_by, p.link.clone())).collect()
    };
    let sample = world(dir.path(), false).sample();
    assert_eq!(links(&sample, &process), []);
    let sample = world(dir.path(), true).sample();
    let found = links(&sample, &process);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, FoundBy::ProcScan);
    assert!(found[0].1.starts_with(&format!("{}/fd/", process.pid())));
    let link = format!("{}-child", announced.pid());
    assert_eq!(links(&sample, &announced), [(FoundBy::Registry, link)]);
    assert!(sample.discovery.scan.get().unwrap().pages >= 1);
}

#[test]
fn a_first_look_in_a_hurry_leaves_the_scan_to_the_second_unless_nothing_is_announced() {
    let dir = tempfile::tempdir().unwrap();
    let hidden = Process::start(dir.path(), true);
    let sees = |s: &Sample, p: &Process| s.pages.iter().any(|page| page.pid == p.pid());
    let hurried = || {
        World::new(Options {
            runtime_dir: dir.path().to_owned(),
            hurry: true,
            ..Options::default()
        })
    };
    assert!(sees(&hurried().sample(), &hidden), "nothing else to show");
    let announced = Process::start(dir.path(), false);
    let mut world = hurried();
    let first = world.sample();
    assert!(sees(&first, &announced) && !sees(&first, &hidden));
    assert!(first.discovery.scan.why().is_some(), "not looked yet");
    let second = world.sample();
    assert!(sees(&second, &announced) && sees(&second, &hidden));
}

/// (run time, task clock) of the thread that owns the only slot, in ns.
fn spun(sample: &Sample) -> (u64, Option<u64>) {
    let page = &sample.pages[0];
    let tid = page.snapshot().unwrap().slots[0].info.tid;
    let thread = sample.process(page.pid).unwrap().thread(tid).unwrap();
    let software = &sample.perf_of(tid).unwrap().software;
    (
        thread.run_ns.get().unwrap(),
        software.counting().map(|c| c.task_clock_ns),
    )
}

#[test]
fn a_thread_that_spins_shows_run_time_in_schedstat_and_perf() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), false);
    let mut world = world(dir.path(), false);
    let before = spun(&world.sample());
    process.spin();
    let after = spun(&world.sample());
    assert!(after.0 - before.0 >= 20_000_000, "{before:?} → {after:?}");
    if let (Some(before), Some(after)) = (before.1, after.1) {
        assert!(after - before >= 19_000_000, "{before} → {after}");
    }
}

#[test]
fn a_stopped_process_is_seen_to_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), false);
    let mut world = world(dir.path(), false);
    let pid = nix::unistd::Pid::from_raw(process.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let stopped = |s: &Sample| s.process(process.pid()).is_some_and(|p| p.is_stopped());
    until(&mut world, stopped);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    until(&mut world, |s| !stopped(s));
}

#[test]
fn the_page_of_a_killed_process_is_gone_and_its_link_swept() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), false);
    let mut world = world(dir.path(), false);
    assert_eq!(world.sample().pages.len(), 1);
    process.child.kill().unwrap();
    process.child.wait().unwrap();
    assert!(
        world.sample().pages.is_empty(),
        "a mapping that outlives its owner is no page"
    );
    until(&mut world, |s| s.processes.is_empty());
    let left = || std::fs::read_dir(dir.path()).unwrap().count();
    until(&mut world, |_| left() == 0);
}

#[test]
fn what_is_behind_a_hostile_link_is_named_and_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let file = std::fs::File::open("/proc/self/stat").unwrap();
    let fd = std::os::fd::AsFd::as_fd(&file);
    let _link = registry::announce(dir.path(), "evil", std::process::id(), fd).unwrap();
    let sample = world(dir.path(), false).sample();
    assert!(
        matches!(sample.pages[0].content, PageContent::Hostile(_)),
        "{:?}",
        sample.pages
    );
}
