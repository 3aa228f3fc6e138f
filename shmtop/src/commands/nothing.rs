//! Why there is nothing to show: what was found instead decides the sentence and the exit code.

use super::Failure;
use super::settings::Settings;
use crate::model::Model;
use crate::reading::{Why, WhyKind};
use crate::sample::Discovery;

/// Why there is nothing to show, by what was found instead and by how far the search saw.
pub(super) fn nothing(model: &Model, discovery: &Discovery, settings: &Settings) -> Failure {
    const ALLOWED: &str = "run shmtop as its owner, or as root (sudo shmtop)";
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
        return Failure::NoEndpoint(
            "no endpoint matches; `shmtop ps` lists what is running".into(),
        );
    }
    let unseen = unseen(discovery).map_or(String::new(), |unseen| format!("; {unseen}"));
    Failure::NoEndpoint(format!(
        "no process with a stats page found (looked in {} and in /proc{unseen}); start one, e.g. cargo run --release --bin demo",
        transport::stats::registry::default_dir().display()
    ))
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
