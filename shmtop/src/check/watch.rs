//! A watch: looks at models as they come, and sums up at the end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::cuts::Cuts;
use super::figures::FIGURES;
use super::part::{self, Grown, Part, latencies};
use super::summary::{Seen, Summary};
use super::warm::Warm;
use crate::model::builder::needs;
use crate::model::{ClientState, EndpointKey, Model, Severity, Subject, build};
use crate::reading::Why;
use crate::sample::Sample;

/// Looks at models as they come and sums up at the end.
#[derive(Default)]
pub struct Watch {
    cuts: Cuts,
    states: HashMap<(EndpointKey, u64), ClientState>,
    stalls: u64,
    deaths: u64,
    /// Connections that were seen, and those whose one side was found dead.
    known: HashSet<u64>,
    dead: HashSet<u64>,
    fill: Option<f64>,
    found: BTreeSet<(&'static str, Subject, Severity)>,
    seen: BTreeMap<&'static str, Seen>,
    warm: Warm,
}

impl Watch {
    /// Takes the next sample and what the builder made of it (of the endpoints that are watched).
    pub fn look(&mut self, sample: &Arc<Sample>, model: &Model) {
        self.cuts.keep(Arc::clone(sample));
        self.warm.look(model);
        for (e, c) in model.rows() {
            let old = self
                .states
                .insert((e.key.clone(), c.connection_id), c.state);
            if old != Some(c.state) {
                // Who stalls and is then seen to be stopped has stood still once.
                let stands = |s| matches!(s, ClientState::Stalled | ClientState::Stopped);
                self.stalls += u64::from(stands(c.state) && !old.is_some_and(stands));
                let dies = c.state == ClientState::Dead && self.dead.insert(c.connection_id);
                self.deaths += u64::from(dies);
            }
            self.known.insert(c.connection_id);
            for fill in [c.tx.fill(), c.rx.fill()].into_iter().flatten() {
                self.fill = Some(self.fill.map_or(fill, |f| f.max(fill)));
            }
        }
        // The other side closes the connection within milliseconds: as a rule no row is ever seen dead.
        for id in sample.ended.iter().flat_map(|e| &e.connections) {
            let dies = self.known.contains(id) && self.dead.insert(*id);
            self.deaths += u64::from(dies);
        }
        let start_ns = self.cuts.first().map_or(0, |b| b.time.monotonic_ns);
        let first_s = sample.time.monotonic_ns.saturating_sub(start_ns) as f64 / 1e9;
        let mut here = BTreeSet::new();
        for f in &model.findings {
            self.found.insert((f.id, f.whom(), f.severity));
            let seen = self.seen.entry(f.id).or_insert_with(|| Seen {
                severity: f.severity,
                says: f.says.clone(),
                subjects: 0,
                first_s,
                samples: 0,
            });
            seen.samples += u64::from(here.insert(f.id));
            if f.severity > seen.severity {
                seen.severity = f.severity;
                seen.says.clone_from(&f.says);
            }
        }
    }

    /// How many samples were looked at.
    pub fn samples(&self) -> u64 {
        self.cuts.samples()
    }

    /// The parts of the watch, of what `keep` leaves in a model.
    fn parts(&self, keep: &impl Fn(&mut Model)) -> Vec<Part> {
        let ends = self.cuts.ends();
        ends.windows(2)
            .map(|w| self.part(&w[0], &w[1], keep))
            .collect()
    }

    fn part(&self, before: &Sample, now: &Sample, keep: &impl Fn(&mut Model)) -> Part {
        let mut model = build(Some(before), now);
        keep(&mut model);
        let mut part = part::between(before, now, &model);
        let seconds = part.seconds;
        let (rps, mib) = (part.grown.rps(seconds), part.grown.mib_per_s(seconds));
        part.values.insert("rps", rps);
        part.values.insert("mib_per_s", mib);
        latencies(&part.grown, |name, value| {
            part.values.insert(name, value);
        });
        part
    }

    /// The figures over the whole watch, of what `keep` leaves in a model.
    pub fn summary(&self, keep: impl Fn(&mut Model)) -> Summary {
        let mut out = Summary::default();
        let (Some(first), Some(last)) = (self.cuts.first(), self.cuts.last()) else {
            for f in FIGURES {
                out.set(f.name, Err(Why::not_yet("nothing was seen")));
            }
            return out;
        };
        let parts = self.parts(&keep);
        let whole = self.part(first, last, &keep);
        for (name, value) in &whole.values {
            out.set(name, value.clone());
        }
        // Sums of the parts: who came or left meanwhile has his share.
        let mut grown = Grown::default();
        parts.iter().for_each(|p| grown.add(&p.grown));
        out.seconds = whole.seconds;
        out.set("rps", grown.rps(whole.seconds));
        out.set("mib_per_s", grown.mib_per_s(whole.seconds));
        latencies(&grown, |name, value| out.set(name, value));
        let over_time = |n: u64| match parts.is_empty() {
            true => Err(Why::not_yet("needs a second sample")),
            false => Ok(n as f64),
        };
        out.set("errors", over_time(grown.errors));
        let given_up = grown.given_up();
        let given_up = |f: fn((u64, u64)) -> u64| over_time(f(given_up.clone()?));
        out.set("timeouts", given_up(|(timeouts, _)| timeouts));
        out.set("late_replies", given_up(|(_, late)| late));
        out.set("stalls", Ok(self.stalls as f64));
        // A death that was seen is known, whoever else is not visible.
        let deaths = match (self.deaths, grown.given_up()) {
            (0, Err(why)) => Err(why),
            (deaths, _) => Ok(deaths as f64),
        };
        out.set("deaths", deaths);
        let no_ring = || Why::not_applicable("no ring");
        out.set("fill_ratio", self.fill.ok_or_else(no_ring));
        out.needs_s = self.warm.needs_s();
        // What was found is known, whatever else may be found; that nothing is there is known once every rule was asked.
        let seen = |s: Severity| match self.found.iter().filter(|(.., f)| *f == s).count() {
            0 if !out.answered() => Err(needs(u64::from(out.needs_s))),
            n => Ok(n as f64),
        };
        let [crits, warns, infos] = [Severity::Crit, Severity::Warn, Severity::Info].map(seen);
        out.set("crits", crits);
        out.set("warns", warns);
        out.set("infos", infos);
        out.findings = self.findings();
        for f in FIGURES {
            // A cut-off end is no part like the others.
            let whole_parts = parts.iter().filter(|p| p.seconds * 2.0 > parts[0].seconds);
            let values = whole_parts.filter_map(|p| p.values.get(f.name)?.clone().ok());
            out.varies(f, &values.collect::<Vec<_>>());
        }
        out
    }

    fn findings(&self) -> BTreeMap<&'static str, Seen> {
        let mut findings = self.seen.clone();
        for (id, seen) in &mut findings {
            let subjects: BTreeSet<&Subject> = self
                .found
                .iter()
                .filter(|(found, ..)| found == id)
                .map(|(_, subject, _)| subject)
                .collect();
            seen.subjects = subjects.len();
        }
        findings
    }
}

#[cfg(test)]
mod tests {
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
    fn that_no_hint_fired_is_known_once_the_rules_had_the_time_to_and_one_that_did_is_known_at_once()
     {
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
}
