//! A pseudo terminal with a program on it, and an emulator that shows what it printed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;

/// Ends a hang; far above what anything here takes.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(60);

pub(crate) const ENTER_SCREEN: &str = "\x1b[?1049h";
pub(crate) const LEAVE_SCREEN: &str = "\x1b[?1049l";
pub(crate) const SHOW_CURSOR: &str = "\x1b[?25h";
pub(crate) const MOUSE_OFF: &str = "\x1b[?1000l";

/// What ends each frame: the end of a synchronised update.
const END_FRAME: &str = "\x1b[?2026l";

pub(crate) struct Terminal {
    pub(crate) master: Option<File>,
    pub(crate) slave: OwnedFd,
    before: Termios,
    pub(crate) child: Child,
    pub(crate) output: Receiver<Vec<u8>>,
    /// While this is locked nobody reads what is printed.
    pub(crate) reading: Arc<Mutex<()>>,
    seen: String,
    pub(crate) screen: vt100::Parser,
    _runtime_dir: tempfile::TempDir,
}

impl Terminal {
    /// Starts `command` on a terminal of 100 by 24.
    pub(crate) fn start(command: Command) -> Self {
        Self::sized(command, 100, 24)
    }

    /// Starts `command` with the slave as its controlling terminal.
    pub(crate) fn sized(command: Command, columns: u16, rows: u16) -> Self {
        Self::among(tempfile::tempdir().unwrap(), command, columns, rows)
    }

    /// The same among the pages that are announced in `runtime_dir`.
    pub(crate) fn among(
        runtime_dir: tempfile::TempDir,
        mut command: Command,
        columns: u16,
        rows: u16,
    ) -> Self {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(&size, None).unwrap();
        for end in [&pty.master, &pty.slave] {
            // A child with a handle of its own would keep the terminal alive.
            fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
        }
        let before = tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        // No configuration, language, time or wishes of who runs the tests.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", runtime_dir.path())
            .env("SHMTOP_RUNTIME_DIR", runtime_dir.path())
            .env("TERM", "xterm-256color")
            .env("TZ", "UTC")
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
        let reading = Arc::new(Mutex::new(()));
        let may_read = Arc::clone(&reading);
        std::thread::spawn(move || {
            let mut buffer = [0u8; 4096];
            while let Ok(n @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
                drop(may_read.lock());
            }
        });
        Self {
            master: Some(master),
            slave: pty.slave,
            before,
            child,
            output,
            reading,
            seen: String::new(),
            screen: vt100::Parser::new(rows, columns, 0),
            _runtime_dir: runtime_dir,
        }
    }

    pub(crate) fn dashboard() -> Self {
        let mut terminal = Self::start(Command::new(env!("CARGO_BIN_EXE_shmtop")));
        terminal.wait_to_see("1 overview");
        terminal
    }

    /// Reads until these bytes were printed, and forgets what came before their end.
    pub(crate) fn wait_for(&mut self, text: &str) {
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
    pub(crate) fn wait_to_see(&mut self, text: &str) {
        let end = Instant::now() + WATCHDOG;
        while !self.screen.screen().contents().contains(text) {
            self.read_until(end, text);
        }
    }

    /// Reads until the screen says that there is nobody: what else uses the transport on this machine decides how.
    pub(crate) fn wait_to_see_nobody(&mut self) {
        const SAID: [&str; 2] = ["Nothing is running", "is not there."];
        let end = Instant::now() + WATCHDOG;
        while !SAID
            .iter()
            .any(|said| self.screen.screen().contents().contains(said))
        {
            self.read_until(end, SAID[0]);
        }
    }

    /// Reads until the text stands on the screen and the frame that it belongs to is complete.
    pub(crate) fn wait_to_see_all(&mut self, text: &str) {
        let end = Instant::now() + WATCHDOG;
        while !self.screen.screen().contents().contains(text) || !self.seen.ends_with(END_FRAME) {
            self.read_until(end, text);
        }
    }

    pub(crate) fn read_until(&mut self, end: Instant, wanted: &str) {
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
    pub(crate) fn tail(&self) -> String {
        let chars = self.seen.chars();
        let skip = chars.clone().count().saturating_sub(600);
        chars.skip(skip).collect()
    }

    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.master
            .as_mut()
            .unwrap()
            .write_all(keys.as_bytes())
            .unwrap();
    }

    /// Makes the window another size, as a window manager would.
    pub(crate) fn resize(&mut self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: TIOCSWINSZ reads a winsize, which `size` is, and keeps no pointer to it.
        let done =
            unsafe { libc::ioctl(self.slave.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        assert_eq!(done, 0);
        self.screen.screen_mut().set_size(rows, columns);
    }

    /// Bytes typed that the program has not read yet.
    pub(crate) fn unread(&self) -> i32 {
        let mut bytes: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int through the pointer, which is to a live local; the fd is open.
        let asked = unsafe { libc::ioctl(self.slave.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
        assert_eq!(asked, 0);
        bytes
    }

    /// Fills the terminal with bytes that print nothing, while nobody reads, until it takes no more.
    pub(crate) fn fill(&self) {
        // Another open file, whose flags are nobody else's.
        let other = File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(format!("/proc/self/fd/{}", self.slave.as_raw_fd()))
            .unwrap();
        loop {
            while nix::unistd::write(&other, &[0; 1024]).is_ok() {}
            // Its far end makes some room once more, a moment later.
            let mut fds = [PollFd::new(other.as_fd(), PollFlags::POLLOUT)];
            if poll(&mut fds, 100u16).unwrap() == 0 {
                return;
            }
        }
    }

    /// Whether the main thread of `pid` sleeps in a write to the terminal.
    pub(crate) fn is_written_by(pid: u32) -> bool {
        // None of one that has ended.
        let syscall = std::fs::read_to_string(format!("/proc/{pid}/syscall"));
        syscall.is_ok_and(|s| s.starts_with(&format!("{} 0x1 ", libc::SYS_write)))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
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

    pub(crate) fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave)
            .unwrap()
            .local_flags
            .contains(LocalFlags::ICANON)
    }

    /// Modes, screen, cursor and mouse are as they were.
    pub(crate) fn assert_restored(&mut self) {
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
