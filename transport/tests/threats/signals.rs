//! A program's signals are its own: none of its handlers runs on a thread of ours.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{getpid, gettid};
use transport::{Config, Membrane, Synapse, TransportChoice};

use crate::role::{required, say, start};
use crate::world::World;

/// Where SIGUSR1 was handled last.
static HANDLED_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn handled(_: libc::c_int) {
    HANDLED_BY.store(gettid().as_raw(), Ordering::Relaxed);
}

/// The signals that a thread of this process does not block, and its name; `None` if it has ended.
fn open_to(task: &std::path::Path) -> Option<(String, Vec<i32>)> {
    let read = |name: &str| std::fs::read_to_string(task.join(name)).ok();
    let status = read("status")?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .expect("a mask");
    let blocked = u64::from_str_radix(mask.trim(), 16).expect("a number");
    let open = (1..=64).filter(|signal| blocked & 1 << (signal - 1) == 0);
    Some((read("comm")?.trim().to_owned(), open.collect()))
}

/// Role `signalled`: SIGUSR1 comes while only a server's threads could take it.
pub(crate) fn take() {
    let usr1 = SigSet::from(Signal::SIGUSR1);
    let action = SigAction::new(SigHandler::Handler(handled), SaFlags::empty(), usr1);
    // SAFETY: the handler makes a system call and stores a number.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.expect("a handler");
    // The threads of the harness block it, this one does not: who is started from here on blocks it only if it means to.
    usr1.thread_unblock().expect("a mask");
    let mask = || -> Vec<Signal> { SigSet::thread_get_mask().expect("a mask").iter().collect() };
    let before = mask();
    let dir = PathBuf::from(required("DIR"));
    let config = Config {
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    };
    let _server = Membrane::bind(dir.join("s"), &config, |request, reply| {
        reply.extend_from_slice(request).expect("as large");
    })
    .expect("a server");
    let [mut on_shm, mut on_the_socket] =
        [TransportChoice::Shm, TransportChoice::Socket].map(|transport| {
            let config = Config {
                transport,
                ..config.clone()
            };
            Synapse::connect(dir.join("s"), &config).expect("a client")
        });
    assert_eq!(mask(), before, "of who binds");
    usr1.thread_block().expect("a mask");
    for _ in 0..10 {
        kill(getpid(), Signal::SIGUSR1).expect("this process");
        // Whoever has it to handle does so before anything else.
        on_shm.fire_bytes(b"to a poller").expect("a reply");
        on_the_socket
            .fire_bytes(b"to a client's thread")
            .expect("a reply");
        assert_eq!(HANDLED_BY.swap(0, Ordering::Relaxed), 0, "not its thread");
        usr1.thread_unblock().expect("a mask");
        let by = HANDLED_BY.swap(0, Ordering::Relaxed);
        assert_eq!(by, gettid().as_raw(), "it waited for this thread");
        usr1.thread_block().expect("a mask");
    }
    let faults = [
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGSYS,
    ];
    // The last two are the C library's own, for what it does to all threads.
    let not_to_be_blocked = [libc::SIGKILL, libc::SIGSTOP, 32, 33];
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let open = tasks.filter_map(|task| open_to(&task.expect("a thread").path()));
    let mut ours = Vec::new();
    for (name, open) in open.filter(|(name, _)| name.starts_with("shm-")) {
        let all = faults.iter().all(|fault| open.contains(fault));
        let allowed = |signal| faults.contains(signal) || not_to_be_blocked.contains(signal);
        assert!(all && open.iter().all(allowed), "{name} takes {open:?}");
        ours.push(name);
    }
    say(format_args!("threads {}", ours.join(" ")));
}

#[test]
fn a_programs_signals_are_handled_on_its_own_threads() {
    let world = World::new();
    let mut start = start("signalled").with("DIR", world.path().parent().expect("it"));
    // SAFETY: a system call between fork and exec.
    unsafe {
        start
            .command()
            .pre_exec(|| Ok(SigSet::from(Signal::SIGUSR1).thread_block()?))
    };
    let mut program = start.go();
    let threads = program.hear("threads");
    for thread in ["shm-control", "shm-client-2", "shm-poller-0"] {
        assert!(threads.contains(thread), "{threads}");
    }
    assert!(program.ends().success());
}
