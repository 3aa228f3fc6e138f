//! What tells a process from a later one with its pid.

use std::fmt::Display;

/// When a process (its pid, or `self`) was started, in clock ticks since boot: tells it from a later one with the same pid.
/// `None` if it is gone or not visible.
pub(crate) fn start_ticks(process: impl Display) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The second field is the command in parentheses, and may contain both spaces and parentheses. The start
    // time is field 22, so the 20th after it.
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_begun_once_and_who_is_not_there_never() {
        let ours = start_ticks(std::process::id()).expect("procfs");
        assert_eq!(start_ticks("self"), Some(ours));
        assert!(ours >= start_ticks(1).unwrap_or(0));
        assert_eq!(start_ticks(u32::MAX), None);
    }
}
