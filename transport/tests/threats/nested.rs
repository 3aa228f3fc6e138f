//! Threat 11 within pid namespaces: a fork that has its parent's pid.

use std::path::PathBuf;

use transport::{Config, Membrane, Synapse};

use crate::forks::right_in_a_fork;
use crate::role::{in_a_pid_namespace, required, say, start_by};

/// Role `first`: the first process of a pid namespace, with a server and a client, forks one into a namespace of its own: 1 again.
pub(crate) fn fork_the_first_process() {
    assert_eq!(std::process::id(), 1);
    let dir = PathBuf::from(required("DIR"));
    let config = Config {
        ring_bytes: 1 << 16,
        max_message_bytes: 20_000,
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    };
    let server = Membrane::bind(dir.join("s"), &config, |request, reply| {
        reply.extend_from_slice(request).expect("it fits");
    })
    .expect("a server");
    let mut client = Synapse::connect(dir.join("s"), &config).expect("a client");
    let links = || std::fs::read_dir(dir.join("stats")).expect("links").count();
    let announced = links();
    // SAFETY: takes a number. From now on this thread's children are the first processes of new namespaces.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
    // The pages are not mapped there: a connection of its own is counted elsewhere, and what it drops was never its own.
    let copy = std::mem::ManuallyDrop::new(server);
    right_in_a_fork(|| {
        let mut own = Synapse::connect(dir.join("s"), &config).expect("a client");
        let answered = own.fire_bytes(b"own").is_ok_and(|reply| reply == b"own");
        drop((own, std::mem::ManuallyDrop::into_inner(copy)));
        answered && std::process::id() == 1
    });
    assert_eq!(links(), announced, "the child has taken announcements away");
    assert_eq!(client.fire_bytes(b"still").expect("a reply"), b"still");
    say(format_args!("done"));
}

#[test]
fn a_fork_with_its_parents_pid_is_told_from_it() {
    let Some(unshare) = in_a_pid_namespace() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let mut process = start_by(&unshare, "first").with("DIR", dir.path()).go();
    process.hear("done");
    process.finish();
}
