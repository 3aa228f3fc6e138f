//! Promises about a whole look at machines that are empty or broken.

use super::Tree;
use super::cgroup::V2;
use super::host::CPU;
use super::process::one_process;
use crate::reading::WhyKind;
use crate::sample::Process;
use crate::source::World;
use crate::source::host::HostReader;
use crate::source::process::ProcessWatch;
use crate::source::room::Room;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn an_empty_machine_is_all_unknown_and_nothing_panics() {
    let tree = Tree::new();
    let sample = World::new(tree.options()).sample();
    assert!(sample.pages.is_empty() && sample.processes.is_empty());
    assert!(sample.host.cpus.is_empty() && sample.host.cpus_unknown.is_some());
    for unknown in [
        sample.host.memory.why(),
        sample.host.file_nr.why(),
        sample.host.hypervisor.why(),
    ] {
        assert_eq!(unknown.unwrap().kind, WhyKind::NotThere);
    }
    assert!(sample.discovery.scan.why().is_some());
    assert_eq!(sample.discovery.registry_links.get(), Ok(0));
    assert!(sample.viewer.cpu_ns > 0);
}

#[test]
fn garbage_in_every_file_is_unknown_and_nothing_panics() {
    let tree = one_process();
    let mut files = vec![tree.proc(), tree.sys()];
    for (path, _) in V2.iter().chain(CPU) {
        tree.write(path, "");
    }
    for path in [
        "meminfo",
        "loadavg",
        "cpuinfo",
        "sys/fs/file-nr",
        "pressure/cpu",
        "7/limits",
    ] {
        tree.write(&format!("proc/{path}"), "");
    }
    let mut leaves = Vec::new();
    while let Some(path) = files.pop() {
        match std::fs::read_dir(&path) {
            Ok(entries) => files.extend(entries.map(|e| e.unwrap().path())),
            Err(_) => leaves.push(path),
        }
    }
    assert!(leaves.len() > 30);
    for garbage in [
        "",
        "\n",
        "\u{0}\u{ff}",
        "99999999999999999999999",
        ": : :",
        "( ) x",
        "-",
        "cpu\ncpu0 1",
        "a:b\n\n-",
    ] {
        for leaf in &leaves {
            std::fs::write(leaf, garbage).unwrap();
        }
        let host = HostReader::new(&tree.options()).read(1, &mut Vec::new());
        assert!(
            host.memory.why().is_some() && host.load.why().is_some(),
            "{garbage:?}"
        );
        let process = tree.process(
            &mut ProcessWatch::new(&tree.proc(), 7, &mut Room::for_so_many(99)),
            1,
            &[7],
        );
        assert!(process.start_ticks.why().is_some(), "{garbage:?}");
        assert!(
            process.limits.why().is_some() && process.uid.why().is_some(),
            "{garbage:?}"
        );
        World::new(tree.options()).sample();
    }
}

#[test]
fn what_killed_processes_is_read_from_their_group_after_their_end() {
    let tree = one_process();
    for (path, text) in V2 {
        tree.write(path, text);
    }
    for pid in [6, 7, 8] {
        let stat = tree.proc().join("7/stat");
        let stat = std::fs::read_to_string(stat).unwrap();
        tree.write(&format!("proc/{pid}/stat"), &stat);
        tree.write(&format!("proc/{pid}/cgroup"), "0::/a/b\n");
    }
    let interest = BTreeMap::from([6, 7, 8].map(|pid| (pid, BTreeSet::new())));
    let mut world = World {
        // What is kept open of a file of ours outlives it.
        room: Room::none(),
        ..World::new(tree.options())
    };
    let mut kills = |now_ns| {
        let seen = world.look_at(&interest, &BTreeSet::new(), now_ns);
        let kills = |p: &Process| p.cgroups.memory.known()?[0].oom_kills.known().copied();
        let both = [&seen[1], &seen[2]];
        (both.map(|p| p.gone), both.map(kills))
    };
    assert_eq!(kills(1), ([false; 2], [Some(0); 2]));
    tree.write("sys/fs/cgroup/a/b/memory.events", "oom_kill 2\n");
    for pid in ["7", "8"] {
        std::fs::remove_dir_all(tree.proc().join(pid)).unwrap();
    }
    assert_eq!(kills(2), ([true; 2], [Some(2); 2]));
    // Nobody counts for those that are gone.
    tree.write("sys/fs/cgroup/a/b/memory.events", "oom_kill 3\n");
    assert_eq!(kills(2_000_000_000), ([true; 2], [Some(2); 2]));
}
