//! A perf_event group on one thread: the one system call, and reading all its values at once. Called by `perf`.

use perf_event::events::Event;
use perf_event::{Builder, ReadFormat};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};

/// Close the counter on exec, by perf_event_open(2).
const PERF_FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// Counters that count at the same times. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Group {
    /// The first one leads: reading it gives all. The others only have to stay open.
    files: Vec<File>,
}

impl Group {
    /// Opens `events` on thread `tid`, counting from now on; `kernel` includes what happens in the kernel.
    pub(super) fn open(tid: u32, events: &[Event], kernel: bool) -> io::Result<Self> {
        let mut files: Vec<File> = Vec::with_capacity(events.len());
        for event in events {
            let mut builder = Builder::new().kind(event.clone());
            builder.read_format(
                ReadFormat::GROUP | ReadFormat::TOTAL_TIME_ENABLED | ReadFormat::TOTAL_TIME_RUNNING,
            );
            builder.enabled(true).exclude_kernel(!kernel);
            let leader = files.first().map_or(-1, AsRawFd::as_raw_fd);
            // SAFETY: the attributes are a live perf_event_attr whose `size` field the builder set to its size,
            // and the call only reads them; the other arguments are plain numbers.
            let fd = unsafe {
                libc::syscall(
                    libc::SYS_perf_event_open,
                    std::ptr::from_ref(builder.attrs()),
                    tid as libc::pid_t,
                    -1 as libc::c_int,
                    leader,
                    PERF_FLAG_FD_CLOEXEC,
                )
            };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: the call just returned this descriptor to us, and nobody else knows it.
            files.push(unsafe { File::from_raw_fd(fd as libc::c_int) });
        }
        Ok(Self { files })
    }

    /// Descriptors that it keeps open.
    pub(super) fn held(&self) -> usize {
        self.files.len()
    }

    /// ((time enabled, time running) in ns, values in the order of the events).
    pub(super) fn read<const N: usize>(&mut self) -> io::Result<((u64, u64), [u64; N])> {
        // Count, time enabled, time running, then (value, id) for each.
        let mut words = [0u64; 3 + 2 * 8];
        let mut bytes = [0u8; 8 * (3 + 2 * 8)];
        let broken = || io::Error::other("the group is incomplete");
        let leader = self.files.first_mut().ok_or_else(broken)?;
        let length = leader.read(&mut bytes)?;
        for (word, chunk) in words.iter_mut().zip(bytes[..length].chunks_exact(8)) {
            *word = u64::from_ne_bytes(chunk.try_into().map_err(|_| broken())?);
        }
        // A leader that lost its thread before it was complete would otherwise read as zeros.
        if words[0] != N as u64 || length < 8 * (3 + 2 * N) {
            return Err(broken());
        }
        let mut values = [0; N];
        for (value, pair) in values.iter_mut().zip(words[3..].chunks_exact(2)) {
            *value = pair[0];
        }
        Ok(((words[1], words[2]), values))
    }
}
