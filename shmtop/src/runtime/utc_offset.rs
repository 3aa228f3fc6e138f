//! The user's offset from UTC: the one thing about wall clocks that std can't say.

/// Seconds to add to UTC at `unix_s` for local time, by the system's time zone data; 0 if that can't be had.
pub(super) fn utc_offset_s(unix_s: i64) -> i64 {
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
