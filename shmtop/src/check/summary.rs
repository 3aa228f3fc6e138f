//! The figures of a watch, and how much each varies by itself.

use std::collections::BTreeMap;

use super::figures::{Figure, Kind};
use crate::model::Severity;
use crate::reading::{Reading, Why};

/// Fewer parts than this say nothing about how much a figure varies.
const LEAST_PARTS: usize = 3;

/// A hint that fired during a watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// The gravest it was.
    pub severity: Severity,
    /// What it said first at that severity.
    pub says: String,
    /// How many it concerned.
    pub subjects: usize,
    /// Seconds into the watch when it was there first.
    pub first_s: f64,
    /// In how many samples it was there.
    pub samples: u64,
}

/// The figures.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    values: BTreeMap<String, Reading<f64>>,
    noise: BTreeMap<&'static str, f64>,
    pub(super) findings: BTreeMap<&'static str, Seen>,
    /// Seconds that the rules were short of for a first answer: a hint that did not fire may only have had no time to; 0 when they had it.
    pub(super) needs_s: u32,
    /// Length of the watch.
    pub(super) seconds: f64,
}

impl Summary {
    /// A figure by name.
    pub fn get(&self, name: &str) -> Reading<f64> {
        self.values
            .get(name)
            .cloned()
            .unwrap_or_else(|| Err(Why::not_applicable("not among the figures")))
    }

    /// The hints that fired, by id.
    pub fn findings(&self) -> &BTreeMap<&'static str, Seen> {
        &self.findings
    }

    /// Whether a hint that did not fire was asked about for long enough to.
    pub fn answered(&self) -> bool {
        self.needs_s == 0
    }

    /// Sets a figure.
    pub fn set(&mut self, name: &str, value: Reading<f64>) {
        self.values.insert(name.to_owned(), value);
    }

    /// Length of the watch in seconds.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Standard error of a figure by its values in the parts of the watch; `None` if there are too few parts. Of a largest value it
    /// is the spread itself: more time does not make it surer.
    pub fn noise(&self, name: &str) -> Option<f64> {
        self.noise.get(name).copied()
    }

    /// The same of a watch of this length.
    #[cfg(test)]
    pub(crate) fn lasting(self, seconds: f64) -> Self {
        Self { seconds, ..self }
    }

    /// Takes the values of a figure in the parts.
    pub(super) fn varies(&mut self, figure: &Figure, values: &[f64]) {
        if values.len() < LEAST_PARTS {
            return;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let spread = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
        let error = match figure.kind {
            Kind::Largest => spread.sqrt(),
            _ => (spread / n).sqrt(),
        };
        self.noise.insert(figure.name, error);
    }
}
