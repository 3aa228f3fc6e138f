//! Two pinned workers of one server: what is said of a thread is true for the thread that is named, others are blamed only for what none of
//! the watched threads can have used, and where that is not certain the rule says that nobody knows.

use shmtop::judge::Judge;
use shmtop::model::Model;
use shmtop::sample::{Fact, PageContent, Process, Sample};
use transport::stats::{SlotState, Snapshot};

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

#[test]
fn what_the_kernel_accounts_to_nobody_is_not_others_and_what_does_not_add_up_is_a_doubt() {
    // CPU 0's time by second, in ticks: with processes, idle.
    let accounted = |user: u64, idle: u64| {
        after_with(CROWDED, Clients::Elsewhere, move |sample, t| {
            let jiffies = &mut sample.host.cpus[0].jiffies;
            (jiffies.user, jiffies.idle) = (t * user, t * idle);
        })
    };
    // The worker's 30 are most of what ran, however little else was accounted.
    assert_eq!(answers(&accounted(60, 10)), (None, None));
    let little = "the kernel accounted 80 % of CPU 0's time";
    nobody_knows(&accounted(80, 0), little);
    nobody_knows(
        &accounted(75, 45),
        "the kernel accounted 120 % of CPU 0's time",
    );
    // As far as clocks and ticks ever agree.
    let says = says(&accounted(92, 4));
    assert!(says.is_some_and(|s| s.contains("waited 50 ms/s")));
}

#[test]
fn interrupts_and_stolen_time_are_no_processes() {
    for kind in ["irq", "softirq", "steal"] {
        let model = after_with(WELL, Clients::Elsewhere, |sample, t| {
            let jiffies = &mut sample.host.cpus[0].jiffies;
            jiffies.idle = t * 5;
            match kind {
                "irq" => jiffies.irq = t * 55,
                "softirq" => jiffies.softirq = t * 55,
                _ => jiffies.steal = t * 55,
            }
        });
        assert_eq!(answers(&model), (None, None), "{kind}");
    }
}

#[test]
fn processes_that_come_and_go_within_a_second_may_be_who_was_there() {
    const YOUNG: u32 = 9_000;
    // One that was seen once, and one whose closed connection is all that is left.
    let seen = after_with(CROWDED, Clients::Elsewhere, |sample, t| {
        let mut young = process(sample, Base::client_pid(1)).clone();
        young.pid = YOUNG + t as u32;
        young.cpu_ticks = Fact::Known(0);
        young.threads[0].run_ns = Fact::Known(0);
        sample.processes.push(young);
    });
    nobody_knows(&seen, "ended or let go of its connection");
    let closed = |who: u32| {
        after_with(CROWDED, Clients::Elsewhere, move |sample, _| {
            let now_ns = sample.time.monotonic_ns;
            let page = server_page(sample);
            let mut slot = page.slots[1].clone();
            slot.index = page.slots.len() as u32;
            slot.info.state = SlotState::Closed;
            slot.info.connection_id = 77;
            slot.info.closed_ns = now_ns - 300_000_000;
            slot.info.peer_pid = who;
            page.slots.push(slot);
        })
    };
    nobody_knows(&closed(YOUNG), "process 9000 ended");
    // One that is there before and after is measured, however often it connects.
    assert!(says(&closed(Base::client_pid(2))).is_some());
}

#[test]
fn a_peer_that_is_not_looked_at_may_be_who_is_there() {
    let first = Base::client_pid(1);
    let unseen = after_with(CROWDED, Clients::Elsewhere, |sample, _| {
        sample.processes.retain(|p| p.pid != first);
    });
    nobody_knows(
        &unseen,
        "process 4236, a peer of process 4711, is not looked at",
    );
    // In another pid namespace: its own page says who it is, and where that can't be read nobody does.
    let contained = |readable: bool| {
        after_with(CROWDED, Clients::Elsewhere, move |sample, _| {
            let page = server_page(sample);
            page.pid_ns_inode = 2;
            page.slots[1].info.peer_pid = 17;
            if !readable {
                sample.pages.retain(|p| p.pid != first);
                sample.processes.retain(|p| p.pid != first);
            }
        })
    };
    assert!(says(&contained(true)).is_some());
    nobody_knows(
        &contained(false),
        "a peer of process 4711 can't be found from here",
    );
    // Of somebody else's server: to these it is one of the others.
    let foreign = after_with(CROWDED, Clients::Elsewhere, |sample, _| {
        let mut page = sample.pages[0].clone();
        let mut process = process(sample, SERVER).clone();
        (page.pid, process.pid) = (9_000, 9_000);
        process.cpu_ticks = Fact::Known(0);
        process.threads.clear();
        if let PageContent::Read(snapshot) = &mut page.content {
            snapshot.pid = 9_000;
            snapshot.slots.truncate(2);
            snapshot.slots[1].info.connection_id = 99;
            snapshot.slots[1].info.peer_pid = 9_001;
        }
        sample.pages.push(page);
        sample.processes.push(process);
    });
    assert!(says(&foreign).is_some(), "{:?}", why(&foreign));
}

#[test]
fn little_of_many_is_much() {
    let model = after_with(CROWDED, Clients::Elsewhere, |sample, t| {
        for n in 0..16 {
            let mut small = process(sample, Base::client_pid(1)).clone();
            small.pid = 8_000 + n;
            small.cpu_ticks = Fact::Known(t * 4);
            small.threads[0].run_ns = Fact::Known(0);
            sample.processes.push(small);
        }
    });
    nobody_knows(&model, "threads of several processes came and went");
}

/// What the first worker used in all at `ms`, in ms: all of CPU 0 in every second second, and else little.
fn used_by_then(ms: u64) -> u64 {
    let (pairs, rest) = (ms / 2_000, ms % 2_000);
    pairs * (250 + 950) + rest.min(1_000) / 4 + rest.saturating_sub(1_000) * 95 / 100
}

#[test]
fn where_the_load_changes_what_was_read_earlier_does_not_count_as_of_now() {
    let changing = |behind_ms: u64| {
        after_with(WELL, Clients::Elsewhere, move |sample, t| {
            let ms = 10_000 + t * 1_000;
            let ticks = used_by_then(ms) / 10;
            let jiffies = &mut sample.host.cpus[0].jiffies;
            (jiffies.user, jiffies.idle) = (ticks, t * 100 + 1_000 - ticks);
            let server = process(sample, SERVER);
            let read_ms = ms - behind_ms;
            let both = used_by_then(read_ms) + read_ms * WORKER_MS / 1_000;
            server.cpu_ticks = Fact::Known(both / 10);
            server.at_ns -= behind_ms * 1_000_000;
            let thread = &mut server.threads[0];
            thread.at_ns -= behind_ms * 1_000_000;
            thread.run_ns = Fact::Known(used_by_then(read_ms) * 1_000_000);
        })
    };
    assert_eq!(answers(&changing(0)), (None, None));
    nobody_knows(
        &changing(900),
        "the load changed, and not all threads were read",
    );
    // Others that come and go are told from it where all is read at once, or so soon that it can't have been ours.
    let others = |behind_ms: u64| {
        after_with(WELL, Clients::Elsewhere, move |sample, t| {
            let ticks = used_by_then(10_000 + t * 1_000) / 10;
            let jiffies = &mut sample.host.cpus[0].jiffies;
            (jiffies.user, jiffies.idle) = (ticks, t * 100 + 1_000 - ticks);
            let server = process(sample, SERVER);
            server.cpu_ticks = Fact::Known(t * WORKER_MS / 10);
            server.threads[0].run_ns = Fact::Known(0);
            server.at_ns -= behind_ms * 1_000_000;
            server.threads[0].at_ns -= behind_ms * 1_000_000;
        })
    };
    for behind_ms in [0, 100] {
        assert!(says(&others(behind_ms)).is_some(), "{behind_ms} ms");
    }
    nobody_knows(
        &others(900),
        "the load changed, and not all threads were read",
    );
}

#[test]
fn a_thread_whose_time_can_not_be_told_has_not_used_nothing() {
    let refused = |ticks: bool| {
        after_with(WELL, Clients::Elsewhere, move |sample, t| {
            let server = process(sample, SERVER);
            // More than the wall's.
            server.threads[0].run_ns = Fact::Known(t * 3_000_000_000);
            if !ticks {
                server.cpu_ticks = Fact::default();
            }
        })
    };
    nobody_knows(
        &refused(false),
        "what thread 4719 of process 4711 used can't be told",
    );
    // Its process's own count may say that it can't have been others.
    assert_eq!(says(&refused(true)), None);
    let silent = after_with(CROWDED, Clients::Elsewhere, |sample, _| {
        process(sample, SERVER).cpu_ticks = Fact::default();
    });
    nobody_knows(&silent, "what process 4711 used in all can't be told");
}
