//! The list of system calls in SECURITY.md is there for whoever writes a seccomp filter that kills. Here is one: it lets through what
//! stands there and no more, and a client lives on behind it, on either transport.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use transport::error::RequestError;
use transport::{Config, Membrane, Synapse, TransportChoice, WaitPolicy};

/// Ends a hang; nothing healthy comes near it.
const WATCHDOG: Duration = Duration::from_secs(60);
const PATH: &str = "TRANSPORT_TEST_FILTERED";
const WAIT: &str = "TRANSPORT_TEST_WAIT";
const LARGE: usize = 1 << 20;

/// What SECURITY.md lists of a client with a connection, each with the call itself.
const ANY: &[(&str, libc::c_long)] = &[
    ("prctl", libc::SYS_prctl),
    ("futex", libc::SYS_futex),
    ("restart_syscall", libc::SYS_restart_syscall),
    ("sched_yield", libc::SYS_sched_yield),
    ("gettid", libc::SYS_gettid),
    ("getpid", libc::SYS_getpid),
    ("recvfrom", libc::SYS_recvfrom),
    ("sendto", libc::SYS_sendto),
    ("clock_nanosleep", libc::SYS_clock_nanosleep),
    ("shutdown", libc::SYS_shutdown),
    ("close", libc::SYS_close),
    ("munmap", libc::SYS_munmap),
    #[cfg(target_arch = "x86_64")]
    ("readlink", libc::SYS_readlink),
    #[cfg(target_arch = "x86_64")]
    ("unlink", libc::SYS_unlink),
    #[cfg(not(target_arch = "x86_64"))]
    ("getcpu", libc::SYS_getcpu),
    #[cfg(not(target_arch = "x86_64"))]
    ("readlinkat", libc::SYS_readlinkat),
    #[cfg(not(target_arch = "x86_64"))]
    ("unlinkat", libc::SYS_unlinkat),
];
const ON_THE_SOCKET: &[(&str, libc::c_long)] = &[
    ("sendmsg", libc::SYS_sendmsg),
    ("recvmsg", libc::SYS_recvmsg),
    #[cfg(target_arch = "x86_64")]
    ("poll", libc::SYS_poll),
    #[cfg(not(target_arch = "x86_64"))]
    ("ppoll", libc::SYS_ppoll),
];
/// What any program calls: its allocator, a clock that the kernel does not show in memory, its last words and its end; and a debug build,
/// which asks before it closes a descriptor whether that is open.
const ANYBODY: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_clock_gettime,
    libc::SYS_write,
    libc::SYS_sigaltstack,
    libc::SYS_exit_group,
    #[cfg(debug_assertions)]
    libc::SYS_fcntl,
];

/// Of the calling thread, for good: a filter that kills the process for all calls but these.
fn kill_for_all_but(calls: impl Iterator<Item = libc::c_long>) {
    let step = |code: u32, jump_false: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k,
    };
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let verdict = |verdict| step(libc::BPF_RET | libc::BPF_K, 0, verdict);
    let mut program = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for call in calls {
        program.push(step(equal, 1, call.try_into().expect("a number of a call")));
        program.push(verdict(libc::SECCOMP_RET_ALLOW));
    }
    program.push(verdict(libc::SECCOMP_RET_KILL_PROCESS));
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

fn config(path: &Path) -> Config {
    Config {
        stats_dir: Some(path.with_extension("stats")),
        ..Config::default()
    }
}

/// The other side of [`lives`]: everything that a client can do with a connection, behind the filter.
#[test]
fn a_client_behind_a_filter() {
    let Some(path) = std::env::var_os(PATH).map(PathBuf::from) else {
        return;
    };
    let (transport, is_shm) = match path.ends_with("shm") {
        true => (TransportChoice::Shm, true),
        false => (TransportChoice::Socket, false),
    };
    let wait = match std::env::var(WAIT).as_deref() {
        Ok("park") => WaitPolicy::Park,
        Ok("spin") => WaitPolicy::Spin,
        Ok("ladder") => WaitPolicy::DOCUMENT,
        _ => WaitPolicy::Adaptive,
    };
    let config = Config {
        transport,
        wait,
        ..config(&path)
    };
    let mut client = Synapse::connect(&path, &config).expect("a connection");
    assert_eq!(client.is_shm(), is_shm);
    let more = if is_shm { &[][..] } else { ON_THE_SOCKET };
    let listed = ANY.iter().chain(more).map(|(_, call)| *call);
    kill_for_all_but(listed.chain(ANYBODY.iter().copied()));
    for size in [0, 64, LARGE, 64, LARGE] {
        for round in 0..50u8 {
            let request = vec![round; size];
            assert_eq!(client.fire_bytes(&request).expect("a reply"), request);
        }
    }
    // Longer than any look whether the server is there.
    assert_eq!(client.fire_bytes(b"wait").expect("a reply"), b"wait");
    let limit = Duration::from_millis(20);
    let late = client.fire_bytes_within(b"wait", limit).map(<[u8]>::len);
    assert!(
        matches!(late, Err(RequestError::Timeout { .. })),
        "{late:?}"
    );
    for request in [&b"queued"[..], b"and cancelled"] {
        client.submit(request).expect("room");
    }
    client.check_alive().expect("a server");
    client.receive().expect("a reply");
    client.cancel_all();
    assert_eq!(
        client.fire_bytes(b"once more").expect("a reply"),
        b"once more"
    );
    // What has been begun is answered.
    while client.fire_bytes(b"end").is_ok() {}
    drop(client);
    std::process::exit(0);
}

/// As a debugger, a freezer or a shell does. A call that waited goes on by another number then.
fn stop_and_continue(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a pid"));
    kill(pid, Signal::SIGSTOP).expect("our child");
    waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED).expect("our child");
    kill(pid, Signal::SIGCONT).expect("our child");
}

/// Runs a client of such a name, `shm` or `socket`, to its end.
fn lives(name: &str, wait: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let (ends, end) = channel();
    let server = Membrane::bind(&path, &config(&path), move |request, reply| {
        match request {
            b"wait" => {
                std::thread::sleep(Duration::from_millis(100));
                stop_and_continue(reply.peer().pid);
                std::thread::sleep(Duration::from_millis(200));
            }
            b"end" => ends.send(()).expect("somebody waits for it"),
            _ => {}
        }
        reply.extend_from_slice(request).expect("as large");
    })
    .expect("a server");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "a_client_behind_a_filter",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(PATH, &path)
        .env(WAIT, wait)
        // Whose path takes calls of its own.
        .env("RUST_BACKTRACE", "0")
        .spawn()
        .expect("a process");
    let said = end.recv_timeout(WATCHDOG);
    drop(server);
    // By a signal, if it was killed for a call.
    let ended = match said {
        Err(RecvTimeoutError::Timeout) => child.kill().and_then(|()| child.wait()),
        _ => child.wait(),
    };
    let ended = ended.expect("our child");
    assert!(ended.success() && said.is_ok(), "{name}, {wait}: {ended}");
}

#[test]
fn a_client_on_either_transport_lives_behind_a_filter_of_what_security_lists() {
    for wait in ["adaptive", "park", "ladder", "spin"] {
        lives("shm", wait);
        lives("socket", wait);
    }
}

#[test]
fn so_does_one_in_a_crowd() {
    let all = sched_getaffinity(Pid::from_raw(0)).expect("our own");
    let first = (0..CpuSet::count()).find(|cpu| all.is_set(*cpu).is_ok_and(|is| is));
    let mut one = CpuSet::new();
    one.set(first.expect("a CPU")).expect("one that there is");
    // The server's threads and the client inherit it: whoever yields gives way to the other.
    sched_setaffinity(Pid::from_raw(0), &one).expect("one of ours");
    lives("shm", "adaptive");
}

#[test]
fn security_lists_what_the_filter_lets_through() {
    let security = include_str!("../../SECURITY.md");
    let begin = security
        .find("* **A seccomp filter")
        .expect("a point on filters");
    let (point, _) = security[begin..].split_once("\n* **").expect("more points");
    for (name, _) in ANY.iter().chain(ON_THE_SOCKET) {
        assert!(point.contains(&format!("`{name}`")), "{name}");
    }
}
