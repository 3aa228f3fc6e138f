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
mod tests;
