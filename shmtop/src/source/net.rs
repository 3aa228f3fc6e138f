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

/// What a page says of its server's socket, or of the one that its client is without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) pid: u32,
    pub(super) path: String,
    /// What the server bound. Of a client's page `None`: whatever is there now.
    pub(super) bound_inode: Option<u64>,
    /// Whether its sockets are of the network namespace that is looked at: queues are told of no other.
    pub(super) is_here: Reading<bool>,
    /// Of the page's process, if known: a path leads many clients to one place.
    pub(super) mnt_ns: Option<u64>,
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
    let mut known: HashMap<(u64, &str), Reading<u64>> = HashMap::new();
    claims
        .iter()
        .map(|claim| {
            let look = || path_inode(proc_root, claim);
            let inode = match (claim.bound_inode, claim.mnt_ns) {
                (None, Some(ns)) => {
                    let there = known.entry((ns, claim.path.as_str()));
                    there.or_insert_with(look).clone()
                }
                _ => look(),
            };
            listener(claim, inode, &queues)
        })
        .collect()
}

fn listener(
    claim: &Claim,
    path_inode: Reading<u64>,
    queues: &Reading<HashMap<u32, Vec<Queue>>>,
) -> Listener {
    let inode = match claim.bound_inode {
        Some(0) => Err(Why::not_there("its page does not name the inode")),
        Some(bound) => Ok(bound),
        None => path_inode.clone(),
    };
    // The kernel keeps 32 bits of the inode here.
    let queue = match (queues, &claim.is_here, inode) {
        (Err(why), ..) | (_, Err(why), _) => Err(why.clone()),
        // One of ours may have the number of its inode.
        (_, Ok(false), _) => Err(Why::not_there(
            "its sockets are of another network namespace",
        )),
        (.., Err(why)) => Err(why),
        (Ok(queues), _, Ok(inode)) => match queues.get(&(inode as u32)).map(Vec::as_slice) {
            Some([queue]) => Ok(*queue),
            // Each file system numbers its own inodes, and a tmpfs begins with small numbers.
            Some(_) => Err(Why::not_there(
                "several listening sockets have this inode number",
            )),
            // Left of one that has ended.
            None if claim.bound_inode.is_none() => Ok(Queue::default()),
            None => Err(Why::not_there(
                "no such listening socket in this network namespace",
            )),
        },
    };
    Listener {
        pid: claim.pid,
        path: claim.path.clone(),
        bound_inode: claim.bound_inode.unwrap_or(0),
        path_inode: path_inode.into(),
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
            bound_inode: Some(5),
            is_here: Ok(true),
            mnt_ns: None,
        };
        let queue = Queue::default();
        let seen = |queues: Vec<Queue>| {
            let queues = Ok(HashMap::from([(5, queues)]));
            listener(&claim, Ok(5), &queues).queue
        };
        assert_eq!(seen(vec![queue]).known(), Some(&0));
        assert_eq!(seen(vec![queue; 2]).known(), None);
    }

    #[test]
    fn a_socket_of_ours_is_not_taken_for_one_of_another_network_namespace() {
        let claim = Claim {
            pid: std::process::id(),
            path: "/nowhere".into(),
            bound_inode: Some(5),
            is_here: Ok(false),
            mnt_ns: None,
        };
        let queues = Ok(HashMap::from([(5, vec![Queue::default()])]));
        let seen = listener(&claim, Ok(5), &queues);
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
            bound_inode: Some(std::fs::metadata(&path).unwrap().ino()),
            is_here: Ok(true),
            mnt_ns: None,
        };
        let _waiting = [
            UnixStream::connect(&path).unwrap(),
            UnixStream::connect(&path).unwrap(),
        ];
        let look = || read(Path::new("/proc"), std::slice::from_ref(&claim)).remove(0);
        let seen = look();
        assert_eq!(seen.path_inode.known(), claim.bound_inode.as_ref());
        assert_eq!(seen.queue.known(), Some(&2));
        assert!(seen.backlog.known().is_some_and(|n| *n >= 2));
        let _accepted = first.accept().unwrap();
        assert_eq!(look().queue.known(), Some(&1));

        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        let _second = UnixListener::bind(&path).unwrap();
        assert_ne!(look().path_inode.known(), claim.bound_inode.as_ref());
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
            bound_inode: Some(bound.unwrap().ino()),
            is_here: Ok(true),
            mnt_ns: None,
        };
        assert_eq!(path_inode(dir.path(), &claim).ok(), claim.bound_inode);
        std::fs::remove_file(root.join("run/in-a-container.sock")).unwrap();
        assert_eq!(path_inode(dir.path(), &claim), Ok(0), "gone is an answer");
    }

    #[test]
    fn what_is_left_of_a_dead_servers_socket_is_told_from_a_new_servers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        // Two clients in one mount namespace: one look for both.
        let claims = [1, 2].map(|_| Claim {
            pid: std::process::id(),
            path: path.to_str().unwrap().to_owned(),
            bound_inode: None,
            is_here: Ok(true),
            mnt_ns: Some(7),
        });
        let look = || {
            let seen = read(Path::new("/proc"), &claims);
            assert_eq!(seen[0], seen[1]);
            let backlog = seen[0].backlog.known().copied();
            (seen[0].path_inode.known().is_some_and(|n| *n != 0), backlog)
        };
        assert_eq!(look(), (false, Some(0)), "shut down in good order");
        let server = UnixListener::bind(&path).unwrap();
        assert!(matches!(look(), (true, Some(1..))));
        drop(server);
        assert_eq!(look(), (true, Some(0)), "killed");
    }
}
