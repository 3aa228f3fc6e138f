//! The dashboard on a real terminal: it appears, it obeys, and whatever ends it gives the terminal back as it was.
//!
//! Each test opens a pseudo terminal, starts the real binary on it as a login would, and compares the modes before and
//! after. Nothing sleeps: output is waited for, a watchdog ends a hang.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

/// Ends a hang; far above what anything here takes.
const WATCHDOG: Duration = Duration::from_secs(60);

const ENTER_SCREEN: &str = "\x1b[?1049h";
const LEAVE_SCREEN: &str = "\x1b[?1049l";
const SHOW_CURSOR: &str = "\x1b[?25h";
const MOUSE_OFF: &str = "\x1b[?1000l";

struct Terminal {
    master: Option<File>,
    slave: OwnedFd,
    before: Termios,
    child: Child,
    output: Receiver<Vec<u8>>,
    seen: String,
    screen: vt100::Parser,
    _runtime_dir: tempfile::TempDir,
}

impl Terminal {
    /// Starts `command` with the slave as its controlling terminal.
    fn start(mut command: Command) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 100,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        for end in [&pty.master, &pty.slave] {
            // A child with a handle of its own would keep the terminal alive.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let before = tcgetattr(&pty.slave).unwrap();
        let runtime_dir = tempfile::tempdir().unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        command
            .env("SHMTOP_RUNTIME_DIR", runtime_dir.path())
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end());
        // SAFETY: between fork and exec only setsid and ioctl are called, both async-signal-safe; fd 0 is the slave,
        // put there by Command before this runs.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                if libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // The command keeps copies of the slave that would keep the terminal alive.
        drop(command);
        let master = File::from(pty.master);
        let mut reader = master.try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            master: Some(master),
            slave: pty.slave,
            before,
            child,
            output,
            seen: String::new(),
            screen: vt100::Parser::new(24, 100, 0),
            _runtime_dir: runtime_dir,
        }
    }

    fn dashboard() -> Self {
        let mut terminal = Self::start(Command::new(env!("CARGO_BIN_EXE_shmtop")));
        terminal.wait_to_see("1 overview");
        terminal
    }

    /// Reads until these bytes were printed, and forgets what came before their end.
    fn wait_for(&mut self, text: &str) {
        let end = Instant::now() + WATCHDOG;
        loop {
            if let Some(i) = self.seen.find(text) {
                self.seen.drain(..i + text.len());
                return;
            }
            self.read_until(end, text);
        }
    }

    /// Reads until the text stands on the screen.
    fn wait_to_see(&mut self, text: &str) {
        let end = Instant::now() + WATCHDOG;
        while !self.screen.screen().contents().contains(text) {
            self.read_until(end, text);
        }
    }

    fn read_until(&mut self, end: Instant, wanted: &str) {
        match self
            .output
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            Ok(bytes) => {
                self.screen.process(&bytes);
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
            Err(RecvTimeoutError::Timeout) => panic!("no {wanted:?} in {:?}", self.tail()),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("ended without {wanted:?} in {:?}", self.tail())
            }
        }
    }

    /// The last of what was printed, for a failure's message.
    fn tail(&self) -> String {
        let chars = self.seen.chars();
        let skip = chars.clone().count().saturating_sub(600);
        chars.skip(skip).collect()
    }

    fn type_keys(&mut self, keys: &str) {
        self.master
            .as_mut()
            .unwrap()
            .write_all(keys.as_bytes())
            .unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for the end of the process.
    fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + WATCHDOG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > end {
                self.child.kill().unwrap();
                panic!("still running; printed {:?}", self.tail());
            }
            std::thread::yield_now();
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ICANON)
    }

    /// Modes, screen, cursor and mouse are as they were.
    fn assert_restored(&mut self) {
        self.wait_for(LEAVE_SCREEN);
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.input_flags, self.before.input_flags);
        assert_eq!(after.output_flags, self.before.output_flags);
        assert_eq!(after.control_flags, self.before.control_flags);
        assert_eq!(after.local_flags, self.before.local_flags);
        assert_eq!(after.control_chars, self.before.control_chars);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails when the test has seen it end, which is the rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn q_leaves_and_the_terminal_is_as_it_was() {
    let mut terminal = Terminal::dashboard();
    assert!(terminal.is_raw());
    terminal.type_keys("q");
    terminal.wait_for(MOUSE_OFF);
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
    terminal.wait_for(SHOW_CURSOR);
}

#[test]
fn ctrl_c_leaves_too_and_escape_does_not() {
    let mut terminal = Terminal::dashboard();
    terminal.type_keys("3");
    terminal.wait_to_see("This machine");
    // Alone, and answered before the next key: Escape and a letter in one go are Alt and the letter.
    terminal.type_keys("\x1b");
    while terminal.screen.screen().contents().contains("This machine") {
        terminal.read_until(Instant::now() + WATCHDOG, "another view");
    }
    terminal.type_keys("?");
    terminal.wait_to_see("never quits");
    terminal.type_keys("\x03");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn a_signal_that_ends_it_gives_the_terminal_back_first() {
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        let mut terminal = Terminal::dashboard();
        terminal.signal(signal);
        let status = terminal.wait();
        let number = signal as i32;
        assert!(
            status.code() == Some(128 + number) || status.signal() == Some(number),
            "{signal}: {status}"
        );
        terminal.assert_restored();
    }
}

#[test]
fn a_terminal_that_goes_away_ends_it() {
    let mut terminal = Terminal::dashboard();
    // The reader has the only other handle; it leaves with the next output, and the terminal with it.
    drop(std::mem::replace(&mut terminal.output, channel().1));
    terminal.master = None;
    let status = terminal.wait();
    assert!(
        matches!(status.code(), Some(129)) || status.signal() == Some(Signal::SIGHUP as i32),
        "{status}"
    );
}

#[test]
fn the_screen_follows_the_window() {
    let mut terminal = Terminal::dashboard();
    let size = libc::winsize {
        ws_row: 50,
        ws_col: 150,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let fd = terminal.master.as_ref().unwrap().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads one winsize through the pointer, which is to a live local; the fd is open.
    let set = unsafe { libc::ioctl(fd, libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(set, 0);
    // The last line is now the fiftieth.
    terminal.screen.screen_mut().set_size(50, 150);
    let bottom = |t: &Terminal| t.screen.screen().rows(0, 150).nth(49).unwrap_or_default();
    while !bottom(&terminal).contains("1 overview") {
        terminal.read_until(Instant::now() + WATCHDOG, "the views in the fiftieth line");
    }
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

#[test]
fn ctrl_z_gives_the_terminal_back_until_it_is_continued() {
    // A shell in between: job control needs a parent in the session. The second command keeps it from exec.
    let mut command = Command::new("/bin/sh");
    let script = format!("{}; exit $?", env!("CARGO_BIN_EXE_shmtop"));
    command.args(["-c", &script]);
    let mut terminal = Terminal::start(command);
    terminal.wait_to_see("1 overview");
    terminal.wait_for(ENTER_SCREEN);
    let dashboard = child_of(terminal.child.id());
    terminal.type_keys("\x1a");
    terminal.assert_restored();
    let end = Instant::now() + WATCHDOG;
    while state_of(dashboard) != 'T' {
        assert!(Instant::now() < end, "it did not stop");
        std::thread::yield_now();
    }
    assert!(!terminal.is_raw());
    kill(Pid::from_raw(dashboard as i32), Signal::SIGCONT).unwrap();
    terminal.wait_for(ENTER_SCREEN);
    terminal.wait_for("overview");
    terminal.wait_to_see("1 overview");
    assert!(terminal.is_raw());
    terminal.type_keys("q");
    assert_eq!(terminal.wait().code(), Some(0));
    terminal.assert_restored();
}

fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

fn state_of(pid: u32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit(')').next().unwrap();
    after.trim_start().chars().next().unwrap()
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "panics on purpose, on the terminal that the next test gives it"]
fn a_dashboard_that_panics() {
    let _screen = shmtop::ui::terminal::Screen::enter().unwrap();
    panic!("the reason of the panic");
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_reported() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--ignored",
        "--exact",
        "a_dashboard_that_panics",
        "--nocapture",
    ]);
    let mut terminal = Terminal::start(command);
    terminal.wait_for(ENTER_SCREEN);
    terminal.assert_restored();
    terminal.wait_for("the reason of the panic");
    assert!(!terminal.wait().success());
}
