//! Where the control group hierarchies are mounted, and which directories of them a process is in; what is mounted read-only. Called by `cgroup`;
//! leaves out what stands in the directories.

use super::file::{nonsense, text, why};
use crate::reading::{Reading, Why};
use crate::sample::CgroupVersion;
use nix::sys::statvfs::{FsFlags, statvfs};
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) version: CgroupVersion,
    /// Controllers of a v1 hierarchy; the unified one has what its files say.
    controllers: Vec<String>,
    /// The group that is mounted: `/`, or a container's own.
    root: String,
    /// Where.
    dir: PathBuf,
}

/// Whether what is mounted there is read-only, for root as well.
pub(super) fn is_read_only(path: &Path) -> Reading<bool> {
    let there = statvfs(path).map_err(|errno| why(&errno.into(), path))?;
    Ok(there.flags().contains(FsFlags::ST_RDONLY))
}

/// All mounted hierarchies, by proc_root/self/mountinfo. Mount points under /sys are looked for under `sys_root`.
pub(super) fn hierarchies(proc_root: &Path, sys_root: &Path) -> Reading<Vec<Hierarchy>> {
    let path = proc_root.join("self/mountinfo");
    let text = text(&path)?;
    let mut found = Vec::new();
    for line in text.lines() {
        let (mount, source) = line.split_once(" - ").ok_or_else(|| nonsense(&path))?;
        let mut source = source.split(' ');
        let version = match source.next() {
            Some("cgroup") => CgroupVersion::V1,
            Some("cgroup2") => CgroupVersion::V2,
            _ => continue,
        };
        let options = source.nth(1).unwrap_or("");
        let mut mount = mount.split(' ');
        let (Some(root), Some(at)) = (mount.nth(3), mount.next()) else {
            return Err(nonsense(&path));
        };
        let at = Path::new(at);
        found.push(Hierarchy {
            version,
            controllers: options.split(',').map(str::to_owned).collect(),
            root: root.to_owned(),
            dir: at
                .strip_prefix("/sys")
                .map_or(at.to_owned(), |rest| sys_root.join(rest)),
        });
    }
    Ok(found)
}

/// The directories of the groups that bind a process in `controller`, its own first, given the text of its
/// /proc/PID/cgroup.
pub(super) fn chain(
    hierarchies: &[Hierarchy],
    cgroup_text: &str,
    controller: &str,
) -> Reading<(CgroupVersion, Vec<PathBuf>)> {
    let (mut v1, mut v2) = (None, None);
    for line in cgroup_text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(names), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Why::gap("its cgroup file makes no sense"));
        };
        if id == "0" && names.is_empty() {
            v2 = Some(group);
        } else if names.split(',').any(|n| n == controller) {
            v1 = Some(group);
        }
    }
    let (group, hierarchy) = match (v1, v2) {
        (Some(group), _) => (
            group,
            hierarchies.iter().find(|h| {
                h.version == CgroupVersion::V1 && h.controllers.iter().any(|c| c == controller)
            }),
        ),
        (None, Some(group)) => (
            group,
            hierarchies.iter().find(|h| h.version == CgroupVersion::V2),
        ),
        (None, None) => {
            return Err(Why::not_applicable(format!(
                "it is in no {controller} control group"
            )));
        }
    };
    let Some(hierarchy) = hierarchy else {
        return Err(Why::not_there(format!(
            "no {controller} control groups are mounted here"
        )));
    };
    let inside = group
        .strip_prefix(hierarchy.root.trim_end_matches('/'))
        .filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let inside = match inside {
        Some(rest) if !rest.split('/').any(|part| part == "..") => rest.trim_matches('/'),
        _ => {
            return Err(Why::not_there(
                "its control group lies outside of what is mounted here",
            ));
        }
    };
    let own = hierarchy.dir.join(inside);
    let chain = own
        .ancestors()
        .take_while(|dir| dir.starts_with(&hierarchy.dir))
        .map(Path::to_owned)
        .collect();
    Ok((hierarchy.version, chain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(lines: &str) -> Vec<Hierarchy> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("self")).unwrap();
        std::fs::write(dir.path().join("self/mountinfo"), lines).unwrap();
        hierarchies(dir.path(), Path::new("/fixture")).unwrap()
    }

    const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw
35 30 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
36 30 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
";

    #[test]
    fn what_is_mounted_read_only_is_told_from_what_may_not_be_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(is_read_only(dir.path()), Ok(false));
        assert!(is_read_only(&dir.path().join("sys")).is_err());
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let fields = mounts.lines().map(|line| line.split(' '));
        let all: Vec<_> = fields
            .filter_map(|mut f| Some((f.nth(1)?, f.nth(1)?)))
            .collect();
        for (n, (at, options)) in all.iter().enumerate() {
            let over = |(later, _): &(&str, &str)| Path::new(at).starts_with(later);
            // Some keep us out.
            if let (false, Ok(there)) = (all[n + 1..].iter().any(over), is_read_only(Path::new(at)))
            {
                assert_eq!(there, options.split(',').any(|o| o == "ro"), "{at}");
            }
        }
    }

    #[test]
    fn a_chain_runs_from_the_own_group_to_the_root_of_the_mount() {
        let hierarchies = mounted(HYBRID);
        let text = "4:cpu,cpuacct:/a/b\n3:memory:/docker/abc/x\n0::/user.slice\n";
        let cpu = chain(&hierarchies, text, "cpu").unwrap();
        let dirs = ["a/b", "a", ""].map(|d| Path::new("/fixture/fs/cgroup/cpu,cpuacct").join(d));
        assert_eq!(cpu, (CgroupVersion::V1, dirs.to_vec()));
        // In a container that sees its own group as the mount's root, the path still names it from the host's.
        let memory = chain(&hierarchies, text, "memory").unwrap();
        let dirs = ["x", ""].map(|d| Path::new("/fixture/fs/cgroup/memory").join(d));
        assert_eq!(memory.1, dirs);
        // What no v1 hierarchy has is the unified one's.
        let cpuset = chain(&hierarchies, text, "cpuset").unwrap();
        assert_eq!(cpuset.0, CgroupVersion::V2);
    }

    #[test]
    fn a_group_outside_of_the_mount_is_unknown_and_never_looked_for_elsewhere() {
        let hierarchies = mounted(HYBRID);
        for text in [
            "3:memory:/docker/abcd",
            "3:memory:/other",
            "0::/../x",
            "3:memory:/docker/abc/../../etc",
        ] {
            assert!(chain(&hierarchies, text, "memory").is_err(), "{text}");
        }
        assert!(chain(&hierarchies, "no colons", "memory").is_err());
        assert!(chain(&[], "0::/", "memory").is_err());
        assert!(chain(&hierarchies, "", "memory").is_err());
    }
}
