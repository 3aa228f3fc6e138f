//! Promises about processes and threads.

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

    fn look(&self, watch: &mut ProcessWatch, now_ns: u64, hot: &[u32], renew: bool) -> Process {
        let room = &mut Room::for_so_many(99);
        self.look_with(watch, now_ns, hot, (renew, true, false), room)
    }

    fn look_with(
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

const STAT_TAIL: &str = "S 1 7 7 0 -1 4194560 120 0 3 0 15 16 0 0 20 0 1 0 4200 1 1 1 0 0 0 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0";

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

#[test]
fn a_thread_that_comes_or_goes_is_noticed_within_two_seconds() {
    let tree = one_process();
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    let second = 1_000_000_000;
    let mut now_ns = 0;
    let mut tids = |tree: &Tree| -> Vec<u32> {
        now_ns += second;
        let seen = tree.process(&mut watch, now_ns, &[7]);
        seen.threads.iter().map(|t| t.tid).collect()
    };
    // So many that the next ones list them only for a reason.
    for _ in 0..6 {
        assert_eq!(tids(&tree), [7]);
    }
    let come = |tid: u32| {
        tree.write(
            &format!("proc/7/task/{tid}/stat"),
            &format!("{tid} (new) {STAT_TAIL}"),
        );
        tree.write(&format!("proc/7/task/{tid}/schedstat"), "1 2 3\n");
    };
    come(8);
    let two = STAT_TAIL.replace(" 20 0 1 0 ", " 20 0 2 0 ");
    tree.write("proc/7/stat", &format!("7 (a) {two}"));
    assert_eq!(tids(&tree), [7, 8], "there are more than before");
    // One ends and another begins: as many as before. What is open of the first has no text then.
    tree.write("proc/7/task/8/schedstat", "");
    std::fs::remove_dir_all(tree.proc().join("7/task/8")).unwrap();
    come(9);
    tids(&tree);
    assert_eq!(tids(&tree), [7, 9]);
}

#[test]
fn a_thread_that_a_slot_names_and_that_has_ended_is_not_looked_for_each_time_and_found_if_it_comes()
{
    let tree = one_process();
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    let second = 1_000_000_000;
    for now_ns in 1..=4 {
        tree.process(&mut watch, now_ns * second, &[7, 99]);
    }
    let soon = tree.process(&mut watch, 4 * second + 1, &[7, 99]);
    assert_eq!(soon.at_ns, 4 * second, "no reason to look again already");
    let stat = format!("99 (new) {STAT_TAIL}");
    tree.write("proc/7/task/99/stat", &stat);
    tree.write("proc/7/task/99/schedstat", "1 2 3\n");
    let later = tree.process(&mut watch, 5 * second, &[7, 99]);
    assert_eq!(later.thread(99).unwrap().run_ns, Fact::Known(1));
}

#[test]
fn files_of_many_threads_are_kept_open_as_far_as_there_is_room_and_read_either_way() {
    let tree = one_process();
    let tids: Vec<u32> = (100..120).collect();
    for tid in &tids {
        tree.write(
            &format!("proc/7/task/{tid}/stat"),
            &format!("{tid} (w) {STAT_TAIL}"),
        );
        tree.write(&format!("proc/7/task/{tid}/schedstat"), "1 2 3\n");
    }
    for (room, held) in [(500, 3 + 20 * 5), (50, 3 + 9 * 5), (2, 0)] {
        let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(room));
        for second in 1..4 {
            let mut room = Room::for_so_many(room).beside(watch.held());
            let now_ns = second * 1_000_000_000;
            let process =
                tree.look_with(&mut watch, now_ns, &tids, (false, true, false), &mut room);
            let run = |tid: &u32| process.thread(*tid).map(|t| t.run_ns.clone());
            assert!(tids.iter().all(|tid| run(tid) == Some(Fact::Known(1))));
            assert_eq!(watch.held(), held, "of {room:?}, second {second}");
        }
    }
    // One that gets a slot later has the same.
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    tree.process(&mut watch, 1_000_000_000, &[]);
    let before = watch.held();
    tree.process(&mut watch, 2_000_000_000, &tids[..2]);
    assert_eq!((before, watch.held()), (3, 13));
}

#[test]
fn of_a_thread_that_has_not_run_only_that_is_read_until_its_settings_are_due() {
    let tree = one_process();
    let mut watch = ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99));
    let stat = format!("8 (worker) {STAT_TAIL}");
    let two = STAT_TAIL.replace(" 20 0 1 0 ", " 20 0 2 0 ");
    let switches = |n: u64| {
        let text = format!(
            "Cpus_allowed_list:\t0-1\nvoluntary_ctxt_switches:\t{n}\nnonvoluntary_ctxt_switches:\t6\n"
        );
        tree.write("proc/7/task/8/status", &text);
    };
    tree.write("proc/7/stat", &format!("7 (a) {two}"));
    tree.write("proc/7/task/8/stat", &stat);
    tree.write("proc/7/task/8/schedstat", "100 200 3\n");
    switches(5);
    let mut now_ns = 0;
    let mut look = || {
        now_ns += 1_000_000_000;
        let seen = tree.process(&mut watch, now_ns, &[8]);
        let thread = seen.thread(8).unwrap().clone();
        assert_eq!((thread.at_ns, thread.facts_at_ns), (now_ns, now_ns));
        thread.voluntary_switches.get().unwrap()
    };
    for _ in 0..6 {
        assert_eq!(look(), 5);
    }
    // It can't have been switched without running: a file that says so was not opened.
    switches(6);
    assert_eq!(look(), 5);
    tree.write("proc/7/task/8/schedstat", "101 200 4\n");
    assert_eq!(look(), 6);
    // Others set the CPUs that it may use, also while it sleeps.
    switches(7);
    let seen = [(); 5].map(|()| look());
    assert_eq!(seen[4], 7, "{seen:?}");
}
