//! Processes of the tests: this binary again, with a role in the environment, spoken with in lines.
//!
//! The child's lines begin with `@ `; whatever else it prints is for people. Every wait has a watchdog.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::skipped::skipped;

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
    /// What it was told last.
    told: String,
}

/// How a process is started.
pub(crate) struct Start(Command, String);

/// A process with this role.
pub(crate) fn start(role: &str) -> Start {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
    Start(command, role.to_owned()).with(ROLE, role)
}

/// The program that starts another one in a pid namespace of its own; says so and is `None` where none can be made.
pub(crate) fn in_a_pid_namespace() -> Option<[&'static str; 4]> {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let works = Command::new(unshare[0])
        .args(&unshare[1..])
        .arg("true")
        .output();
    if works.as_ref().is_ok_and(|o| o.status.success()) {
        return Some(unshare);
    }
    skipped(&format!("no pid namespace can be made here ({works:?})"));
    None
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
            told: String::new(),
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
        command.clone_into(&mut self.told);
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

    /// Waits for its end, and asserts that it is SIGKILL: that it came by the place where it was to be killed, which is `what`.
    /// If it does not, says what it and the `other` process are about: whether that is a hang, or a place hardly ever passed.
    pub(crate) fn is_killed(&mut self, what: &str, other: &Self) {
        let Some(status) = self.end() else {
            panic!(
                "{what}: the {} lives\n{}{}",
                self.role,
                self.about(),
                other.about()
            );
        };
        let killed = status.signal() == Some(libc::SIGKILL);
        assert!(killed, "{what}: {} {status:?}", self.role);
    }

    /// What it was told, what it has said that nobody heard, and where each of its threads is.
    fn about(&self) -> String {
        let said: Vec<String> = self.lines.try_iter().collect();
        let mut text = format!(
            "{} {}: told {:?}, said {said:?}\n",
            self.role,
            self.pid(),
            self.told
        );
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid()));
        for task in tasks.into_iter().flatten().flatten() {
            let read =
                |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let stat = read("stat");
            // After the name: state first, ticks of user and system time as the 12th and 13th.
            let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
            let fields: Vec<_> = rest.split(' ').collect();
            let field = |n: usize| fields.get(n).copied().unwrap_or("?");
            text += &format!(
                "  {} {}: {} in {}, ticks {} + {}, syscall {}, stack {:?}\n",
                task.file_name().display(),
                read("comm").trim_end(),
                field(0),
                read("wchan"),
                field(11),
                field(12),
                read("syscall").trim_end(),
                read("stack"),
            );
        }
        text
    }

    /// Waits for its end.
    pub(crate) fn ends(&mut self) -> ExitStatus {
        self.end()
            .unwrap_or_else(|| panic!("it lives\n{}", self.about()))
    }

    /// Its end, if it ends before the watchdog.
    fn end(&mut self) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < WATCHDOG {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        None
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
        "ledger" => crate::restarts::keep(),
        "binder" => crate::paths::bind_once(),
        "parent" => crate::orphans::leave_a_fork_behind(),
        "forker" => crate::forks::fork(),
        "first" => crate::nested::fork_the_first_process(),
        "viewer" => crate::viewers::view(),
        "signalled" => crate::signals::take(),
        other => panic!("no role {other}"),
    }
}
