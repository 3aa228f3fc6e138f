//! Who is not looked at may be who is there: peers out of sight, processes that come and go, many that use little each.

use transport::stats::SlotState;

use super::*;

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
