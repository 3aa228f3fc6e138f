//! The calling thread's time slice: how soon the kernel lets it run once it has been woken, at no cost to its share of the CPU.
//!
//! Linux (6.12 and later) runs, of those who have their share coming, the one whose slice ends first, and lets one who wakes up
//! interrupt one with a longer slice. A poller works for all its clients and so has had more of the CPU than any of them: with the same slice it
//! runs after all that are awake, and their answers come in one bunch. After the next pause they ask in one bunch again.

/// The shortest that the kernel grants (0.1 ms; the default is 1.4 ms or more).
const SHORT_NS: u64 = 100_000;
/// A thread that has not slept for so long is busy.
const BUSY_AFTER_NS: u64 = 5_000_000;

/// Of one thread: short while it sleeps now and then, its own while it is always busy (where a thread that lets others run in between does
/// more).
#[derive(Debug)]
pub(crate) struct Slice<K = Kernel> {
    kernel: K,
    /// What the thread had, in ns, while it is short.
    own_ns: Option<u64>,
    /// When it last slept, in monotonic ns.
    slept_ns: u64,
    /// The kernel knows no slices, or does not let us.
    refused: bool,
}

/// Who grants slices; another one in tests.
pub(crate) trait Grants {
    /// Gives the calling thread the slice that `wanted` makes of the present one, in ns; `None` leaves it. What it was; `None` also if it
    /// can't be had: no slices, or a scheduling class without.
    fn grant(&mut self, wanted: impl FnOnce(u64) -> Option<u64>) -> Option<u64>;
}

impl Slice {
    pub(crate) const fn new() -> Self {
        Self::granted_by(Kernel)
    }
}

impl<K: Grants> Slice<K> {
    const fn granted_by(kernel: K) -> Self {
        Self {
            kernel,
            own_ns: None,
            slept_ns: 0,
            refused: false,
        }
    }

    /// The thread has slept until now, in monotonic ns.
    #[inline]
    pub(crate) fn slept(&mut self, now_ns: u64) {
        self.slept_ns = now_ns;
        if self.own_ns.is_none() && !self.refused {
            let before = self
                .kernel
                .grant(|present| (present > SHORT_NS).then_some(SHORT_NS));
            self.own_ns = before;
            self.refused = before.is_none();
        }
    }

    /// The thread is at work, at `now_ns`. To be called now and then.
    #[inline]
    pub(crate) fn awake(&mut self, now_ns: u64) {
        if self.own_ns.is_some() && now_ns.saturating_sub(self.slept_ns) >= BUSY_AFTER_NS {
            self.lengthen();
        }
    }

    #[cold]
    fn lengthen(&mut self) {
        if let Some(own) = self.own_ns.take() {
            // One that somebody else has changed meanwhile is theirs.
            self.kernel
                .grant(|present| (present == SHORT_NS).then_some(own));
        }
    }
}

/// `sched_getattr` and `sched_setattr`.
#[derive(Debug)]
pub(crate) struct Kernel;

/// `struct sched_attr` of <linux/sched/types.h>, as its first version was.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    /// Of the fair classes the slice, in ns; 0 before Linux 6.12.
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = size_of::<Attributes>() as u32;

impl Grants for Kernel {
    #[cold]
    fn grant(&mut self, wanted: impl FnOnce(u64) -> Option<u64>) -> Option<u64> {
        let mut attributes = Attributes::default();
        // SAFETY: the kernel writes at most the size that is given, into a live struct that is exclusively borrowed.
        let rc = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &mut attributes, SIZE, 0u32) };
        let fair = [libc::SCHED_OTHER, libc::SCHED_BATCH]
            .into_iter()
            .any(|policy| attributes.policy == policy.unsigned_abs());
        if rc != 0 || !fair || attributes.runtime == 0 {
            return None;
        }
        let before = attributes.runtime;
        let Some(slice) = wanted(before) else {
            return Some(before);
        };
        // Class, niceness and flags go back as they came.
        attributes.size = SIZE;
        attributes.runtime = slice;
        // SAFETY: the kernel reads as many bytes as `size` says, of a live struct.
        let rc = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &attributes, 0u32) };
        (rc == 0).then_some(before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that grants everything, or nothing.
    struct Fake {
        slice_ns: Option<u64>,
        calls: u32,
    }

    impl Grants for Fake {
        fn grant(&mut self, wanted: impl FnOnce(u64) -> Option<u64>) -> Option<u64> {
            self.calls += 1;
            let before = self.slice_ns?;
            self.slice_ns = Some(wanted(before).unwrap_or(before));
            Some(before)
        }
    }

    fn thread_with(slice_ns: Option<u64>) -> Slice<Fake> {
        Slice::granted_by(Fake { slice_ns, calls: 0 })
    }

    #[test]
    fn who_sleeps_now_and_then_runs_soon_and_who_is_busy_as_long_as_others() {
        let mut slice = thread_with(Some(1_400_000));
        let mut now_ns = 77;
        for _ in 0..3 {
            for _ in 0..100 {
                slice.slept(now_ns);
                now_ns += BUSY_AFTER_NS / 2;
                slice.awake(now_ns);
                assert_eq!(slice.kernel.slice_ns, Some(SHORT_NS));
                // Asleep, for long.
                now_ns += 10 * BUSY_AFTER_NS;
            }
            slice.slept(now_ns);
            now_ns += BUSY_AFTER_NS;
            slice.awake(now_ns);
            assert_eq!(slice.kernel.slice_ns, Some(1_400_000));
        }
        // One call per change, however often it sleeps.
        assert_eq!(slice.kernel.calls, 6);
    }

    #[test]
    fn a_slice_that_others_have_set_is_left_alone() {
        let mut slice = thread_with(Some(50_000));
        slice.slept(1);
        slice.awake(1 + BUSY_AFTER_NS);
        assert_eq!(slice.kernel.slice_ns, Some(50_000), "shorter than ours");
        let mut slice = thread_with(Some(1_400_000));
        slice.slept(1);
        slice.kernel.slice_ns = Some(3_000_000);
        slice.awake(1 + BUSY_AFTER_NS);
        assert_eq!(slice.kernel.slice_ns, Some(3_000_000), "set meanwhile");
    }

    #[test]
    fn a_kernel_that_refuses_is_asked_once() {
        let mut slice = thread_with(None);
        for now_ns in (0..3).map(|n| n * BUSY_AFTER_NS) {
            slice.slept(now_ns);
            slice.awake(now_ns + BUSY_AFTER_NS);
        }
        assert_eq!(slice.kernel.calls, 1);
    }

    #[test]
    fn a_server_whose_client_thinks_runs_with_the_short_slice() {
        if Kernel.grant(|_| None).is_none_or(|own| own <= SHORT_NS) {
            // A kernel before 6.12, or nothing to shorten.
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        // Handlers run on the poller.
        let handler = |_: &[u8], reply: &mut crate::Reply<'_>| {
            let slice = Kernel.grant(|_| None).unwrap_or_default();
            reply.send(&slice.to_le_bytes()).expect("room");
        };
        let config = crate::Config::default();
        let server =
            crate::Membrane::bind(dir.path().join("s"), &config, handler).expect("a server");
        let mut client = crate::Synapse::connect(dir.path().join("s"), &config).expect("a client");
        let begun = std::time::Instant::now();
        while client.fire_bytes(b"").expect("a reply") != SHORT_NS.to_le_bytes() {
            assert!(begun.elapsed().as_secs() < 20, "still its own slice");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        server.shutdown();
    }

    #[test]
    fn the_kernels_answer_is_what_a_thread_has() {
        let outcome = std::thread::spawn(|| {
            let mut kernel = Kernel;
            let own = kernel.grant(|_| None)?;
            kernel.grant(|_| Some(SHORT_NS))?;
            let short = kernel.grant(|_| Some(own))?;
            Some((own, short, kernel.grant(|_| None)?))
        })
        .join()
        .expect("the thread");
        // `None`: a kernel before 6.12, or a class without slices.
        if let Some((own, short, after)) = outcome {
            assert_eq!((short, after), (SHORT_NS, own));
        }
    }
}
