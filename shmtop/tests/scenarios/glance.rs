//! Promises about glances: the numbers on the screen between two samples are those that a sample would give, and no rule
//! ever hears of them.

use std::collections::HashSet;

use shmtop::judge::Judge;
use shmtop::model::Client;
use shmtop::sample::{Glance, Sample};
use transport::stats::Role;

use crate::base::Base;

/// Fills a glance from what a sample would have seen at that moment.
fn fill(glance: &mut Glance, sample: &Sample) {
    glance.before_ns = glance.time.monotonic_ns;
    glance.time = sample.time;
    for page in &mut glance.pages {
        let seen = sample.pages[page.number].snapshot().unwrap();
        for glimpse in &mut page.slots {
            let slot = seen.slots.iter().find(|s| s.index == glimpse.slot.index);
            let slot = slot.unwrap();
            glimpse.before = glimpse.slot.clone();
            glimpse.slot.tx = slot.tx;
            glimpse.slot.rx = slot.rx;
            glimpse.slot.wait = slot.wait;
            glimpse.slot.req = slot.req;
            glimpse.slot.house = slot.house;
        }
    }
}

/// What a glance renews.
fn renewed(c: &Client) -> String {
    let wait = c.wait.as_ref().map(|w| {
        let shares = (&w.spin_share, &w.yield_share, &w.sleep_share);
        format!("{shares:?} {:?} {:?}", w.waits_per_s, w.ended)
    });
    let traffic = (&c.requests_per_s, &c.bytes_per_s, &c.in_flight, c.age_ns);
    format!("{:?} {traffic:?} {:?} {:?} {wait:?}", c.state, c.tx, c.rx)
}

#[test]
fn a_glance_shows_the_numbers_that_a_sample_would() {
    for name in ["busy", "crowded", "large", "idle"] {
        let base = Base::named(name);
        let mut judge = Judge::new();
        judge.push(base.sample(0));
        let before = judge.push(base.sample(1));
        let mut glance = judge.glance(&HashSet::new()).unwrap();
        fill(&mut glance, &base.sample(2));
        let glanced = judge.glanced(&before, &glance).unwrap();
        let sampled = judge.push(base.sample(2));
        assert_eq!(glanced.at_ns, sampled.at_ns);
        let rows = |m: &shmtop::model::Model| -> Vec<String> {
            m.rows().map(|(_, c)| renewed(c)).collect()
        };
        assert_eq!(rows(&glanced), rows(&sampled), "{name}");
        let both = glanced.endpoints.iter().zip(&sampled.endpoints);
        for (a, b) in both.filter(|(a, _)| a.role == Role::Server) {
            assert_eq!(a.totals.requests_per_s, b.totals.requests_per_s);
            assert_eq!(a.totals.bytes_per_s, b.totals.bytes_per_s);
        }
        let first = |m: &shmtop::model::Model| {
            let points = m.rows().next().map(|(_, c)| c.history.fine().count());
            points.unwrap()
        };
        assert_eq!(first(&glanced), first(&before) + 1, "the past goes on");
    }
}

#[test]
fn findings_are_the_same_with_and_without_glances() {
    let base = Base::named("crowded");
    let (mut with, mut without) = (Judge::new(), Judge::new());
    for t in 0..12 {
        let model = with.push(base.sample(t));
        let other = without.push(base.sample(t));
        assert_eq!(model.findings, other.findings, "second {t}");
        assert_eq!(model.unknown, other.unknown, "second {t}");
        assert_eq!(model.checked, other.checked, "second {t}");
        for (a, b) in model.rows().zip(other.rows()) {
            assert_eq!(
                (a.1.state, &a.1.verdict.says),
                (b.1.state, &b.1.verdict.says)
            );
        }
        if let Some(mut glance) = with.glance(&HashSet::new()) {
            // As if nothing had moved for half a second: a rule that heard of it would call the clients stalled.
            let mut half = base.sample(t);
            half.time.monotonic_ns += 500_000_000;
            fill(&mut glance, &half);
            let shown = with.glanced(&model, &glance).unwrap();
            assert_eq!(shown.findings, model.findings);
        }
    }
}

#[test]
fn of_many_connections_only_those_on_the_screen_are_read() {
    let base = Base::named("crowded");
    let mut judge = Judge::new();
    let mut many = [base.sample(0), base.sample(1)];
    for sample in &mut many {
        for page in &mut sample.pages {
            let shmtop::sample::PageContent::Read(snapshot) = &mut page.content else {
                continue;
            };
            let Some(last) = snapshot.slots.last().cloned() else {
                continue;
            };
            // Whatever they say: there are more of them than anybody can see.
            for n in 1..=100u32 {
                let mut slot = last.clone();
                slot.index += n;
                slot.info.connection_id += 1_000_000 * u64::from(n);
                snapshot.slots.push(slot);
            }
        }
    }
    let seen = many[0].pages[0].snapshot().unwrap();
    let one = seen
        .slots
        .iter()
        .rev()
        .find(|s| s.info.poller_slot.is_some());
    let on_screen = HashSet::from([one.unwrap().info.connection_id]);
    for sample in many {
        judge.push(sample);
    }
    let glance = judge.glance(&on_screen).unwrap();
    let slots: Vec<_> = glance.pages.iter().flat_map(|p| &p.slots).collect();
    assert!((1..=2).contains(&slots.len()), "{} slots", slots.len());
    let connections = slots.iter().map(|g| g.slot.info.connection_id);
    assert!(connections.into_iter().all(|id| on_screen.contains(&id)));
}
