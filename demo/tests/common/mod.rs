//! Real processes for the tests: started in a runtime directory of their own, ended when dropped, watched so that
//! nothing hangs. Every wait polls for the thing waited for; the time is a watchdog's.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ends a hang; nothing here takes a tenth of it.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A runtime directory of its own, so that tests neither meet each other nor the user's programs.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// The default socket here.
    pub fn socket(&self) -> PathBuf {
        self.dir().join("exchange.sock")
    }

    pub fn command(&self, program: &str, args: &str) -> Command {
        let path = match program {
            "exchange" => env!("CARGO_BIN_EXE_exchange").into(),
            "trader" => env!("CARGO_BIN_EXE_trader").into(),
            "demo" => env!("CARGO_BIN_EXE_demo").into(),
            "soak" => env!("CARGO_BIN_EXE_soak").into(),
            // The test program itself, where it plays a part too.
            "self" => std::env::current_exe().expect("it runs"),
            _ => panic!("no program {program}"),
        };
        let mut command = Command::new(path);
        // No configuration, language or wishes of who runs the tests.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .args(args.split_whitespace())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.dir())
            .env("SHMTOP_RUNTIME_DIR", self.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts a program with these arguments.
    pub fn start(&self, program: &str, args: &str) -> Running {
        let mut child = self.command(program, args).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Running { child, stdout }
    }

    /// Starts an exchange and waits until it listens.
    pub fn exchange(&self, args: &str) -> Running {
        let mut exchange = self.start("exchange", args);
        let line = exchange.line();
        assert!(line.starts_with("exchange: listening on "), "{line:?}");
        exchange
    }

    /// Runs a program to its end.
    pub fn run(&self, program: &str, args: &str) -> Finished {
        self.start(program, args).finish()
    }

    /// Pids of the living processes that were started here: they inherit the environment.
    pub fn processes(&self) -> Vec<i32> {
        let mark = format!("SHMTOP_RUNTIME_DIR={}", self.dir().display());
        fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                // A process that ends meanwhile, or a zombie, has no environment.
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|e| e.split(|b| *b == 0).any(|v| v == mark.as_bytes()))
            })
            .collect()
    }

    /// Waits until this many processes live here.
    pub fn wait_for_processes(&self, n: usize) {
        wait_until("the number of processes", || self.processes().len() == n);
    }

    /// Kills the first process here with this word in its command line; returns when its parent can hear of it.
    pub fn kill_one(&self, word: &str) {
        let child = self.child(word);
        kill(Pid::from_raw(child), Signal::SIGKILL).expect("killed");
        wait_until("a death that can be waited for", || is_dead(child));
    }

    /// Stops the first process here with this word in its command line, all its threads. Returns its pid.
    pub fn stop_one(&self, word: &str) -> i32 {
        let child = self.child(word);
        kill(Pid::from_raw(child), Signal::SIGSTOP).expect("stopped");
        wait_until("all its threads at rest", || is_stopped(child));
        child
    }

    /// Stops one, for it to die by this signal as soon as it is woken.
    pub fn doom_one(&self, word: &str, signal: Signal) {
        // A thread that still ran would take the signal at once.
        let child = self.stop_one(word);
        kill(Pid::from_raw(child), signal).expect("it lives");
    }

    /// Waits for it: until it execs, a child has the command line of its parent.
    fn child(&self, word: &str) -> i32 {
        let is_it = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(word))
        };
        let mut child = None;
        wait_until(word, || {
            child = self.processes().into_iter().find(is_it);
            child.is_some()
        });
        child.expect("waited for")
    }

    /// What lies in the runtime directory.
    pub fn files(&self) -> Vec<String> {
        fs::read_dir(self.dir())
            .expect("the directory")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

/// Would its parent's wait return? Long before that, a dying process has neither environment nor command line: its memory is what goes
/// first, its last thread decides.
fn is_dead(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    // Reaped already, it has no `stat`.
    tasks <= 1 && matches!(state, Some("Z" | "X") | None)
}

fn is_stopped(pid: i32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        matches!(stat.rsplit_once(") "), Some((_, rest)) if rest.starts_with('T'))
    })
}

/// Polls until it holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < WATCHDOG, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A program that runs; killed when dropped.
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// One that has ended.
#[derive(Debug)]
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Its stdout as one JSON object, after it has ended well.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.code(), 0, "{self:?}");
        serde_json::from_str(&self.stdout).expect("stdout is one JSON object")
    }
}

impl Running {
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it has not been waited for");
    }

    /// The next line of its stdout, with the line's end; empty when there is none.
    pub fn line(&mut self) -> String {
        let watch = Watch::over(self.pid());
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("text");
        drop(watch);
        line
    }

    /// The same for one whose stdout nobody reads any more.
    pub fn finish_unread(mut self) -> Finished {
        let (empty, end) = std::io::pipe().expect("a pipe");
        drop(end);
        self.stdout = BufReader::new(std::os::fd::OwnedFd::from(empty).into());
        self.finish()
    }

    /// The rest of its output, when it has ended.
    pub fn finish(mut self) -> Finished {
        let watch = Watch::over(self.pid());
        let mut pipe = self.child.stderr.take().expect("piped, once");
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        });
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).expect("text");
        let stderr = errors.join().expect("no panic").expect("text");
        let status = self.child.wait().expect("a child");
        drop(watch);
        Finished {
            status,
            stdout,
            stderr,
        }
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Kills a process that is watched for too long.
struct Watch(std::sync::mpsc::Sender<()>);

impl Watch {
    fn over(pid: i32) -> Self {
        let (done, finished) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError;
            if finished.recv_timeout(WATCHDOG) == Err(RecvTimeoutError::Timeout) {
                eprintln!("watchdog: killing {pid}");
                _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        });
        Self(done)
    }
}
