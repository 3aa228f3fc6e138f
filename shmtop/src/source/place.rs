//! Where a process lives: its mount and network namespace, its pid inside, and the container its control group names. Called by
//! `process` once a second, and once for shmtop itself, which is what the others are compared with.

use super::file::{harmless, nonsense, text, why};
use super::parse::Status;
use crate::reading::Reading;
use crate::sample::Place;
use std::path::Path;

/// Of the process whose directory is `dir`.
pub(super) fn read(dir: &Path, status: Option<&Status>, cgroup: Option<&str>) -> Place {
    Place {
        mnt_ns_inode: ns_inode(dir, "mnt").into(),
        net_ns_inode: ns_inode(dir, "net").into(),
        inner_pid: status.and_then(|s| s.innermost),
        container: cgroup.and_then(container),
    }
}

/// Of this process.
pub(super) fn own(proc_root: &Path) -> Place {
    let dir = proc_root.join("self");
    let file = |name: &str| text(&dir.join(name)).ok();
    let status = file("status").map(|text| Status::parse(&text));
    read(&dir, status.as_ref(), file("cgroup").as_deref())
}

/// Inode of a namespace ("pid", "mnt", "net") of the process whose directory is `dir`.
pub(super) fn ns_inode(dir: &Path, kind: &str) -> Reading<u64> {
    let path = dir.join("ns").join(kind);
    let link = std::fs::read_link(&path).map_err(|e| why(&e, &path))?;
    let number = link
        .to_str()
        .and_then(|l| l.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']'));
    number
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| nonsense(&path))
}

/// "docker 3f2ab9c41d22" from the lines of /proc/PID/cgroup: the innermost part that is made of a long hexadecimal id, as container
/// engines name them; or the name that lxc and systemd-nspawn give.
fn container(cgroup: &str) -> Option<String> {
    let paths = cgroup.lines().filter_map(|l| l.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.rsplit('/')).find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        for (prefix, engine) in [("lxc.payload.", "lxc"), ("machine-", "machine")] {
            if let Some(name) = part.strip_prefix(prefix) {
                return Some(format!("{engine} {}", harmless(name)));
            }
        }
        let (engine, id) = part.rsplit_once('-').unwrap_or(("", part));
        let engine = match engine.rsplit('-').next() {
            Some("containerd") => "containerd",
            Some("libpod") => "podman",
            Some("crio") => "cri-o",
            Some("docker") => "docker",
            _ => "container",
        };
        let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
        is_id.then(|| format!("{engine} {}", &id[..12]))
    })
}

#[cfg(test)]
mod tests {
    use super::container;

    #[test]
    fn a_container_is_known_by_the_name_its_engine_gave_the_control_group() {
        let id = "3f2ab9c41d22aabbccddeeff00112233445566778899aabbccddeeff00112233";
        for (line, engine) in [
            (format!("0::/system.slice/docker-{id}.scope"), "docker"),
            (
                format!("12:memory:/docker/{id}\n11:cpu:/docker/{id}"),
                "container",
            ),
            (
                format!("0::/kubepods.slice/pod1.slice/cri-containerd-{id}.scope/x"),
                "containerd",
            ),
            (
                format!("0::/machine.slice/libpod-{id}.scope/container"),
                "podman",
            ),
        ] {
            assert_eq!(
                container(&line),
                Some(format!("{engine} 3f2ab9c41d22")),
                "{line}"
            );
        }
        assert_eq!(
            container("0::/lxc.payload.web/x.service").as_deref(),
            Some("lxc web")
        );
        assert_eq!(
            container("0::/user.slice/user-1000.slice/session-3.scope"),
            None
        );
        assert_eq!(container(""), None);
    }
}
