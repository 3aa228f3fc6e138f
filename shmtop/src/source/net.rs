//! The servers' listening sockets: whether the path still leads there, and how many connections wait. Called by `World`, once a second.

use super::file::why;
use super::sock_diag::{self, Queue};
use crate::reading::{Reading, Why};
use crate::sample::Listener;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use std::collections::HashMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What a page says of its server's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) pid: u32,
    pub(super) path: String,
    pub(super) bound_inode: u64,
    /// Whether its sockets are of the network namespace that is looked at: queues are told of no other.
    pub(super) is_here: Reading<bool>,
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

fn listener(
    proc_root: &Path,
    claim: &Claim,
    queues: &Reading<HashMap<u32, Vec<Queue>>>,
) -> Listener {
    // The kernel keeps 32 bits of the inode here.
    let queue = match (queues, &claim.is_here) {
        (Err(why), _) | (_, Err(why)) => Err(why.clone()),
        // One of ours may have the number of its inode.
        (_, Ok(false)) => Err(Why::not_there(
            "its sockets are of another network namespace",
        )),
        (Ok(_), _) if claim.bound_inode == 0 => {
            Err(Why::not_there("its page does not name the inode"))
        }
        (Ok(queues), _) => match queues.get(&(claim.bound_inode as u32)).map(Vec::as_slice) {
            Some([queue]) => Ok(queue),
            // Each file system numbers its own inodes, and a tmpfs begins with small numbers.
            Some(_) => Err(Why::not_there(
                "several listening sockets have this inode number",
            )),
            None => Err(Why::not_there(
                "no such listening socket in this network namespace",
            )),
        },
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

/// Inode at the path, in the server's own mount namespace and from its root. 0: there is nothing, and that was seen there.
fn path_inode(proc_root: &Path, claim: &Claim) -> Reading<u64> {
    if !claim.path.starts_with('/') {
        return Err(Why::not_applicable("its socket has no absolute path"));
    }
    let root = proc_root.join(format!("{}/root", claim.pid));
    let theirs = root.join(&claim.path[1..]);
    match lstat_below(&root, &claim.path) {
        Ok(metadata) => Ok(metadata.ino()),
        // A process that has ended has no root either, and then nobody knows.
        Err(e) if e.kind() == io::ErrorKind::NotFound && std::fs::metadata(&root).is_ok() => Ok(0),
        Err(e) => match e.raw_os_error() {
            // An old kernel, or a sandbox that has never heard of it: the path might lead elsewhere for us.
            Some(libc::ENOSYS | libc::EPERM) => Err(Why::not_there("openat2 is not there")),
            _ => Err(why(&e, &theirs)),
        },
    }
}

/// What is at `path` for who has this root: absolute links on the way, /var/run in most images, start there and not at ours.
fn lstat_below(root: &Path, path: &str) -> io::Result<Metadata> {
    let root = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT);
    File::from(openat2(&root, path, how)?).metadata()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn of_two_sockets_with_one_inode_number_neither_queue_is_told() {
        let claim = Claim {
            pid: std::process::id(),
            path: "/nowhere".into(),
            bound_inode: 5,
            is_here: Ok(true),
        };
        let queue = Queue::default();
        let seen = |queues: Vec<Queue>| {
            let queues = Ok(HashMap::from([(5, queues)]));
            listener(Path::new("/proc"), &claim, &queues).queue
        };
        assert_eq!(seen(vec![queue]).known(), Some(&0));
        assert_eq!(seen(vec![queue; 2]).known(), None);
    }

    #[test]
    fn a_socket_of_ours_is_not_taken_for_one_of_another_network_namespace() {
        let claim = Claim {
            pid: std::process::id(),
            path: "/nowhere".into(),
            bound_inode: 5,
            is_here: Ok(false),
        };
        let queues = Ok(HashMap::from([(5, vec![Queue::default()])]));
        let seen = listener(Path::new("/proc"), &claim, &queues);
        assert!(
            seen.queue
                .why()
                .is_some_and(|why| why.text.contains("another network"))
        );
    }

    #[test]
    fn waiting_connections_are_counted_and_a_stolen_path_shows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = UnixListener::bind(&path).unwrap();
        let claim = Claim {
            pid: std::process::id(),
            path: path.to_str().unwrap().to_owned(),
            bound_inode: std::fs::metadata(&path).unwrap().ino(),
            is_here: Ok(true),
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
    #[test]
    fn a_path_over_an_absolute_link_is_looked_up_from_the_servers_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("7/root");
        std::fs::create_dir_all(root.join("run")).unwrap();
        std::fs::create_dir(root.join("var")).unwrap();
        // As in every Debian image; with us it leads to another place.
        std::os::unix::fs::symlink("/run", root.join("var/run")).unwrap();
        let _server = UnixListener::bind(root.join("run/in-a-container.sock")).unwrap();
        let bound = std::fs::metadata(root.join("run/in-a-container.sock"));
        let claim = Claim {
            pid: 7,
            path: "/var/run/in-a-container.sock".to_owned(),
            bound_inode: bound.unwrap().ino(),
            is_here: Ok(true),
        };
        assert_eq!(path_inode(dir.path(), &claim), Ok(claim.bound_inode));
        std::fs::remove_file(root.join("run/in-a-container.sock")).unwrap();
        assert_eq!(path_inode(dir.path(), &claim), Ok(0), "gone is an answer");
    }
}
