//! A server that vanished and that was started again before anybody looked: its clients have found back, and nobody looks at the old process any more.

use shmtop::judge::Judge;
use shmtop::model::Severity;
use shmtop::sample::{Fact, MemoryGroup, PageContent, Sample};
use transport::stats::{Slot, SlotState};

use super::base::{Base, SERVER};

/// Second in which the new one is there.
const BACK: u64 = 3;
const NEW: u32 = SERVER + 100;
const GROUP: &str = "/sys/fs/cgroup/system.slice/exchange.service";
const SLICE: &str = "/sys/fs/cgroup/system.slice";

fn group(path: &str, oom_kills: u64) -> MemoryGroup {
    MemoryGroup {
        path: path.into(),
        limit_bytes: Fact::Known(Some(16 << 30)),
        usage_bytes: Fact::Known(1 << 30),
        oom_kills: Fact::Known(oom_kills),
        ..MemoryGroup::default()
    }
}

/// The connection to the old server, and the one to the new.
fn reconnected(slot: &Slot, now_ns: u64) -> [Slot; 2] {
    let (mut old, mut new) = (slot.clone(), slot.clone());
    old.index += 1;
    old.info.peer_name = "exchange".into();
    old.info.state = SlotState::Closed;
    old.info.close_reason = 2;
    old.info.closed_ns = now_ns - 700_000_000;
    new.info.connection_id += 1 << 20;
    (new.info.peer_pid, new.info.peer_start_ticks) = (NEW, 95_000);
    new.info.opened_ns = now_ns - 300_000_000;
    [new, old]
}

fn restart(sample: &mut Sample, began_ns: u64) {
    for process in sample.processes.iter_mut().filter(|p| p.pid == SERVER) {
        process.pid = NEW;
        process.start_ticks = Fact::Known(95_000);
    }
    sample.listeners[0].pid = NEW;
    for page in &mut sample.pages {
        let PageContent::Read(snapshot) = &mut page.content else {
            continue;
        };
        if page.pid == SERVER {
            (page.pid, snapshot.pid, snapshot.start_ticks) = (NEW, NEW, 95_000);
            for slot in &mut snapshot.slots {
                slot.info.connection_id += 1 << 20;
            }
        } else {
            snapshot.slots = reconnected(&snapshot.slots[0], began_ns).to_vec();
        }
    }
}

/// What oom-killed says two seconds later; `now` are the counts of the server's group and of the one above it by then, which were 1 and 5.
fn says(now: [u64; 2]) -> Option<String> {
    let base = Base::named("busy");
    let mut judge = Judge::new();
    let began_ns = base.sample(BACK).time.monotonic_ns;
    let mut found = None;
    for t in 0..=BACK + 2 {
        let mut sample = base.sample(t);
        let [own, above] = if t < BACK { [1, 5] } else { now };
        for process in &mut sample.processes {
            let chain = match process.pid {
                SERVER => vec![group(GROUP, own), group(SLICE, above)],
                _ => vec![
                    group("/sys/fs/cgroup/system.slice/trader.service", 0),
                    group(SLICE, above),
                ],
            };
            process.cgroups.memory = Fact::Known(chain);
        }
        if t >= BACK {
            restart(&mut sample, began_ns);
        }
        let model = judge.push(sample);
        found = model
            .findings
            .iter()
            .find(|f| f.id == "oom-killed")
            .cloned();
    }
    let found = found?;
    assert_eq!(found.severity, Severity::Crit);
    Some(found.says)
}

#[test]
fn a_server_that_was_killed_for_memory_and_is_back_at_once_was_killed_nevertheless() {
    let own = says([2, 6]).expect("its group counted one");
    assert!(
        own.contains("in the memory group of exchange (pid 4711) as it vanished"),
        "{own}"
    );
    // systemd makes the group of a unit anew.
    let above = says([0, 6]).expect("the group above counted one");
    assert!(
        above.contains(
            "below /sys/fs/cgroup/system.slice, where exchange (pid 4711) was, as it vanished"
        ),
        "{above}"
    );
}

#[test]
fn a_server_that_was_started_again_without_a_kill_was_not_killed() {
    assert_eq!(says([1, 5]), None);
    assert_eq!(says([0, 5]), None);
}
