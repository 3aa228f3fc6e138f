//! Hysteresis of one rule on one subject: from the answers of successive windows to "fires since", "clears" or "needs N s more".

use std::borrow::Cow;

use super::{Answer, Fire, Onset, Rule};
use crate::model::builder::needs;
use crate::model::{Evidence, Finding, Model, Subject};
use crate::reading::{Why, WhyKind};
use crate::sample::WINDOW_NS;
use crate::text::harmless;

/// Windows that hysteresis looks at.
const LOOK: u32 = 5;

/// Seconds that so many windows take where each is as long as the last one was: longer than a second where the samples are farther apart.
pub(super) fn seconds(windows: u32, window_ns: u64) -> u64 {
    let ns = u64::from(windows).saturating_mul(window_ns.max(WINDOW_NS));
    // To the nearest: samples are never exactly a second apart.
    ns.saturating_add(WINDOW_NS / 2) / WINDOW_NS
}

/// What is remembered of one rule on one subject.
pub(super) struct Tracker {
    /// Place of the rule in the catalogue.
    pub(super) number: usize,
    pub(super) rule: &'static Rule,
    /// Windows that were answered.
    answered: u32,
    /// The last five answers, newest in bit 0; 1 = it held.
    held: u8,
    clean: u32,
    /// Windows in a row that could not be answered.
    unanswered: u32,
    /// When the first of the windows that made it fire began.
    first_held_ns: u64,
    firing_since: Option<(u64, u64)>,
    /// Boxed, as it is rare: there are dozens of trackers for each of a thousand clients, and each second goes through them all.
    fire: Option<Box<Fire>>,
    unknown: Option<Why>,
}

impl Tracker {
    pub(super) fn new(number: usize, rule: &'static Rule) -> Self {
        Self {
            number,
            rule,
            answered: 0,
            held: 0,
            clean: 0,
            unanswered: 0,
            first_held_ns: 0,
            firing_since: None,
            fire: None,
            unknown: None,
        }
    }

    /// The windows before don't connect with those after: only what fires stays.
    pub(super) fn interrupted(&mut self) {
        self.held = 0;
        self.clean = 0;
        self.answered = 0;
        self.unanswered = 0;
    }

    pub(super) fn answer(&mut self, answer: Answer, model: &Model, window_ns: u64) {
        let fire = match answer {
            Ok(fire) => fire,
            Err(why) if why.kind == WhyKind::NotApplicable => None,
            Err(why) => {
                // A rule that looks back far and only waits to see enough again, after a suspend, will tell when it has.
                let most = match why.kind {
                    WhyKind::NotYet if self.rule.looks_back_s > 1 => self.rule.looks_back_s + 1,
                    _ => LOOK,
                };
                self.unknown = Some(why);
                self.unanswered += 1;
                if self.unanswered >= most {
                    // What was true five seconds ago is not said any longer: now nobody knows.
                    self.firing_since = None;
                    self.fire = None;
                    self.held = 0;
                }
                return;
            }
        };
        self.unknown = None;
        self.unanswered = 0;
        self.answered = self.answered.saturating_add(1);
        self.held = (self.held << 1) & 0b1_1111;
        match fire {
            Some(fire) => {
                let start = model.at_ns.saturating_sub(window_ns);
                if self.held == 0 && self.firing_since.is_none() {
                    self.first_held_ns = start;
                }
                self.held |= 1;
                self.clean = 0;
                self.fire = Some(Box::new(fire));
                if self.firing_since.is_none()
                    && self.held.count_ones() >= self.rule.onset.windows()
                {
                    let since = self.first_held_ns;
                    let ago = model.at_ns.saturating_sub(since);
                    self.firing_since = Some((since, model.at_realtime_ns.saturating_sub(ago)));
                }
            }
            None => {
                self.clean += 1;
                if self.clean >= LOOK {
                    self.firing_since = None;
                    self.fire = None;
                }
            }
        }
    }

    /// As it is shown: whatever names and paths are in its sentences, they steer no terminal from here on.
    pub(super) fn finding(&self, subject: &Subject) -> Option<Finding> {
        let (since_ns, since_realtime_ns) = self.firing_since?;
        let fire = self.fire.as_ref()?;
        Some(Finding {
            id: self.rule.id,
            severity: fire.severity.unwrap_or(self.rule.severity),
            subject: subject.clone(),
            also: Vec::new(),
            about: fire.about.clone(),
            says: harmless(&fire.says),
            evidence: fire.evidence.iter().map(Evidence::harmless).collect(),
            fix: harmless(&fire.fix),
            clears: self.rule.quiet,
            explains: Vec::new(),
            since_ns,
            since_realtime_ns,
        })
    }

    /// Why this subject has no answer yet, and the seconds that would change it; `warm_up_s` of them are left of its own warm-up, the
    /// windows reach `reach_s` back, and each is `window_ns` long.
    pub(super) fn why_unknown(
        &self,
        reach_s: u64,
        warm_up_s: u64,
        window_ns: u64,
    ) -> Option<(Cow<'_, Why>, u64)> {
        if self.firing_since.is_some() {
            return None;
        }
        if let Some(why) = &self.unknown {
            let back = u64::from(self.rule.looks_back_s).saturating_sub(reach_s);
            let wait = if why.kind == WhyKind::NotYet && self.rule.looks_back_s > 1 {
                back
            } else {
                0
            };
            return Some((Cow::Borrowed(why), wait));
        }
        let wanted = self.rule.onset.windows();
        // Something held but not often enough: the answer is open until the five windows are full of it.
        let open = self.rule.onset == Onset::Measured
            && self.held.count_ones() + 1 == wanted
            && self.answered < LOOK;
        let missing = wanted.saturating_sub(self.answered).max(u32::from(open));
        let wait = seconds(missing, window_ns) + warm_up_s;
        (wait > 0).then(|| (Cow::Owned(needs(wait)), wait))
    }
}
