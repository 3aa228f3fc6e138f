//! A soak's child processes: started, told things, heard, killed, and looked at from outside.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
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
    child: Child,
    stdin: Option<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    reader: Option<JoinHandle<()>>,
    /// Once it has ended: whether it had to be killed for that.
    was_killed: Option<bool>,
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
        let mut command = Command::new(program);
        command
            .args([
                "--role",
                role,
                "--number",
                &number.to_string(),
                "--seed",
                &options.seed.to_string(),
                "--dir",
            ])
            .arg(dir);
        Self::run(command).map_err(|e| Failure::io("starting a process", &e))
    }

    fn run(mut command: Command) -> std::io::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let hearing = Arc::clone(&heard);
        let reader = child.stdout.take().map(|out| {
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
            })
        });
        let stdin = child.stdin.take();
        Ok(Self {
            child,
            stdin,
            heard,
            reader,
            was_killed: None,
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

    /// Kills it, and hears what it said to the last line. False if it had ended by itself before.
    pub(super) fn end(&mut self) -> bool {
        let killed = *self.was_killed.get_or_insert_with(|| {
            let by_itself = matches!(self.child.try_wait(), Ok(Some(_)));
            // It may end between the two; then its status says how.
            let _ = self.child.kill();
            let status = self.child.wait();
            !by_itself && status.is_ok_and(|s| s.signal() == Some(Signal::SIGKILL as i32))
        });
        if let Some(reader) = self.reader.take() {
            // It panics on nothing; its last line has been heard or was never whole.
            let _ = reader.join();
        }
        killed
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

/// Takes the words `few` and `many`: how many descriptors this process may have.
pub(super) fn starve(word: &str) {
    let set = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        let soft = match word {
            // Full, if even looking needs one more than there is.
            "few" => std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64 + 2),
            "many" => hard.min(4096),
            _ => return Ok(()),
        };
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(3), hard)
    });
    if let Err(e) = set {
        crate::note(format_args!("soak: RLIMIT_NOFILE: {e}"));
    }
}

/// A line to who started this process.
pub(super) fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|e| Failure::io("printing", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        Process::run(command).unwrap()
    }

    #[test]
    fn who_ended_by_itself_was_not_killed_and_is_heard_to_the_last_line() {
        let mut crashed = shell("echo 9 0 0 0 0 0 0 7 0 0; kill -SEGV $$");
        wait("its end", || crashed.has_ended()).unwrap();
        assert!(!crashed.end());
        assert!(!crashed.end(), "and stays so");
        assert_eq!(crashed.heard(|heard| heard.tally.duplicated), 7);
        let mut alive = shell("echo ready; read line");
        wait("its line", || alive.heard(|heard| heard.ready)).unwrap();
        assert!(alive.end());
    }
}
