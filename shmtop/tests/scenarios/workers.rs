//! Two pinned workers of one server: what is said of a thread is true for the thread that is named, and others are blamed only for what
//! none of the watched threads can have used.

use shmtop::model::{Model, ModelBuilder};
use shmtop::sample::{Fact, PageContent, Sample};

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
#[derive(Clone, Copy, PartialEq)]
enum Clients {
    /// On CPUs without a worker.
    Elsewhere,
    /// Everywhere.
    Floating,
    /// Everywhere, but they stay where they are, which is on CPUs without a worker.
    Settled,
    /// As elsewhere, but the times of their threads can't be read.
    Hidden,
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
    let threads = &mut server.unwrap().threads;
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
        if matches!(clients, Clients::Elsewhere | Clients::Hidden) {
            thread.allowed_cpus = Fact::Known((2..8).collect());
        }
        if clients == Clients::Settled {
            thread.migrations = Fact::Known(7);
        }
        if clients == Clients::Hidden {
            client.threads.clear();
        }
    }
    sample
}

/// The model after six seconds.
fn after(cpus: [Cpu; 2], clients: Clients) -> Model {
    let mut builder = ModelBuilder::new();
    let mut model = None;
    for t in 0..=6 {
        model = Some(builder.push(sample(cpus, clients, t)));
    }
    model.expect("the seventh")
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

#[test]
fn the_worker_whose_cpu_others_use_is_found_beside_one_that_waits_about_as_long() {
    let of = |tid, ms| format!("thread {tid} waited {ms} ms/s for a core");
    for (cpus, expected) in [
        ([cpu(50, 10), cpu(60, 65)], of(OTHER, 60)),
        ([cpu(60, 10), cpu(20, 65)], of(OTHER, 20)),
        ([cpu(50, 65), cpu(60, 10)], of(POLLER, 50)),
        // Both: the first, and with its own number.
        ([cpu(50, 65), cpu(60, 65)], of(POLLER, 50)),
    ] {
        let says = says(&after(cpus, Clients::Elsewhere)).unwrap_or_default();
        assert!(says.contains(&expected), "{says:?}, not {expected:?}");
    }
    let well = after([cpu(50, 10), cpu(60, 10)], Clients::Elsewhere);
    assert_eq!(says(&well), None);
}

#[test]
fn others_are_not_blamed_for_what_clients_that_move_about_may_have_used() {
    let cpus = [cpu(50, 65), cpu(60, 10)];
    assert_eq!(says(&after(cpus, Clients::Floating)), None);
    // Those that have moved nowhere have used no other CPU, whatever they may.
    let says = says(&after(cpus, Clients::Settled));
    assert!(says.is_some_and(|s| s.contains("waited 50 ms/s")));
}

#[test]
fn others_are_not_blamed_where_a_client_can_not_be_looked_at() {
    let model = after([cpu(50, 65), cpu(60, 10)], Clients::Hidden);
    assert_eq!(says(&model), None);
    let reasons = model.unknown.iter().filter(|u| u.id == "run-delay");
    let reasons: Vec<String> = reasons.map(|u| u.why.to_string()).collect();
    let expected = |why: &String| why.contains("can't be read: they may be who is there");
    assert!(reasons.iter().any(expected), "{reasons:?}");
}
