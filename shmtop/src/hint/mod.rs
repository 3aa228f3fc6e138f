//! What is wrong, why, and what to type: a table of rules over one-second windows.
//!
//! A rule looks at one subject (the host, an endpoint, a client) through a [`Context`] and gives one of three answers: it
//! fires with evidence, it is quiet, or it is unknown because something can't be had. [`Engine`] turns the answers of
//! successive windows into findings. The catalogue in docs/hints.md is printed from this table.

mod admission;
mod causes;
mod connection;
mod context;
mod cpu;
mod crowd;
mod docs;
mod engine;
mod fallback;
mod fix;
mod fold;
mod fullest;
mod groups;
mod kills;
mod kin;
mod latency;
mod left_behind;
mod limits;
mod may_spin;
mod memory;
mod once;
mod outlier;
mod outsiders;
mod pages;
mod peer;
mod perf;
mod place;
mod quota;
mod refusals;
mod ring;
mod ring_size;
mod sched;
mod server;
mod short_lived;
mod spin;
mod steal;
mod stuck;
mod swap;
mod thermal;
mod tracker;
mod trust;
mod unseen;
mod view;
mod whom;

pub use context::Context;
pub use docs::{catalogue, explain};
pub use engine::Engine;

use crate::model::{Client, Endpoint, Evidence, Severity};
use crate::reading::Reading;

/// What a rule says about one subject in one window: `Ok(None)` is quiet, `Err` is unknown (or does not concern it).
pub type Answer = Reading<Option<Fire>>;

/// A rule's reason to fire.
#[derive(Clone, Debug, PartialEq)]
pub struct Fire {
    /// If it differs from the rule's.
    pub severity: Option<Severity>,
    /// One sentence with the real numbers.
    pub says: String,
    /// The numbers.
    pub evidence: Vec<Evidence>,
    /// A command or a change, real values filled in.
    pub fix: String,
    /// Of a finding about the host: the processes it is about. `None`: whatever runs on it.
    pub about: Option<Vec<u32>>,
}

impl Fire {
    fn new(says: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            severity: None,
            says: says.into(),
            evidence: Vec::new(),
            fix: fix.into(),
            about: None,
        }
    }

    /// Of a finding about the host: only these processes have to do with it. Of one about a process: these too, though they may be gone.
    fn about(mut self, pids: impl IntoIterator<Item = u32>) -> Self {
        self.about = Some(pids.into_iter().collect());
        self
    }

    fn at(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }

    fn number(
        mut self,
        name: &str,
        value: f64,
        unit: &'static str,
        source: impl Into<String>,
        threshold: impl Into<String>,
    ) -> Self {
        self.evidence
            .push(Evidence::number(name, value, unit, source, threshold));
        self
    }

    fn state(mut self, name: &str, text: impl Into<String>, source: impl Into<String>) -> Self {
        self.evidence.push(Evidence::state(name, text, source));
        self
    }

    /// As an answer.
    fn fires(self) -> Answer {
        Ok(Some(self))
    }
}

/// The quiet answer.
const QUIET: Answer = Ok(None);

/// Whom a rule looks at.
#[derive(Clone, Copy)]
pub enum Check {
    /// The machine and everything on it, once.
    Host(fn(&Context<'_>) -> Answer),
    /// Each endpoint.
    Endpoint(fn(&Context<'_>, &Endpoint) -> Answer),
    /// Each row of [`crate::model::Model::rows`].
    Client(fn(&Context<'_>, &Endpoint, &Client) -> Answer),
}

/// How many of the last five windows must hold before it fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onset {
    /// Three: for measurements, which may be off for a moment.
    Measured,
    /// Two: a state that is seen again after a second.
    State,
    /// One: the evidence itself says how long it lasts, or that it happened.
    Dated,
}

impl Onset {
    fn windows(self) -> u32 {
        match self {
            Self::Measured => 3,
            Self::State => 2,
            Self::Dated => 1,
        }
    }
}

/// One entry of the catalogue.
pub struct Rule {
    /// Stable name.
    pub id: &'static str,
    /// Usual severity; a [`Fire`] may carry another.
    pub severity: Severity,
    /// A few words.
    pub title: &'static str,
    /// Why it is as it is: thresholds, exceptions.
    pub reasons: &'static str,
    /// When it fires.
    pub fires: &'static str,
    /// When it stays quiet.
    pub quiet: &'static str,
    /// What to do, in general; a finding has the command with real values.
    pub fix: &'static str,
    /// Ids of findings that are its consequences.
    pub explains: &'static [&'static str],
    /// How soon it fires.
    pub onset: Onset,
    /// Seconds of data it looks back on.
    pub looks_back_s: u32,
    /// One finding for all subjects: seventeen processes with one cause are one line, the worst case speaks.
    pub once: bool,
    /// The check.
    pub check: Check,
}

/// Declares a rule; the doc comment is its reasons, here and in docs/hints.md.
macro_rules! rule {
    (
        $(#[doc = $doc:literal])+
        $NAME:ident = $id:literal, $severity:ident, $title:literal;
        fires: $fires:literal;
        quiet: $quiet:literal;
        fix: $fix:literal;
        $(explains: [$($explains:literal),* $(,)?];)?
        $(onset: $onset:ident;)?
        $(looks_back_s: $back:literal;)?
        $(once: $once:literal;)?
        check: $scope:ident($check:path);
    ) => {
        $(#[doc = $doc])+
        pub(super) const $NAME: $crate::hint::Rule = $crate::hint::Rule {
            id: $id,
            severity: $crate::model::Severity::$severity,
            title: $title,
            reasons: concat!($($doc, "\n"),+),
            fires: $fires,
            quiet: $quiet,
            fix: $fix,
            explains: &[$($($explains),*)?],
            onset: rule!(@onset $($onset)?),
            looks_back_s: rule!(@back $($back)?),
            once: rule!(@once $($once)?),
            check: $crate::hint::Check::$scope($check),
        };
    };
    (@onset) => { $crate::hint::Onset::Measured };
    (@onset $onset:ident) => { $crate::hint::Onset::$onset };
    (@back) => { 1 };
    (@back $back:literal) => { $back };
    (@once) => { false };
    (@once $once:literal) => { $once };
}
use rule;

/// Every rule, in the order of the catalogue.
pub static RULES: &[&[Rule]] = &[
    connection::RULES,
    short_lived::RULES,
    admission::RULES,
    limits::RULES,
    cpu::RULES,
    crowd::RULES,
    quota::RULES,
    sched::RULES,
    place::RULES,
    spin::RULES,
    ring::RULES,
    ring_size::RULES,
    peer::RULES,
    left_behind::RULES,
    outlier::RULES,
    latency::RULES,
    server::RULES,
    perf::RULES,
    memory::RULES,
    pages::RULES,
    view::RULES,
    trust::RULES,
];

/// Every rule, in the order of the catalogue.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().flat_map(|family| family.iter())
}
