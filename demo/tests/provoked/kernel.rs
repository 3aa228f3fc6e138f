//! What only the kernel can do to a process: limits, priorities, filters, users. The only unsafe code of these tests: each call
//! hands the kernel numbers, or a structure of this stack frame.

use std::io;

/// The user and group that owns nothing.
pub(crate) const NOBODY: u32 = 65_534;

fn done(result: libc::c_int) -> io::Result<()> {
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets the soft limit of a resource of a process, `None` = as high as the hard limit allows.
pub(crate) fn limit(
    pid: i32,
    resource: libc::__rlimit_resource_t,
    soft: Option<u64>,
) -> io::Result<()> {
    let mut now = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `now` is a valid rlimit of this frame; a null pointer for the new one means to read only.
    done(unsafe { libc::prlimit(pid, resource, std::ptr::null(), &raw mut now) })?;
    now.rlim_cur = soft.unwrap_or(now.rlim_max);
    // SAFETY: as above, with the roles changed.
    done(unsafe { libc::prlimit(pid, resource, &raw const now, std::ptr::null_mut()) })
}

/// Closes what whoever started this program left open: children would inherit it, and their descriptors are counted here.
pub(crate) fn close_inherited() {
    // SAFETY: called first thing in main, so nothing in this program owns a descriptor above 2 yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// Sets the limit of descriptors so that `free` more can be opened.
pub(crate) fn leave_descriptors(pid: i32, free: u64) -> io::Result<()> {
    let open = crate::limits::open_descriptors(pid);
    let mut left = free;
    let mut limit_at = 0;
    // The limit is one of numbers, and there may be holes.
    while left > 0 || open.contains(&limit_at) {
        if !open.contains(&limit_at) {
            left -= 1;
        }
        limit_at += 1;
    }
    limit(pid, libc::RLIMIT_NOFILE, Some(limit_at))
}

/// Gives up root, for good, and stays visible to other processes of nobody.
pub(crate) fn become_nobody() -> io::Result<()> {
    // SAFETY: numbers only; the calling process has one thread.
    unsafe {
        done(libc::setgroups(0, std::ptr::null()))?;
        done(libc::setresgid(NOBODY, NOBODY, NOBODY))?;
        done(libc::setresuid(NOBODY, NOBODY, NOBODY))?;
        done(libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0))
    }
}

/// A namespace of its own for SysV memory.
pub(crate) fn own_ipc() -> io::Result<()> {
    // SAFETY: a flag.
    done(unsafe { libc::unshare(libc::CLONE_NEWIPC) })
}

/// Locks all memory that is mapped from now on.
pub(crate) fn lock_what_comes() -> io::Result<()> {
    // SAFETY: a flag; it changes no content.
    done(unsafe { libc::mlockall(libc::MCL_FUTURE) })
}

/// Locks the pages of these bytes.
pub(crate) fn lock(bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the range is that of a slice; locking changes no content.
    done(unsafe { libc::mlock(bytes.as_ptr().cast(), bytes.len()) })
}

/// A system call, with the second argument where that decides, that from now on only answers `errno` (0: does nothing and says that
/// it did), in all threads of this process.
pub(crate) fn forbid(call: libc::c_long, second: Option<u32>, errno: i32) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Offsets within seccomp_data: the call's number, and the low half of its second argument (little endian).
    const CALL: u32 = 0;
    const SECOND: u32 = 16 + 8;
    let word = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = vec![
        word(LOAD, 0, 0, CALL),
        word(
            IF_EQUAL,
            0,
            if second.is_some() { 3 } else { 1 },
            call as u32,
        ),
    ];
    if let Some(value) = second {
        filter.push(word(LOAD, 0, 0, SECOND));
        filter.push(word(IF_EQUAL, 0, 1, value));
    }
    filter.push(word(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32));
    filter.push(word(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: numbers.
    done(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: `program` and the filter it points to live until the call returns; the kernel copies both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    done(result as libc::c_int)
}

/// Sets the nice value of a process.
pub(crate) fn nice(pid: i32, value: i32) -> io::Result<()> {
    // SAFETY: numbers.
    done(unsafe { libc::setpriority(libc::PRIO_PROCESS, pid as libc::id_t, value) })
}

/// Makes a thread a real-time one, of the lowest priority.
pub(crate) fn real_time(tid: i32) -> io::Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: `lowest` is of this frame, and only read.
    done(unsafe { libc::sched_setscheduler(tid, libc::SCHED_FIFO, &raw const lowest) })
}

/// A thread of another process that stands still while the others go on, until this is dropped. Stays with the thread that made it.
pub(crate) struct Held(i32);

/// Stops one thread of another process.
pub(crate) fn hold(tid: i32) -> io::Result<Held> {
    // SAFETY: PTRACE_SEIZE and PTRACE_INTERRUPT take no address.
    let traced = unsafe { libc::ptrace(libc::PTRACE_SEIZE, tid, 0, 0) };
    done(traced as libc::c_int)?;
    let held = Held(tid);
    // SAFETY: as above.
    let asked = unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, tid, 0, 0) };
    done(asked as libc::c_int)?;
    let mut status = 0;
    // SAFETY: `status` is of this frame.
    done(unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) })?;
    Ok(held)
}

impl Drop for Held {
    fn drop(&mut self) {
        // Fails if the process has been killed meanwhile.
        // SAFETY: PTRACE_DETACH with signal 0 takes no address.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}
