//! The command line as a script sees it: exit codes, one sentence on stderr, documents on stdout.
//!
//! A server and a client of the real transport run inside the test; `--name` keeps everybody else on the machine out. Nothing
//! sleeps: what shmtop prints is waited for, a watchdog ends a hang.

mod commands;
mod exits;
mod formats;
mod mistakes;
mod settings;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use transport::{Config, Membrane, Synapse};

/// Ends a hang; far above what anything here takes.
const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) fn shmtop(dir: &Path, args: &[&str]) -> Command {
    let mut c = Command::new(env!("CARGO_BIN_EXE_shmtop"));
    c.args(args)
        .env_clear()
        .env("SHMTOP_RUNTIME_DIR", dir)
        .env("HOME", dir)
        .stdin(Stdio::null());
    c
}

/// The same, started, with pipes for what it says.
fn started(dir: &Path, args: &[&str]) -> Child {
    shmtop(dir, args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs to the end, or panics when the watchdog barks.
pub(crate) fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let child = started(dir, args);
    let pid = child.id();
    let (done, ended) = channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    let Ok(out) = ended.recv_timeout(WATCHDOG) else {
        let _ = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid as i32),
            nix::sys::signal::Signal::SIGKILL,
        );
        panic!("shmtop {args:?} hangs");
    };
    let Output {
        status,
        stdout,
        stderr,
    } = out.unwrap();
    (
        status.code().unwrap(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// A server with one client on shared memory, in this process.
struct Pair {
    dir: tempfile::TempDir,
    server: Option<Membrane>,
    _client: Synapse,
    name: String,
}

fn pair() -> Pair {
    // The tests share a process, so the pid does not tell their servers apart.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let dir = tempfile::tempdir().unwrap();
    let name = format!(
        "echo-{}-{}.",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    );
    let config = Config {
        name: name.clone(),
        ring_bytes: 64 << 10,
        max_message_bytes: 4 << 10,
        stats_dir: Some(dir.path().to_owned()),
        ..Config::default()
    };
    let server = Membrane::bind(dir.path().join("echo.sock"), &config, |request, reply| {
        reply.extend_from_slice(request).expect("an echo fits");
    })
    .unwrap();
    // Of another name: a process has one page for all its clients, called as the first of them, and it outlives the server.
    let config = Config {
        name: "caller".into(),
        ..config
    };
    let mut client = Synapse::connect(dir.path().join("echo.sock"), &config).unwrap();
    assert!(client.is_shm());
    for _ in 0..2_000 {
        client.fire_bytes(b"hello").unwrap();
    }
    Pair {
        dir,
        server: Some(server),
        _client: client,
        name,
    }
}
