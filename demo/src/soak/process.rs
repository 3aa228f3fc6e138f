//! A soak's child processes: started, told things, heard, killed, and looked at from outside.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Options;
use super::tally::Tally;
use crate::failure::{FAULT, Failure};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);
/// Looks after which it is a hang, two minutes of them. Counted, not timed: somebody may stop the whole soak for a while.
const WATCHDOG: u32 = 60_000;

/// A child, and what it said last.
pub(super) struct Process {
    pub(super) child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    /// After the first rest.
    pub(super) anonymous: Option<u64>,
}

#[derive(Default)]
pub(super) struct Heard {
    pub(super) tally: Tally,
    pub(super) lines: u64,
    pub(super) ready: bool,
    pub(super) resting: bool,
}

impl Process {
    pub(super) fn start(
        dir: &Path,
        options: &Options,
        role: &str,
        number: u32,
    ) -> Result<Self, Failure> {
        let program =
            std::env::current_exe().map_err(|e| Failure::io("finding this program", &e))?;
        let mut child = Command::new(program)
            .args([
                "--role",
                role,
                "--number",
                &number.to_string(),
                "--seed",
                &options.seed.to_string(),
                "--dir",
            ])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::io("starting a process", &e))?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hearing = Arc::clone(&heard);
        if let Some(out) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    let mut heard = hearing.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.lines += 1;
                    match Tally::hear(&line) {
                        Some(tally) => heard.tally = tally,
                        None => {
                            heard.ready |= line == "ready";
                            heard.resting |= line == "resting";
                        }
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Self {
            child,
            stdin,
            heard,
            anonymous: None,
        })
    }

    pub(super) fn heard<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            // It may have been killed; then its replacement is told.
            let _ = writeln!(stdin, "{line}");
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    pub(super) fn signal(&self, signal: Signal) {
        // Fails if it has ended by itself, which is noticed elsewhere.
        let _ = kill(self.pid(), signal);
    }

    pub(super) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    fn proc(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.child.id()).into()
    }

    pub(super) fn fds(&self) -> usize {
        std::fs::read_dir(self.proc("fd")).map_or(0, Iterator::count)
    }

    pub(super) fn rings(&self) -> u64 {
        let maps = std::fs::read_to_string(self.proc("maps")).unwrap_or_default();
        maps.lines()
            .filter(|line| line.contains("/memfd:shm-ring"))
            .count() as u64
    }

    /// Anonymous memory in RAM.
    pub(super) fn anonymous(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.proc("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"))?;
        line.trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .ok()
            .map(|kib| kib << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either ended already, or to be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `done`.
pub(super) fn wait(what: &str, mut done: impl FnMut() -> bool) -> Result<(), Failure> {
    for _ in 0..WATCHDOG {
        if done() {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    Err(Failure::new(FAULT, format!("waited in vain for {what}")))
}
