//! Two pinned workers of one server: what is said of a thread is true for the thread that is named, others are blamed only for what none of
//! the watched threads can have used, and where that is not certain the rule says that nobody knows.

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
    let well = after(WELL, Clients::Elsewhere);
    assert_eq!(says(&well), None);
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

#[test]
fn where_clients_that_move_about_may_have_used_it_nobody_knows_who_did() {
    let model = after(CROWDED, Clients::Floating);
    assert_eq!(says(&model), None);
    assert!(why(&model).is_some_and(|w| w.contains("threads move from CPU to CPU")));
    // Those that have moved nowhere have used no other CPU, whatever they may.
    let says_of = says(&after(CROWDED, Clients::Settled));
    assert!(says_of.is_some_and(|s| s.contains("waited 50 ms/s")));
    // Wherever they were, it was not others; and where they are is enough for all of it.
    for (cpus, clients) in [(WELL, Clients::Floating), (CROWDED, Clients::Gathered)] {
        let model = after(cpus, clients);
        assert_eq!((says(&model), why(&model)), (None, None));
    }
}

#[test]
fn where_a_client_can_not_be_looked_at_nobody_knows_whether_it_was_others() {
    let model = after(CROWDED, Clients::Hidden);
    assert_eq!(says(&model), None);
    let why = why(&model).unwrap_or_default();
    assert!(
        why.contains("can't be read: they may be who is there"),
        "{why}"
    );
}

#[test]
fn threads_that_are_not_looked_at_count_with_what_their_process_used_besides() {
    for idle in [Clients::Crowd(0), Clients::Fleeting(4)] {
        let says = says(&after(CROWDED, idle));
        assert!(
            says.is_some_and(|s| s.contains("waited 50 ms/s")),
            "{idle:?}"
        );
        let model = after(WELL, idle);
        assert_eq!((self::says(&model), why(&model)), (None, None), "{idle:?}");
    }
    for (clients, expected) in [
        (Clients::Crowd(60), "256 of the 300 threads of process 4236"),
        (
            Clients::SilentCrowd,
            "256 of the 300 threads of process 4236",
        ),
        (
            Clients::Fleeting(60),
            "threads of process 4236 came and went",
        ),
    ] {
        let model = after(CROWDED, clients);
        assert_eq!(says(&model), None);
        let why = why(&model).unwrap_or_default();
        assert!(why.contains(expected), "{why}");
        // That does not matter where nobody else can have been.
        let model = after(WELL, clients);
        assert_eq!(
            (says(&model), self::why(&model)),
            (None, None),
            "{clients:?}"
        );
    }
}
