//! A handler is the program's code, and finds the signals as on a thread of the program's; so does what it starts.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction};
use nix::unistd::{getpid, gettid};
use transport::{Config, Membrane, Reply, Synapse, TransportChoice};

use crate::role::{required, say, start};
use crate::world::World;

/// Where a signal was handled last.
static HANDLED_BY: AtomicI32 = AtomicI32::new(0);

extern "C" fn handled(_: libc::c_int) {
    HANDLED_BY.store(gettid().as_raw(), Ordering::Relaxed);
}

/// The signals that stand blocked in the text of a `status` file.
fn blocked(status: &str) -> Vec<i32> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .expect("a mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a number");
    let bit = |signal: &i32| mask & 1 << (signal - 1) != 0;
    (1..=64).filter(bit).collect()
}

/// As [`blocked`], of a thread of this process.
fn blocked_in(thread: &Path) -> Vec<i32> {
    blocked(&std::fs::read_to_string(thread.join("status")).expect("a thread"))
}

/// What the program asks of its handler.
fn handler(request: &[u8], reply: &mut Reply<'_>) {
    let answer = match request {
        b"where" => format!("{}", gettid()),
        b"raise" => {
            raise(Signal::SIGUSR2).expect("this thread");
            let by = HANDLED_BY.swap(0, Ordering::Relaxed);
            format!("by itself: {}", by == gettid().as_raw())
        }
        _ => {
            let mut child = Command::new("cat");
            let child = child.arg("/proc/self/status").output().expect("a child");
            format!("{:?}", blocked(&String::from_utf8_lossy(&child.stdout)))
        }
    };
    reply.extend_from_slice(answer.as_bytes()).expect("small");
}

/// Role `signalled`: SIGUSR1 was blocked before the server was bound, and its threads are what could take it otherwise.
pub(crate) fn take() {
    let action = SigAction::new(
        SigHandler::Handler(handled),
        SaFlags::empty(),
        SigSet::empty(),
    );
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        // SAFETY: the handler makes a system call and stores a number.
        unsafe { sigaction(signal, &action) }.expect("a handler");
    }
    let here = PathBuf::from("/proc/thread-self");
    let before = blocked_in(&here);
    assert!(before.contains(&libc::SIGUSR1), "{before:?}");
    assert!(!before.contains(&libc::SIGTERM), "{before:?}");
    let dir = PathBuf::from(required("DIR"));
    let config = Config {
        stats_dir: Some(dir.join("stats")),
        ..Config::default()
    };
    let _server = Membrane::bind(dir.join("s"), &config, handler).expect("a server");
    assert_eq!(blocked_in(&here), before, "of who binds");
    let usr1 = SigSet::from(Signal::SIGUSR1);
    for transport in [TransportChoice::Shm, TransportChoice::Socket] {
        let config = Config {
            transport,
            ..config.clone()
        };
        let mut client = Synapse::connect(dir.join("s"), &config).expect("a client");
        let mut ask = |what: &[u8]| -> String {
            let answer = client.fire_bytes(what).expect("an answer");
            String::from_utf8_lossy(answer).into_owned()
        };
        let thread = PathBuf::from(format!("/proc/self/task/{}", ask(b"where")));
        assert_eq!(blocked_in(&thread), before, "of {transport:?}");
        assert_eq!(ask(b"child"), format!("{before:?}"), "of {transport:?}");
        assert_eq!(ask(b"raise"), "by itself: true", "of {transport:?}");
        for _ in 0..10 {
            kill(getpid(), Signal::SIGUSR1).expect("this process");
            // Whoever has it to handle does so before anything else.
            ask(b"where");
            assert_eq!(HANDLED_BY.swap(0, Ordering::Relaxed), 0, "not its thread");
            usr1.thread_unblock().expect("a mask");
            let by = HANDLED_BY.swap(0, Ordering::Relaxed);
            assert_eq!(by, gettid().as_raw(), "it waited for this thread");
            usr1.thread_block().expect("a mask");
        }
    }
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let mut tasks = tasks.map(|task| task.expect("a thread").path());
    let name = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
    let control = tasks.find(|task| name(task).trim() == "shm-control");
    let control = blocked_in(&control.expect("a control thread"));
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
    let open = |signal: &i32| faults.contains(signal) || not_to_be_blocked.contains(signal);
    let expected: Vec<i32> = (1..=64).filter(|signal| !open(signal)).collect();
    assert_eq!(control, expected, "of the control thread");
    say(format_args!("done"));
}

#[test]
fn a_handler_and_its_children_find_the_signal_mask_of_who_bound() {
    let world = World::new();
    let mut start = start("signalled").with("DIR", world.path().parent().expect("it"));
    // SAFETY: a system call between fork and exec.
    unsafe {
        start
            .command()
            .pre_exec(|| Ok(SigSet::from(Signal::SIGUSR1).thread_block()?))
    };
    let mut program = start.go();
    program.hear("done");
    assert!(program.ends().success());
}
