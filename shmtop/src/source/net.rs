//! The servers' listening sockets: whether the path still leads there, and how many connections wait. Called by `World`, once a second.

use super::file::why;
use super::sock_diag::{self, Queue};
use crate::reading::{Reading, Why};
use crate::sample::Listener;
use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a page says of its server's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) pid: u32,
    pub(super) path: String,
    pub(super) bound_inode: u64,
}

/// Looks at the sockets that the pages name.
pub(super) fn read(proc_root: &Path, claims: &[Claim]) -> Vec<Listener> {
    if claims.is_empty() {
        return Vec::new();
    }
    let queues = sock_diag::listening().map_err(|e| match e.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Why::no_permission("sock_diag is not allowed here"),
        _ => Why::not_there(format!("sock_diag: {e}")),
    });
    claims
        .iter()
        .map(|claim| listener(proc_root, claim, &queues))
        .collect()
}

fn listener(proc_root: &Path, claim: &Claim, queues: &Reading<HashMap<u32, Queue>>) -> Listener {
    // The kernel keeps 32 bits of the inode here.
    let queue = match queues {
        Err(why) => Err(why.clone()),
        Ok(_) if claim.bound_inode == 0 => Err(Why::not_there("its page does not name the inode")),
        Ok(queues) => queues
            .get(&(claim.bound_inode as u32))
            .ok_or_else(|| Why::not_there("no such listening socket in this network namespace")),
    };
    Listener {
        pid: claim.pid,
        path: claim.path.clone(),
        bound_inode: claim.bound_inode,
        path_inode: path_inode(proc_root, claim).into(),
        queue: queue.clone().map(|q| q.waiting).into(),
        backlog: queue.map(|q| q.backlog).into(),
    }
}

/// Inode at the path, in the server's own mount namespace where it may be entered, else in ours. 0: there is nothing, and that was
/// seen in its own.
fn path_inode(proc_root: &Path, claim: &Claim) -> Reading<u64> {
    let Some(relative) = claim.path.strip_prefix('/') else {
        return Err(Why::not_applicable("its socket has no absolute path"));
    };
    let root = proc_root.join(format!("{}/root", claim.pid));
    let theirs = root.join(relative);
    let metadata = match std::fs::symlink_metadata(&theirs) {
        // A process that has ended has no root either, and then nobody knows.
        Err(e) if e.kind() == io::ErrorKind::NotFound && std::fs::metadata(&root).is_ok() => {
            return Ok(0);
        }
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let ours = Path::new(&claim.path);
            std::fs::symlink_metadata(ours).map_err(|e| why(&e, ours))
        }
        other => other.map_err(|e| why(&e, &theirs)),
    };
    Ok(metadata?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn waiting_connections_are_counted_and_a_stolen_path_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = UnixListener::bind(&path).unwrap();
        let claim = Claim {
            pid: std::process::id(),
            path: path.to_str().unwrap().to_owned(),
            bound_inode: std::fs::metadata(&path).unwrap().ino(),
        };
        let _waiting = [
            UnixStream::connect(&path).unwrap(),
            UnixStream::connect(&path).unwrap(),
        ];
        let look = || read(Path::new("/proc"), std::slice::from_ref(&claim)).remove(0);
        let seen = look();
        assert_eq!(seen.path_inode.known(), Some(&claim.bound_inode));
        assert_eq!(seen.queue.known(), Some(&2));
        assert!(seen.backlog.known().is_some_and(|n| *n >= 2));
        let _accepted = first.accept().unwrap();
        assert_eq!(look().queue.known(), Some(&1));

        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert_ne!(look().path_inode.known(), Some(&claim.bound_inode));
        assert_eq!(
            look().queue.known(),
            Some(&1),
            "the queue stays the first server's"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(look().path_inode.known(), Some(&0), "gone is an answer");
        let nobody = Claim {
            pid: u32::MAX,
            ..claim.clone()
        };
        let of_nobody = read(Path::new("/proc"), &[nobody]).remove(0);
        assert!(of_nobody.path_inode.why().is_some());
    }
}
