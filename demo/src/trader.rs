//! The trader: starts the clients, prints a line each second and a summary at the end.
//!
//! Run by `bin/trader`, by itself as a worker of `--processes`, and by the demo. What clients do is `crate::load`'s.

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::cpu;
use crate::failure::{FAULT, Failure, PEER_DIED};
use crate::load::processes::{self, Processes};
use crate::load::threads::Threads;
use crate::load::{Account, Crew, Event, Plan};
use crate::options::parse;
use crate::report::{Summary, Ways, banner, second};
use crate::signals;

mod losses;
mod options;

use losses::Losses;
use options::Options;

/// Runs the trader with a command line (its first word is the program's name).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    crate::exit("trader", run(&args))
}

/// Whether a trader could be started with this command line.
pub(crate) fn check(args: &[OsString]) -> Result<(), Failure> {
    let options = parse::<Options>(args)?;
    options.map_or(Ok(()), |options| options.plan().map(drop))
}

fn run(args: &[OsString]) -> Result<u8, Failure> {
    let Some(options) = parse::<Options>(args)? else {
        return Ok(0);
    };
    let plan = Arc::new(options.plan()?);
    let (events, inbox) = channel();
    let on_signal = events.clone();
    // A send fails only once the receiver, and with it the run, has gone.
    signals::on_signal(move || _ = on_signal.send((0, Event::Stop)))?;
    if matches!(plan.pace, crate::load::Pace::Open { .. }) {
        // Threads inherit it. Only here: a closed loop should see the sleeps its users would.
        nix::sys::prctl::set_timerslack(1)
            .map_err(|e| Failure::io("PR_SET_TIMERSLACK", &e.into()))?;
    }
    if let (Some(client), Some(parent)) = (options.worker, options.common.parent) {
        return processes::work(&plan, client, parent, events, &inbox).map(|()| 0);
    }
    if let Some(parent) = options.common.parent {
        let events = events.clone();
        let end = move || _ = events.send((0, Event::Stop));
        signals::tie_to(parent, |_| (), end)?;
    }
    let crew: Box<dyn Crew> = if options.processes {
        Box::new(Processes::start(
            &plan,
            args.get(1..).unwrap_or_default(),
            &events,
        )?)
    } else {
        Box::new(Threads::start(&plan, 0..plan.clients, &events)?)
    };
    Run {
        plan: &plan,
        json: options.json,
        inbox,
        crew,
        ways: Ways::default(),
        accounts: Vec::new(),
        missing: 0,
        failure: None,
        losses: Losses::new(plan.reconnect),
        started: false,
        stopped: false,
    }
    .whole(options.duration(&plan))
}

/// A run from the first connection to the summary.
struct Run<'a> {
    plan: &'a Plan,
    json: bool,
    inbox: Receiver<(usize, Event)>,
    crew: Box<dyn Crew>,
    ways: Ways,
    accounts: Vec<Account>,
    /// Clients that ended without an account.
    missing: usize,
    /// The first thing that went so wrong that it decides the exit code.
    failure: Option<Failure>,
    losses: Losses,
    /// Clients have been told to go.
    started: bool,
    stopped: bool,
}

impl Run<'_> {
    fn whole(mut self, duration: Option<Duration>) -> Result<u8, Failure> {
        let ready = |run: &Self| run.ways.0.len();
        while ready(&self) + self.missing < self.plan.clients && !self.stopped {
            self.take(None)?;
        }
        if ready(&self) == 0
            && !self.stopped
            && let Some(failure) = self.failure.take()
        {
            self.crew.stop();
            self.crew.join();
            return Err(failure);
        }
        if let Some(failure) = &mut self.failure {
            // The others run; at the end this decides the exit code.
            let (missing, clients) = (self.missing, self.plan.clients);
            failure.sentence = format!(
                "{missing} of {clients} clients could not connect: {}",
                failure.sentence
            );
            crate::note(format_args!(
                "trader: {}; the others go on",
                failure.sentence
            ));
        }
        for line in banner(&self.ways, self.plan.clients) {
            self.say(&line)?;
        }
        let (start, cpu_before) = (Instant::now(), cpu::seconds()?);
        self.crew.go(start);
        self.started = true;
        self.watch(start, duration)?;
        let seconds = start.elapsed().as_secs_f64();
        let cpu_seconds = cpu::seconds()? - cpu_before;
        self.crew.join();
        let summary = Summary::new(self.plan, &self.ways, &self.accounts, seconds, cpu_seconds);
        let text = if self.json {
            let json = serde_json::to_string(&summary)
                .map_err(|e| Failure::new(FAULT, format!("writing JSON: {e}")))?;
            format!("{json}\n")
        } else {
            summary.text(self.plan)
        };
        // Whether somebody still reads or not, the verdict is the same.
        let _ = crate::print(&mut std::io::stdout(), &text)?;
        verdict(&self.accounts, self.failure)
    }

    /// Takes events and prints seconds until all clients are done.
    fn watch(&mut self, start: Instant, duration: Option<Duration>) -> Result<(), Failure> {
        const SECOND: Duration = Duration::from_secs(1);
        let deadline = duration.map(|d| start + d);
        let (mut last, mut before) = (start, 0);
        while self.accounts.len() + self.missing < self.plan.clients {
            let now = Instant::now();
            if deadline.is_some_and(|at| now >= at) {
                self.stop();
            }
            if now >= last + SECOND {
                let requests = self.crew.requests();
                let line = second(
                    requests.saturating_sub(before),
                    (now - last).as_secs_f64(),
                    self.plan.size,
                );
                self.say(&line)?;
                (last, before) = (now, requests);
            }
            for line in self.losses.due(now) {
                crate::note(format_args!("trader: {line}"));
            }
            let pending = deadline.filter(|_| !self.stopped);
            let next = [Some(last + SECOND), pending, self.losses.next_due()];
            let next = next.into_iter().flatten().min().unwrap_or(now);
            self.take(Some(next.saturating_duration_since(now)))?;
        }
        for line in self.losses.rest() {
            crate::note(format_args!("trader: {line}"));
        }
        Ok(())
    }

    fn stop(&mut self) {
        if !std::mem::replace(&mut self.stopped, true) {
            self.crew.stop();
        }
    }

    /// Takes one event, or none within `timeout`.
    fn take(&mut self, timeout: Option<Duration>) -> Result<(), Failure> {
        let received = match timeout {
            Some(timeout) => self.inbox.recv_timeout(timeout),
            None => self
                .inbox
                .recv()
                .map_err(|_| RecvTimeoutError::Disconnected),
        };
        let (client, event) = match received {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            // The signal thread holds a sender as long as the process lives.
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Failure::new(FAULT, "all threads have gone"));
            }
        };
        match event {
            Event::Connected(way) => _ = self.ways.0.insert(client, way),
            Event::Lost { reason, unknown } => self.losses.lost(reason, unknown, Instant::now()),
            Event::Back(way) => {
                self.ways.0.insert(client, way);
                self.losses.back(Instant::now());
            }
            Event::GaveUp(failure) => {
                let sentence = format!("the exchange did not come back: {}", failure.sentence);
                self.failure
                    .get_or_insert(Failure::new(PEER_DIED, sentence));
            }
            Event::Died(clients, failure) => {
                self.missing += clients;
                // The first is said at the end. While clients run nobody should have to wait for that, and what
                // keeps them from starting keeps most of them for the same reason.
                let known = self.failure.get_or_insert_with(|| failure.clone());
                if self.started || known.sentence != failure.sentence {
                    let sentence = &failure.sentence;
                    crate::note(format_args!("trader: client {}: {sentence}", client + 1));
                }
            }
            Event::Finished(account) => self.accounts.push(account),
            Event::Progress(_) => {}
            Event::Stop => self.stop(),
        }
        Ok(())
    }

    /// A line for people. A reader that has seen enough (`| head -1`) ends the run; with `--json` the line is on stderr, stdout is the
    /// object's alone, and that is wanted whether anybody reads the lines or not.
    fn say(&mut self, line: &str) -> Result<(), Failure> {
        let line = format!("{line}\n");
        if self.json {
            let _ = crate::print(&mut std::io::stderr(), &line)?;
        } else if !crate::print(&mut std::io::stdout(), &line)? {
            self.stop();
        }
        Ok(())
    }
}

/// The exit code: what failed for good, else whether every reply came and was right.
fn verdict(accounts: &[Account], failure: Option<Failure>) -> Result<u8, Failure> {
    if let Some(failure) = failure {
        return Err(failure);
    }
    if accounts.iter().any(|a| a.gave_up) {
        return Ok(PEER_DIED);
    }
    let Some(fault) = accounts.iter().find_map(|a| a.first_fault.as_ref()) else {
        return Ok(0);
    };
    let errors: u64 = accounts.iter().map(|a| a.errors).sum();
    let corrupt: u64 = accounts.iter().map(|a| a.corrupt).sum();
    Err(Failure::new(
        FAULT,
        format!("{errors} request(s) failed and {corrupt} reply(s) were wrong; the first: {fault}"),
    ))
}
