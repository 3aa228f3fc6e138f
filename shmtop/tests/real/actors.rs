//! The processes of a run: exchange and trader are this test program again, with their command line in the environment; shmtop is the
//! real binary. Everything ends when it is dropped, every wait has a watchdog, and nobody else's endpoints are in sight: each run has
//! a runtime directory of its own, and asks for its own pids.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends a hang; nothing healthy comes near it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(90);
const ROLE: &str = "SHMTOP_TEST_ROLE";
const TEST: &str = "actors::a_process_plays_its_role";

/// The other side of [`Stage::actor`].
#[test]
fn a_process_plays_its_role() {
    let Ok(line) = std::env::var(ROLE) else {
        return;
    };
    let args = line.split_whitespace().map(std::ffi::OsString::from);
    let code = match line.split_whitespace().next() {
        Some("exchange") => demo::exchange::main(args),
        Some("trader") => demo::trader::main(args),
        _ => panic!("no role {line}"),
    };
    assert_eq!(code, std::process::ExitCode::SUCCESS);
}

/// A runtime directory of its own.
pub(crate) struct Stage(tempfile::TempDir);

impl Stage {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn dir(&self) -> &Path {
        self.0.path()
    }

    /// Starts a role, e.g. `trader 1 ping --think 1ms`; `before` are words that come first, such as `unshare -n`.
    pub(crate) fn actor(&self, before: &[&str], role: &str) -> Process {
        let me = std::env::current_exe().unwrap();
        self.actor_at(before, &me, self.dir(), role)
    }

    /// The same by another copy of this program, in another runtime directory.
    pub(crate) fn actor_at(&self, before: &[&str], me: &Path, dir: &Path, role: &str) -> Process {
        let words = before.iter().map(std::ffi::OsStr::new);
        let words: Vec<_> = words.chain([me.as_os_str()]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args([TEST, "--exact", "--nocapture", "--test-threads=1"])
            .env(
                ROLE,
                format!("{role} --socket {}", dir.join("x.sock").display()),
            )
            .env("SHMTOP_RUNTIME_DIR", dir)
            .current_dir("/");
        Process::start(command)
    }

    /// An exchange that listens.
    pub(crate) fn exchange(&self) -> Process {
        let mut exchange = self.actor(&[], "exchange --name exchange");
        exchange.line("exchange: listening on ");
        exchange
    }

    /// A trader whose client is on shared memory; it runs until it is ended, however slow the machine.
    pub(crate) fn trader(&self, work: &str) -> Process {
        let role = format!("trader {work} --name trader --duration forever");
        let mut trader = self.actor(&[], &role);
        trader.line("SHM UPGRADE SUCCESS");
        trader
    }

    pub(crate) fn shmtop(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shmtop"));
        command
            .args(args)
            .env_clear()
            .env("SHMTOP_RUNTIME_DIR", self.dir())
            .env("HOME", self.dir());
        command
    }
}

/// A program that runs; killed when dropped.
pub(crate) struct Process {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (line, lines) = channel();
    std::thread::spawn(move || {
        for text in BufReader::new(stream).lines().map_while(Result::ok) {
            // Nobody listens any more.
            if line.send(text).is_err() {
                break;
            }
        }
    });
    lines
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Self {
            out: lines_of(child.stdout.take().unwrap()),
            err: lines_of(child.stderr.take().unwrap()),
            child,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of stdout that has this in it.
    pub(crate) fn line(&mut self, part: &str) -> String {
        Self::wait_for(&self.out, &self.err, part)
    }

    /// The next line of stderr that has this in it.
    pub(crate) fn error_line(&mut self, part: &str) -> String {
        Self::wait_for(&self.err, &self.out, part)
    }

    fn wait_for(stream: &Receiver<String>, other: &Receiver<String>, part: &str) -> String {
        let until = Instant::now() + WATCHDOG;
        loop {
            match stream.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(part) => return line,
                Ok(_) => {}
                Err(e) => panic!(
                    "no line with {part:?}: {e}; {:?}",
                    other.try_iter().collect::<Vec<_>>()
                ),
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Waits until it has mapped so many stats pages and sleeps until it looks again.
    pub(crate) fn has_looked_at(&self, pages: usize) {
        let read = |file| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid()));
        let sleep = [libc::SYS_clock_nanosleep, libc::SYS_nanosleep].map(|n| format!("{n} "));
        until("its first look", || {
            let maps = read("maps").ok()?;
            let syscall = read("syscall").ok()?;
            let sleeps = sleep.iter().any(|call| syscall.starts_with(call));
            (sleeps && maps.matches("/memfd:").count() >= pages).then_some(())
        });
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end: exit code, stdout and stderr from where they were read.
    pub(crate) fn finish(mut self) -> (Option<i32>, String, String) {
        let until = Instant::now() + WATCHDOG;
        let rest = |stream: &Receiver<String>| {
            let mut text = String::new();
            loop {
                match stream.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(line) => text += &(line + "\n"),
                    Err(RecvTimeoutError::Disconnected) => return text,
                    Err(RecvTimeoutError::Timeout) => panic!("it does not end; so far: {text}"),
                }
            }
        };
        let (out, err) = (rest(&self.out), rest(&self.err));
        (self.child.wait().unwrap().code(), out, err)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> (Option<i32>, String, String) {
    Process::start(command).finish()
}

/// Asks until it holds.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + WATCHDOG;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Says which test does not run here, and why. `.ci/run` lists these lines at its end.
pub(crate) fn skipped(why: &str) {
    // Straight to the terminal's stderr, past the harness's capture: a test that checks nothing must be seen to.
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("a test"));
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
}
