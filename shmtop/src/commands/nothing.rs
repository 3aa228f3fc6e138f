//! Why there is nothing to show: what was found instead decides the sentence and the exit code.

use std::fs;
use std::io::ErrorKind;

use super::settings::Settings;
use super::{Failure, Outcome};
use crate::model::{Model, Unreadable};
use crate::reading::{Why, WhyKind};
use crate::sample::{Discovery, Sample};
use crate::text;

const ALLOWED: &str = "run shmtop as its owner, or as root (sudo shmtop)";
const LISTS: &str = "`shmtop ps` lists what is running";

/// An error if there is nothing to show, or nothing of a process that was asked for by its pid.
pub(super) fn endpoints(model: &Model, sample: &Sample, settings: &Settings) -> Outcome {
    let choice = &settings.choice;
    let has_page = |pid: u32| {
        let mut pages = sample.pages.iter().filter(|p| p.pid == pid);
        pages.any(|p| p.snapshot().is_some())
    };
    if let Some(pid) = choice.pids.iter().copied().find(|pid| !has_page(*pid)) {
        let mut unreadable = model.unreadable.iter();
        return Err(match unreadable.find(|u| u.pid == Some(pid)) {
            Some(page) => unreadable_page(page),
            None => not_of(pid),
        });
    }
    if model.endpoints.is_empty() {
        return Err(nothing(model, &sample.discovery, settings));
    }
    Ok(())
}

/// What a page that can't be read comes to.
fn unreadable_page(page: &Unreadable) -> Failure {
    let says = format!("{}: {}", page.name, page.why);
    match page {
        Unreadable { version, .. } if version.is_some() => Failure::Incompatible(says),
        Unreadable { why, .. } if denied(why) => Failure::Permission(format!("{says}; {ALLOWED}")),
        _ => Failure::NoEndpoint(says),
    }
}

fn denied(why: &Why) -> bool {
    why.kind == WhyKind::NoPermission
}

/// The page that stands in the way where nothing can be shown: one of another layout, else one that may not be read.
pub(super) fn in_the_way(model: &Model) -> Option<Failure> {
    let mut pages = model.unreadable.iter();
    let other = pages.clone().find(|u| u.version.is_some());
    let page = other.or_else(|| pages.find(|u| denied(&u.why)));
    page.map(unreadable_page)
}

/// Why there is nothing to show, by what was found instead and by how far the search saw.
fn nothing(model: &Model, discovery: &Discovery, settings: &Settings) -> Failure {
    if let Some(page) = in_the_way(model) {
        return page;
    }
    if let Some(why) = discovery.registry_links.why().filter(|why| denied(why)) {
        return Failure::Permission(format!("{why}; {ALLOWED}"));
    }
    if settings.selects() {
        return Failure::NoEndpoint(format!("no endpoint matches; {LISTS}"));
    }
    let unseen = unseen(discovery).map_or(String::new(), |unseen| format!("; {unseen}"));
    Failure::NoEndpoint(format!(
        "no process with a stats page found (looked in {} and in /proc{unseen}); start one, e.g. cargo run --release --bin demo",
        transport::stats::registry::default_dir().display()
    ))
}

/// Why the process that was asked for has no endpoint: it is not there, it has ended, it may not be searched, or it has no page.
fn not_of(pid: u32) -> Failure {
    let dir = format!("/proc/{pid}");
    let Ok(comm) = fs::read_to_string(format!("{dir}/comm")) else {
        return Failure::NoEndpoint(format!("there is no process {pid}; {LISTS}"));
    };
    let who = format!("process {pid} ({})", text::clean(comm.trim_end()));
    if is_zombie(&dir) {
        return Failure::NoEndpoint(format!("{who} has ended; {LISTS}"));
    }
    match fs::read_dir(format!("{dir}/fd")) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            Failure::Permission(format!("{who} may not be searched; {ALLOWED}"))
        }
        _ => Failure::NoEndpoint(format!(
            "{who} has no stats page: it does not embed the transport; {LISTS}"
        )),
    }
}

/// Whether only the exit code is left of a process, for its parent. One whose first thread has ended alone has others.
fn is_zombie(dir: &str) -> bool {
    let stat = fs::read_to_string(format!("{dir}/stat")).unwrap_or_default();
    let ended = stat
        .rsplit_once(')')
        .is_some_and(|(_, rest)| rest.starts_with(" Z"));
    ended && fs::read_dir(format!("{dir}/task")).is_ok_and(|tasks| tasks.count() <= 1)
}

/// What the search could not look into.
pub(super) fn unseen(discovery: &Discovery) -> Option<String> {
    let denied = discovery.scan.known().map_or(0, |scan| scan.denied);
    let is_root = nix::unistd::geteuid().is_root();
    let sudo = if is_root { "" } else { "; `sudo shmtop` can" };
    (denied > 0).then(|| text::unsearched(denied, is_root) + sudo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    #[test]
    fn a_process_that_was_asked_for_is_named_with_what_it_lacks() {
        let says = |pid| match not_of(pid) {
            Failure::NoEndpoint(says) => says,
            other => panic!("{other:?}"),
        };
        // Above the kernel's largest.
        assert!(says(1 << 30).starts_with("there is no process 1073741824; "));
        let own = says(std::process::id());
        assert!(own.contains(") has no stats page"), "{own}");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        // Its end is seen, and not taken from the kernel: it stays a zombie.
        let end = waitid(
            Id::Pid(Pid::from_raw(child.id() as i32)),
            WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
        );
        assert!(end.is_ok(), "{end:?}");
        let ended = says(child.id());
        assert!(ended.contains(") has ended; "), "{ended}");
        child.wait().unwrap();
    }

    #[test]
    fn why_there_is_nothing_to_show_decides_the_exit_code() {
        let settings = Settings::bare();
        let code = |why: Why, version| {
            let mut model = Model::empty();
            model.unreadable.push(Unreadable {
                pid: Some(7),
                name: "7-x".into(),
                why,
                version,
            });
            nothing(&model, &Discovery::default(), &settings).code()
        };
        assert_eq!(code(Why::not_there("layout 2.0"), Some((2, 0))), 5);
        assert_eq!(code(Why::no_permission("EACCES"), None), 4);
        assert_eq!(code(Why::not_there("it ended"), None), 3);
        let empty = Model::empty();
        let mut discovery = Discovery::default();
        assert_eq!(nothing(&empty, &discovery, &settings).code(), 3);
        discovery.registry_links = crate::sample::Fact::Unknown(Why::no_permission("EACCES"));
        assert_eq!(nothing(&empty, &discovery, &settings).code(), 4);
    }
}
