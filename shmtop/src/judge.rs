//! [`Judge`]: samples in, models with findings out. It stands above `model`, which knows no rules, and `hint`, which keeps no samples.
//!
//! Pure: time comes from the samples, so a recording gives the same models and findings as the live world.

use std::collections::HashSet;
use std::sync::Arc;

use crate::hint::Engine;
use crate::model::builder::ModelBuilder;
use crate::model::{Finding, Model, Shared, UnknownRule};
use crate::sample::{Glance, Sample};

/// Makes a [`Model`] of each [`Sample`], and has the rules look at each full second.
#[derive(Default)]
pub struct Judge {
    builder: ModelBuilder,
    engine: Engine,
    /// What the rules say since the last window: they look at windows only, so it holds until the next one.
    said: Option<Said>,
}

/// What the rules said at the end of a window.
struct Said {
    findings: Shared<Vec<Finding>>,
    unknown: Shared<Vec<UnknownRule>>,
    checked: Shared<Vec<&'static str>>,
    needs_s: u32,
}

impl Judge {
    /// One that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The processes that the reader asked for: a finding that speaks for many speaks with their numbers.
    pub fn asked_for(mut self, pids: &[u32]) -> Self {
        self.engine.asked_for = pids.to_vec();
        self
    }

    /// Takes the next sample and says what is known now. Samples that are not later than the last one give a model without
    /// rates and leave no trace.
    pub fn push(&mut self, sample: impl Into<Arc<Sample>>) -> Model {
        let sample = sample.into();
        if let Some(gap) = self.builder.forget_at_gap(&sample) {
            self.engine.interrupted(gap.suspended.then_some(&*sample));
            self.said = None;
        }
        let built = self.builder.build(&sample);
        if let Some((window, borders)) = built.window {
            self.engine.window(window, &sample, borders);
        }
        let (mut model, closes) = (built.model, built.closes);
        self.builder.keep(sample);
        self.show(&mut model, closes);
        model
    }

    /// What a glance that continues the last sample has to read: `on_screen` are connection ids. `None` before the first
    /// two samples, which make the first rates.
    pub fn glance(&self, on_screen: &HashSet<u64>) -> Option<Glance> {
        self.builder.glance(on_screen)
    }

    /// The last model as of a glance; `None` if that is not later. Nothing that rules look at changes.
    pub fn glanced(&mut self, last: &Model, glance: &Glance) -> Option<Model> {
        self.builder.glanced(last, glance)
    }

    /// Adds what the rules say; going through them all costs more than the rest of a model, and only a window changes
    /// their answers.
    fn show(&mut self, model: &mut Model, closed: bool) {
        match &self.said {
            Some(said) if !closed => {
                model.findings.clone_from(&said.findings);
                model.unknown.clone_from(&said.unknown);
                model.checked.clone_from(&said.checked);
                model.needs_s = said.needs_s;
            }
            _ => {
                self.engine.show(model);
                self.said = Some(Said {
                    findings: model.findings.clone(),
                    unknown: model.unknown.clone(),
                    checked: model.checked.clone(),
                    needs_s: model.needs_s,
                });
            }
        }
    }
}
