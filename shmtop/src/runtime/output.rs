//! The terminal as something to write to, without the lock of [`std::io::Stdout`].
//!
//! A thread that writes to a terminal which takes nothing sits in the system call for as long as that lasts, and with
//! `Stdout` it sits there with a lock that nobody else gets past: neither the thread that ends the process at a signal
//! nor a panic. [`Output`] has no lock, and [`last_words`] waits for the terminal a bounded time only.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest wait of [`last_words`]; a slow line gets what remains of a frame through in this time. It is for those who end the
/// process while its own way out may be stuck.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Standard output, unbuffered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stdout = io::stdout();
        loop {
            match nix::unistd::write(&stdout, bytes) {
                // Whoever shares the terminal may have made it non-blocking; that is no reason to leave.
                Err(Errno::EAGAIN) => wait_for_room(stdout.as_fd(), PollTimeout::NONE)?,
                other => return other.map_err(io::Error::from),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn wait_for_room(fd: BorrowedFd<'_>, timeout: PollTimeout) -> io::Result<()> {
    match poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], timeout) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Writes `bytes` if the terminal takes them in [`LAST_WORDS`], whatever other threads do meanwhile.
///
/// Standard output is non-blocking for that time: with a frame of ours stuck in the terminal a blocking write, and even
/// the wait for its turn to write, would never end.
///
/// # Errors
/// When the terminal is gone or took nothing in time.
pub(super) fn last_words(mut bytes: &[u8]) -> io::Result<()> {
    let stdout = io::stdout();
    let before = OFlag::from_bits_retain(fcntl(&stdout, FcntlArg::F_GETFL)?);
    let end = Instant::now() + LAST_WORDS;
    fcntl(&stdout, FcntlArg::F_SETFL(before | OFlag::O_NONBLOCK))?;
    let said = loop {
        match nix::unistd::write(&stdout, bytes) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = &bytes[n..];
                if bytes.is_empty() {
                    break Ok(());
                }
            }
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break Err(Errno::EAGAIN.into());
                }
                // Rounded up: never zero before the end.
                let ms = left.as_millis() as u16 + 1;
                if let Err(error) = wait_for_room(stdout.as_fd(), PollTimeout::from(ms)) {
                    break Err(error);
                }
            }
            Err(errno) => break Err(errno.into()),
        }
    };
    // The flag belongs to the terminal as the shell has it, too.
    fcntl(&stdout, FcntlArg::F_SETFL(before))?;
    said
}
