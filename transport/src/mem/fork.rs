//! Notices that this process is a fork of the one that made a connection.
//!
//! Two processes that both produce into one SPSC ring would corrupt it, so mappings are DONTFORK and every
//! owner compares [`generation`] before it touches one. getpid() would cost a system call per request; a
//! counter bumped by the C library's fork handler costs one load. Left out: children made by a raw clone(2)
//! bypass the handlers. They don't have the mapping either (DONTFORK is the kernel's): they fault, at worst.
//!
//! A fork that goes on without exec also has copies of all descriptors, and a socket ends only when its last copy is closed: the
//! death of a process would go unnoticed for as long as a fork of it lives, and its path stay taken. So sockets and locks are
//! entered in a table ([`NotInForks`]), and the fork's first act is to put something harmless in their place.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;

/// How many forks lie between the first process and this one. Written only in [`in_child`], when the child has
/// one thread; so Relaxed is enough, and it publishes nothing.
static GENERATION: AtomicU64 = AtomicU64::new(0);

extern "C" fn in_child() {
    // Async-signal-safe, as a handler after a fork of a threaded process must be.
    GENERATION.store(
        GENERATION.load(Ordering::Relaxed).wrapping_add(1),
        Ordering::Relaxed,
    );
    let (mut blank, mut blank_is_a_place) = (-1, false);
    for place in &PLACES {
        // Relaxed: fork copied the table as the forking thread saw it, and this is the only thread.
        let fd = place.load(Ordering::Relaxed) - 1;
        if fd < 0 {
            continue;
        }
        // What stands in its place needs no protection. And this process may give the number to a file of its own, which is not to be taken
        // from a fork that it makes.
        place.store(0, Ordering::Relaxed);
        if blank < 0 {
            blank = socket();
        }
        let mut source = blank;
        // SAFETY: dup3 and close are async-signal-safe and take integers. `fd` is open here, and the owner's: it entered it in this process's
        // parent, which is gone through once, and takes its entry out before it closes it. Its number is open afterwards, so that the owner's
        // copy in this process may be dropped as ever.
        unsafe {
            if blank < 0 && Errno::last() == Errno::EMFILE {
                // The table is full, and nobody else here could take the number that this frees.
                libc::close(fd);
                blank = socket();
                blank_is_a_place = blank == fd;
                // The system's is full, too: anything that fills the number.
                source = if blank < 0 {
                    libc::STDERR_FILENO
                } else {
                    blank
                };
            }
            // Without a source this fork keeps what it got. Nobody could be told.
            if source >= 0
                && source != fd
                && libc::dup3(source, fd, libc::O_CLOEXEC) < 0
                && Errno::last() == Errno::EBADF
            {
                above_the_limit(source, fd);
            }
        }
    }
    if blank >= 0 && !blank_is_a_place {
        // SAFETY: made above, known to nobody else.
        unsafe { libc::close(blank) };
    }
}

/// Fills a number that the soft limit has been lowered below, within the hard one. Above that too, the fork keeps what it got.
fn above_the_limit(source: libc::c_int, fd: libc::c_int) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: system calls and nothing else, with pointers to a local; the limit is this process's own, which has one thread.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return;
        }
        let most = libc::rlimit {
            rlim_cur: limit.rlim_max,
            ..limit
        };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &most) == 0 {
            libc::dup3(source, fd, libc::O_CLOEXEC);
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}

/// A socket that leads nowhere, or -1.
fn socket() -> libc::c_int {
    // SAFETY: async-signal-safe; takes integers.
    unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) }
}

/// Descriptors that forks must not keep, plus one; 0 = free. More than there may be clients of a server (and a process that
/// has more loses this protection for the surplus, nothing else).
static PLACES: [AtomicI32; 16_384] = [const { AtomicI32::new(0) }; 16_384];
/// Where to look for a free place next.
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// As long as this lives, a fork of this process does not keep the descriptor open. To be dropped before the descriptor is closed.
#[derive(Debug)]
pub(crate) struct NotInForks {
    /// Where it stands, if there was a place.
    place: Option<usize>,
    entry: i32,
}

impl NotInForks {
    pub(crate) fn new(fd: impl AsFd) -> Self {
        // An errno: forks can't be told, then nothing gets mapped either, and the worst is a late notice of a death.
        let _ = watch();
        let entry = fd.as_fd().as_raw_fd() + 1;
        let begin = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut places = (0..PLACES.len()).map(|i| begin.wrapping_add(i) % PLACES.len());
        // Relaxed: only a fork reads them, which has all of this process's memory as it was.
        let place = places.find(|place| {
            PLACES[*place]
                .compare_exchange(0, entry, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        });
        Self { place, entry }
    }
}

impl Drop for NotInForks {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            // In a fork it has been taken out already, and the place may be another's.
            let _ours_or_not =
                PLACES[place].compare_exchange(self.entry, 0, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
}

/// A descriptor that forks do not keep.
#[derive(Debug)]
pub(crate) struct Unforked {
    /// Before the descriptor: dropped first.
    _not_in_forks: NotInForks,
    fd: OwnedFd,
}

impl From<OwnedFd> for Unforked {
    /// To be called as soon as there is one: until then a fork, which any thread may make, keeps it.
    fn from(fd: OwnedFd) -> Self {
        let _not_in_forks = NotInForks::new(&fd);
        Self { _not_in_forks, fd }
    }
}

impl AsFd for Unforked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Unforked {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Starts counting; once per process is enough, more often is harmless.
///
/// # Errors
/// The errno of pthread_atfork (ENOMEM): without the handler a fork can't be told, so nothing may be mapped.
pub(crate) fn watch() -> Result<(), i32> {
    // No lock, which a fork made meanwhile would wait for. Two threads that both come first count each fork twice, which is as good. Relaxed: the
    // C library's list has a lock of its own, and nothing else is published.
    static REGISTERED: AtomicBool = AtomicBool::new(false);
    if REGISTERED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: the handler is a plain function that lives as long as this code is mapped, and does only what
    // is async-signal-safe.
    match unsafe { libc::pthread_atfork(None, None, Some(in_child)) } {
        0 => {
            REGISTERED.store(true, Ordering::Relaxed);
            Ok(())
        }
        errno => Err(errno),
    }
}

/// A number that differs between a process and its forks. Cheap enough for every request.
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// The process that something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Tells children of a raw clone(2), too.
    pid: u32,
    /// Tells a child that has its parent's pid: the first process of a pid namespace within one whose first process forked it.
    generation: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn this() -> Self {
        // An errno: forks can't be told by their generation, and most still are by their pid.
        let _ = watch();
        Self {
            pid: std::process::id(),
            generation: generation(),
        }
    }

    /// False in a child of that process. A system call.
    pub(crate) fn is_this(self) -> bool {
        self.pid == std::process::id() && self.generation == generation()
    }
}
