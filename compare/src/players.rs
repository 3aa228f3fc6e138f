//! The processes of a run: started so that they end with this one, spoken to in lines, listened to with a limit, killed by number.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use crate::job::{Job, Plan, Said};

/// What comes from a process.
pub(crate) enum Heard {
    Said(Said),
    /// It ended; why, if it should not have.
    Ended(String),
}

/// A process and the lines it says. Killed when dropped.
pub(crate) struct Player {
    child: Child,
    orders: Option<ChildStdin>,
}

impl Player {
    /// Starts `exe` in a role; what it says goes to `heard` under its number.
    pub(crate) fn start(
        exe: &Path,
        role: &str,
        job: &Job,
        number: usize,
        heard: &Sender<(usize, Heard)>,
    ) -> io::Result<Self> {
        let mut command = Command::new(exe);
        command
            .args([role, &serde_json::to_string(job).map_err(io::Error::other)?])
            // Stats pages are announced here, and go with the run's directory.
            .env("SHMTOP_RUNTIME_DIR", &job.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: prctl is a bare system call, allowed between fork and exec.
        unsafe {
            command.pre_exec(|| {
                // If we die, so does it: also by SIGKILL, when no destructor runs.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn()?;
        let orders = child.stdin.take();
        if let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) {
            let heard = heard.clone();
            std::thread::spawn(move || listen(number, out, err, &heard));
        }
        Ok(Self { child, orders })
    }

    /// Tells it the plan.
    pub(crate) fn order(&mut self, plan: Plan) -> io::Result<()> {
        let mut line = serde_json::to_string(&plan).map_err(io::Error::other)?;
        line.push('\n');
        match &mut self.orders {
            Some(orders) => orders.write_all(line.as_bytes()),
            None => Err(io::Error::other("no way to tell it")),
        }
    }

    /// Lets it end by itself, if it does so soon.
    pub(crate) fn finish(&mut self, deadline: Instant) {
        self.orders = None;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // Both fail only if it has ended already, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Passes on what a process says until its end, and its standard error as the reason if it ended badly.
fn listen(
    number: usize,
    out: impl io::Read,
    mut err: impl io::Read,
    heard: &Sender<(usize, Heard)>,
) {
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        let said =
            serde_json::from_str(&line).unwrap_or_else(|_| Said::Failed(format!("said: {line}")));
        if heard.send((number, Heard::Said(said))).is_err() {
            return;
        }
    }
    let mut text = String::new();
    // Whatever was read until an error is what there is to say.
    let _ = err.read_to_string(&mut text);
    let last = text.trim().lines().last().unwrap_or("without a word");
    // Nobody listens any more once the run is over.
    let _ = heard.send((
        number,
        Heard::Ended(format!("process {number} ended: {last}")),
    ));
}

/// What is heard from the processes, with a limit.
pub(crate) struct Audience {
    pub(crate) heard: Receiver<(usize, Heard)>,
}

impl Audience {
    /// Waits until all numbers in `expected` have said something that `take` accepts.
    pub(crate) fn all(
        &self,
        mut expected: Vec<usize>,
        deadline: Instant,
        mut take: impl FnMut(Said) -> bool,
    ) -> io::Result<()> {
        while !expected.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.heard.recv_timeout(left) {
                Ok((_, Heard::Said(Said::Failed(why)))) => return Err(io::Error::other(why)),
                Ok((number, Heard::Said(said))) => {
                    if take(said) {
                        expected.retain(|&n| n != number);
                    }
                }
                Ok((number, Heard::Ended(why))) => {
                    if expected.contains(&number) {
                        return Err(io::Error::other(why));
                    }
                }
                Err(_) => {
                    return Err(io::Error::other(format!(
                        "{} process(es) hung, and were killed",
                        expected.len()
                    )));
                }
            }
        }
        Ok(())
    }
}
