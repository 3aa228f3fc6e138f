//! Memory shared with another process: how it is created, sealed, checked, mapped and given back.
//!
//! Nothing here knows rings or pages. Everything that can
//! fail says so as a [`StepError`], which is what a [`Fallback`] is made of. The unsafe code of these files is
//! system calls and one munmap; access to the mapped bytes is `ring::storage`'s and `stats::page`'s affair.

pub(crate) mod buffer;
pub(crate) mod fork;
pub(crate) mod headroom;
pub(crate) mod huge;
#[cfg(test)]
pub(crate) mod limit_tests;
pub(crate) mod mapping;
pub(crate) mod memfd;

use crate::error::{Fallback, Step};

/// A step that failed here, with the errno and the limit in the way as they were at that moment.
/// What is not known is 0, never a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StepError {
    /// Which step.
    pub(crate) step: Step,
    /// errno of the call. For [`Step::Headroom`] no call was made: EFBIG names RLIMIT_FSIZE, ENOMEM names
    /// RLIMIT_AS or the commit limit, 0 a memory cgroup (whose limit kills instead of failing a call).
    pub(crate) errno: i32,
    /// The limit; descriptors for EMFILE, bytes for memory. For [`Step::Validate`] and [`Step::Layout`] what was demanded.
    pub(crate) limit: u64,
    /// Usage against it. For [`Step::Validate`] and [`Step::Layout`] what was found.
    pub(crate) used: u64,
}

impl StepError {
    /// A failed call without a known limit.
    pub(crate) fn new(step: Step, errno: i32) -> Self {
        Self {
            step,
            errno,
            limit: 0,
            used: 0,
        }
    }

    /// A failed call; when descriptors ran out (EMFILE, ENFILE) their limit and number are looked up.
    pub(crate) fn of_call(step: Step, errno: i32) -> Self {
        let (limit, used) = headroom::full_table(errno);
        Self {
            step,
            errno,
            limit,
            used,
        }
    }

    /// As the public fact; `at_peer` tells in whose process it failed.
    pub(crate) fn fallback(self, at_peer: bool) -> Fallback {
        let Self {
            step,
            errno,
            limit,
            used,
        } = self;
        Fallback {
            step,
            errno,
            limit,
            used,
            at_peer,
        }
    }
}

/// errno of an I/O error; EIO for the few that std makes up itself.
pub(crate) fn errno_of(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}
