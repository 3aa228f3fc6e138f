//! Pages are found while their process lives, and no link outlives it for long.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use transport::stats::page::{PageDescription, PageWriter};
use transport::stats::registry::{announce, discover, ensure_dir, scan_proc};
use transport::stats::{PageReader, Role};

fn page(name: &str) -> Arc<PageWriter> {
    PageWriter::create(&PageDescription {
        name,
        role: Role::Client,
        socket_path: Path::new(""),
        slots: 1,
    })
}

fn runtime_dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let runtime = dir.path().join("a/shmtop");
    (dir, runtime)
}

fn names(dir: &Path) -> Vec<String> {
    discover(dir).unwrap().into_iter().map(|f| f.name).collect()
}

/// The pid of a process that was, and no longer is.
fn dead_pid() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[test]
fn an_announced_page_is_found_opened_and_forgotten() {
    let (_keep, dir) = runtime_dir();
    assert!(discover(&dir).unwrap().is_empty(), "no directory, no pages");
    let page = page("exchange");
    let pid = std::process::id();
    let announcement = announce(&dir, "exchange", pid, page.fd().unwrap()).unwrap();
    assert_eq!(announcement.link(), dir.join(format!("{pid}-exchange")));
    let found = discover(&dir).unwrap();
    assert_eq!(
        (found.len(), found[0].pid, found[0].name.as_str()),
        (1, pid, "exchange")
    );
    assert_eq!(
        PageReader::open(&found[0].link)
            .unwrap()
            .snapshot()
            .unwrap()
            .name,
        "exchange"
    );
    drop(announcement);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
}

#[test]
fn pages_of_one_name_get_numbers_and_odd_names_plain_letters() {
    let (_keep, dir) = runtime_dir();
    let pages = [page("a"), page("b"), page("c")];
    let announcements: Vec<_> = pages
        .iter()
        .map(|p| {
            announce(
                &dir,
                "../x y\u{1b}\u{202e}",
                std::process::id(),
                p.fd().unwrap(),
            )
            .unwrap()
        })
        .collect();
    assert_eq!(names(&dir), [".._x_y__", ".._x_y__.2", ".._x_y__.3"]);
    drop(announcements);
    let empty = announce(&dir, "", std::process::id(), pages[0].fd().unwrap()).unwrap();
    assert_eq!(names(&dir), ["unnamed"]);
    drop(empty);
}

#[test]
fn only_links_whose_process_is_dead_are_swept() {
    let (_keep, dir) = runtime_dir();
    ensure_dir(&dir).unwrap();
    let (dead, own) = (dead_pid(), std::process::id());
    let link = |name: &str, target: &str| symlink(target, dir.join(name)).unwrap();
    link(&format!("{dead}-gone"), &format!("/proc/{dead}/fd/9"));
    // Alive, but without that descriptor: it may be about to be replaced, so it is nobody else's to judge.
    link(&format!("{own}-closed"), &format!("/proc/{own}/fd/9999"));
    // Not ours to judge either.
    link(&format!("{dead}-elsewhere"), "/nonexistent");
    link(&format!("{dead}-other"), &format!("/proc/{own}/fd/9999"));
    link("0-group", "/proc/0/fd/1");
    link("link", &format!("/proc/{dead}/fd/9"));
    std::fs::write(dir.join(format!("{dead}-file")), "x").unwrap();
    std::fs::write(dir.join("exchange.sock"), "x").unwrap();
    assert!(names(&dir).is_empty());
    let mut left: Vec<String> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let mut expected = [
        format!("{own}-closed"),
        format!("{dead}-elsewhere"),
        format!("{dead}-other"),
        "0-group".into(),
        "link".into(),
        format!("{dead}-file"),
        "exchange.sock".into(),
    ];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn names_in_links_are_made_safe_to_show() {
    let (_keep, dir) = runtime_dir();
    ensure_dir(&dir).unwrap();
    let own = std::process::id();
    let null = std::fs::File::open("/dev/null").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&null);
    symlink(
        format!("/proc/{own}/fd/{fd}"),
        dir.join(format!("{own}-\x1b[2J\u{202e}x")),
    )
    .unwrap();
    assert_eq!(names(&dir), ["\u{fffd}[2J\u{fffd}x"]);
}

#[test]
fn a_link_left_by_a_dead_process_of_the_same_pid_is_taken_over() {
    let (_keep, dir) = runtime_dir();
    ensure_dir(&dir).unwrap();
    let own = std::process::id();
    symlink(format!("/proc/{own}/fd/9999"), dir.join(format!("{own}-x"))).unwrap();
    let page = page("x");
    let _announcement = announce(&dir, "x", own, page.fd().unwrap()).unwrap();
    assert_eq!(names(&dir), ["x"]);
}

#[test]
fn a_link_that_somebody_replaced_is_not_removed() {
    let (_keep, dir) = runtime_dir();
    let page = page("x");
    let announcement = announce(&dir, "x", std::process::id(), page.fd().unwrap()).unwrap();
    let link = announcement.link().to_owned();
    std::fs::remove_file(&link).unwrap();
    symlink("/elsewhere", &link).unwrap();
    drop(announcement);
    assert_eq!(std::fs::read_link(link).unwrap(), Path::new("/elsewhere"));
}

#[test]
fn a_directory_others_may_write_to_is_refused() {
    let (_keep, dir) = runtime_dir();
    ensure_dir(&dir).unwrap();
    assert_eq!(
        std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    ensure_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o777)).unwrap();
    assert_eq!(
        ensure_dir(&dir).unwrap_err().kind(),
        std::io::ErrorKind::PermissionDenied
    );
    let alias = dir.with_file_name("alias");
    symlink("/tmp", &alias).unwrap();
    assert_eq!(
        ensure_dir(&alias).unwrap_err().kind(),
        std::io::ErrorKind::PermissionDenied
    );
    std::fs::write(dir.with_file_name("file"), "").unwrap();
    assert!(ensure_dir(&dir.with_file_name("file")).is_err());
}

#[test]
fn a_scan_finds_pages_that_were_never_announced() {
    let page = page("hidden");
    let scan = scan_proc(Path::new("/proc")).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&page.fd().unwrap());
    let own = std::process::id();
    let link = PathBuf::from(format!("/proc/{own}/fd/{fd}"));
    let found = scan.found.iter().find(|f| f.link == link).unwrap();
    assert_eq!(found.pid, own);
    let reader = PageReader::open(&found.link).unwrap();
    assert_eq!(reader.snapshot().unwrap().name, "hidden");
    let again = scan_proc(Path::new("/proc")).unwrap();
    let of_us = |scan: &[_]| {
        scan.iter()
            .filter(|f: &&transport::stats::registry::Found| f.link == link)
            .count()
    };
    assert_eq!(
        of_us(&again.found),
        1,
        "a viewer's own look is not taken for a page"
    );
}

#[test]
fn a_scan_of_a_made_up_proc_tells_pages_from_everything_else() {
    let proc_root = tempfile::tempdir().unwrap();
    let process = |pid: &str, fds: &[&str]| {
        let fd_dir = proc_root.path().join(pid).join("fd");
        std::fs::create_dir_all(&fd_dir).unwrap();
        std::fs::write(
            proc_root.path().join(pid).join("comm"),
            format!("c\x1b{pid}\n"),
        )
        .unwrap();
        for (i, target) in fds.iter().enumerate() {
            symlink(target, fd_dir.join(i.to_string())).unwrap();
        }
    };
    process(
        "12",
        &["/dev/null", "/memfd:shmtop-stats (deleted)", "socket:[5]"],
    );
    process(
        "9",
        &[
            "/memfd:shmtop-stats2 (deleted)",
            "/tmp/memfd:shmtop-stats",
            "/memfd:shm-ring (deleted)",
            "/memfd:shm-ring2 (deleted)",
        ],
    );
    process("self", &["/memfd:shmtop-stats (deleted)"]);
    std::fs::create_dir(proc_root.path().join("77")).unwrap();
    let scan = scan_proc(proc_root.path()).unwrap();
    assert_eq!(scan.found.len(), 1);
    assert_eq!(scan.found[0].link, proc_root.path().join("12/fd/1"));
    assert_eq!(
        (scan.found[0].pid, scan.found[0].name.as_str()),
        (12, "c\u{fffd}12")
    );
    let rings: Vec<_> = scan
        .rings
        .iter()
        .map(|ring| (ring.pid, &ring.link))
        .collect();
    assert_eq!(rings, [(9, &proc_root.path().join("9/fd/2"))]);
    assert!(scan.unreadable.is_empty());
}
