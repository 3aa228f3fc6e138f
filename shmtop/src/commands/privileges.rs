//! What a viewer gives up before it looks at anything: every capability but those without which it would be blind, and the
//! possibility to get any back. What it reads comes from strangers; a mistake in reading it should be worth little.
//!
//! Capabilities are a thread's own, so this comes before any other thread, and after what needs more: a port below 1024, a file in
//! somebody else's directory.

use std::collections::HashSet;
use std::io::Write;

use caps::{CapSet, Capability};

/// What is kept of what there is. The first two let it see the processes of other users, and their pages, also those that start
/// later; the third their counters.
const KEPT: [Capability; 3] = [
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_PERFMON,
];

/// Gives up the rest. Says so on stderr if that can't be done, and goes on: what it looks at is no less interesting.
pub(super) fn shed() {
    if let Err(e) = try_shed() {
        // If stderr is closed, nobody wants to know.
        let _ = writeln!(std::io::stderr(), "shmtop: could not drop privileges: {e}");
    }
}

fn try_shed() -> Result<(), Box<dyn std::error::Error>> {
    let kept: HashSet<Capability> = caps::read(None, CapSet::Permitted)?
        .intersection(&HashSet::from(KEPT))
        .copied()
        .collect();
    // The bounding set first: changing it takes CAP_SETPCAP. Without that there is no more to be had from it than no_new_privs gives.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::runtime::thread_all_supported() {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
    }
    if caps::runtime::ambient_set_supported().is_ok() {
        caps::clear(None, CapSet::Ambient)?;
    }
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    nix::sys::prctl::set_no_new_privs()?;
    Ok(())
}
