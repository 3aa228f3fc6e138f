//! What is wrong, in the form every view shows it. Made by `hint`, shown by `report` and `ui`.

use serde::{Deserialize, Serialize};

use crate::reading::Why;
use crate::text::harmless;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Costs something now.
    Warn,
    /// Broken, or about to be.
    Crit,
}

impl Severity {
    /// Name in JSON and text.
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Crit => "crit",
        }
    }
}

/// Whom a finding concerns: the host (all `None`), an endpoint, or one client of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// Name of the endpoint.
    pub endpoint: Option<String>,
    /// Pid of the endpoint.
    pub pid: Option<u32>,
    /// Number of the client.
    pub client: Option<u32>,
    /// Its connection id.
    pub connection_id: Option<u64>,
}

/// One number that speaks for a finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Name of the counter or value.
    pub name: String,
    /// The number (states are text in [`Evidence::text`]).
    pub value: f64,
    /// A value that is not a number, e.g. a thread state or an errno's name.
    pub text: Option<String>,
    /// Unit, e.g. `ns`, `bytes`, `1/s`, `%`; empty for a state.
    pub unit: &'static str,
    /// File or counter it came from.
    pub source: String,
    /// What it is compared with, e.g. `> 80`; empty if it only explains.
    pub threshold: String,
}

/// A finding that another one explains, so that it is not shown by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Explained {
    /// Id of the rule.
    pub id: &'static str,
    /// Whom it concerns.
    pub subject: Subject,
    /// Its sentence.
    pub says: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Id of the rule.
    pub id: &'static str,
    /// How bad.
    pub severity: Severity,
    /// Whom it concerns; of a rule that speaks once for all, the worst case.
    pub subject: Subject,
    /// Whom else it concerns, if the rule speaks once for all.
    pub also: Vec<Subject>,
    /// Of a finding about the host: the pids it has to do with; `None`: everything on it. Of one about a process: those it came from,
    /// which may be gone.
    pub about: Option<Vec<u32>>,
    /// One sentence with the real numbers.
    pub says: String,
    /// The numbers and where they come from.
    pub evidence: Vec<Evidence>,
    /// A command to type or a change to make, real values filled in.
    pub fix: String,
    /// When it goes away.
    pub clears: &'static str,
    /// What follows from it.
    pub explains: Vec<Explained>,
    /// CLOCK_MONOTONIC ns when it began to hold.
    pub since_ns: u64,
    /// The same moment on CLOCK_REALTIME.
    pub since_realtime_ns: u64,
}

/// A rule that could not be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRule {
    /// Id of the rule.
    pub id: &'static str,
    /// Whom it would concern, when the reason is not the same for all.
    pub subject: Subject,
    /// Why.
    pub why: Why,
}

impl Finding {
    /// One without words or numbers, for tests of what is done with findings.
    #[cfg(test)]
    pub(crate) fn bare(id: &'static str, severity: Severity, subject: Subject) -> Self {
        Self {
            id,
            severity,
            subject,
            also: Vec::new(),
            about: None,
            says: String::new(),
            evidence: Vec::new(),
            fix: String::new(),
            clears: "",
            explains: Vec::new(),
            since_ns: 0,
            since_realtime_ns: 0,
        }
    }

    /// Whom it concerns, the same however the worst case among several changes: what all of them have in common. For whoever
    /// follows a finding over time.
    pub fn whom(&self) -> Subject {
        let mut common = self.subject.clone();
        for other in &self.also {
            if common.connection_id != other.connection_id {
                (common.client, common.connection_id) = (None, None);
            }
            if common.pid != other.pid {
                common.pid = None;
            }
            if common.endpoint != other.endpoint {
                common.endpoint = None;
            }
        }
        common
    }
}

impl Evidence {
    /// What the value is compared with, in its unit and as `show` writes a number of it: `> 1.0 s`, where the rule says `> 1000000000`.
    pub(crate) fn against(&self, show: impl Fn(f64) -> String) -> String {
        let number = self.threshold.split_once(' ').and_then(|(sign, n)| {
            let is_sign = ["<", "<=", ">", ">=", "==", "!="].contains(&sign);
            let n = n
                .parse::<f64>()
                .ok()
                .filter(|_| is_sign && self.text.is_none())?;
            Some((sign, n))
        });
        match (number, self.unit) {
            (None, _) | (_, "") => self.threshold.clone(),
            (Some((sign, n)), "ns" | "bytes") => format!("{sign} {}", show(n)),
            (Some(_), unit) => format!("{} {unit}", self.threshold),
        }
    }

    /// The same without what a path or a name in it could do to a terminal.
    pub(crate) fn harmless(&self) -> Self {
        Self {
            text: self.text.as_deref().map(harmless),
            source: harmless(&self.source),
            threshold: harmless(&self.threshold),
            ..self.clone()
        }
    }

    /// A measured number.
    pub fn number(
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        source: impl Into<String>,
        threshold: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            value,
            text: None,
            unit,
            source: source.into(),
            threshold: threshold.into(),
        }
    }

    /// A state that is no number.
    pub fn state(
        name: impl Into<String>,
        text: impl Into<String>,
        source: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            value: 0.0,
            text: Some(text.into()),
            unit: "",
            source: source.into(),
            threshold: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(pid: u32, client: u32) -> Subject {
        Subject {
            endpoint: Some("exchange".into()),
            pid: Some(pid),
            client: Some(client),
            connection_id: Some(u64::from(pid * 100 + client)),
        }
    }

    fn finding(subject: Subject, also: Vec<Subject>) -> Finding {
        Finding {
            also,
            ..Finding::bare("tail-spread", Severity::Info, subject)
        }
    }

    #[test]
    fn a_finding_that_speaks_for_many_keeps_its_name_whoever_is_worst() {
        let (a, b, c) = (subject(7, 1), subject(7, 2), subject(8, 3));
        let first = finding(a.clone(), vec![b.clone()]).whom();
        assert_eq!(finding(b.clone(), vec![a.clone()]).whom(), first);
        assert_eq!((first.pid, first.client), (Some(7), None));
        let elsewhere = finding(c, vec![a.clone(), b]).whom();
        assert_eq!((elsewhere.pid, elsewhere.client), (None, None));
        assert_eq!(finding(a.clone(), Vec::new()).whom(), a);
    }
}
