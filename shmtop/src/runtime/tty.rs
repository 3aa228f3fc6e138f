//! The terminal's input, to wait for.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

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
            File::open("/dev/tty").map(Self::Device)
        }
    }

    /// What to poll for reading.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stdin(stdin) => stdin.as_fd(),
            Self::Device(file) => file.as_fd(),
        }
    }
}
