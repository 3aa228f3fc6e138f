//! Notices that this process is a fork of the one that made a connection.
//!
//! Two processes that both produce into one SPSC ring would corrupt it, so mappings are DONTFORK and every
//! owner compares [`generation`] before it touches one. getpid() would cost a system call per request; a
//! counter bumped by the C library's fork handler costs one load. Left out: children made by a raw clone(2)
//! bypass the handlers. They don't have the mapping either (DONTFORK is the kernel's): they fault, at worst.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many forks lie between the first process and this one. Written only in [`in_child`], when the child has
/// one thread; so Relaxed is enough, and it publishes nothing.
static GENERATION: AtomicU64 = AtomicU64::new(0);

extern "C" fn in_child() {
    // Async-signal-safe, as a handler after a fork of a threaded process must be.
    GENERATION.store(
        GENERATION.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
}

/// Starts counting; once per process is enough, more often is harmless.
///
/// # Errors
/// The errno of pthread_atfork (ENOMEM): without the handler a fork can't be told, so nothing may be mapped.
pub(crate) fn watch() -> Result<(), i32> {
    static REGISTERED: Once = Once::new();
    static ERRNO: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);
    REGISTERED.call_once(|| {
        // SAFETY: the handler is a plain function that lives as long as this code is mapped, and does only what
        // is async-signal-safe.
        let errno = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        // call_once orders this store before every return from it.
        ERRNO.store(errno, Ordering::Relaxed);
    });
    match ERRNO.load(Ordering::Relaxed) {
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// A number that differs between a process and its forks. Cheap enough for every request.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}
