//! Two pinned workers of one server: what is said of a thread is true for the thread that is named.

use shmtop::model::{Model, ModelBuilder};
use shmtop::sample::{Fact, PageContent, Sample};

use super::base::{Base, POLLER, SERVER};

const OTHER: u32 = POLLER + 1;

/// A worker's CPU: how long, in ms of each second, its worker waits for it, and how much of it others use.
#[derive(Clone, Copy)]
struct Cpu {
    wait_ms: u64,
    others_percent: u64,
}

/// Second `t` of a server whose poller is pinned to CPU 0 and whose second one, `OTHER`, to CPU 1; neither of them was there last.
fn sample(cpus: [Cpu; 2], t: u64) -> Sample {
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
        threads[n].wait_ns = Fact::Known(t * cpu.wait_ms * 1_000_000);
        let jiffies = &mut sample.host.cpus[n].jiffies;
        jiffies.user = t * cpu.others_percent;
        jiffies.idle = t * (100 - cpu.others_percent);
    }
    sample
}

/// What `run-delay` says after six seconds.
fn says(cpus: [Cpu; 2]) -> Option<String> {
    let mut builder = ModelBuilder::new();
    let models: Vec<Model> = (0..=6).map(|t| builder.push(sample(cpus, t))).collect();
    let findings = &models[6].findings;
    let found = findings.iter().find(|f| f.id == "run-delay")?;
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
        ([cpu(50, 10), cpu(60, 100)], of(OTHER, 60)),
        ([cpu(60, 10), cpu(20, 100)], of(OTHER, 20)),
        ([cpu(50, 100), cpu(60, 10)], of(POLLER, 50)),
        // Both: the first, and with its own number.
        ([cpu(50, 100), cpu(60, 100)], of(POLLER, 50)),
    ] {
        let says = says(cpus).unwrap_or_default();
        assert!(says.contains(&expected), "{says:?}, not {expected:?}");
    }
    assert_eq!(says([cpu(50, 10), cpu(60, 10)]), None);
}
