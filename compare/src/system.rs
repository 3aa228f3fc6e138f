//! What this program asks the kernel directly: affinity, CPU time, and memory that two processes share.

use std::io::{self, Error};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The CPUs this thread may use.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is live and as large as said.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) } != 0 {
        return Vec::new();
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is below the size of the set.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Binds this thread, and those it will start, to one CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is a valid empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel's own numbers are below the size of the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is live and as large as said.
    match unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// This thread runs before all ordinary ones whenever it has something to do; false if that is not allowed.
pub(crate) fn go_first() -> bool {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: `lowest` is live.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &lowest) == 0 }
}

/// CPU time of this process so far, user and system, in ns.
pub(crate) fn cpu_ns() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // The process's CPU clock: getrusage says the same, rounded to the tick on some kernels.
    // SAFETY: `now` is live; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Busy and stolen CPU time of the whole machine so far, in ns.
pub(crate) fn machine_busy_ns() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = text
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal
    let &[user, nice, system, _, _, irq, softirq, steal, ..] = &fields[..] else {
        return None;
    };
    // SAFETY: no memory involved.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    let ns = |jiffies: u64| jiffies * (1_000_000_000 / hz);
    Some((ns(user + nice + system + irq + softirq), ns(steal)))
}

/// Memory shared between processes, zeroed at first. The kernel frees it with the last of them: nothing is left behind.
pub(crate) struct Shared {
    start: *mut u8,
    bytes: usize,
    _fd: OwnedFd,
}

// SAFETY: a mapping is not tied to a thread; all access is by atomics or raw copies whose protocol its users state.
unsafe impl Send for Shared {}
// SAFETY: as for Send.
unsafe impl Sync for Shared {}

impl Shared {
    /// Makes it, and leaves a link to it at `path`.
    pub(crate) fn create(path: &Path, bytes: usize) -> io::Result<Self> {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"compare".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: just made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = std::fs::File::from(fd);
        file.set_len(bytes as u64)?;
        let fd = OwnedFd::from(file);
        std::os::unix::fs::symlink(
            format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()),
            path,
        )?;
        Self::map(fd, bytes)
    }

    /// Maps what another process made.
    pub(crate) fn open(path: &Path, bytes: usize) -> io::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)?;
        if file.metadata()?.len() < bytes as u64 {
            return Err(Error::other("the shared memory is smaller than agreed"));
        }
        Self::map(file.into(), bytes)
    }

    fn map(fd: OwnedFd, bytes: usize) -> io::Result<Self> {
        // SAFETY: a new shared mapping of a file at least that long; the kernel picks the place.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        Ok(Self {
            start: start.cast(),
            bytes,
            _fd: fd,
        })
    }

    /// The place `offset` bytes in, with at least `bytes` behind it.
    ///
    /// # Panics
    /// If there is less.
    #[inline(always)]
    pub(crate) fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(offset <= self.bytes && bytes <= self.bytes - offset);
        // SAFETY: inside the mapping, checked above.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrowed from `self` is left.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}
