//! Promises about control groups of both versions.

use super::Tree;
use crate::reading::{Reading, WhyKind};
use crate::sample::{CgroupVersion, Fact, MemoryGroup};

const GIB: u64 = 1 << 30;

pub(super) const V2: &[(&str, &str)] = &[
    (
        "proc/self/mountinfo",
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    ),
    (
        "sys/fs/cgroup/cpu.stat",
        "usage_usec 9\nuser_usec 9\nsystem_usec 0\n",
    ),
    ("sys/fs/cgroup/a/cpu.max", "50000 100000\n"),
    (
        "sys/fs/cgroup/a/cpu.stat",
        "usage_usec 9\nnr_periods 70\nnr_throttled 63\nthrottled_usec 5000\n",
    ),
    ("sys/fs/cgroup/a/memory.max", "1073741824\n"),
    ("sys/fs/cgroup/a/memory.current", "900000000\n"),
    (
        "sys/fs/cgroup/a/memory.stat",
        "anon 1\ninactive_file 60000000\nactive_file 40000000\nslab_reclaimable 5000000\n",
    ),
    (
        "sys/fs/cgroup/a/memory.events",
        "low 0\noom 3\noom_kill 2\n",
    ),
    (
        "sys/fs/cgroup/a/memory.events.local",
        "low 0\noom 1\noom_kill 0\n",
    ),
    ("sys/fs/cgroup/a/cpuset.cpus.effective", "0-1\n"),
    ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
    (
        "sys/fs/cgroup/a/b/cpu.stat",
        "usage_usec 9\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
    ),
    ("sys/fs/cgroup/a/b/memory.max", "max\n"),
    ("sys/fs/cgroup/a/b/memory.current", "1000\n"),
    (
        "sys/fs/cgroup/a/b/memory.stat",
        "inactive_file 0\nactive_file 0\n",
    ),
    ("sys/fs/cgroup/a/b/memory.events", "oom_kill 0\n"),
];

#[test]
fn a_throttled_or_tight_parent_is_seen_through_its_unlimited_child() {
    let tree = Tree::with(V2);
    let mut reader = tree.cgroups();
    let cpu = reader.cpu("0::/a/b\n", 1).unwrap();
    assert_eq!(cpu.len(), 2, "the root has no quota to speak of: {cpu:#?}");
    assert_eq!(
        (&cpu[0].quota_us, &cpu[0].throttled),
        (&Fact::Known(None), &Fact::Known(0))
    );
    assert_eq!(
        (cpu[1].quota_cpus(), cpu[1].throttled.get()),
        (Some(0.5), Ok(63))
    );
    assert_eq!(
        (cpu[1].periods.get(), cpu[1].throttled_ns.get()),
        (Ok(70), Ok(5_000_000))
    );
    assert_eq!(cpu[1].version, CgroupVersion::V2);

    let memory = reader.memory("0::/a/b\n").unwrap();
    assert_eq!(memory[0].headroom_bytes(), None);
    assert_eq!(
        memory[1].headroom_bytes(),
        Some(GIB - 795_000_000),
        "cache and slab can be reclaimed"
    );
    assert_eq!(memory[1].oom_kills.get(), Ok(2));
    assert_eq!(memory[1].limit_ooms.get(), Ok(1), "of its own limit alone");
    assert_eq!(reader.cpuset("0::/a/b\n"), Ok(vec![0, 1]));
}

#[test]
fn throttling_is_read_each_time() {
    let tree = Tree::with(V2);
    let mut reader = tree.cgroups();
    reader.cpu("0::/a\n", 1).unwrap();
    tree.write(
        "sys/fs/cgroup/a/cpu.stat",
        "nr_periods 80\nnr_throttled 73\nthrottled_usec 6000\n",
    );
    assert_eq!(reader.cpu("0::/a\n", 2).unwrap()[0].throttled.get(), Ok(73));
    std::fs::remove_file(tree.0.path().join("sys/fs/cgroup/a/cpu.stat")).unwrap();
    tree.write("sys/fs/cgroup/a/cpu.stat", "nonsense");
    reader = tree.cgroups();
    let group = reader.cpu("0::/a\n", 3).unwrap().remove(0);
    assert_eq!(group.throttled.why().unwrap().kind, WhyKind::Gap);
    assert_eq!(group.quota_cpus(), Some(0.5), "the rest stays known");
}

#[test]
fn v1_hierarchies_are_read_each_in_its_own_place() {
    let tree = Tree::with(&[
        (
            "proc/self/mountinfo",
            "31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             36 30 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             37 30 0:33 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n",
        ),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        (
            "sys/fs/cgroup/cpu,cpuacct/cpu.stat",
            "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
        ),
        ("sys/fs/cgroup/cpu,cpuacct/s/cpu.cfs_quota_us", "10000\n"),
        ("sys/fs/cgroup/cpu,cpuacct/s/cpu.cfs_period_us", "100000\n"),
        (
            "sys/fs/cgroup/cpu,cpuacct/s/cpu.stat",
            "nr_periods 7\nnr_throttled 7\nthrottled_time 92000000\n",
        ),
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "5\n"),
        (
            "sys/fs/cgroup/memory/m/memory.limit_in_bytes",
            "134217728\n",
        ),
        (
            "sys/fs/cgroup/memory/m/memory.usage_in_bytes",
            "100000000\n",
        ),
        (
            "sys/fs/cgroup/memory/m/memory.stat",
            "inactive_file 1\ntotal_inactive_file 1000\ntotal_active_file 3096\n",
        ),
        (
            "sys/fs/cgroup/memory/m/memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        ),
        ("sys/fs/cgroup/cpuset/cpuset.effective_cpus", "0-3\n"),
    ]);
    let text = "4:memory:/m\n3:cpu,cpuacct:/s\n2:cpuset:/\n0::/user.slice\n";
    let mut reader = tree.cgroups();
    let cpu = reader.cpu(text, 1).unwrap();
    assert_eq!(
        (cpu[0].quota_cpus(), cpu[0].throttled_ns.get()),
        (Some(0.1), Ok(92_000_000))
    );
    assert_eq!(cpu[1].quota_us, Fact::Known(None));
    let memory = reader.memory(text).unwrap();
    assert_eq!(memory[0].limit_bytes, Fact::Known(Some(128 << 20)));
    assert_eq!(memory[0].file_cache_bytes.get(), Ok(4096));
    assert_eq!(memory[0].oom_kills.get(), Ok(4));
    assert_eq!(
        memory[1].limit_bytes,
        Fact::Known(None),
        "v1 writes no limit as a huge number"
    );
    assert!(memory[1].oom_kills.why().is_some());
    assert_eq!(reader.cpuset(text), Ok(vec![0, 1, 2, 3]));
}

#[test]
fn a_group_whose_processes_end_together_is_read_once_for_all_of_them_and_again_for_the_next() {
    let tree = Tree::with(V2);
    let mut reader = tree.cgroups();
    let kills = |groups: Reading<Vec<MemoryGroup>>| groups.unwrap()[0].oom_kills.get().unwrap();
    let killed = |n| tree.write("sys/fs/cgroup/a/memory.events", &format!("oom_kill {n}\n"));
    assert_eq!(kills(reader.memory("0::/a\n")), 2);
    killed(3);
    assert_eq!(kills(reader.memory("0::/a\n")), 2, "of that moment");
    assert_eq!(kills(reader.memory_after_ends("0::/a\n")), 3);
    killed(4);
    assert_eq!(kills(reader.memory_after_ends("0::/a\n")), 3);
    reader.end_sample(1);
    assert_eq!(kills(reader.memory_after_ends("0::/a\n")), 4);
}

#[test]
fn a_group_that_was_made_anew_at_the_same_path_is_not_the_same() {
    let tree = Tree::with(V2);
    let group = || tree.cgroups().memory("0::/a\n").unwrap().remove(0);
    let first = group();
    assert!(first.is_same(&group()));
    let at = |path: &str| tree.0.path().join(path);
    std::fs::rename(at("sys/fs/cgroup/a"), at("sys/fs/cgroup/old")).unwrap();
    tree.write("sys/fs/cgroup/a/memory.max", "1073741824\n");
    let anew = group();
    assert_eq!(anew.path, first.path);
    assert!(!anew.is_same(&first));
    assert!(
        !MemoryGroup::default().is_same(&MemoryGroup::default()),
        "nobody knows"
    );
}
