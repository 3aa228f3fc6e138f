//! Processes of the tests: this binary again, with a role in the environment, spoken with in lines.
//!
//! The child's lines begin with `@ `; whatever else it prints is for people. Every wait has a watchdog.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Ends a hang; nothing healthy comes near it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);
const ROLE: &str = "THREATS_ROLE";
const TEST: &str = "role::a_process_does_what_its_role_says";

/// A child process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    role: String,
}

/// How a process is started.
pub(crate) struct Start(Command, String);

/// A process with this role.
pub(crate) fn start(role: &str) -> Start {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
    Start(command, role.to_owned()).with(ROLE, role)
}

/// A process with this role, started by another program, such as `unshare`.
pub(crate) fn start_by(program: &[&str], role: &str) -> Start {
    let mut command = Command::new(program[0]);
    command
        .args(&program[1..])
        .arg(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
    Start(command, role.to_owned()).with(ROLE, role)
}

impl Start {
    /// Sets a parameter of the role: [`parameter`] in the child.
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    /// The command itself.
    pub(crate) fn command(&mut self) -> &mut Command {
        &mut self.0
    }

    /// Starts it.
    pub(crate) fn go(mut self) -> Process {
        let mut child = self
            .0
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let stdout = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test harness may have begun the line.
                if let Some((_, said)) = line.split_once("@ ")
                    && sender.send(said.to_owned()).is_err()
                {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        Process {
            child,
            stdin,
            lines,
            role: self.1,
        }
    }
}

impl Process {
    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives it a command. It may be dead already: what it says, or its end, tells.
    pub(crate) fn tell(&mut self, command: &str) {
        let _ = writeln!(self.stdin.as_mut().expect("open"), "{command}");
    }

    /// Its next line, which begins with `word`; returns the rest.
    pub(crate) fn hear(&mut self, word: &str) -> String {
        let line = self.line();
        match line.strip_prefix(word) {
            Some(rest) => rest.trim_start().to_owned(),
            None => panic!("{} said {line:?} instead of {word:?}", self.role),
        }
    }

    /// Its next line.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(WATCHDOG) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} says nothing", self.role),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("{} has ended: {:?}", self.role, self.child.wait())
            }
        }
    }

    /// Tells and hears.
    pub(crate) fn ask(&mut self, command: &str, word: &str) -> String {
        self.tell(command);
        self.hear(word)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("our child");
    }

    /// Waits for its end, and asserts that it is SIGKILL: that it came by the place where it was to be killed.
    pub(crate) fn is_killed(&mut self) {
        let status = self.ends();
        assert_eq!(
            status.signal(),
            Some(libc::SIGKILL),
            "{}: {status:?}",
            self.role
        );
    }

    /// Waits for its end.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(begun.elapsed() < WATCHDOG, "{} lives", self.role);
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Kills it and waits for its end.
    pub(crate) fn kill(&mut self) {
        // Fails if it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Lets it end in good order: its standard input ends.
    pub(crate) fn finish(mut self) {
        self.stdin = None;
        let status = self.child.wait().expect("our child");
        assert!(status.success(), "{}: {status:?}", self.role);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child: says a line.
pub(crate) fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: then there is nothing to do any more either.
    if writeln!(out, "\n@ {line}")
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

/// In the child: the next command; the process ends when there are no more.
pub(crate) fn command() -> Option<String> {
    std::io::stdin().lock().lines().next()?.ok()
}

/// In the child: a parameter.
pub(crate) fn parameter(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// In the child: a parameter that must be there.
pub(crate) fn required(name: &str) -> String {
    parameter(name).unwrap_or_else(|| panic!("{name} is not set"))
}

#[test]
fn a_process_does_what_its_role_says() {
    // Without a role this is an ordinary run of all tests.
    let Some(role) = parameter(ROLE) else { return };
    match role.as_str() {
        "server" => crate::world::serve(),
        "client" => crate::world::call(),
        "binder" => crate::paths::bind_once(),
        "parent" => crate::strangers::leave_a_fork_behind(),
        "forker" => crate::strangers::fork(),
        "viewer" => crate::strangers::view(),
        other => panic!("no role {other}"),
    }
}
