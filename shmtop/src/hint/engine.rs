//! From answers to findings: hysteresis, warm-up, and causes that swallow their symptoms.
//!
//! One tracker per (rule, subject). It fires when the rule held in 3 of the last 5 one-second windows (fewer for states,
//! see [`Onset`]), clears after 5 clean ones, and says "needs N s more" until it has seen enough to be quiet. A window
//! in which a rule could not be answered counts neither way; after five of them in a row nothing fires, and it is unknown. The first 2 s of a subject's life don't count.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use transport::stats::ProcessCounters;

use super::fold::{Speaker, fold_symptoms, speak_once};
use super::once::Once;
use super::refusals::Refusals;
use super::thermal::Unfinished;
use super::tracker::{Tracker, seconds};
use super::{Answer, Check, Context, Rule, rules};
use crate::model::asked::Asked;
use crate::model::builder::needs;
use crate::model::{Client, Endpoint, EndpointKey, Finding, Model, Subject, UnknownRule};
use crate::reading::Why;
use crate::sample::{EARLY_NS, Sample};

/// The first part of a subject's life that does not count.
const WARM_UP_NS: u64 = 2_000_000_000;
/// How long admission counters are kept per server.
const MINUTE_NS: u64 = 60_000_000_000;

/// Whom a tracker is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Host,
    Endpoint(EndpointKey),
    Client(EndpointKey, u32, u64),
}

/// The trackers of one subject, and the last window that had it.
#[derive(Default)]
struct Watched {
    subject: Subject,
    /// Seconds of warm-up left.
    warm_up_s: u64,
    trackers: Vec<Tracker>,
    window: u64,
}

/// Applies every rule to every subject, window by window.
#[derive(Default)]
pub struct Engine {
    /// Of each subject one tracker per rule about its kind, in the order of the rules: a look-up per subject, not per rule.
    subjects: HashMap<Key, Watched>,
    minute: HashMap<EndpointKey, VecDeque<(u64, ProcessCounters)>>,
    refusals: Refusals,
    heat: Unfinished,
    suspend: Option<(u64, u64)>,
    asleep_ns: u64,
    /// Seconds that the windows before reach back.
    reach_s: u64,
    /// How long the last window was.
    window_ns: u64,
    /// Windows so far, interrupted or not.
    number: u64,
    /// Processes that the reader asked for: where a finding speaks for many, it speaks with their numbers.
    pub(crate) asked_for: Vec<u32>,
    /// Who spoke for many at the end of the last window.
    speakers: Vec<Speaker>,
}

impl Engine {
    /// The windows before don't connect with those after: only what fires stays. `woke` is the first sample after a suspend.
    pub(crate) fn interrupted(&mut self, woke: Option<&Sample>) {
        self.reach_s = 0;
        for t in self.subjects.values_mut().flat_map(|s| &mut s.trackers) {
            t.interrupted();
        }
        if let Some(sample) = woke {
            let asleep = sample
                .time
                .boottime_ns
                .saturating_sub(sample.time.monotonic_ns);
            self.suspend = Some((
                sample.time.monotonic_ns,
                asleep.saturating_sub(self.asleep_ns),
            ));
        }
    }

    /// One window has passed: `model` is the model over it, `windows` the samples at the borders before its end.
    pub(crate) fn window(
        &mut self,
        model: &Model,
        sample: &Sample,
        windows: &VecDeque<Arc<Sample>>,
    ) {
        let first = windows.front().map(|s| s.time.monotonic_ns);
        let reach_ns = first.map_or(0, |at| sample.time.monotonic_ns.saturating_sub(at));
        self.reach_s = (reach_ns + EARLY_NS) / 1_000_000_000;
        self.window_ns = model.interval_ns.clone().unwrap_or(0);
        self.asleep_ns = sample
            .time
            .boottime_ns
            .saturating_sub(sample.time.monotonic_ns);
        if let Some(start) = windows.back() {
            self.note_admissions(model, start);
            self.refusals.note(start);
            self.heat.note(&start.host, &sample.host);
        }
        self.note_admissions(model, sample);
        self.refusals.note(sample);
        let minute = std::mem::take(&mut self.minute);
        let refusals = std::mem::take(&mut self.refusals);
        let heat = std::mem::take(&mut self.heat);
        let ctx = Context {
            model,
            sample,
            windows,
            minute: &minute,
            refusals: &refusals,
            heat: &heat,
            suspend: self.suspend,
            once: Once::default(),
        };
        self.number += 1;
        self.take(
            &ctx,
            Key::Host,
            Subject::default(),
            u64::MAX,
            |rule| match rule.check {
                Check::Host(check) => Some(check(&ctx)),
                _ => None,
            },
        );
        for e in &model.endpoints {
            let key = Key::Endpoint(e.key.clone());
            self.take(&ctx, key, of_endpoint(e), e.age_ns, |rule| {
                match rule.check {
                    Check::Endpoint(check) => Some(check(&ctx, e)),
                    _ => None,
                }
            });
        }
        for (e, c) in model.rows() {
            let key = Key::Client(e.key.clone(), c.slot, c.connection_id);
            let age = c.age_ns.min(e.age_ns);
            self.take(&ctx, key, of_client(e, c), age, |rule| match rule.check {
                Check::Client(check) => Some(check(&ctx, e, c)),
                _ => None,
            });
        }
        self.minute = minute;
        self.refusals = refusals;
        self.heat = heat;
        let number = self.number;
        self.subjects.retain(|_, s| s.window == number);
    }

    fn note_admissions(&mut self, model: &Model, sample: &Sample) {
        for page in &sample.pages {
            let Some(s) = page.snapshot() else { continue };
            let kept = self
                .minute
                .entry(crate::model::join::key(page, s))
                .or_default();
            let at_ns = sample.time.monotonic_ns;
            if kept.back().is_none_or(|(last, _)| *last < at_ns) {
                kept.push_back((at_ns, s.process));
            }
            while kept
                .front()
                .is_some_and(|(first, _)| at_ns.saturating_sub(*first) > MINUTE_NS)
            {
                kept.pop_front();
            }
        }
        let there: HashSet<&EndpointKey> = model.endpoints.iter().map(|e| &e.key).collect();
        self.minute.retain(|k, _| there.contains(k));
    }

    /// Asks the rules about one subject. `check` answers for a rule about its kind, and does not for others.
    fn take(
        &mut self,
        ctx: &Context<'_>,
        key: Key,
        subject: Subject,
        age_ns: u64,
        check: impl Fn(&Rule) -> Option<Answer>,
    ) {
        let window_ns = self.window_ns;
        // A window counts when it began after the warm-up.
        let missing = WARM_UP_NS.saturating_sub(age_ns.saturating_sub(window_ns));
        let warm_up_s = missing.div_ceil(1_000_000_000);
        let mine = |rule: &&Rule| {
            matches!(
                (&key, rule.check),
                (Key::Host, Check::Host(_))
                    | (Key::Endpoint(_), Check::Endpoint(_))
                    | (Key::Client(..), Check::Client(_))
            )
        };
        let new = match self.subjects.contains_key(&key) {
            true => Vec::new(),
            false => rules()
                .enumerate()
                .filter(|(_, rule)| mine(rule))
                .map(|(number, rule)| Tracker::new(number, rule))
                .collect(),
        };
        let watched = self.subjects.entry(key).or_default();
        watched.window = self.number;
        watched.subject = subject;
        watched.warm_up_s = warm_up_s;
        watched.trackers.extend(new);
        if warm_up_s > 0 {
            return;
        }
        for t in &mut watched.trackers {
            if let Some(answer) = check(t.rule) {
                t.answer(answer, ctx.model, window_ns);
            }
        }
    }

    /// The processes that the reader asked for, if it was for some.
    fn asked(&self, model: &Model) -> Option<Asked> {
        let mine = |e: &&Endpoint| self.asked_for.contains(&e.pid);
        let pids = || self.asked_for.iter().copied();
        (!self.asked_for.is_empty())
            .then(|| Asked::new(model.endpoints.iter().map(|e| &**e).filter(mine), pids()))
    }

    /// Writes what holds now into a model: once for each window.
    pub(crate) fn show(&mut self, model: &mut Model) {
        let said = |s: &'_ Watched| -> Vec<Finding> {
            let trackers = s.trackers.iter();
            trackers.filter_map(|t| t.finding(&s.subject)).collect()
        };
        let mut findings: Vec<Finding> = self.subjects.values().flat_map(said).collect();
        let order: HashMap<&str, usize> = rules().enumerate().map(|(i, r)| (r.id, i)).collect();
        findings.sort_by(|a, b| {
            (b.severity, order.get(a.id), &a.subject).cmp(&(
                a.severity,
                order.get(b.id),
                &b.subject,
            ))
        });
        let mut findings = fold_symptoms(findings, model);
        if let Some(asked) = self.asked(model) {
            // Who speaks for many speaks for those that were asked for.
            findings.retain(|f| asked.finding(f));
        }
        model.findings = speak_once(findings, &self.asked_for, &mut self.speakers).into();
        self.show_unknown(model);
    }

    fn show_unknown(&self, model: &mut Model) {
        let mut unknown: Vec<UnknownRule> = Vec::new();
        let mut needs_s = 0u64;
        // Where the reader asked for some processes, an answer about others is none.
        let asked = self.asked(model);
        let concerned = |s: &&Watched| asked.as_ref().is_none_or(|a| a.subject(&s.subject));
        // What only needs more time is said once per rule, and not at all where the rule already speaks for others: a process
        // that has just started would be sixty lines. `needs_s` says it for all.
        let mut tallies: Vec<Tally> = rules().map(|_| Tally::default()).collect();
        let mut none = true;
        for watched in self.subjects.values().filter(concerned) {
            for t in &watched.trackers {
                none = false;
                tallies[t.number].add(t, watched, self.reach_s, self.window_ns);
            }
        }
        for (rule, tally) in rules().zip(tallies) {
            let Tally {
                answered: any_answered,
                open,
                waiting,
                mut whys,
            } = tally;
            if any_answered || (!none && !open) {
                model.checked.push(rule.id);
            }
            let waiting = if none {
                seconds(rule.onset.windows(), self.window_ns)
            } else {
                waiting
            };
            // What looks back on many seconds says so itself; all other answers don't wait for it.
            if rule.looks_back_s <= 1 {
                needs_s = needs_s.max(waiting);
            }
            if waiting > 0 && !any_answered {
                whys.push((Subject::default(), needs(waiting)));
            }
            whys.sort_by(|a, b| (&a.0, &a.1.text).cmp(&(&b.0, &b.1.text)));
            unknown.extend(whys.into_iter().map(|(subject, why)| UnknownRule {
                id: rule.id,
                subject,
                why,
            }));
        }
        model.unknown = unknown.into();
        model.needs_s = u32::try_from(needs_s).unwrap_or(u32::MAX);
    }
}

/// The answers of one rule on all subjects.
#[derive(Default)]
struct Tally {
    /// One at least has an answer.
    answered: bool,
    /// One at least has none.
    open: bool,
    /// Seconds until the last has one, of those that only need time.
    waiting: u64,
    /// Why the others have none.
    whys: Vec<(Subject, Why)>,
}

impl Tally {
    fn add(&mut self, t: &Tracker, of: &Watched, reach_s: u64, window_ns: u64) {
        let Some((why, wait_s)) = t.why_unknown(reach_s, of.warm_up_s, window_ns) else {
            self.answered = true;
            return;
        };
        self.open = true;
        if wait_s > 0 {
            self.waiting = self.waiting.max(wait_s);
            return;
        }
        match self.whys.iter_mut().find(|(_, w)| w == &*why) {
            Some((subject, _)) => *subject = Subject::default(),
            None => self.whys.push((of.subject.clone(), why.into_owned())),
        }
    }
}

fn of_endpoint(e: &Endpoint) -> Subject {
    Subject {
        endpoint: Some(e.name.clone()),
        pid: Some(e.pid),
        ..Subject::default()
    }
}

fn of_client(e: &Endpoint, c: &Client) -> Subject {
    Subject {
        client: Some(c.number),
        connection_id: Some(c.connection_id),
        ..of_endpoint(e)
    }
}
