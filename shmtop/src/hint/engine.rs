//! From answers to findings: hysteresis, warm-up, and causes that swallow their symptoms.
//!
//! One tracker per (rule, subject). It fires when the rule held in 3 of the last 5 one-second windows (fewer for states,
//! see [`Onset`]), clears after 5 clean ones, and says "needs N s more" until it has seen enough to be quiet. A window
//! in which a rule could not be answered counts neither way. The first 2 s of a subject's life don't count.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use transport::stats::ProcessCounters;

use super::fold::{fold_symptoms, speak_once};
use super::tracker::Tracker;
use super::{Answer, Check, Context, Rule, rules};
use crate::model::builder::needs;
use crate::model::{Client, Endpoint, EndpointKey, Finding, Model, Subject, UnknownRule};
use crate::reading::Why;
use crate::sample::Sample;

/// The first part of a subject's life that does not count.
const WARM_UP_NS: u64 = 2_000_000_000;
/// Admission counters kept per server: a minute of windows.
const MINUTE: usize = 61;

/// Whom a tracker is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Host,
    Endpoint(EndpointKey),
    Client(EndpointKey, u32, u64),
}

/// Applies every rule to every subject, window by window.
#[derive(Default)]
pub struct Engine {
    trackers: HashMap<(&'static str, Key), Tracker>,
    minute: HashMap<EndpointKey, VecDeque<(u64, ProcessCounters)>>,
    suspend: Option<(u64, u64)>,
    asleep_ns: u64,
    windows: usize,
    /// Processes that the reader asked for: where a finding speaks for many, it speaks with their numbers.
    pub(crate) asked_for: Vec<u32>,
}

impl Engine {
    /// The windows before don't connect with those after: only what fires stays. `woke` is the first sample after a suspend.
    pub(crate) fn interrupted(&mut self, woke: Option<&Sample>) {
        self.windows = 0;
        for t in self.trackers.values_mut() {
            t.held = 0;
            t.clean = 0;
            t.answered = 0;
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
        self.windows = windows.len();
        self.asleep_ns = sample
            .time
            .boottime_ns
            .saturating_sub(sample.time.monotonic_ns);
        if let Some(start) = windows.back() {
            self.note_admissions(model, start);
        }
        self.note_admissions(model, sample);
        let minute = std::mem::take(&mut self.minute);
        let ctx = Context {
            model,
            sample,
            windows,
            minute: &minute,
            suspend: self.suspend,
        };
        let mut seen = HashSet::new();
        for rule in rules() {
            match rule.check {
                Check::Host(check) => {
                    let key = (rule.id, Key::Host);
                    self.take(&ctx, rule, &key, Subject::default(), u64::MAX, || {
                        check(&ctx)
                    });
                    seen.insert(key);
                }
                Check::Endpoint(check) => {
                    for e in &model.endpoints {
                        let key = (rule.id, Key::Endpoint(e.key.clone()));
                        self.take(&ctx, rule, &key, of_endpoint(e), e.age_ns, || {
                            check(&ctx, e)
                        });
                        seen.insert(key);
                    }
                }
                Check::Client(check) => {
                    for (e, c) in model.rows() {
                        let key = (rule.id, Key::Client(e.key.clone(), c.slot, c.connection_id));
                        let age = c.age_ns.min(e.age_ns);
                        self.take(&ctx, rule, &key, of_client(e, c), age, || check(&ctx, e, c));
                        seen.insert(key);
                    }
                }
            }
        }
        self.minute = minute;
        self.trackers.retain(|key, _| seen.contains(key));
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
            if kept.len() > MINUTE {
                kept.pop_front();
            }
        }
        self.minute
            .retain(|k, _| model.endpoints.iter().any(|e| e.key == *k));
    }

    fn take(
        &mut self,
        ctx: &Context<'_>,
        rule: &'static Rule,
        key: &(&'static str, Key),
        subject: Subject,
        age_ns: u64,
        check: impl FnOnce() -> Answer,
    ) {
        let window_ns = ctx.model.interval_ns.clone().unwrap_or(0);
        let t = self
            .trackers
            .entry(key.clone())
            .or_insert_with(|| Tracker::new(rule));
        t.subject = subject;
        // A window counts when it began after the warm-up.
        let missing = WARM_UP_NS.saturating_sub(age_ns.saturating_sub(window_ns));
        t.warm_up_s = missing.div_ceil(1_000_000_000);
        if t.warm_up_s > 0 {
            return;
        }
        t.answer(check(), ctx.model, window_ns);
    }

    /// Writes what holds now into a model.
    pub(crate) fn show(&self, model: &mut Model) {
        let mut findings: Vec<Finding> = self
            .trackers
            .values()
            .filter_map(Tracker::finding)
            .collect();
        let order: HashMap<&str, usize> = rules().enumerate().map(|(i, r)| (r.id, i)).collect();
        findings.sort_by(|a, b| {
            (b.severity, order.get(a.id), &a.subject).cmp(&(
                a.severity,
                order.get(b.id),
                &b.subject,
            ))
        });
        model.findings = speak_once(fold_symptoms(findings, model), &self.asked_for);
        self.show_unknown(model);
    }

    fn show_unknown(&self, model: &mut Model) {
        let mut unknown: Vec<UnknownRule> = Vec::new();
        let mut needs_s = 0u64;
        let none = self.trackers.is_empty();
        for rule in rules() {
            let mine = || self.trackers.values().filter(|t| t.rule.id == rule.id);
            let answered = !none && mine().all(|t| t.why_unknown(self.windows).is_none());
            let any_answered = mine().any(|t| t.why_unknown(self.windows).is_none());
            if any_answered || answered {
                model.checked.push(rule.id);
            }
            // What only needs more time is said once per rule, and not at all where the rule already speaks for others: a process
            // that has just started would be sixty lines. `needs_s` says it for all.
            let mut waiting = if none {
                u64::from(rule.onset.windows())
            } else {
                0
            };
            let mut whys: Vec<(Subject, Why)> = Vec::new();
            for t in mine() {
                let Some((why, wait_s)) = t.why_unknown(self.windows) else {
                    continue;
                };
                if wait_s > 0 {
                    waiting = waiting.max(wait_s);
                    continue;
                }
                match whys.iter_mut().find(|(_, w)| *w == why) {
                    Some((subject, _)) => *subject = Subject::default(),
                    None => whys.push((t.subject.clone(), why)),
                }
            }
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
        model.unknown = unknown;
        model.needs_s = u32::try_from(needs_s).unwrap_or(u32::MAX);
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
