//! Two pinned workers of one server: what is said of a thread is true for the thread that is named, others are blamed only for what none of
//! the watched threads can have used, and where that is not certain the rule says that nobody knows.

mod accounts;
mod clients;
mod unseen;

use shmtop::judge::Judge;
use shmtop::model::Model;
use shmtop::sample::{Fact, PageContent, Process, Sample};
use transport::stats::Snapshot;

use super::base::{Base, POLLER, SERVER};

const OTHER: u32 = POLLER + 1;
/// What a worker uses of its CPU, in ms of each second.
const WORKER_MS: u64 = 300;

/// A worker's CPU: how long, in ms of each second, its worker waits for it, and how much of it others use.
#[derive(Clone, Copy)]
struct Cpu {
    wait_ms: u64,
    others_percent: u64,
}

/// Where the clients' threads may run, and whether they move about there.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Clients {
    /// On CPUs without a worker.
    Elsewhere,
    /// Everywhere.
    Floating,
    /// Everywhere, but they stay where they are, which is on CPUs without a worker.
    Settled,
    /// Everywhere, and just now all on CPU 0.
    Gathered,
    /// As elsewhere, but the times of their threads can't be read.
    Hidden,
    /// As elsewhere, but the first has 300 threads, which used so much of a CPU besides those that are looked at, in percent.
    Crowd(u64),
    /// The same, but nobody says how much.
    SilentCrowd,
    /// As elsewhere, but threads of the first come and go, and used so much.
    Fleeting(u64),
}

/// Second `t` of a server whose poller is pinned to CPU 0 and whose second one, `OTHER`, to CPU 1.
fn sample(cpus: [Cpu; 2], clients: Clients, t: u64) -> Sample {
    let mut sample = Base::named("busy").sample(t);
    let PageContent::Read(page) = &mut sample.pages[0].content else {
        panic!("the server's page can be read");
    };
    let mut poller = page.slots[0].clone();
    poller.index = page.slots.len() as u32;
    poller.info.tid = OTHER;
    page.slots.push(poller);
    let server = sample.processes.iter_mut().find(|p| p.pid == SERVER);
    let server = server.unwrap();
    server.cpu_ticks = Fact::Known(t * 2 * WORKER_MS / 10);
    let threads = &mut server.threads;
    threads.push(threads[0].clone());
    threads[1].tid = OTHER;
    for (n, cpu) in cpus.into_iter().enumerate() {
        threads[n].allowed_cpus = Fact::Known(vec![n as u32]);
        threads[n].last_cpu = Fact::Known(n as u32);
        threads[n].run_ns = Fact::Known(t * WORKER_MS * 1_000_000);
        threads[n].wait_ns = Fact::Known(t * cpu.wait_ms * 1_000_000);
        let jiffies = &mut sample.host.cpus[n].jiffies;
        let busy = cpu.others_percent + WORKER_MS / 10;
        jiffies.user = t * busy;
        jiffies.idle = t * (100 - busy);
    }
    for client in sample.processes.iter_mut().filter(|p| p.pid != SERVER) {
        let thread = &mut client.threads[0];
        thread.last_cpu = Fact::Known(2 + client.pid % 6);
        if !matches!(
            clients,
            Clients::Floating | Clients::Settled | Clients::Gathered
        ) {
            thread.allowed_cpus = Fact::Known((2..8).collect());
        }
        if clients == Clients::Settled {
            thread.migrations = Fact::Known(7);
        }
        if clients == Clients::Gathered {
            thread.last_cpu = Fact::Known(0);
        }
        if clients == Clients::Hidden {
            client.threads.clear();
        }
    }
    let first = Base::client_pid(1);
    let first = sample.processes.iter_mut().find(|p| p.pid == first);
    let first = first.expect("it is one of four");
    if matches!(clients, Clients::Crowd(_) | Clients::SilentCrowd) {
        first.thread_count = Fact::Known(300);
    }
    match (clients, &mut first.cpu_ticks) {
        (Clients::Crowd(percent) | Clients::Fleeting(percent), Fact::Known(ticks)) => {
            *ticks += t * percent;
        }
        (Clients::SilentCrowd, ticks) => *ticks = Fact::default(),
        _ => {}
    }
    sample
}

/// The model after six seconds.
fn after(cpus: [Cpu; 2], clients: Clients) -> Model {
    after_with(cpus, clients, |_, _| {})
}

/// The same, where each second's sample is changed before it is looked at.
fn after_with(cpus: [Cpu; 2], clients: Clients, change: impl Fn(&mut Sample, u64)) -> Model {
    let mut judge = Judge::new();
    let mut model = None;
    for t in 0..=6 {
        let mut sample = sample(cpus, clients, t);
        change(&mut sample, t);
        model = Some(judge.push(sample));
    }
    model.expect("the seventh")
}

/// Both answers of `run-delay`.
fn answers(model: &Model) -> (Option<String>, Option<String>) {
    (says(model), why(model))
}

/// It does not blame others, and says in these words why it can't tell.
#[track_caller]
fn nobody_knows(model: &Model, because: &str) {
    let (says, why) = answers(model);
    assert_eq!(says, None);
    let why = why.unwrap_or_default();
    assert!(why.contains(because), "{why:?}, not {because:?}");
}

fn process(sample: &mut Sample, pid: u32) -> &mut Process {
    let mut all = sample.processes.iter_mut();
    all.find(|p| p.pid == pid).expect("it is one of them")
}

fn server_page(sample: &mut Sample) -> &mut Snapshot {
    let PageContent::Read(page) = &mut sample.pages[0].content else {
        panic!("the server's page can be read");
    };
    page
}

/// What `run-delay` says of it.
fn says(model: &Model) -> Option<String> {
    let found = model.findings.iter().find(|f| f.id == "run-delay")?;
    Some(found.says.clone())
}

const fn cpu(wait_ms: u64, others_percent: u64) -> Cpu {
    Cpu {
        wait_ms,
        others_percent,
    }
}

/// Why `run-delay` can't be told, of all who are asked about.
fn why(model: &Model) -> Option<String> {
    let unknown = model.unknown.iter().filter(|u| u.id == "run-delay");
    let whys: Vec<&str> = unknown.map(|u| &*u.why.text).collect();
    (!whys.is_empty()).then(|| whys.join("; "))
}

const WELL: [Cpu; 2] = [cpu(50, 10), cpu(60, 10)];
/// Somebody else is on the first worker's CPU, it seems.
const CROWDED: [Cpu; 2] = [cpu(50, 65), cpu(60, 10)];
