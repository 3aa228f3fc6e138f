//! How many files shmtop may have open: what stays open need not be opened again at the next look.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More than this is never put to use.
const ENOUGH: u64 = 4_096;

/// Raises the soft limit as far as the hard one lets it, which takes no privilege. Where that fails, less is kept open, and of what
/// then can't be counted it is said.
pub(super) fn raise_limit() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = ENOUGH.min(hard);
    if soft < wanted {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    }
    Ok(())
}
