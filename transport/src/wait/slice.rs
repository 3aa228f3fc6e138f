//! A thread's time slice: what it gives away when it yields, and how soon it runs once it is woken. Its share of the CPU is the same with any.
//!
//! Linux (6.12 and later) runs, of those who have their share coming, the one whose slice ends first, and lets one who wakes up
//! interrupt one with a longer slice. A poller works for all its clients and so has had more of the CPU than any of them: with the same slice it
//! runs after all that are awake, and their answers come in one bunch. After the next pause they ask in one bunch again.
//!
//! `sched_yield` forfeits the rest of a slice (since 6.18), 1.4 ms or more by default. Among threads that all yield that evens out. Beside one
//! that works for microseconds, sleeps and never yields, whoever yields runs only every few milliseconds. So both sides yield with
//! the shortest slice there is: a poller always has it, a waiting thread for as long as its CPU is crowded. Only one of the two having it costs half
//! of the throughput and more: every yield of the other one then lets it run many times.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, PoisonError};

use crate::mem::fork;

/// The shortest that the kernel grants (0.1 ms).
const SHORT_NS: u64 = 100_000;

/// While this lives, the thread it was made on has a short slice; then what it had before, unless somebody else has set another one.
#[derive(Debug)]
pub(crate) struct ShortSlice(Arc<Holders<Kernel>>);

impl ShortSlice {
    /// Of the calling thread. `None` while the thread ends.
    pub(crate) fn hold() -> Option<Self> {
        let holders = this_thread()?;
        holders.enter();
        Some(Self(holders))
    }

    /// Held by the calling thread, and not by one that had the connection before.
    pub(crate) fn is_of_this_thread(&self) -> bool {
        this_thread().is_some_and(|holders| Arc::ptr_eq(&holders, &self.0))
    }
}

impl Drop for ShortSlice {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Who wants one thread's slice to be short, and what it was.
#[derive(Debug)]
struct Holders<K> {
    /// Fork generation: in a fork, `thread` means another process's, and the lock may be one that nobody will open.
    generation: u64,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    kernel: K,
    holders: u32,
    /// What the thread had, in ns, while it is short by us.
    own_ns: Option<u64>,
    /// The thread is over: its number may be another one's.
    over: bool,
}

/// Who grants slices; another one in tests.
trait Grants {
    /// Gives the thread the slice that `wanted` makes of the present one, in ns; `None` leaves it. What it was; `None` also if it
    /// can't be had: no slices, or a scheduling class without.
    fn grant(&mut self, wanted: impl FnOnce(u64) -> Option<u64>) -> Option<u64>;
}

impl<K: Grants> Holders<K> {
    fn new(kernel: K) -> Self {
        Self {
            generation: fork::generation(),
            held: Mutex::new(Held {
                kernel,
                holders: 0,
                own_ns: None,
                over: false,
            }),
        }
    }

    fn is_forked(&self) -> bool {
        self.generation != fork::generation()
    }

    fn change(&self, what: impl FnOnce(&mut Held<K>)) {
        if !self.is_forked() {
            what(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn enter(&self) {
        self.change(|held| {
            held.holders += 1;
            if held.holders == 1 {
                held.own_ns = held
                    .kernel
                    .grant(|present| (present > SHORT_NS).then_some(SHORT_NS))
                    .filter(|own| *own > SHORT_NS);
            }
        });
    }

    fn leave(&self) {
        self.change(|held| {
            held.holders -= 1;
            if held.holders > 0 || held.over {
                return;
            }
            if let Some(own) = held.own_ns.take() {
                // One that somebody else has set meanwhile is theirs.
                held.kernel
                    .grant(|present| (present == SHORT_NS).then_some(own));
            }
        });
    }
}

/// The calling thread's; marked when the thread ends.
struct OfThread(Arc<Holders<Kernel>>);

impl Drop for OfThread {
    fn drop(&mut self) {
        self.0.change(|held| held.over = true);
    }
}

thread_local! {
    static OF_THREAD: RefCell<Option<OfThread>> = const { RefCell::new(None) };
}

/// Allocates what [`ShortSlice::hold`] would the first time the calling thread calls it.
pub(super) fn prepare_thread() {
    this_thread();
}

/// `None` while the thread ends.
fn this_thread() -> Option<Arc<Holders<Kernel>>> {
    let holders = |place: &RefCell<Option<OfThread>>| {
        let mut place = place.borrow_mut();
        let known = place.take().filter(|known| !known.0.is_forked());
        let of_thread = known.unwrap_or_else(|| OfThread(Arc::new(Holders::new(Kernel::new()))));
        Arc::clone(&place.insert(of_thread).0)
    };
    OF_THREAD.try_with(holders).ok()
}

/// `sched_getattr` and `sched_setattr` for one thread.
#[derive(Debug)]
struct Kernel {
    thread: libc::pid_t,
}

impl Kernel {
    /// For the calling thread.
    fn new() -> Self {
        Self {
            thread: nix::unistd::gettid().as_raw(),
        }
    }
}

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

/// Whether the calling thread's system calls go through a seccomp filter. What it lets through can't be asked: a service that may
/// not change its scheduling (systemd's `SystemCallFilter=~@resources`) is killed for trying.
pub(super) fn is_filtered() -> bool {
    // SAFETY: takes no argument and touches no memory. It is what names threads, too: a filter without it lets no thread start.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) == FILTERED }
}

/// SECCOMP_MODE_FILTER of <linux/seccomp.h>.
const FILTERED: libc::c_int = libc::SECCOMP_MODE_FILTER as libc::c_int;

impl Grants for Kernel {
    #[cold]
    fn grant(&mut self, wanted: impl FnOnce(u64) -> Option<u64>) -> Option<u64> {
        if is_filtered() {
            return None;
        }
        let mut attributes = Attributes::default();
        // SAFETY: the kernel writes at most the size that is given, into a live struct that is exclusively borrowed.
        let rc = unsafe {
            libc::syscall(
                libc::SYS_sched_getattr,
                self.thread,
                &mut attributes,
                SIZE,
                0u32,
            )
        };
        // SCHED_BATCH has slices, too, but is a user's word that nobody is to be interrupted.
        let ordinary = attributes.policy == libc::SCHED_OTHER.unsigned_abs();
        if rc != 0 || !ordinary || attributes.runtime == 0 {
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
        let rc = unsafe { libc::syscall(libc::SYS_sched_setattr, self.thread, &attributes, 0u32) };
        (rc == 0).then_some(before)
    }
}

/// Of the calling thread, for good: a filter that kills the process for this call.
#[cfg(test)]
pub(super) fn kill_for(call: libc::c_long) {
    let step = |code: u32, jump_false: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k,
    };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(equal, 1, call.try_into().expect("a number of a call")),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            libc::SECCOMP_RET_KILL_PROCESS,
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    nix::sys::prctl::set_no_new_privs().expect("allowed to all");
    // SAFETY: the kernel copies the program, which lives on, and the pointer is to as many steps as it says.
    let rc = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
}

#[cfg(test)]
mod tests;
