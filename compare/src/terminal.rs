//! A pseudo-terminal with a program on it, for programs that draw only for people; what they draw is read and thrown away.

use std::fs::File;
use std::io::{self, Error, Read};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a program may take to end when asked.
const GOODBYE: Duration = Duration::from_secs(2);

/// The program. Ended when dropped.
pub(crate) struct OnTerminal {
    child: Child,
}

impl OnTerminal {
    /// Starts it on a terminal of 160 columns and 50 lines.
    pub(crate) fn start(mut command: Command) -> io::Result<Self> {
        let size = libc::winsize {
            ws_row: 50,
            ws_col: 160,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let (mut ours, mut theirs) = (-1, -1);
        // SAFETY: both descriptors and the size are live; a null name and null settings are allowed.
        if unsafe {
            libc::openpty(
                &mut ours,
                &mut theirs,
                std::ptr::null_mut(),
                std::ptr::null(),
                &size,
            )
        } != 0
        {
            return Err(Error::last_os_error());
        }
        // SAFETY: just opened, owned by nobody else.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        command
            .env("TERM", "xterm-256color")
            .stdin(theirs.try_clone()?)
            .stdout(theirs.try_clone()?)
            .stderr(theirs);
        // SAFETY: only system calls that are allowed between fork and exec; descriptor 0 is the terminal by then.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(Error::last_os_error());
                }
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn()?;
        // The parent's copies of the program's side: else reading would not end with it.
        drop(command);
        std::thread::spawn(move || {
            let (mut from, mut buffer) = (File::from(ours), [0; 65536]);
            // EIO is how a terminal says that nobody is on it any more.
            while from.read(&mut buffer).is_ok_and(|n| n > 0) {}
        });
        Ok(Self { child })
    }

    /// Stops the program where it is, or lets it go on.
    pub(crate) fn hold(&mut self, held: bool) -> io::Result<()> {
        let signal = if held { libc::SIGSTOP } else { libc::SIGCONT };
        if let Some(status) = self.child.try_wait()? {
            return Err(Error::other(format!("it ended: {status}")));
        }
        // SAFETY: our own child, and it was not waited for: the number is still its.
        match unsafe { libc::kill(self.child.id() as libc::pid_t, signal) } {
            0 => Ok(()),
            _ => Err(Error::last_os_error()),
        }
    }

    /// CPU time of the program so far, in ns.
    pub(crate) fn cpu_ns(&mut self) -> io::Result<u64> {
        if let Some(status) = self.child.try_wait()? {
            return Err(Error::other(format!("it ended: {status}")));
        }
        let (mut clock, mut now) = (
            0,
            libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
        );
        // SAFETY: `clock` is live. The process exists: it is our child and was not waited for.
        match unsafe { libc::clock_getcpuclockid(self.child.id() as libc::pid_t, &mut clock) } {
            0 => {}
            errno => return Err(Error::from_raw_os_error(errno)),
        }
        // SAFETY: `now` is live.
        match unsafe { libc::clock_gettime(clock, &mut now) } {
            0 => Ok(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64),
            _ => Err(Error::last_os_error()),
        }
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let pid = self.child.id() as libc::pid_t;
        // SAFETY: our own child, not waited for yet, so the number is still its. Who is held hears nothing.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        // SAFETY: the same.
        unsafe { libc::kill(pid, libc::SIGCONT) };
        let end = Instant::now() + GOODBYE;
        while Instant::now() < end && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
