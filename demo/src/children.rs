//! Child processes that never outlive us: other roles of the program that is running now.
//!
//! Three ropes, each enough alone: dropping a [`Child`] ends and reaps it; the pipe on its stdin closes when this
//! process is gone, however it went; and the kernel signals it then (see [`crate::signals::tie_to`]).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::failure::Failure;

/// Lines of a child's stderr that are kept.
const KEPT_LINES: usize = 20;
/// How long a child may take to end before it is killed. Longer than an idle transport needs, by far.
const GRACE: Duration = Duration::from_secs(1);

/// A running child.
pub(crate) struct Child {
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    words: Words,
    status: Option<ExitStatus>,
    /// It took longer than the grace to end.
    killed: bool,
}

/// What a child writes to stderr.
#[derive(Default)]
pub(crate) struct Words {
    said: Arc<Mutex<VecDeque<String>>>,
    listener: Option<JoinHandle<()>>,
}

impl Words {
    /// The last lines of a child that has ended or is about to: all of them, if it ends within the grace.
    pub(crate) fn last(&mut self) -> String {
        let deadline = Instant::now() + GRACE;
        while self.listener.as_ref().is_some_and(|l| !l.is_finished()) && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.so_far()
    }

    fn so_far(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.iter().cloned().collect::<Vec<_>>().join("\n")
    }
}

impl Child {
    /// Starts this executable again with these arguments, and what ties it to us between them: behind those of a user may be nothing but
    /// operands. `stdout` is piped or dropped; stderr is kept for [`Self::said`].
    pub(crate) fn start(
        ours: &[OsString],
        args: &[OsString],
        stdout: Stdio,
    ) -> Result<Self, Failure> {
        let me = std::env::current_exe().map_err(|e| Failure::io("finding this program", &e))?;
        let mut process = Command::new(me)
            .args(ours)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            // Ctrl-C is for us: what follows from it for a child comes in good order.
            .process_group(0)
            .spawn()
            .map_err(|e| Failure::io("starting a process", &e))?;
        let stdin = process.stdin.take();
        let stderr = process.stderr.take();
        let mut child = Self {
            process,
            stdin,
            words: Words::default(),
            status: None,
            killed: false,
        };
        if let Some(stderr) = stderr {
            let said = Arc::clone(&child.words.said);
            let listener = std::thread::Builder::new()
                .name("stderr".to_owned())
                .spawn(move || keep_tail(stderr, &said))
                .map_err(|e| Failure::io("starting a thread", &e))?;
            child.words.listener = Some(listener);
        }
        Ok(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The pipe from its stdout, once.
    pub(crate) fn take_stdout(&mut self) -> Option<BufReader<ChildStdout>> {
        self.process.stdout.take().map(BufReader::new)
    }

    /// Sends it a line. A child that is gone shows in its exit status, not here.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            _ = writeln!(stdin, "{line}");
        }
    }

    /// Asks it to end.
    pub(crate) fn end(&mut self) {
        self.stdin = None;
        self.signal(Signal::SIGTERM);
        // A stopped process would not see it.
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            // Not reaped yet, so the pid is still its own; ESRCH can't be.
            _ = kill(Pid::from_raw(self.process.id() as i32), signal);
        }
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.process.try_wait().ok().flatten();
        }
        self.status
    }

    /// Its exit status, if it has ended otherwise than we end it: by a signal that is not ours, or with an exit code that tells of a fault.
    pub(crate) fn failed(&mut self) -> Option<ExitStatus> {
        let killed = self.killed;
        self.ended().filter(|&status| is_fault(status, killed))
    }

    /// The last lines it wrote to stderr; all of them, if it has ended.
    pub(crate) fn said(&mut self) -> String {
        if self.ended().is_some()
            && let Some(listener) = self.words.listener.take()
        {
            // Its pipe has ended with it: no child of its own has it. A panic there has lost lines, no more.
            _ = listener.join();
        }
        self.words.so_far()
    }

    /// What it writes to stderr, for who hears of its end first; [`Self::said`] says nothing then.
    pub(crate) fn take_words(&mut self) -> Words {
        std::mem::take(&mut self.words)
    }

    /// Waits for it to end after [`Self::end`], and kills it if it does not within the grace.
    pub(crate) fn reap(&mut self) {
        self.reap_by(Instant::now() + GRACE);
    }

    fn reap_by(&mut self, deadline: Instant) {
        while self.ended().is_none() {
            if Instant::now() >= deadline {
                // Only an error if it has ended meanwhile, which the wait then sees.
                _ = self.process.kill();
                self.killed = true;
                self.status = self.process.wait().ok();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
        self.reap();
    }
}

/// Ends all. They have one grace together: who waited for its turn would have been cut off by itself meanwhile.
pub(crate) fn end_all(children: &mut [Child]) {
    children.iter_mut().for_each(Child::end);
    let deadline = Instant::now() + GRACE;
    for child in children {
        child.reap_by(deadline);
    }
}

/// SIGTERM is what we ask with: one that did not listen yet ends by it, and with this exit code one that was asked a second time, by others,
/// or that took so long that it was cut off ([`crate::signals`]) before we got to kill it.
fn is_fault(status: ExitStatus, killed: bool) -> bool {
    const ASKED: i32 = Signal::SIGTERM as i32;
    const KILLED: i32 = Signal::SIGKILL as i32;
    match (status.code(), status.signal()) {
        (Some(code), _) => code != 0 && code != 128 + ASKED,
        (None, Some(ASKED)) => false,
        (None, Some(KILLED)) => !killed,
        (None, _) => true,
    }
}

/// Reads to the end and keeps the last lines; a line longer than 4 KiB is cut there.
fn keep_tail(stderr: impl Read, said: &Mutex<VecDeque<String>>) {
    let mut lines = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        match lines.by_ref().take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.len() == KEPT_LINES {
                    said.pop_front();
                }
                said.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_send_is_no_fault_and_what_others_send_is() {
        let by = |signal: Signal| ExitStatus::from_raw(signal as i32);
        let with = |code: i32| ExitStatus::from_raw(code << 8);
        for (status, killed, fault) in [
            (with(0), false, false),
            (with(1), false, true),
            (with(6), false, true),
            (with(143), false, false),
            (by(Signal::SIGTERM), false, false),
            (by(Signal::SIGKILL), true, false),
            (by(Signal::SIGKILL), false, true),
            (by(Signal::SIGSEGV), false, true),
            (by(Signal::SIGABRT), true, true),
        ] {
            assert_eq!(is_fault(status, killed), fault, "{status}, {killed}");
        }
    }
}
