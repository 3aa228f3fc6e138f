//! membarrier(2): lets the side that goes to sleep pay for the fence, so that the hot path needs none.
//!
//! The hot side does `store index; load sleeping?` with only a compiler fence between; the sleeping side does
//! `store sleeping; barrier(); load index`. The call makes every thread of every *registered* process run a
//! full fence, so it is the hot side that must have registered, and it says so in its handshake
//! ([`crate::wire::messages::FEATURE_MEMBARRIER`]). `wait::park` calls this.

/// Values of the kernel's uapi header; part of its stable interface.
const QUERY: libc::c_int = 0;
const GLOBAL: libc::c_int = 1 << 0;
const GLOBAL_EXPEDITED: libc::c_int = 1 << 1;
const REGISTER_GLOBAL_EXPEDITED: libc::c_int = 1 << 2;

fn call(command: libc::c_int) -> libc::c_long {
    // SAFETY: membarrier takes three integers and touches no memory of ours.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

/// Registers this process, so that a peer's [`barrier`] reaches its threads. True if the kernel can and did:
/// only then may a hot path leave its fence out. Needs Linux 4.16; a seccomp profile may forbid it.
pub(crate) fn register() -> bool {
    let wanted = libc::c_long::from(GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED);
    let offered = call(QUERY);
    offered >= 0 && offered & wanted == wanted && call(REGISTER_GLOBAL_EXPEDITED) == 0
}

/// A full fence on every CPU that runs a thread of a registered process, and on this one. Some microseconds.
/// False if the kernel would not: then nothing was ordered, and the caller must not sleep without a timeout.
pub(crate) fn barrier() -> bool {
    // The expedited form may fail for want of memory; the slow one (an RCU grace period) can't.
    call(GLOBAL_EXPEDITED) == 0 || call(GLOBAL) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_registers_also_fences() {
        if !register() {
            // An old kernel or a seccomp profile: then the promise is only that nobody is told otherwise.
            return;
        }
        assert!(register(), "registering twice is harmless");
        assert!(barrier());
    }
}
