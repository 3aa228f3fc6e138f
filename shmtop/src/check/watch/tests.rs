use super::super::cuts::PARTS;
use super::*;
use crate::model::Finding;
use crate::sample::{Clocks, Page};
use transport::stats::{Role, Slot, SlotKind, SlotState, Snapshot, Via};

const S: u64 = 1_000_000_000;

/// A server with connections of (id, opened at second, requests so far).
fn sample(second: u64, connections: &[(u64, u64, u64)]) -> Sample {
    let slot = |(i, &(id, opened, requests)): (usize, &(u64, u64, u64))| {
        let mut slot = Slot {
            index: i as u32,
            ..Slot::default()
        };
        slot.info.kind = SlotKind::Connection;
        slot.info.state = SlotState::Open;
        slot.info.transport = Via::Shm;
        slot.info.connection_id = id;
        slot.info.opened_ns = opened * S + 1;
        slot.req.requests = requests;
        slot
    };
    let snapshot = Snapshot {
        role: Role::Server,
        pid: 7,
        slots: connections.iter().enumerate().map(slot).collect(),
        ..Snapshot::default()
    };
    Sample {
        time: Clocks {
            monotonic_ns: second * S,
            ..Clocks::default()
        },
        pages: vec![Page::read(7, snapshot)],
        ..Sample::default()
    }
}

fn summary(samples: impl IntoIterator<Item = Sample>) -> Summary {
    let mut watch = Watch::default();
    for s in samples.into_iter().map(Arc::new) {
        watch.look(&s, &build(None, &s));
    }
    assert!(watch.cuts.ends().len() <= PARTS + 1);
    watch.summary(|_| ())
}

#[test]
fn who_comes_or_leaves_during_a_watch_has_his_share_in_the_rate() {
    // One client all the time at 100/s, one from second 10 to second 30 at 1000/s.
    let all = (10..=50u64).map(|t| {
        let mut c = vec![(1, 1, (t - 1) * 100)];
        if (11..=30).contains(&t) {
            c.push((2, 10, (t - 10) * 1000));
        }
        sample(t, &c)
    });
    let rps = summary(all).get("rps").unwrap();
    // What the second did after the last border before it left can't be known: a sixteenth at most.
    let full = 100.0 + 20_000.0 / 40.0;
    assert!((full * 0.85..=full).contains(&rps), "{rps} of {full}");
}

#[test]
fn of_clients_that_were_there_before_only_growth_counts() {
    let all = (10..=20u64).map(|t| sample(t, &[(1, 1, 5_000_000 + t * 10)]));
    assert_eq!(summary(all).get("rps"), Ok(10.0));
    let nobody = (10..=12).map(|t| sample(t, &[]));
    assert!(summary(nobody).get("rps").is_err());
}

#[test]
fn of_clients_whose_pages_are_not_visible_nobody_says_that_no_request_was_given_up() {
    let all = (10..=20u64).map(|t| sample(t, &[(1, 1, t)]));
    let sum = summary(all.clone());
    for figure in ["timeouts", "late_replies"] {
        let why = sum.get(figure).unwrap_err().text;
        assert!(why.contains("not visible"), "{figure}: {why}");
    }
    // One that was seen once and then ended was seen.
    let seen = all.enumerate().map(|(i, mut s)| {
        if i < 8 {
            let Some(snapshot) = s.pages[0].snapshot() else {
                panic!("a page that can be read");
            };
            let role = Role::Client;
            let mut snapshot = Snapshot {
                role,
                pid: 8,
                ..snapshot.clone()
            };
            snapshot.slots[0].req.timeouts = i as u64;
            s.pages.push(Page::read(8, snapshot));
        }
        s
    });
    assert_eq!(summary(seen).get("timeouts"), Ok(7.0));
}

#[test]
fn of_connections_for_which_a_client_s_page_has_no_place_nobody_says_that_no_request_was_given_up()
{
    // The second stays, or comes and goes between two looks.
    let timeouts = |shown_from: u64, until: u64| {
        let all = (10..=20u64).map(|t| {
            let second = (shown_from..=until).contains(&t);
            let mut both = vec![(1, 1, t), (2, shown_from, t)];
            both.truncate(1 + usize::from(second));
            let mut s = sample(t, &both);
            let mut server = s.pages[0].snapshot().expect("one that can be read").clone();
            for slot in &mut server.slots {
                slot.info.peer_pid = 8;
            }
            let mut client = server.clone();
            (client.role, client.pid) = (Role::Client, 8);
            client.slots.truncate(1);
            client.slots[0].req.timeouts = t;
            s.pages = vec![Page::read(7, server), Page::read(8, client)];
            s
        });
        summary(all.collect::<Vec<_>>()).get("timeouts")
    };
    let why = timeouts(1, 20).unwrap_err().text;
    assert!(why.contains("no place"), "{why}");
    assert_eq!(timeouts(15, 15), Ok(10.0));
}

#[test]
fn a_side_that_ends_and_leaves_its_connection_open_has_died_once() {
    let mut watch = Watch::default();
    for t in 10..=15 {
        let mut s = sample(
            t,
            if t < 13 {
                &[(1, 1, 5), (2, 1, 5)]
            } else {
                &[(2, 1, 5)]
            },
        );
        if t >= 13 {
            let ended = |connections: &[u64]| crate::sample::Ended {
                pid: 8,
                name: "trader".into(),
                role: Role::Client,
                connections: connections.to_vec(),
            };
            // The second is nobody's that was watched.
            s.ended = vec![ended(&[1]), ended(&[77])];
        }
        let s = Arc::new(s);
        watch.look(&s, &build(None, &s));
    }
    assert_eq!(watch.summary(|_| ()).get("deaths"), Ok(1.0));
}

#[test]
fn who_stalls_and_is_then_stopped_stood_still_once() {
    use ClientState::{Active, Stalled, Stopped};
    let mut watch = Watch::default();
    for (t, state) in (10..).zip([Active, Stalled, Stopped, Stalled, Active, Stopped]) {
        let s = Arc::new(sample(t, &[(1, 1, t)]));
        let mut model = build(None, &s);
        let endpoint: &mut crate::model::Endpoint = &mut model.endpoints[0];
        let client: &mut crate::model::Client = &mut endpoint.clients[0];
        client.state = state;
        watch.look(&s, &model);
    }
    assert_eq!(watch.summary(|_| ()).get("stalls"), Ok(2.0));
}

#[test]
fn a_hint_is_told_with_when_it_began_and_how_long_it_held() {
    let host = Finding::bare("steal", Severity::Warn, Subject::default());
    let mut watch = Watch::default();
    for second in 10..=20 {
        let s = Arc::new(sample(second, &[]));
        let mut model = build(None, &s);
        if (13..=16).contains(&second) {
            model.findings = vec![host.clone(), host.clone()].into();
        }
        watch.look(&s, &model);
    }
    let seen = &watch.summary(|_| ()).findings["steal"];
    assert_eq!((seen.first_s, seen.samples), (3.0, 4));
}

#[test]
fn that_no_hint_fired_is_known_once_the_rules_had_the_time_to_and_one_that_did_is_known_at_once() {
    let mut watch = Watch::default();
    let mut look = |second: u64, needs_s, fires: bool| {
        let s = Arc::new(sample(second, &[]));
        let mut model = build(None, &s);
        model.needs_s = needs_s;
        if fires {
            model.findings =
                vec![Finding::bare("steal", Severity::Warn, Subject::default())].into();
        }
        watch.look(&s, &model);
        let sum = watch.summary(|_| ());
        ["crits", "warns"].map(|f| sum.get(f).map_err(|why| why.to_string()))
    };
    let needs = |s: u64| Err(format!("needs {s} s more"));
    assert_eq!(look(10, 3, false), [needs(3), needs(3)]);
    assert_eq!(look(12, 1, true), [needs(1), Ok(1.0)]);
    assert_eq!(look(13, 0, true), [Ok(0.0), Ok(1.0)]);
}

/// A watch of one client that does so many requests in each second.
fn rates(each: impl IntoIterator<Item = u64>) -> Summary {
    let mut requests = 0;
    let grown = each.into_iter().map(|n| {
        requests += n;
        requests
    });
    let samples = (10..).zip(grown).map(|(t, n)| sample(t, &[(1, 1, n)]));
    summary(samples.collect::<Vec<_>>())
}

fn verdict(a: &Summary, b: &Summary, figure: &str) -> String {
    let text = crate::report::diff(("a", "b"), a, b);
    let line = text.lines().find(|l| l.starts_with(figure)).unwrap();
    line.to_owned()
}

#[test]
fn what_two_recordings_vary_by_themselves_decides_what_is_a_change() {
    let steady = |n: u64| rates(std::iter::repeat_n(n, 30));
    let restless = |n: u64| rates((0..30).map(|t| n + (t * 7 % 5) * n / 5));
    // Three in a hundred are a change where nothing else varies, and none where each second is another.
    let small = verdict(&steady(1000), &steady(1030), "rps");
    assert!(
        small.ends_with("better") && small.contains("+3.0 %"),
        "{small}"
    );
    let noise = verdict(&restless(1000), &restless(1030), "rps");
    assert!(noise.contains("+3.0 %") && noise.ends_with(" %"), "{noise}");
    let large = verdict(&restless(1000), &restless(500), "rps");
    assert!(large.ends_with("worse"), "{large}");
    let short = verdict(&rates([1000, 1000]), &steady(500), "rps");
    assert!(short.ends_with("too short to say"), "{short}");
}
