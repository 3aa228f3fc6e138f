//! Clients as processes, each of one connection: what shared memory is for, and what the kernel schedules like
//! real clients.
//!
//! ```text
//!  coordinator ── stdin "go" ──▶ worker        end of stdin: the coordinator is gone
//!       ▲── stdout: one Event as JSON a line ──┘
//! ```
//! A worker is the trader itself with its parent's command line and `--worker I`.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::threads::Threads;
use super::{Crew, Event, Plan};
use crate::children::{Child, Words, end_all};
use crate::cpu;
use crate::failure::{FAULT, Failure};
use crate::signals;

/// How often a worker says how far it is. The coordinator adds up what it heard last.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Worker processes.
pub(crate) struct Processes {
    children: Vec<Child>,
    progress: Arc<Vec<AtomicU64>>,
}

impl Processes {
    /// Starts a worker for each client with the command line `args`.
    pub(crate) fn start(
        plan: &Plan,
        args: &[OsString],
        events: &Sender<(usize, Event)>,
    ) -> Result<Self, Failure> {
        let mut crew = Self {
            children: Vec::new(),
            progress: Arc::new((0..plan.clients).map(|_| AtomicU64::new(0)).collect()),
        };
        for client in 0..plan.clients {
            let worker = ["--worker".into(), client.to_string().into()];
            let mut child = Child::start(&worker, args, Stdio::piped())?;
            let Some(stdout) = child.take_stdout() else {
                return Err(Failure::new(FAULT, "a worker process has no stdout"));
            };
            let (pid, words) = (child.pid(), child.take_words());
            crew.children.push(child);
            let (events, progress) = (events.clone(), Arc::clone(&crew.progress));
            signals::start("worker", move || {
                listen(stdout, client, pid, words, &events, &progress);
            })?;
        }
        Ok(crew)
    }
}

/// Passes a worker's events on; one that ends without an account has died.
fn listen(
    stdout: impl BufRead,
    client: usize,
    pid: u32,
    mut words: Words,
    events: &Sender<(usize, Event)>,
    progress: &[AtomicU64],
) {
    let tell = |event| _ = events.send((client, event));
    for line in stdout.lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Event::Progress(requests)) => progress[client].store(requests, Ordering::Relaxed),
            Ok(event @ (Event::Finished(_) | Event::Died(..))) => {
                if let Event::Finished(account) = &event {
                    progress[client].store(account.requests, Ordering::Relaxed);
                }
                return tell(event);
            }
            Ok(event) => tell(event),
            Err(e) => {
                let sentence = format!("worker process {pid} wrote nonsense: {e}");
                return tell(Event::Died(1, Failure::new(FAULT, sentence)));
            }
        }
    }
    let said = match words.last() {
        nothing if nothing.is_empty() => nothing,
        said => format!("; its last words: {said}"),
    };
    let sentence = format!("worker process {pid} died{said}");
    tell(Event::Died(1, Failure::new(FAULT, sentence)));
}

impl Crew for Processes {
    fn go(&mut self, _: Instant) {
        for child in &mut self.children {
            child.tell("go");
        }
    }

    fn stop(&mut self) {
        for child in &mut self.children {
            child.tell("stop");
        }
    }

    fn requests(&self) -> u64 {
        self.progress
            .iter()
            .map(|p| p.load(Ordering::Relaxed))
            .sum()
    }

    fn join(mut self: Box<Self>) {
        end_all(&mut self.children);
    }
}

/// The worker's side: runs client number `client` of the plan and reports to stdout. Always ends well: what went
/// wrong is in the report.
pub(crate) fn work(
    plan: &Arc<Plan>,
    client: usize,
    parent: i32,
    events: Sender<(usize, Event)>,
    inbox: &Receiver<(usize, Event)>,
) -> Result<(), Failure> {
    let before = cpu::seconds()?;
    let crew = Arc::new(Mutex::new(Threads::start(
        plan,
        client..client + 1,
        &events,
    )?));
    let orders = Arc::clone(&crew);
    signals::tie_to(
        parent,
        move |line| {
            let mut crew = orders.lock().unwrap_or_else(PoisonError::into_inner);
            match line {
                "go" => crew.go(Instant::now()),
                _ => crew.stop(),
            }
        },
        move || _ = events.send((client, Event::Stop)),
    )?;
    loop {
        let mut event = match inbox.recv_timeout(PROGRESS_EVERY) {
            Ok((_, Event::Stop)) => {
                crew.lock().unwrap_or_else(PoisonError::into_inner).stop();
                continue;
            }
            Ok((_, event)) => event,
            Err(RecvTimeoutError::Timeout) => {
                let crew = crew.lock().unwrap_or_else(PoisonError::into_inner);
                Event::Progress(crew.requests())
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        if let Event::Finished(account) = &mut event {
            account.cpu_seconds = cpu::seconds()? - before;
        }
        let last = matches!(event, Event::Finished(_) | Event::Died(..));
        let line = serde_json::to_string(&event)
            .map_err(|e| Failure::new(FAULT, format!("writing an event: {e}")))?;
        let mut stdout = std::io::stdout().lock();
        if writeln!(stdout, "{line}")
            .and_then(|()| stdout.flush())
            .is_err()
        {
            // The coordinator has gone: nobody to report to, and nothing to go on for.
            crew.lock().unwrap_or_else(PoisonError::into_inner).stop();
        }
        if last {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_ends_before_its_time_is_told_with_its_last_words() {
        // The test program refuses it.
        let args = ["--no-such-option".into()];
        let mut child = Child::start(&[], &args, Stdio::piped()).unwrap();
        let (stdout, words) = (child.take_stdout().unwrap(), child.take_words());
        let (events, event) = std::sync::mpsc::channel();
        listen(stdout, 3, 77, words, &events, &[]);
        let (3, Event::Died(1, failure)) = event.recv().unwrap() else {
            panic!("another event than the fourth client's death");
        };
        let sentence = failure.sentence;
        assert!(
            sentence.starts_with("worker process 77 died; its last words: "),
            "{sentence}"
        );
        assert!(
            sentence.contains("parent"),
            "the first that it does not know: {sentence}"
        );
    }
}
