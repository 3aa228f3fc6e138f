//! Looking at the world for a while: samples at an interval, the model so far, and what became of the endpoints.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::{Failure, Outcome, nothing};
use crate::judge::Judge;
use crate::model::{Choice, EndpointKey, Model};
use crate::sample::Sample;
use crate::source::World;

/// Time between looks of `doctor` and `check`: two per window, so that short states are seen.
const STEP: Duration = Duration::from_millis(500);

/// A world, a judge and the last model.
pub(super) struct Look<'a> {
    settings: &'a Settings,
    world: World,
    judge: Judge,
    sample: Arc<Sample>,
    /// What was known at the last step, of the endpoints that are wanted.
    pub(super) model: Model,
    seen: BTreeSet<EndpointKey>,
    deaths: Deaths,
}

/// Who died while connected to what was watched, or was watched itself.
#[derive(Default)]
pub(super) struct Deaths {
    /// Connections that were seen.
    connections: HashSet<u64>,
    /// Who ended first and left one of them open: killed, or ended by itself without closing. The page can't tell one from the other.
    died: Option<(String, u32)>,
}

impl Deaths {
    /// Takes the next sample, and the connections of what is watched in it.
    pub(super) fn look(&mut self, sample: &Sample, connections: impl IntoIterator<Item = u64>) {
        self.connections.extend(connections);
        let known = |id: &u64| self.connections.contains(id);
        let mut ended = sample.ended.iter();
        let dead = ended.find(|e| e.connections.iter().any(known));
        let dead = dead.map(|e| (crate::text::clean(&e.name), e.pid));
        self.died = self.died.take().or(dead);
    }

    /// An error if somebody died.
    pub(super) fn nobody(&self) -> Outcome {
        match &self.died {
            Some((name, pid)) => Err(Failure::Died(format!(
                "{name} (pid {pid}) ended while it was watched and left its connections open: killed, or it never closed them"
            ))),
            None => Ok(()),
        }
    }
}

impl<'a> Look<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        Self {
            world: super::world(settings),
            settings,
            judge: settings.judge(),
            sample: Arc::default(),
            model: Model::empty(),
            seen: BTreeSet::new(),
            deaths: Deaths::default(),
        }
    }

    /// Looks once.
    pub(super) fn step(&mut self) {
        self.sample = Arc::new(self.world.sample());
        self.model = self.judge.push(Arc::clone(&self.sample));
        self.settings.select(&mut self.model);
        self.seen
            .extend(self.model.endpoints.iter().map(|e| e.key.clone()));
        let rows = self.model.endpoints.iter().flat_map(|e| &e.clients);
        let connections = rows.map(|c| c.connection_id);
        self.deaths.look(&self.sample, connections);
    }

    /// Lets time pass.
    pub(super) fn wait(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Looks for `period`, or until everything watched has ended. Nothing to watch ends it at once.
    pub(super) fn run(
        &mut self,
        period: Duration,
        mut each: impl FnMut(&Arc<Sample>, &Model) -> Outcome,
    ) -> Outcome {
        let step = self.settings.delay.unwrap_or(STEP).min(period);
        let start = Instant::now();
        loop {
            self.step();
            each(&self.sample, &self.model)?;
            if self.model.endpoints.is_empty() {
                return Ok(());
            }
            let left = period.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            self.wait(step.min(left));
        }
    }

    /// The last sample.
    pub(super) fn sample(&self) -> &Sample {
        &self.sample
    }

    /// An error if there is nothing to show, or nothing of a process that was asked for.
    pub(super) fn endpoints(&self) -> Outcome {
        nothing::endpoints(&self.model, &self.sample, self.settings)
    }

    /// An error as of [`Self::still_there`], or if a process ended while it was connected: what was watched, or the other end of it.
    pub(super) fn nobody_died(&self) -> Outcome {
        self.still_there()?;
        self.deaths.nobody()
    }

    /// An error if what was watched has ended: everything, or a process that was asked for by its pid.
    pub(super) fn still_there(&self) -> Outcome {
        let live = self.model.endpoints.iter().map(|e| e.key.clone());
        still_there(&self.settings.choice, &self.seen, &live.collect())
    }
}

/// An error if of the endpoints that were seen none is left, or not all of a process that was asked for by its pid.
pub(super) fn still_there(
    choice: &Choice,
    seen: &BTreeSet<EndpointKey>,
    live: &BTreeSet<EndpointKey>,
) -> Outcome {
    let asked = |k: &EndpointKey| live.is_empty() || choice.pids.contains(&k.pid);
    match seen.iter().find(|k| asked(k) && !live.contains(k)) {
        Some(k) => Err(Failure::Died(format!(
            "{} (pid {}) ended while it was watched",
            crate::text::clean(&k.name),
            k.pid
        ))),
        None => Ok(()),
    }
}
