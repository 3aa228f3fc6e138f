//! A value, or why it can't be had.
//!
//! Everything that shmtop measures passes through this type, from the reader of a /proc file to the cell on the
//! screen, so that a missing number can never turn into a 0 on the way. It leaves out *where* a value came from:
//! that stands with the evidence of a hint.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A value or the reason for its absence. `?` hands the reason on.
pub type Reading<T> = Result<T, Why>;

/// What kind of absence it is: views pick a short mark by it, and the exit code depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhyKind {
    /// More samples are needed.
    NotYet,
    /// The kernel refused us: another user's process, perf_event_paranoid, hidepid.
    NoPermission,
    /// It stands in a page that is not seen: another container's, another user's, or one with no place left for it.
    NotVisible,
    /// This machine or kernel doesn't have it: no PMU, file absent, hidden by the hypervisor.
    NotThere,
    /// It does not concern this subject: no ring on a socket connection, no limit set.
    NotApplicable,
    /// Values were dropped because they make no sense: restart, suspend, counter reset.
    Gap,
}

/// The reason why a value can't be had: a kind for programs, half a sentence for people ("no PMU: …").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// What kind of absence.
    pub kind: WhyKind,
    /// Half a sentence, without a full stop; starts in lower case unless with a name.
    #[serde(deserialize_with = "recorded")]
    pub text: Cow<'static, str>,
}

/// What a recording says: somebody else's text.
fn recorded<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Cow<'static, str>, D::Error> {
    let text = String::deserialize(from)?;
    Ok(crate::text::harmless(&text).into())
}

impl Why {
    /// More samples are needed.
    pub fn not_yet(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(WhyKind::NotYet, text)
    }

    /// The kernel refused us.
    pub fn no_permission(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(WhyKind::NoPermission, text)
    }

    /// It stands in a page that is not seen.
    pub fn not_visible(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(WhyKind::NotVisible, text)
    }

    /// This machine doesn't have it.
    pub fn not_there(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(WhyKind::NotThere, text)
    }

    /// It does not concern this subject.
    pub fn not_applicable(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(WhyKind::NotApplicable, text)
    }

    /// Values were dropped.
    pub fn gap(text: impl Into<Cow<'static, str>>) -> Self {
        Self::of(WhyKind::Gap, text)
    }

    /// A reason of this kind. Paths and names in it may be somebody else's: what could steer a terminal is taken out here.
    pub(crate) fn of(kind: WhyKind, text: impl Into<Cow<'static, str>>) -> Self {
        let text = match text.into() {
            Cow::Owned(text) => crate::text::harmless(&text).into(),
            ours => ours,
        };
        Self { kind, text }
    }

    /// At most a dozen letters for a table cell.
    pub fn short(&self) -> &'static str {
        match self.kind {
            WhyKind::NotYet => "not yet",
            WhyKind::NoPermission => "no permission",
            WhyKind::NotVisible => "not visible",
            WhyKind::NotThere => "not there",
            WhyKind::NotApplicable => "n/a",
            WhyKind::Gap => "gap",
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}
