//! Promises about the threads of a process.

use super::Tree;
use super::process::{STAT_TAIL, one_process};
use crate::sample::Fact;
use crate::source::process::ProcessWatch;
use crate::source::room::Room;

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
