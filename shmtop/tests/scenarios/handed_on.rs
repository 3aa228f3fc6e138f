//! Connections that one thread opened and handed on to others: their slots name a thread that does nothing, and what is said of a thread must
//! not be said of that one.

use shmtop::judge::Judge;
use shmtop::model::Model;
use shmtop::sample::{Fact, PageContent, Sample, ThreadPolicy};
use transport::stats::Snapshot;

use super::base::{Base, SERVER};

const S: u64 = 1_000_000_000;

fn page(sample: &mut Sample, pid: u32) -> &mut Snapshot {
    let page = sample.pages.iter_mut().find(|p| p.pid == pid);
    match &mut page.expect("it has one").content {
        PageContent::Read(snapshot) => snapshot,
        other => panic!("{other:?}"),
    }
}

/// After six seconds of two CPUs, where the first client has three more connections, each of which says that it spins for so
/// many ms of each second; `works` is what the thread used that opened them.
fn after(works: u64, spin: u64) -> Model {
    let base = Base::named("crowded");
    let first = Base::client_pid(1);
    let mut judge = Judge::new();
    let mut model = Model::empty();
    for t in 0..=6 {
        let mut sample = base.sample(t);
        let snapshot = page(&mut sample, first);
        snapshot.slots[0].wait.spin_ns = t * spin * 1_000_000;
        for n in 1..4 {
            let mut slot = snapshot.slots[0].clone();
            slot.index = n;
            slot.info.connection_id += u64::from(n) << 20;
            snapshot.slots.push(slot);
        }
        page(&mut sample, SERVER).slots[0].wait.spin_ns = t * S * 9 / 10;
        for process in &mut sample.processes {
            let thread = &mut process.threads[0];
            if process.pid == SERVER {
                thread.run_ns = Fact::Known(t * S * 9 / 10);
                thread.wait_ns = Fact::Known(t * S / 20);
            }
            if process.pid == first {
                thread.run_ns = Fact::Known(t * works * 1_000_000);
                thread.wait_ns = Fact::Known(0);
                thread.policy = Fact::Known(ThreadPolicy::Fifo);
            }
        }
        model = judge.push(sample);
    }
    model
}

#[test]
fn spinners_are_counted_by_connection_where_their_threads_can_not_be_seen() {
    let model = after(0, 900);
    let found = model.findings.iter().find(|f| f.id == "oversubscribed");
    let says = found.map(|f| f.says.as_str()).unwrap_or_default();
    assert!(
        says.starts_with("5 spinning threads share 2 CPUs"),
        "{says:?}"
    );
    // One thread that serves them all is one.
    let model = after(950, 230);
    let mut found = model.findings.iter().filter(|f| f.id == "oversubscribed");
    assert_eq!(found.next(), None);
}

#[test]
fn the_thread_that_connected_is_not_accused_of_what_another_does() {
    let spins = |model: &Model| model.findings.iter().any(|f| f.id == "rt-spinner");
    assert!(spins(&after(950, 230)));
    let model = after(0, 900);
    assert!(!spins(&model));
    let why = model.unknown.iter().find(|u| u.id == "rt-spinner");
    let why = why.map(|u| u.why.text.clone()).unwrap_or_default();
    assert!(why.contains("which thread of pid 4236 spins"), "{why:?}");
}
