//! The terminal's input, to wait for.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Why there is no screen to draw on, if there is none: stdout is no terminal, or one that can't move its cursor.
#[must_use]
pub fn no_screen() -> Option<&'static str> {
    let dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    if !io::stdout().is_terminal() {
        Some("stdout is not a terminal")
    } else {
        dumb().then_some("the terminal is dumb (TERM)")
    }
}

/// Where keys come from: stdin, or the controlling terminal when stdin is something else. The same choice as
/// crossterm's, which reads it.
pub(super) enum Tty {
    Stdin(io::Stdin),
    Device(File),
}

impl Tty {
    /// Opens it.
    pub(super) fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            Ok(Self::Stdin(stdin))
        } else {
            let opened = File::open("/dev/tty").map(Self::Device);
            opened.map_err(|e| io::Error::new(e.kind(), format!("/dev/tty: {e}")))
        }
    }

    /// A key that crossterm forgot: it is told of input once, and forgets it if the window changed at the same moment. Without this,
    /// the key would wait for the next one, and the loop, which still sees input, would spin. Of sequences only the first byte counts:
    /// the rest comes as keys that mean nothing or little.
    pub(super) fn forgotten(&self) -> io::Result<Option<KeyEvent>> {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        let there = match poll(&mut fds, PollTimeout::ZERO) {
            Ok(n) => n > 0,
            Err(Errno::EINTR) => false,
            Err(errno) => return Err(errno.into()),
        };
        let readable = PollFlags::POLLIN;
        if !there || !fds[0].revents().is_some_and(|r| r.contains(readable)) {
            return Ok(None);
        }
        let mut byte = [0u8];
        if nix::unistd::read(self.fd(), &mut byte)? == 0 {
            return Ok(None);
        }
        let (code, held) = match byte[0] {
            b'\r' | b'\n' => (KeyCode::Enter, KeyModifiers::NONE),
            b'\t' => (KeyCode::Tab, KeyModifiers::NONE),
            0x1b => (KeyCode::Esc, KeyModifiers::NONE),
            0x7f => (KeyCode::Backspace, KeyModifiers::NONE),
            c @ 0x01..=0x1a => (
                KeyCode::Char(char::from(c - 1 + b'a')),
                KeyModifiers::CONTROL,
            ),
            c if c.is_ascii() => (KeyCode::Char(char::from(c)), KeyModifiers::NONE),
            _ => (KeyCode::Null, KeyModifiers::NONE),
        };
        Ok(Some(KeyEvent::new(code, held)))
    }

    /// What to poll for reading.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdin(stdin) => stdin.as_fd(),
            Self::Device(file) => file.as_fd(),
        }
    }
}
