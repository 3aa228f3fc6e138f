//! How a test says that it checks nothing here.

use std::io::Write;

/// Says which test does not run on this machine, and why. Straight to stderr, past the harness's capture: a test that checks nothing
/// must be seen to. `.ci/run` lists these lines at its end.
pub(crate) fn skipped(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // One write, so that lines of tests that run at once do not mix.
    let line = format!("SKIPPED {test}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
