//! Futex calls on words that several processes share (never the private kind).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Words that one `futex_waitv` call takes at most (FUTEX_WAITV_MAX).
pub(crate) const MAX_WORDS: usize = 128;

/// `FUTEX2_SIZE_U32` of <linux/futex.h>; without FUTEX2_PRIVATE the key is the page's file, shared between processes.
const FUTEX2_SIZE_U32: u32 = 2;

fn timespec(d: Duration) -> libc::timespec {
    // Capped at a day: far above any slice we ask for, far below time_t's range.
    let d = d.min(Duration::from_secs(86_400));
    libc::timespec {
        tv_sec: d.as_secs() as libc::time_t,
        tv_nsec: i64::from(d.subsec_nanos()),
    }
}

/// Sleeps while `word` is `expected`, for at most `limit`. Returns at once if it is not; may wake spuriously.
pub(crate) fn wait(word: &AtomicU32, expected: u32, limit: Duration) {
    let ts = timespec(limit);
    // SAFETY: `word` is a live, aligned u32 for the duration of the call; the kernel only reads it. `ts` outlives the call.
    // Every errno (EAGAIN: changed meanwhile, EINTR, ETIMEDOUT) means "look again", which the caller does.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &ts,
            0usize,
            0u32,
        );
    }
}

/// Wakes one sleeper on `word`, in whatever process.
pub(crate) fn wake(word: &AtomicU32) {
    // SAFETY: as in `wait`; FUTEX_WAKE does not access the word at all, only its address.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE,
            1u32,
            0usize,
            0usize,
            0u32,
        );
    }
}

/// One word to sleep on, as the kernel wants it (struct futex_waitv).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct WaitWord {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

impl WaitWord {
    /// Sleep while `word` is `expected`.
    ///
    /// The word must stay mapped until the call it is used in returns; a stale address is an error of that call (EFAULT), or a
    /// spurious sleep of at most its limit, never memory corruption: the kernel only reads.
    pub(crate) fn new(word: &AtomicU32, expected: u32) -> Self {
        Self {
            value: u64::from(expected),
            address: word.as_ptr() as u64,
            flags: FUTEX2_SIZE_U32,
            reserved: 0,
        }
    }
}

/// Whether `futex_waitv` was refused in this process: by a kernel without it, or by a filter.
static ONE_WORD_ONLY: AtomicBool = AtomicBool::new(false);

/// Whether [`wait_any`] was refused: who has something to sleep on beside a connection wakes up again and again then.
pub(crate) fn is_one_word_only() -> bool {
    // Relaxed: a fact, not a message.
    ONE_WORD_ONLY.load(Ordering::Relaxed)
}

/// Sleeps while all `words` have their expected values, for at most `limit`. Returns the index of a word that was woken, if one was.
///
/// # Errors
/// ENOSYS before Linux 5.16, or what a filter says ([`is_one_word_only`] from then on); the caller then has to wake up by itself now and then. EAGAIN, EINTR and ETIMEDOUT are success: look again.
pub(crate) fn wait_any(words: &[WaitWord], limit: Duration) -> io::Result<Option<usize>> {
    debug_assert!(words.len() <= MAX_WORDS);
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid and exclusively borrowed.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    let add = timespec(limit);
    let nanoseconds = now.tv_nsec + add.tv_nsec;
    let until = libc::timespec {
        tv_sec: now.tv_sec + add.tv_sec + nanoseconds / 1_000_000_000,
        tv_nsec: nanoseconds % 1_000_000_000,
    };
    // SAFETY: `words` is a live slice of the kernel's struct, `until` outlives the call; the kernel reads both and the words only.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            words.as_ptr(),
            words.len() as u32,
            0u32,
            &until,
            libc::CLOCK_MONOTONIC,
        )
    };
    if let Ok(index) = usize::try_from(rc) {
        return Ok(Some(index));
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR | libc::ETIMEDOUT) => Ok(None),
        // Out of memory, or a word that is not there: the next call may do.
        Some(libc::ENOMEM | libc::EFAULT) => Err(error),
        _ => {
            ONE_WORD_ONLY.store(true, Ordering::Relaxed);
            Err(error)
        }
    }
}
