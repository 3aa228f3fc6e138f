//! The way into the dashboard.

use std::io::BufReader;

use super::settings::Settings;
use super::{Failure, Outcome};
use crate::recording::Recording;
use crate::runtime::{self, Ending, SampleSource};
use crate::sample::Sample;

/// Shows the dashboard.
pub(super) fn live(settings: &Settings, source: Box<dyn SampleSource>) -> Outcome {
    let ending = runtime::run(
        source,
        runtime::Settings {
            interval: settings.delay.unwrap_or(runtime::DEFAULT_INTERVAL),
            choice: settings.choice.clone(),
            state: settings.state.clone(),
            duration: None,
        },
    )?;
    match ending {
        Ending::Quit | Ending::Elapsed => Ok(()),
        other => Err(Failure::Code(other.exit_code())),
    }
}

impl SampleSource for Recording<BufReader<std::fs::File>> {
    fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        Recording::next_sample(self)
    }

    fn recording(&self) -> Option<String> {
        Some(self.name().to_owned())
    }
}
