//! How pages are found: links in a per-user directory, and a scan of /proc for those that have none there.
//!
//! A process announces its page as `DIR/PID-NAME → /proc/PID/fd/N`. The link is a hint and never trusted: who
//! opens it checks what is behind ([`super::reader`]). When the process dies the link dangles, and whoever sees
//! it removes it; nothing needs a daemon, and nothing stale is ever read. Left out: reading pages.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::{Pid, geteuid};

use super::memory::MEMFD_NAME;
use super::text::sanitise;
use crate::mem::fork::Owner;
use crate::mem::memfd::RING_NAME;

/// Longest endpoint name in a link.
const MAX_NAME: usize = 64;
/// Pages of one name and process that can be announced.
const MAX_SAME: u32 = 256;

/// Where pages are announced and sockets live by default: `$SHMTOP_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/shmtop`,
/// else `/run/user/UID/shmtop`, else `/tmp/shmtop-UID`. A runtime directory counts only if it is the
/// user's own (under sudo the variable may still name the caller's). Creates nothing: see [`ensure_dir`].
pub fn default_dir() -> PathBuf {
    default_dir_from(&|name| std::env::var_os(name), Path::new("/"))
}

fn default_dir_from(env: &dyn Fn(&str) -> Option<OsString>, root: &Path) -> PathBuf {
    let set = |name| {
        env(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if let Some(dir) = set("SHMTOP_RUNTIME_DIR") {
        return dir;
    }
    let uid = geteuid();
    let runtime = root.join(format!("run/user/{uid}"));
    set("XDG_RUNTIME_DIR")
        .into_iter()
        .chain([runtime])
        .find(|dir| std::fs::metadata(dir).is_ok_and(|m| m.is_dir() && m.uid() == uid.as_raw()))
        .map_or_else(
            || root.join(format!("tmp/shmtop-{uid}")),
            |dir| dir.join("shmtop"),
        )
}

/// Makes sure `dir` exists and nobody else can put things into it: created with mode 0700 if missing; else it must
/// be a directory of this user that neither group nor others may write to.
///
/// # Errors
/// `PermissionDenied` if the directory is somebody else's or writable by others; what creating it says.
pub fn ensure_dir(dir: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(dir)?;
        }
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    // Not following links: /tmp/shmtop-UID could be somebody's link to anywhere.
    let found = std::fs::symlink_metadata(dir)?;
    let refuse = |why: String| {
        Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("{}: {why}", dir.display()),
        ))
    };
    if !found.is_dir() {
        return refuse("not a directory".into());
    }
    if found.uid() != geteuid().as_raw() {
        return refuse(format!("belongs to uid {}", found.uid()));
    }
    if found.mode() & 0o022 != 0 {
        return refuse(format!(
            "mode {:o} lets others write",
            found.mode() & 0o7777
        ));
    }
    Ok(())
}

/// A link that is removed when this is dropped, if it is still ours.
#[derive(Debug)]
pub struct Announcement {
    link: PathBuf,
    target: PathBuf,
    owner: Owner,
}

impl Announcement {
    /// Where it is.
    pub fn link(&self) -> &Path {
        &self.link
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // A forked child's copy is not the child's to remove; nor is a link that somebody replaced.
        let ours = self.owner.is_this()
            && std::fs::read_link(&self.link).is_ok_and(|target| target == self.target);
        if ours {
            // Failing leaves a dangling link, which whoever sees it sweeps.
            let _ = std::fs::remove_file(&self.link);
        }
    }
}

/// Announces the page behind `fd` of process `pid` (the caller) in `dir` as `PID-NAME`, or `PID-NAME.2` and so on if this
/// process has one of that name. What is not in `[A-Za-z0-9._-]` becomes `_`.
///
/// # Errors
/// What [`ensure_dir`] or the link says. The page works without: a scan still finds it.
pub fn announce(dir: &Path, name: &str, pid: u32, fd: BorrowedFd<'_>) -> io::Result<Announcement> {
    ensure_dir(dir)?;
    let name = link_name(name);
    let target = PathBuf::from(format!("/proc/{pid}/fd/{}", fd.as_raw_fd()));
    for n in 1..=MAX_SAME {
        let suffix = if n == 1 {
            String::new()
        } else {
            format!(".{n}")
        };
        let link = dir.join(format!("{pid}-{name}{suffix}"));
        let made = match symlink(&target, &link) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists && left_behind(&link, &target) => {
                std::fs::remove_file(&link).and_then(|()| symlink(&target, &link))
            }
            other => other,
        };
        match made {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
            Ok(()) => {
                return Ok(Announcement {
                    link,
                    target,
                    owner: Owner::this(),
                });
            }
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Whether a link with our pid is not (any more) of another page of ours: from a dead process whose pid we got, so
/// that it leads to no page, or to the very descriptor that is to be announced.
fn left_behind(link: &Path, target: &Path) -> bool {
    std::fs::read_link(link).is_ok_and(|old| {
        old == target || !std::fs::read_link(&old).is_ok_and(|file| is_page_link(&file))
    })
}

fn link_name(name: &str) -> String {
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || "._-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = name.chars().take(MAX_NAME).map(allowed).collect();
    if name.is_empty() {
        "unnamed".into()
    } else {
        name
    }
}

/// A page that was found, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What to open.
    pub link: PathBuf,
    /// Process it belongs to, as the link says.
    pub pid: u32,
    /// From the link, or the process's comm if found by a scan; sanitised. The page has the full one.
    pub name: String,
}

/// The pages announced in `dir`, by pid. Removes links whose process is dead, and no others. A directory that does not
/// exist has none.
///
/// A link says a pid and not whose: where two pid namespaces share a directory, that of a process of the other one looks like a dead
/// process's. Its page is found by [`scan_proc`] then, if at all. Give each namespace a directory of its own.
///
/// # Errors
/// What reading the directory says.
pub fn discover(dir: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let link = entry?.path();
        let Some((pid, name)) = announced(&link) else {
            continue;
        };
        match std::fs::metadata(&link) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if is_dead(pid) {
                    // If we may not, somebody who may will.
                    let _ = std::fs::remove_file(&link);
                }
            }
            // EACCES, too: it exists, and opening it will say why it can't be read.
            _ => found.push(Found { link, pid, name }),
        }
    }
    found.sort_by(|a, b| (a.pid, &a.link).cmp(&(b.pid, &b.link)));
    Ok(found)
}

/// Pid and name if `link` is `PID-NAME → /proc/PID/fd/N`. Sockets and files of others are none of our business.
fn announced(link: &Path) -> Option<(u32, String)> {
    use std::os::unix::ffi::OsStrExt;
    let target = std::fs::read_link(link).ok()?;
    let file_name = link.file_name()?.as_bytes();
    let dash = file_name.iter().position(|b| *b == b'-')?;
    let pid: u32 = std::str::from_utf8(&file_name[..dash]).ok()?.parse().ok()?;
    let fd = target.to_str()?.strip_prefix(&format!("/proc/{pid}/fd/"))?;
    fd.parse::<u32>().ok()?;
    Some((pid, sanitise(&file_name[dash + 1..])))
}

/// True only if there surely is no such process: a process that may not be looked at answers EPERM.
fn is_dead(pid: u32) -> bool {
    let Ok(raw) = i32::try_from(pid) else {
        return true;
    };
    // 0 and negative numbers are groups, not processes.
    raw > 0 && kill(Pid::from_raw(raw), None) == Err(Errno::ESRCH)
}

/// What [`scan_proc`] saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Pages, by pid. A forked child that kept the descriptor shows its parent's page once more: the page's own
    /// pid says whose it is.
    pub found: Vec<Found>,
    /// Descriptors of rings, by pid: after the handshake nobody should have one.
    pub rings: Vec<Found>,
    /// Processes whose descriptors this user may not see, by pid.
    pub unreadable: Vec<u32>,
}

/// Finds pages by looking at every process's descriptors below `proc_root` (`/proc`): those of other users, of containers
/// that share the pid namespace, and those whose runtime directory is another.
///
/// # Errors
/// What reading `proc_root` itself says. Processes that vanish meanwhile are left out.
pub fn scan_proc(proc_root: &Path) -> io::Result<Scan> {
    scan_proc_of(proc_root, |_| true)
}

/// The same of the processes that `wanted` says yes to; it is asked for every process that is there.
///
/// # Errors
/// As of [`scan_proc`].
pub fn scan_proc_of(proc_root: &Path, mut wanted: impl FnMut(u32) -> bool) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for entry in std::fs::read_dir(proc_root)? {
        let process = entry?.path();
        let Some(pid) = process
            .file_name()
            .and_then(|n| n.to_str()?.parse::<u32>().ok())
        else {
            continue;
        };
        if !wanted(pid) {
            continue;
        }
        let found = |links: Vec<PathBuf>| {
            let found = links.into_iter();
            found.map(|link| Found {
                link,
                pid,
                name: comm(&process),
            })
        };
        match memfds_of(&process) {
            Ok((pages, rings)) => {
                scan.found.extend(found(pages));
                scan.rings.extend(found(rings));
            }
            Err(e) if e.kind() == ErrorKind::PermissionDenied => scan.unreadable.push(pid),
            Err(_vanished) => {}
        }
    }
    for list in [&mut scan.found, &mut scan.rings] {
        list.sort_by(|a, b| (a.pid, &a.link).cmp(&(b.pid, &b.link)));
    }
    scan.unreadable.sort_unstable();
    Ok(scan)
}

/// A process's descriptors of pages, and those of rings.
fn memfds_of(process: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut pages, mut rings) = (Vec::new(), Vec::new());
    for fd in std::fs::read_dir(process.join("fd"))? {
        let link = fd?.path();
        match std::fs::read_link(&link) {
            Ok(target) if is_page_link(&target) => pages.push(link),
            Ok(target) if memfd_name(&target) == Some(RING_NAME.to_bytes()) => rings.push(link),
            Err(e) if e.kind() == ErrorKind::PermissionDenied => return Err(e),
            // Another file, or closed meanwhile.
            _ => {}
        }
    }
    Ok((pages, rings))
}

fn is_page_link(target: &Path) -> bool {
    memfd_name(target) == Some(MEMFD_NAME.to_bytes())
}

/// The name that a memfd was made with.
fn memfd_name(target: &Path) -> Option<&[u8]> {
    let name = target.to_str()?.strip_prefix("/memfd:")?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).as_bytes())
}

fn comm(process: &Path) -> String {
    let comm = std::fs::read(process.join("comm")).unwrap_or_default();
    sanitise(comm.strip_suffix(b"\n").unwrap_or(&comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtime_directory_is_the_users_own() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let uid = geteuid();
        let of = |vars: &[(&str, &Path)]| {
            let env = |name: &str| {
                vars.iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, path)| path.as_os_str().to_owned())
            };
            default_dir_from(&env, root)
        };
        let fallback = root.join(format!("tmp/shmtop-{uid}"));
        assert_eq!(of(&[]), fallback, "nothing set, nothing there");
        let (relative, gone) = (Path::new("x/y"), root.join("gone"));
        assert_eq!(of(&[("XDG_RUNTIME_DIR", relative)]), fallback);
        assert_eq!(of(&[("XDG_RUNTIME_DIR", &gone)]), fallback);
        if uid.is_root() {
            let other = root.join("other");
            std::fs::create_dir(&other).unwrap();
            std::os::unix::fs::chown(&other, Some(12345), None).unwrap();
            assert_eq!(
                of(&[("XDG_RUNTIME_DIR", &other)]),
                fallback,
                "sudo kept the caller's"
            );
        }
        let run = root.join(format!("run/user/{uid}"));
        std::fs::create_dir_all(&run).unwrap();
        assert_eq!(of(&[]), run.join("shmtop"));
        let xdg = root.join("xdg");
        std::fs::create_dir(&xdg).unwrap();
        assert_eq!(of(&[("XDG_RUNTIME_DIR", &xdg)]), xdg.join("shmtop"));
        let chosen = root.join("chosen");
        let both: &[(&str, &Path)] = &[("XDG_RUNTIME_DIR", &xdg), ("SHMTOP_RUNTIME_DIR", &chosen)];
        assert_eq!(of(both), chosen, "taken as it is");
    }
}
