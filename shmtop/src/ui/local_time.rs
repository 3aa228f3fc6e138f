//! The user's offset from UTC: the one thing about wall clocks that std can't say. Called by the runtime at start.

/// Seconds to add to UTC at `unix_s` for local time, by the system's time zone data; 0 if that can't be had.
pub fn utc_offset_s(unix_s: i64) -> i64 {
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    let at: libc::time_t = unix_s;
    // SAFETY: both pointers are to live locals of the right types, and localtime_r keeps neither; it writes `parts`
    // fully or returns null. All-zero bytes are a valid `tm` (integers and a pointer), so reading it is fine in
    // either case; `tm_zone`, which may dangle later, is not looked at.
    let parts = unsafe {
        if libc::localtime_r(&raw const at, parts.as_mut_ptr()).is_null() {
            return 0;
        }
        parts.assume_init()
    };
    parts.tm_gmtoff
}

/// `12:04:31` of a moment on CLOCK_REALTIME, shifted by `offset_s`.
pub fn clock(realtime_ns: u64, offset_s: i64) -> String {
    let s = (realtime_ns / 1_000_000_000) as i64 + offset_s;
    let s = s.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_wraps_at_midnight_in_both_directions() {
        assert_eq!(clock(0, 0), "00:00:00");
        assert_eq!(clock(0, -3_600), "23:00:00");
        assert_eq!(clock(86_399_000_000_000, 1), "00:00:00");
        assert_eq!(clock(43_471_000_000_000, 0), "12:04:31");
    }

    #[test]
    fn the_offset_is_that_of_some_time_zone() {
        assert!(utc_offset_s(1_700_000_000).abs() <= 14 * 3_600);
    }
}
