//! How the C library's heap grows in a process that is nothing but the dashboard.
//!
//! A thread besides the first gets an arena that grows page by page, one system call each: beside a thousand clients the
//! sampler made a thousand of them a second. One heap for all grows, and is given back, in large steps.

/// Called once, before there is a second thread.
#[cfg(target_env = "gnu")]
pub(super) fn suit_a_dashboard() {
    const STEP_BYTES: libc::c_int = 4 << 20;
    let settings = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_TOP_PAD, STEP_BYTES),
        (libc::M_TRIM_THRESHOLD, 4 * STEP_BYTES),
    ];
    for (what, value) in settings {
        // SAFETY: takes two numbers and touches nothing but malloc's own settings, under malloc's own lock. A refusal leaves things as
        // they were.
        unsafe { libc::mallopt(what, value) };
    }
}

/// Other C libraries have other heaps.
#[cfg(not(target_env = "gnu"))]
pub(super) fn suit_a_dashboard() {}
