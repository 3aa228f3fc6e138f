//! Promises about processes.

use super::Tree;
use crate::reading::WhyKind;
use crate::sample::{Fact, Process, ThreadPolicy};
use crate::source::clock;
use crate::source::process::{Look, ProcessWatch, is_hidden};
use crate::source::room::Room;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

impl Tree {
    pub(super) fn process(&self, watch: &mut ProcessWatch, now_ns: u64, hot: &[u32]) -> Process {
        self.look(watch, now_ns, hot, false)
    }

    pub(super) fn look(
        &self,
        watch: &mut ProcessWatch,
        now_ns: u64,
        hot: &[u32],
        renew: bool,
    ) -> Process {
        let room = &mut Room::for_so_many(99);
        self.look_with(watch, now_ns, hot, (renew, true, false), room)
    }

    pub(super) fn look_with(
        &self,
        watch: &mut ProcessWatch,
        now_ns: u64,
        hot: &[u32],
        (renew, detail, swap): (bool, bool, bool),
        room: &mut Room,
    ) -> Process {
        watch.look(Look {
            now_ns,
            buffer: &mut Vec::new(),
            cgroups: &mut self.cgroups(),
            hot: &hot.iter().copied().collect::<BTreeSet<u32>>(),
            turn: 0,
            detail,
            swap,
            room,
            renew,
        })
    }
}

pub(super) const STAT_TAIL: &str = "S 1 7 7 0 -1 4194560 120 0 3 0 15 16 0 0 20 0 1 0 4200 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0";

pub(super) fn one_process() -> Tree {
    let stat = format!("7 (a\u{1b}]0;x\u{7}) {STAT_TAIL}");
    Tree::with(&[
        ("proc/7/stat", &stat),
        (
            "proc/7/status",
            "Name:\tx\nTracerPid:\t9\nUid:\t0\t1000\t0\t0\nVmSize:\t 80 kB\nVmLck:\t 0 kB\nVmRSS:\t 40 kB\nRssShmem:\t 8 kB\nVmSwap:\t 0 kB\nCpus_allowed_list:\t0-1\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n",
        ),
        ("proc/7/task/7/stat", &stat),
        ("proc/7/task/7/schedstat", "100 200 3\n"),
        (
            "proc/7/task/7/status",
            "Cpus_allowed_list:\t0-1\nvoluntary_ctxt_switches:\t5\nnonvoluntary_ctxt_switches:\t6\n",
        ),
        (
            "proc/7/task/7/sched",
            "x (7, #threads: 1)\nse.nr_migrations     :      11\n",
        ),
        ("proc/7/task/7/wchan", "futex_do_wait"),
        ("proc/7/fd/0", ""),
        ("proc/7/fd/1", ""),
        ("proc/7/cgroup", "0::/\n"),
        ("proc/7/smaps", ""),
    ])
}

#[test]
fn a_process_and_its_thread_are_read_and_its_name_is_harmless() {
    let tree = one_process();
    let process = tree.process(
        &mut ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99)),
        5,
        &[7],
    );
    assert_eq!(process.comm, "a\u{fffd}]0;x\u{fffd}");
    assert_eq!(
        (
            process.uid.get(),
            process.tracer_pid.get(),
            process.fds.get()
        ),
        (Ok(1000), Ok(9), Ok(2))
    );
    assert_eq!(process.cpu_ticks.get(), Ok(15 + 16));
    assert_eq!(process.memory.get().unwrap().rss_shmem_bytes, 8 << 10);
    assert_eq!(process.rings, Fact::Known(vec![]));
    let thread = process.thread(7).unwrap();
    assert_eq!(
        (
            thread.run_ns.get(),
            thread.wait_ns.get(),
            thread.slices.get()
        ),
        (Ok(100), Ok(200), Ok(3))
    );
    assert_eq!(
        (
            thread.voluntary_switches.get(),
            thread.involuntary_switches.get()
        ),
        (Ok(5), Ok(6))
    );
    assert_eq!(thread.migrations.get(), Ok(11));
    assert_eq!(thread.allowed_cpus, Fact::Known(vec![0, 1]));
    assert_eq!(thread.policy.get(), Ok(ThreadPolicy::Other));
    assert_eq!(thread.wchan, Fact::Known("futex_do_wait".into()));
}

#[test]
fn a_process_whose_pages_come_back_from_a_disk_has_its_rings_looked_at() {
    let tree = one_process();
    let room = &mut Room::for_so_many(99);
    let mut watch = ProcessWatch::new(&tree.proc(), 7, room);
    let mut rings = |s: u64, swap| {
        let asked = (false, false, swap);
        let seen = tree.look_with(&mut watch, s * 1_000_000_000, &[7], asked, room);
        seen.rings
            .as_reading()
            .map(Vec::len)
            .map_err(|why| why.kind)
    };
    assert_eq!(rings(1, true), Err(WhyKind::NotYet));
    assert_eq!(rings(3, true), Err(WhyKind::NotYet));
    let four = STAT_TAIL.replace(" 120 0 3 0 ", " 120 0 4 0 ");
    tree.write("proc/7/stat", &format!("7 (x) {four}"));
    assert_eq!(rings(5, true), Ok(0));
    assert_eq!(rings(7, true), Err(WhyKind::NotYet));
    let five = STAT_TAIL.replace(" 120 0 3 0 ", " 120 0 5 0 ");
    tree.write("proc/7/stat", &format!("7 (x) {five}"));
    assert_eq!(rings(9, false), Err(WhyKind::NotYet), "no swap is in use");
}

#[test]
fn a_process_whose_mappings_are_dear_to_read_is_left_alone_for_much_longer_than_that_took() {
    let tree = one_process();
    let mapping = "1-2 rw-s 0 0:1 41 /memfd:shm-ring\nRss: 4 kB\n";
    tree.write("proc/7/smaps", &mapping.repeat(100_000));
    let room = &mut Room::for_so_many(99);
    let mut watch = ProcessWatch::new(&tree.proc(), 7, room);
    let mut rings = |now_ns| {
        let asked = (false, true, false);
        let seen = tree.look_with(&mut watch, now_ns, &[7], asked, room);
        seen.rings.as_reading().map(Vec::len)
    };
    let start_ns = clock::thread_cpu_ns();
    assert_eq!(rings(1), Ok(1));
    let most_ns = clock::thread_cpu_ns() - start_ns;
    tree.write("proc/7/smaps", "");
    assert_eq!(
        rings(1_000_000_001),
        Ok(1),
        "at rest, and what was read stays"
    );
    assert_eq!(rings(2_000_000_000 + 200 * most_ns), Ok(0));
}

#[test]
fn what_changes_slowly_is_read_once_a_second_and_says_when() {
    let tree = one_process();
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    let first = tree.process(&mut watch, 1, &[7]);
    tree.write("proc/7/fd/2", "");
    tree.write("proc/7/task/7/schedstat", "101 200 3\n");
    let second = tree.process(&mut watch, 2, &[7]);
    assert_eq!((second.at_ns, second.facts_at_ns), (2, first.facts_at_ns));
    assert_eq!(second.threads[0].run_ns.get(), Ok(101));
    assert_eq!(second.fds, first.fds);
    tree.write("proc/7/task/7/schedstat", "102 200 4\n");
    let third = tree.process(&mut watch, 1_100_000_000, &[7]);
    assert_eq!((third.facts_at_ns, third.fds.get()), (1_100_000_000, Ok(3)));
    tree.write("proc/7/fd/3", "");
    let fourth = tree.process(&mut watch, 1_900_000_000, &[7]);
    assert_eq!(fourth.facts_at_ns, third.facts_at_ns);
}

#[test]
fn a_pid_given_to_another_process_takes_nothing_over() {
    let tree = one_process();
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    tree.process(&mut watch, 1, &[7]);
    tree.write(
        "proc/7/stat",
        &format!("7 (b) {}", STAT_TAIL.replace("4200", "9999")),
    );
    tree.write("proc/7/status", "Uid:\t0\t33\t0\t0\n");
    let process = tree.process(&mut watch, 2, &[]);
    assert_eq!(
        (process.start_ticks.get(), process.uid.get()),
        (Ok(9999), Ok(33))
    );
    assert_eq!(process.facts_at_ns, 2);
    std::fs::remove_dir_all(tree.proc().join("7")).unwrap();
    let process = tree.process(&mut watch, 3, &[]);
    assert!(process.gone);
    assert_eq!(process.comm, "b", "what was last known stays");
}

#[test]
fn a_pid_given_to_another_process_takes_nothing_over_from_files_that_were_kept_open() {
    let tree = one_process();
    let mut first = Command::new("cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let stat = tree.proc().join("7/stat");
    std::fs::remove_file(&stat).unwrap();
    std::os::unix::fs::symlink(format!("/proc/{}/stat", first.id()), &stat).unwrap();
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    let process = tree.process(&mut watch, 1, &[7]);
    assert_eq!(process.comm, "cat");
    drop(first.stdin.take());
    first.wait().unwrap();
    std::fs::remove_file(&stat).unwrap();
    let second = format!("7 (b) {}", STAT_TAIL.replace("4200", "9999"));
    tree.write("proc/7/stat", &second);
    tree.write("proc/7/status", "Uid:\t0\t33\t0\t0\n");
    let process = tree.process(&mut watch, 2, &[]);
    assert_eq!(
        (process.start_ticks.get(), process.uid.get()),
        (Ok(9999), Ok(33))
    );
}

#[test]
fn a_file_that_may_not_be_read_is_unknown_with_the_reason() {
    let tree = one_process();
    for path in ["7/fd", "7/limits", "7/smaps", "7/task/7/schedstat"] {
        let path = tree.proc().join(path);
        if !path.exists() {
            std::fs::write(&path, "").unwrap();
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    std::fs::set_permissions(tree.0.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Root may read everything; this thread, which ends with the test, is nobody.
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65534));
    let process = tree.process(
        &mut ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99)),
        1,
        &[7],
    );
    for why in [
        process.fds.why(),
        process.limits.why(),
        process.rings.why(),
        process.threads[0].run_ns.why(),
    ] {
        let why = why.expect("not readable");
        assert_eq!(why.kind, WhyKind::NoPermission);
        assert!(why.text.starts_with("permission denied: /"), "{why}");
    }
    assert_eq!(process.uid.get(), Ok(1000), "the rest is known");
}

#[test]
fn a_process_that_proc_hides_is_not_called_dead() {
    let real = Path::new("/proc");
    assert!(is_hidden(real, 1), "there is always one, whoever owns it");
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    assert!(!is_hidden(real, child.id()));
    assert!(!is_hidden(&Tree::new().proc(), 1));
}

#[test]
fn descriptors_beyond_a_limit_that_was_lowered_take_no_room_below_it() {
    let tree = one_process();
    for number in [2, 3, 64, 70] {
        tree.write(&format!("proc/7/fd/{number}"), "");
    }
    let ours = std::fs::read_to_string("/proc/self/limits").unwrap();
    let lowered = |line: &str| match line.starts_with("Max open files") {
        true => format!("{:<26}{:<21}{:<21}files\n", "Max open files", 64, 4096),
        false => format!("{line}\n"),
    };
    let limits: String = ours.lines().map(lowered).collect();
    tree.write("proc/7/limits", &limits);
    let look = || {
        tree.process(
            &mut ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99)),
            1,
            &[7],
        )
    };
    let seen = look();
    assert_eq!((seen.fds.get(), seen.fds_beyond.get()), (Ok(6), Ok(2)));
    assert_eq!(seen.fds_below_limit(), Ok(4));
    std::fs::remove_file(tree.proc().join("7/limits")).unwrap();
    assert_eq!(look().fds_below_limit(), Ok(6), "nobody says where it is");
}

#[test]
fn descriptors_are_counted_again_at_once_when_connections_came_or_went() {
    let tree = one_process();
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    let second = 1_000_000_000;
    let before = (1..=3).map(|n| tree.process(&mut watch, n * second, &[7]).fds);
    let before = *before.last().unwrap().known().unwrap();
    tree.write("proc/7/fd/50", "");
    let soon = |watch: &mut ProcessWatch, ms: u64, renew| {
        let seen = tree.look(watch, 3 * second + ms * 1_000_000, &[7], renew);
        *seen.fds.known().unwrap()
    };
    assert_eq!(soon(&mut watch, 300, false), before, "not due yet");
    assert_eq!(soon(&mut watch, 301, true), before + 1);
}
