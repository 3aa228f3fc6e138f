//! A server that vanished and that was started again before anybody looked: its clients have found back, and nobody looks at the old process any more.

use std::cmp::Ordering;

use shmtop::judge::Judge;
use shmtop::model::{Model, Severity};
use shmtop::sample::{CgroupVersion, Fact, MemoryGroup, PageContent, Sample};
use transport::stats::{Slot, SlotState};

use super::base::{Base, SERVER};

/// Second in which the new one is there.
const BACK: u64 = 3;
const NEW: u32 = SERVER + 100;
const GROUP: &str = "/sys/fs/cgroup/system.slice/exchange.service";
const SLICE: &str = "/sys/fs/cgroup/system.slice";

fn group(path: &str, inode: u64, oom_kills: u64) -> MemoryGroup {
    MemoryGroup {
        path: path.into(),
        inode: Fact::Known(inode),
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

/// One look at the memory groups.
#[derive(Clone, Copy)]
struct Look {
    /// Kills that the server's group counted.
    own: u64,
    /// And the one above.
    above: u64,
    /// Whether the server's group is another one by now, at the same path.
    anew: bool,
}

const fn same(own: u64, above: u64) -> Look {
    Look {
        own,
        above,
        anew: false,
    }
}

const fn anew(own: u64, above: u64) -> Look {
    Look {
        own,
        above,
        anew: true,
    }
}

/// What oom-killed says two seconds later: `lived` while the server lives, `seen` when the new one is seen first, and `now` from then on.
fn says(lived: [Look; BACK as usize], seen: Look, now: Look) -> Option<(Severity, String)> {
    let model = two_seconds_later(lived, seen, now, CgroupVersion::V2);
    let mut findings = model.findings.iter();
    let found = findings.find(|f| f.id == "oom-killed")?;
    Some((found.severity, found.says.clone()))
}

fn two_seconds_later(
    lived: [Look; BACK as usize],
    seen: Look,
    now: Look,
    version: CgroupVersion,
) -> Model {
    let base = Base::named("busy");
    let mut judge = Judge::new();
    let began_ns = base.sample(BACK).time.monotonic_ns;
    let mut last = Model::empty();
    for t in 0..=BACK + 2 {
        let mut sample = base.sample(t);
        let look = match t.cmp(&BACK) {
            Ordering::Less => lived[t as usize],
            Ordering::Equal => seen,
            Ordering::Greater => now,
        };
        for process in &mut sample.processes {
            let above = group(SLICE, 2, look.above);
            let own = match process.pid {
                SERVER => group(GROUP, if look.anew { 4 } else { 3 }, look.own),
                _ => group("/sys/fs/cgroup/system.slice/trader.service", 5, 0),
            };
            let groups = [own, above].map(|g| MemoryGroup { version, ..g });
            process.cgroups.memory = Fact::Known(groups.to_vec());
        }
        if t >= BACK {
            restart(&mut sample, began_ns);
        }
        last = judge.push(sample);
    }
    last
}

const QUIET_LIFE: [Look; BACK as usize] = [same(1, 5); BACK as usize];

fn in_its_own(says: Option<(Severity, String)>) {
    let (severity, says) = says.expect("its group counted one");
    assert_eq!(severity, Severity::Crit);
    assert!(
        says.contains("in the memory group of exchange (pid 4711) as it vanished"),
        "{says}"
    );
}

fn perhaps_it(says: Option<(Severity, String)>) {
    let (severity, says) = says.expect("the group above counted one");
    assert_eq!(severity, Severity::Warn);
    assert!(
        says.contains("1 process below /sys/fs/cgroup/system.slice, where exchange (pid 4711) was, as it vanished: perhaps it"),
        "{says}"
    );
}

#[test]
fn a_server_that_was_killed_for_memory_and_is_back_at_once_was_killed_nevertheless() {
    in_its_own(says(QUIET_LIFE, same(2, 6), same(2, 6)));
}

#[test]
fn where_the_group_was_made_anew_a_kill_below_the_one_above_it_may_be_another_s() {
    perhaps_it(says(QUIET_LIFE, anew(0, 6), anew(0, 6)));
    // Its count may be what the old one's was.
    perhaps_it(says(QUIET_LIFE, anew(1, 6), anew(1, 6)));
}

#[test]
fn where_others_below_the_group_above_are_killed_all_the_time_nobody_says_that_it_was_the_server() {
    let life = [same(1, 5), same(1, 6), same(1, 7)];
    assert_eq!(says(life, anew(0, 8), anew(0, 9)), None);
}

#[test]
fn a_kill_above_that_the_first_look_does_not_count_yet_is_counted_by_the_next() {
    // The groups are read less often than the pages.
    perhaps_it(says(QUIET_LIFE, same(1, 5), anew(0, 6)));
    perhaps_it(says(QUIET_LIFE, anew(0, 5), anew(0, 6)));
}

#[test]
fn a_server_that_takes_its_time_to_die_is_seen_once_more_after_its_kill_was_counted() {
    let life = [same(1, 5), same(1, 5), same(2, 6)];
    in_its_own(says(life, same(2, 6), same(2, 6)));
    // Its unit was started again, with a group made anew, after that.
    in_its_own(says(life, anew(0, 6), anew(0, 6)));
}

#[test]
fn what_its_own_group_was_seen_to_count_before_it_was_made_anew_is_not_forgotten() {
    in_its_own(says(QUIET_LIFE, same(2, 6), anew(0, 6)));
    let model = two_seconds_later(QUIET_LIFE, same(2, 0), anew(0, 0), CgroupVersion::V1);
    assert!(model.findings.iter().any(|f| f.id == "oom-killed"));
}

#[test]
fn in_version_1_nobody_knows_of_a_kill_in_a_group_that_is_gone() {
    let model = two_seconds_later(QUIET_LIFE, anew(0, 0), anew(0, 0), CgroupVersion::V1);
    let mut unknown = model.unknown.iter();
    let why = unknown.find(|u| u.id == "oom-killed").map(|u| &u.why.text);
    assert_eq!(
        why.map(|text| &**text),
        Some("the memory group of pid 4711 has gone with it")
    );
}

#[test]
fn a_server_that_was_started_again_without_a_kill_was_not_killed() {
    assert_eq!(says(QUIET_LIFE, same(1, 5), same(1, 5)), None);
    assert_eq!(says(QUIET_LIFE, anew(0, 5), anew(0, 5)), None);
}

#[test]
fn a_group_that_is_still_the_same_knows_that_the_kill_was_another_s() {
    assert_eq!(says(QUIET_LIFE, same(1, 6), same(1, 6)), None);
    // It may be empty of kills as well.
    assert_eq!(
        says([same(0, 5); BACK as usize], same(0, 6), same(0, 6)),
        None
    );
}
