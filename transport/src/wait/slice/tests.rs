use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::*;
use crate::{Config, Membrane, Reply, Synapse};

const OWN_NS: u64 = 1_400_000;
/// Clients, on one CPU.
const CROWD: usize = 6;

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

impl Holders<Fake> {
    fn of(slice_ns: Option<u64>) -> Self {
        Self::new(Fake { slice_ns, calls: 0 })
    }

    fn slice_ns(&self) -> Option<u64> {
        self.held.lock().expect("no panic").kernel.slice_ns
    }
}

#[test]
fn a_slice_is_short_until_the_last_who_wants_it_so_has_gone() {
    let thread = Holders::of(Some(OWN_NS));
    for _ in 0..3 {
        thread.enter();
        thread.enter();
        thread.leave();
        assert_eq!(thread.slice_ns(), Some(SHORT_NS));
        thread.leave();
        assert_eq!(thread.slice_ns(), Some(OWN_NS));
    }
    // One call per change.
    assert_eq!(thread.held.lock().expect("no panic").kernel.calls, 6);
}

#[test]
fn a_slice_that_others_have_set_is_left_alone() {
    let thread = Holders::of(Some(SHORT_NS / 2));
    thread.enter();
    thread.leave();
    assert_eq!(thread.slice_ns(), Some(SHORT_NS / 2), "shorter than ours");
    let thread = Holders::of(Some(OWN_NS));
    thread.enter();
    thread.held.lock().expect("no panic").kernel.slice_ns = Some(3_000_000);
    thread.leave();
    assert_eq!(thread.slice_ns(), Some(3_000_000), "set meanwhile");
}

#[test]
fn nothing_is_set_for_a_thread_that_is_over_or_without_slices() {
    let thread = Holders::of(Some(OWN_NS));
    thread.enter();
    thread.change(|held| held.over = true);
    thread.leave();
    assert_eq!(thread.slice_ns(), Some(SHORT_NS), "whose is it now?");
    let thread = Holders::of(None);
    thread.enter();
    thread.leave();
    assert_eq!(thread.held.lock().expect("no panic").kernel.calls, 1);
}

fn slice_ns() -> Option<u64> {
    Kernel::new().grant(|_| None)
}

/// None of these tests can be had on a kernel before 6.12, in a class without slices, or with nothing to shorten.
fn can_be_shortened() -> bool {
    slice_ns().is_some_and(|own| own > SHORT_NS)
}

#[test]
fn the_kernel_shortens_a_slice_and_gives_it_back_also_when_another_thread_lets_go() {
    if !can_be_shortened() {
        return;
    }
    let own = slice_ns();
    let first = ShortSlice::hold().expect("not at the end of a thread");
    assert!(first.is_of_this_thread());
    assert_eq!(slice_ns(), Some(SHORT_NS));
    std::thread::spawn(move || {
        assert!(!first.is_of_this_thread());
        let here = slice_ns();
        drop(first);
        assert_eq!(slice_ns(), here, "not the one that was meant");
    })
    .join()
    .expect("the thread");
    assert_eq!(slice_ns(), own);
    // And of one that is over nothing is left to give back.
    let held = std::thread::spawn(ShortSlice::hold).join().expect("ended");
    let held = held.expect("not at its end");
    assert!(held.0.held.lock().expect("no panic").over);
    drop(held);
    assert_eq!(slice_ns(), own);
}

#[test]
fn a_fork_touches_neither_its_parents_thread_nor_its_lock() {
    let thread = Holders {
        generation: fork::generation().wrapping_add(1),
        ..Holders::of(Some(OWN_NS))
    };
    let _lost = thread.held.lock().expect("no panic");
    thread.enter();
    thread.leave();
}

/// Kills the process for asking: if this fails, it takes all other tests with it.
#[test]
fn a_thread_whose_system_calls_are_filtered_never_asks() {
    let under_a_filter = || {
        kill_for(libc::SYS_sched_setattr);
        let slice = ShortSlice::hold();
        assert!(slice.is_some());
        slice_ns()
    };
    let thread = std::thread::spawn(under_a_filter);
    assert_eq!(thread.join().expect("no panic"), None, "not even its own");
}

#[test]
fn pollers_have_a_short_slice_and_the_threads_of_clients_their_own_again_in_the_end() {
    if !can_be_shortened() {
        return;
    }
    let own = slice_ns();
    let dir = tempfile::tempdir().expect("a directory");
    // Handlers run on the poller.
    let handler = |_: &[u8], reply: &mut Reply<'_>| {
        let slice = slice_ns().unwrap_or_default();
        reply.send(&slice.to_le_bytes()).expect("room");
    };
    let config = Config::default();
    let server = Membrane::bind(dir.path().join("s"), &config, handler).expect("a server");
    let connect = || Synapse::connect(dir.path().join("s"), &config).expect("a client");
    let mut client = connect();
    let reply = client.fire_bytes(b"").expect("a reply");
    assert_eq!(reply, SHORT_NS.to_le_bytes(), "the poller's");
    // A crowd on one CPU. All of it asks until each one was seen with a short slice.
    let until = Instant::now() + Duration::from_secs(20);
    let short = AtomicUsize::new(0);
    let ask = || {
        pin_to_one_cpu();
        let mut client = connect();
        let mut seen = false;
        while short.load(Ordering::Relaxed) < CROWD && Instant::now() < until {
            client.fire_bytes(b"").expect("a reply");
            if !seen && slice_ns() == Some(SHORT_NS) {
                seen = true;
                short.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(client);
        (seen, slice_ns())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CROWD).map(|_| scope.spawn(ask)).collect();
        for thread in threads {
            assert_eq!(thread.join().expect("a client"), (true, own));
        }
    });
    server.shutdown();
}

fn pin_to_one_cpu() {
    let me = Pid::from_raw(0);
    let allowed = sched_getaffinity(me).expect("an affinity mask");
    let first = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true));
    let mut one = CpuSet::new();
    one.set(first.expect("a CPU")).expect("in range");
    sched_setaffinity(me, &one).expect("one of its own");
}
