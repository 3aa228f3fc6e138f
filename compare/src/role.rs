//! A process of a run: the server, or some of the clients. Talks to the conductor in JSON lines: orders come on standard input, and
//! its end is when that closes.

use std::io::{self, BufRead, Write};

use crate::clock;
use crate::gate::{Gate, Stop};
use crate::job::{Job, Plan, Said};
use crate::subject::{self, Subject};
use crate::system;

/// Says something to the conductor.
pub(crate) fn say(what: &Said) {
    let mut line = serde_json::to_string(what).expect("plain data");
    line.push('\n');
    // Fails only if the conductor is gone, and then we are being killed.
    let _ = io::stdout().write_all(line.as_bytes());
}

fn subject_of(job: &Job) -> io::Result<&'static dyn Subject> {
    subject::named(&job.subject).ok_or_else(|| io::Error::other("no such subject"))
}

/// The next line of orders; `None` at their end.
fn plan() -> io::Result<Option<Plan>> {
    let mut line = String::new();
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    serde_json::from_str(&line)
        .map(Some)
        .map_err(io::Error::other)
}

/// CPU time within the plan: sleeps through it.
fn cpu_within(plan: Plan) -> u64 {
    clock::sleep_until(plan.begin_ns);
    let before = system::cpu_ns();
    clock::sleep_until(plan.end_ns);
    system::cpu_ns() - before
}

/// The server's process.
pub(crate) fn server(job: &Job) -> io::Result<()> {
    let subject = subject_of(job)?;
    if let Some((server, _)) = job.pin {
        system::pin(server)?;
    }
    let stop = Stop::new(true);
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let result = subject.serve(job, &stop);
            if let Err(error) = &result {
                say(&Said::Failed(format!("server: {error}")));
            }
            result
        });
        if let Some(plan) = plan()? {
            say(&Said::Done {
                cpu_ns: cpu_within(plan),
                clients: Vec::new(),
            });
            while self::plan()?.is_some() {}
        }
        stop.set();
        serving.join().map_err(subject::other)?
    })
}

/// A process with clients.
pub(crate) fn clients(job: &Job) -> io::Result<()> {
    let subject = subject_of(job)?;
    if let (Some((_, client)), false) = (job.pin, subject.one_process()) {
        system::pin(client)?;
    }
    let gate = Gate::new();
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let result = subject.clients(job, &gate);
            gate.end();
            result
        });
        let mut cpu_ns = 0;
        if gate.all_connected(job.here) {
            say(&Said::Ready {
                records: !cfg!(transport_no_stats),
            });
            let Some(plan) = plan()? else {
                // The conductor gave up; so do the clients, wherever they are.
                std::process::exit(1);
            };
            gate.open(plan);
            cpu_ns = cpu_within(plan);
        }
        match working.join().map_err(subject::other)? {
            Ok(clients) => say(&Said::Done { cpu_ns, clients }),
            Err(error) => say(&Said::Failed(format!("client: {error}"))),
        }
        Ok(())
    })
}
