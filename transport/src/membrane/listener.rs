//! Owning a socket path: taken from nobody who lives, left to nobody when dead.
//!
//! A lock file `PATH.lock` beside the socket decides between servers; the kernel releases it with the process, however
//! that ends. Only its holder probes and removes a socket left behind.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{Mode, fchmod};

use crate::error::{BindError, BindStep};
use crate::limits::MAX_PATH_BYTES;
use crate::mem::fork::NotInForks;

/// Connections that may wait to be accepted; the kernel caps it at net.core.somaxconn.
const BACKLOG: i32 = 1024;

/// A listening socket that owns its path.
pub(super) struct Listener {
    /// A fork would keep the path connectable, with nobody there to accept. Before the descriptor: dropped first.
    _not_in_forks: NotInForks,
    fd: OwnedFd,
    /// Absolute, as that of the lock: the process may go elsewhere.
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Last: the socket's file is removed under it.
    _lock: PathLock,
}

/// The right to decide what is at a path: its lock file, held, and removed on drop.
struct PathLock {
    path: PathBuf,
    /// A fork would hold it beyond our death.
    _not_in_forks: NotInForks,
    file: Flock<File>,
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // Still held. Whoever has opened it meanwhile finds out that it is gone, see `lock`. Only what is still ours: whoever cleans up behind
        // us may have taken it away, and another server may hold the one that is there now.
        if is_at(&self.path, &self.file).unwrap_or(false) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether this file is the one at `path`; not if nothing is there.
fn is_at(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(seen) => Ok((seen.dev(), seen.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

impl Listener {
    /// Where it listens, absolute.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Inode of the socket file.
    pub(super) fn inode(&self) -> u64 {
        self.inode
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Only what is still ours: somebody may have put another file there by hand.
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|m| (m.dev(), m.ino()) == (self.device, self.inode));
        if ours {
            // Failing leaves a stale socket, which the next server takes over.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`. `others`: connectable by other users too, whose credentials are then checked at accept.
pub(super) fn bind(path: &Path, others: bool) -> Result<Listener, BindError> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        return Err(BindError::NoPath { path: path.into() });
    }
    let length = bytes.len();
    // The lock file's name must fit too, but into a file name only.
    if length > MAX_PATH_BYTES {
        return Err(BindError::PathTooLong {
            path: path.into(),
            length,
            limit: MAX_PATH_BYTES,
        });
    }
    let failed = |step: BindStep, e: io::Error| BindError::Io {
        step,
        path: path.into(),
        source: e,
    };
    // For later; the address has room for the shorter one that we were given.
    let absolute = std::path::absolute(path).map_err(|e| failed(BindStep::CurrentDirectory, e))?;
    let lock = lock(path, &absolute)?;
    clear(path)?;

    let fd = socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(|e| failed(BindStep::Socket, e.into()))?;
    let not_in_forks = NotInForks::new(&fd);
    // Before bind: Linux gives the socket file this mode, so that there is no moment at which others could connect.
    fchmod(&fd, Mode::from_bits_truncate(0o600)).map_err(|e| failed(BindStep::Mode, e.into()))?;
    let address = UnixAddr::new(path).map_err(|e| failed(BindStep::Bind, e.into()))?;
    socket::bind(fd.as_raw_fd(), &address).map_err(|e| failed(BindStep::Bind, e.into()))?;
    let backlog = Backlog::new(BACKLOG).map_err(|e| failed(BindStep::Listen, e.into()))?;
    let listening = socket::listen(&fd, backlog).map_err(io::Error::from);
    let opened = listening.and_then(|()| if others { open_to_all(path) } else { Ok(()) });
    let meta = opened.and_then(|()| std::fs::symlink_metadata(path));
    match meta {
        Ok(meta) => Ok(Listener {
            _not_in_forks: not_in_forks,
            fd,
            path: absolute,
            device: meta.dev(),
            inode: meta.ino(),
            _lock: lock,
        }),
        Err(e) => {
            // We bound it a moment ago, under the lock.
            let _ = std::fs::remove_file(path);
            Err(failed(BindStep::Listen, e))
        }
    }
}

/// Lets every user connect. Not before bind, where the umask would take it away again; and through a descriptor, so that a file put
/// in the socket's place meanwhile is not the one that is opened up.
fn open_to_all(path: &Path) -> io::Result<()> {
    let place = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    if !place.metadata()?.file_type().is_socket() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let place = format!("/proc/self/fd/{}", place.as_raw_fd());
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o666))
}

/// The lock of this path, which is `absolute`, held until drop.
fn lock(path: &Path, absolute: &Path) -> Result<PathLock, BindError> {
    let mut name = absolute.as_os_str().to_os_string();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let failed = |e: io::Error| match path.parent() {
        // The lock file is the first that would be there; it is not what the user meant.
        Some(dir) if e.kind() == io::ErrorKind::NotFound => BindError::Io {
            step: BindStep::Directory,
            path: dir.into(),
            source: e,
        },
        _ => BindError::Io {
            step: BindStep::Lock,
            path: lock_path.clone(),
            source: e,
        },
    };
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            // Who may create files here could have put a FIFO there, whose open would wait for a reader.
            .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&lock_path)
            .map_err(failed)?;
        let not_in_forks = NotInForks::new(&file);
        if !file.metadata().map_err(failed)?.is_file() {
            let what = "something else than a regular file is in its place";
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, what)));
        }
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((file, e)) => {
                drop((not_in_forks, file));
                return Err(match e {
                    Errno::EWOULDBLOCK => BindError::InUse { path: path.into() },
                    e => failed(e.into()),
                });
            }
        };
        // After the lock, and so dropped before it.
        let not_in_forks = not_in_forks;
        // Its last holder may have removed the file between our open and our lock: then we hold a lock nobody can see.
        if is_at(&lock_path, &lock).map_err(failed)? {
            return Ok(PathLock {
                _not_in_forks: not_in_forks,
                path: lock_path,
                file: lock,
            });
        }
    }
}

/// Connects without waiting: a server that is stopped with a full queue would hold us for ever.
fn probe(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)
}

/// Removes a socket that a dead server left behind; refuses anything else that is at the path.
fn clear(path: &Path) -> Result<(), BindError> {
    let failed = |step: BindStep, e: io::Error| BindError::Io {
        step,
        path: path.into(),
        source: e,
    };
    let before = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed(BindStep::Stat, e)),
        Ok(meta) => meta,
    };
    if !before.file_type().is_socket() {
        return Err(BindError::NotASocket { path: path.into() });
    }
    // Somebody who does not know our lock may listen there.
    match probe(path) {
        // EAGAIN: its queue is full.
        Ok(()) | Err(Errno::EAGAIN) => return Err(BindError::InUse { path: path.into() }),
        Err(Errno::ECONNREFUSED) => {}
        Err(e) => return Err(failed(BindStep::Probe, e.into())),
    }
    let after = std::fs::symlink_metadata(path).map_err(|e| failed(BindStep::Stat, e))?;
    if (after.dev(), after.ino()) != (before.dev(), before.ino()) {
        return Err(BindError::InUse { path: path.into() });
    }
    fault_point!(PathProbed);
    std::fs::remove_file(path).map_err(|e| failed(BindStep::Unlink, e))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mem::limit_tests::alone;

    /// Names in a directory.
    fn names(dir: &Path) -> Vec<std::ffi::OsString> {
        let entries = std::fs::read_dir(dir).expect("a directory");
        entries.map(|e| e.expect("an entry").file_name()).collect()
    }

    #[test]
    fn a_fifo_where_the_lock_should_be_is_an_error_and_no_wait() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let fifo = dir.path().join("s.lock");
        nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o666)).expect("a FIFO");
        for with_reader in [false, true] {
            let reader = || {
                let mut open = OpenOptions::new();
                open.read(true).custom_flags(libc::O_NONBLOCK).open(&fifo)
            };
            let _reader = with_reader.then(reader).transpose().expect("a reader");
            let (done, ended) = std::sync::mpsc::channel();
            let path = path.clone();
            // Left behind, should it hang.
            std::thread::spawn(move || done.send(bind(&path, false).map(drop)));
            let ended = ended.recv_timeout(Duration::from_secs(30)).expect("a hang");
            assert!(
                matches!(
                    ended,
                    Err(BindError::Io {
                        step: BindStep::Lock,
                        ..
                    })
                ),
                "{ended:?}"
            );
        }
        assert_eq!(names(dir.path()), ["s.lock"], "it is not ours");
    }

    #[test]
    fn a_server_whose_process_went_elsewhere_removes_its_own_files_and_no_others() {
        let test = "membrane::listener::tests::a_server_whose_process_went_elsewhere_removes_its_own_files_and_no_others";
        alone(test, || {
            let [here, there] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
            std::env::set_current_dir(&here).expect("ours");
            let listener = bind(Path::new("s"), false).expect("a listener");
            std::env::set_current_dir(&there).expect("ours");
            let other = bind(Path::new("s"), false).expect("another one");
            drop(listener);
            assert!(names(here.path()).is_empty(), "its own are left behind");
            assert_eq!(names(there.path()).len(), 2, "another one's are gone");
            drop(other);
            std::env::set_current_dir("/").expect("a root");
        });
    }

    #[test]
    fn a_lock_that_was_taken_away_and_made_anew_by_another_one_is_not_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, lock) = (dir.path().join("s"), dir.path().join("s.lock"));
        let listener = bind(&path, false).expect("a listener");
        std::fs::remove_file(&lock).expect("there");
        std::fs::write(&lock, "another one's").expect("a file");
        drop(listener);
        assert_eq!(names(dir.path()), ["s.lock"]);
    }
}
