//! Why there is nothing to show: what was found instead decides the sentence and the exit code.

use std::fs;
use std::io::ErrorKind;

use super::Failure;
use super::settings::Settings;
use crate::model::Model;
use crate::reading::{Why, WhyKind};
use crate::sample::Discovery;

const ALLOWED: &str = "run shmtop as its owner, or as root (sudo shmtop)";
const LISTS: &str = "`shmtop ps` lists what is running";

/// Why there is nothing to show, by what was found instead and by how far the search saw.
pub(super) fn nothing(model: &Model, discovery: &Discovery, settings: &Settings) -> Failure {
    if let Some(u) = model.unreadable.iter().find(|u| u.version.is_some()) {
        return Failure::Incompatible(format!("{}: {}", u.name, u.why));
    }
    let denied = |why: &Why| why.kind == WhyKind::NoPermission;
    if let Some(u) = model.unreadable.iter().find(|u| denied(&u.why)) {
        return Failure::Permission(format!("{}: {}; {ALLOWED}", u.name, u.why));
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

/// Why the live process that was asked for has no endpoint: it is not there, it may not be searched, or it has no page.
pub(super) fn not_of(pid: u32) -> Failure {
    let dir = format!("/proc/{pid}");
    let Ok(comm) = fs::read_to_string(format!("{dir}/comm")) else {
        return Failure::NoEndpoint(format!("there is no process {pid}; {LISTS}"));
    };
    let who = format!("process {pid} ({})", crate::text::clean(comm.trim_end()));
    match fs::read_dir(format!("{dir}/fd")) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            Failure::Permission(format!("{who} may not be searched; {ALLOWED}"))
        }
        _ => Failure::NoEndpoint(format!(
            "{who} has no stats page: it does not embed the transport; {LISTS}"
        )),
    }
}

/// What the search could not look into.
pub(super) fn unseen(discovery: &Discovery) -> Option<String> {
    let denied = discovery.scan.known().map_or(0, |scan| scan.denied);
    let processes = if denied == 1 { "process" } else { "processes" };
    match nix::unistd::geteuid().is_root() {
        _ if denied == 0 => None,
        true => Some(format!("{denied} {processes} could not be searched")),
        false => Some(format!(
            "{denied} {processes} of other users could not be searched; `sudo shmtop` can"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Unreadable;
    use clap::Parser;

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
    }

    #[test]
    fn why_there_is_nothing_to_show_decides_the_exit_code() {
        let flags = crate::cli::Cli::parse_from(["shmtop"]).flags;
        let settings = Settings::new(flags).unwrap();
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
