//! CPU time that this process has used, in user and kernel mode together.

use nix::sys::resource::{UsageWho, getrusage};

use crate::failure::Failure;

/// Seconds since the process started, all threads.
pub(crate) fn seconds() -> Result<f64, Failure> {
    let usage =
        getrusage(UsageWho::RUSAGE_SELF).map_err(|e| Failure::io("getrusage", &e.into()))?;
    let both = [usage.user_time(), usage.system_time()];
    Ok(both
        .iter()
        .map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6)
        .sum())
}
