//! The cgroup check on fixture trees, the rlimit checks on this process.

use super::*;

const MIB: u64 = 1 << 20;

/// A made-up `/`: files by path.
fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

const V2_MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
const V1_MOUNT: &str = "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

#[test]
fn a_client_that_would_exceed_memory_max_is_refused_with_both_numbers() {
    let host = host(&[
        ("proc/self/cgroup", "0::/app.slice/exchange.service\n"),
        ("proc/self/mountinfo", V2_MOUNT),
        (
            "sys/fs/cgroup/app.slice/exchange.service/memory.max",
            "134217728\n",
        ),
        (
            "sys/fs/cgroup/app.slice/exchange.service/memory.current",
            "73400320\n",
        ),
        (
            "sys/fs/cgroup/app.slice/exchange.service/memory.stat",
            "anon 1\nfile 0\ninactive_file 1048576\nactive_file 2097152\nslab_reclaimable 1048576\nslab_unreclaimable 9\n",
        ),
    ]);
    assert_eq!(memory_cgroup(host.path(), 61 * MIB), Ok(()));
    assert_eq!(
        memory_cgroup(host.path(), 62 * MIB + 1),
        Err(refuse(0, 128 * MIB, 66 * MIB)),
        "what the kernel gives up counts as free, the rest does not"
    );
    assert!(memory_cgroup(host.path(), u64::MAX).is_err());
}

#[test]
fn a_parents_limit_counts_like_the_own_one() {
    let host = host(&[
        ("proc/self/cgroup", "0::/pod/container\n"),
        ("proc/self/mountinfo", V2_MOUNT),
        ("sys/fs/cgroup/pod/container/memory.max", "max\n"),
        ("sys/fs/cgroup/pod/container/memory.current", "1048576\n"),
        ("sys/fs/cgroup/pod/memory.max", "67108864\n"),
        ("sys/fs/cgroup/pod/memory.current", "33554432\n"),
    ]);
    assert_eq!(memory_cgroup(host.path(), 32 * MIB), Ok(()));
    assert_eq!(
        memory_cgroup(host.path(), 32 * MIB + 1),
        Err(refuse(0, 64 * MIB, 32 * MIB))
    );
}

#[test]
fn version_1_is_read_beside_other_controllers() {
    let host = host(&[
        (
            "proc/self/cgroup",
            "9:name=systemd:/x\n4:cpuset,memory:/box\n1:cpu:/y\n0::/\n",
        ),
        ("proc/self/mountinfo", V1_MOUNT),
        (
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes",
            "67108864\n",
        ),
        (
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes",
            "62914560\n",
        ),
        (
            "sys/fs/cgroup/memory/box/memory.stat",
            "inactive_file 1\ntotal_inactive_file 10485760\ntotal_active_file 10485760\n",
        ),
        // Root: unlimited, in the words of v1.
        (
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "9223372036854771712\n",
        ),
        (
            "sys/fs/cgroup/memory/memory.usage_in_bytes",
            "999999999999\n",
        ),
    ]);
    assert_eq!(memory_cgroup(host.path(), 24 * MIB), Ok(()));
    assert_eq!(
        memory_cgroup(host.path(), 25 * MIB),
        Err(refuse(0, 64 * MIB, 40 * MIB))
    );
}

#[test]
fn a_container_that_sees_a_part_of_the_tree_is_measured_at_what_it_sees() {
    // cgroup says the host's path, the mount shows that very group as its top.
    let mount = "30 23 0:26 /docker/abc /sys/fs/cgroup ro,nosuid master:9 - cgroup2 cgroup rw\n";
    for own in ["/docker/abc", "/docker/abc/", "/../..", "/elsewhere"] {
        let host = host(&[
            ("proc/self/cgroup", &format!("0::{own}\n")),
            ("proc/self/mountinfo", mount),
            ("sys/fs/cgroup/memory.max", "1048576\n"),
            ("sys/fs/cgroup/memory.current", "524288\n"),
        ]);
        assert!(memory_cgroup(host.path(), MIB / 2).is_ok(), "{own}");
        assert!(memory_cgroup(host.path(), MIB).is_err(), "{own}");
    }
}

#[test]
fn what_cannot_be_read_refuses_nobody() {
    let nothing = host(&[]);
    assert_eq!(memory_cgroup(nothing.path(), u64::MAX), Ok(()));
    for (limit, usage) in [("max", "5"), ("", "5"), ("12", ""), ("rubbish", "rubbish")] {
        let host = host(&[
            ("proc/self/cgroup", "0::/a\nrubbish\n::::\n"),
            ("proc/self/mountinfo", V2_MOUNT),
            ("sys/fs/cgroup/a/memory.max", limit),
            ("sys/fs/cgroup/a/memory.current", usage),
        ]);
        assert_eq!(memory_cgroup(host.path(), u64::MAX), Ok(()), "{limit:?}");
    }
}

#[test]
fn where_overcommit_is_forbidden_the_commit_limit_counts() {
    let meminfo = "MemTotal: 9 kB\nCommitLimit:     2048 kB\nCommitted_AS:    1024 kB\n";
    let strict = |mode| {
        host(&[
            ("proc/sys/vm/overcommit_memory", mode),
            ("proc/meminfo", meminfo),
        ])
    };
    let host = strict("2\n");
    assert_eq!(commit_limit(host.path(), MIB), Ok(()));
    assert_eq!(
        commit_limit(host.path(), MIB + 1),
        Err(refuse(libc::ENOMEM, 2 * MIB, MIB))
    );
    for mode in ["0\n", "1\n", ""] {
        assert_eq!(commit_limit(strict(mode).path(), u64::MAX), Ok(()));
    }
}

#[test]
fn this_process_has_room_for_a_page_and_knows_its_descriptors() {
    check(4096).unwrap();
    let (limit, used) = descriptors();
    assert!(limit == 0 || limit > PROBED_DESCRIPTORS || (3..=limit).contains(&used));
}
