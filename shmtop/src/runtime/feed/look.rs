//! One look at the source: a sample, or a glance where that will do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Fed, Focus, SampleSource};
use crate::judge::Judge;
use crate::model::{Choice, Model};
use crate::sample::Glance;

/// Least time between two samples: all but the counters changes over seconds, and rules judge whole seconds.
const SAMPLE: Duration = Duration::from_millis(945);
/// A refresh as rare as this is worth a sample each time.
const RARE: Duration = Duration::from_millis(700);
/// The first samples follow at once: two make the first rates.
const FIRST: u32 = 2;
/// A sample that a glance found due ahead of its time rests for this many times what the last one took: connections that
/// come and go by the hundred are no reason to spend more than this share of a core on them.
const REST: u32 = 50;

/// What the thread owns: it decides whether a glance will do.
pub(super) struct Look {
    source: Box<dyn SampleSource>,
    choice: Choice,
    judge: Judge,
    last: Option<Arc<Model>>,
    samples: u32,
    /// When the last sample began, and how long it took to have its model.
    sampled: Instant,
    took: Duration,
    focus: Focus,
    glance: Option<Glance>,
}

impl Look {
    pub(super) fn at(source: Box<dyn SampleSource>, choice: Choice) -> Self {
        Self {
            source,
            judge: Judge::new().asked_for(&choice.pids),
            choice,
            last: None,
            samples: 0,
            sampled: Instant::now(),
            took: Duration::ZERO,
            focus: Focus::default(),
            glance: None,
        }
    }

    /// Answers a question; `tell` takes what there is to say besides.
    pub(super) fn look(&mut self, focus: Focus, tell: impl FnOnce(String)) -> Fed {
        let closer = focus.closely != self.focus.closely;
        if focus.on_screen != self.focus.on_screen {
            self.glance = None;
        }
        self.focus = focus;
        if !closer && let Some(model) = self.glance() {
            self.last = Some(Arc::clone(&model));
            return Fed::Glance(model);
        }
        self.glance = None;
        if let Some(news) = self.source.news() {
            tell(news);
        }
        self.source.look_closely(&self.focus.closely);
        self.sampled = Instant::now();
        match self.source.next_sample() {
            Ok(Some(sample)) => {
                self.samples = self.samples.saturating_add(1);
                let mut model = self.judge.push(sample);
                self.choice.select(&mut model);
                let model = Arc::new(model);
                self.took = self.sampled.elapsed();
                self.last = Some(Arc::clone(&model));
                Fed::Model(model)
            }
            Ok(None) => Fed::Ended,
            Err(why) => Fed::Failed(why),
        }
    }

    /// The model of a glance, unless it takes a sample now.
    fn glance(&mut self) -> Option<Arc<Model>> {
        let age = self.sampled.elapsed();
        if self.samples < FIRST || age >= SAMPLE || self.focus.interval >= RARE {
            return None;
        }
        let last = self.last.as_deref()?;
        if self.glance.is_none() {
            self.glance = self.judge.glance(&self.focus.on_screen);
        }
        let glance = self.glance.as_mut()?;
        if !self.source.glance(glance) {
            return None;
        }
        if glance.outdated && age >= self.took * REST {
            return None;
        }
        self.judge.glanced(last, glance).map(Arc::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Sample;

    /// A world in which nothing is, and what was asked of it.
    #[derive(Default)]
    struct Nothing {
        now_ns: u64,
        glances: bool,
        outdated: bool,
    }

    impl SampleSource for Nothing {
        fn next_sample(&mut self) -> Result<Option<Sample>, String> {
            self.now_ns += 100_000_000;
            let mut sample = Sample::default();
            sample.time.monotonic_ns = self.now_ns;
            Ok(Some(sample))
        }

        fn glance(&mut self, glance: &mut Glance) -> bool {
            self.now_ns += 100_000_000;
            glance.before_ns = glance.time.monotonic_ns;
            glance.time.monotonic_ns = self.now_ns;
            glance.outdated = self.outdated;
            self.glances
        }
    }

    fn focus(ms: u64) -> Focus {
        Focus {
            interval: Duration::from_millis(ms),
            ..Focus::default()
        }
    }

    fn ask(look: &mut Look, focus: Focus) -> Fed {
        look.look(focus, |news| panic!("nothing happened: {news}"))
    }

    fn is_sample(fed: &Fed) -> bool {
        matches!(fed, Fed::Model(_))
    }

    #[test]
    fn between_samples_of_a_second_there_are_glances() {
        let source = Nothing {
            glances: true,
            ..Nothing::default()
        };
        let mut look = Look::at(Box::new(source), Choice::default());
        assert!(is_sample(&ask(&mut look, focus(100))));
        assert!(is_sample(&ask(&mut look, focus(100))), "the first rates");
        assert!(matches!(ask(&mut look, focus(100)), Fed::Glance(_)));
        look.sampled = Instant::now().checked_sub(SAMPLE).unwrap();
        assert!(is_sample(&ask(&mut look, focus(100))), "a second is over");
        assert!(matches!(ask(&mut look, focus(500)), Fed::Glance(_)));
        assert!(is_sample(&ask(&mut look, focus(1_000))), "a slow screen");
    }

    #[test]
    fn a_connection_that_comes_or_goes_is_worth_a_sample_at_once() {
        let source = Nothing {
            glances: true,
            outdated: true,
            ..Nothing::default()
        };
        let mut look = Look::at(Box::new(source), Choice::default());
        for _ in 0..2 {
            ask(&mut look, focus(100));
        }
        look.took = Duration::ZERO;
        assert!(is_sample(&ask(&mut look, focus(100))));
        // But not if samples are dear: a flood of connections must not decide what is spent on it.
        look.took = Duration::from_secs(1);
        assert!(matches!(ask(&mut look, focus(100)), Fed::Glance(_)));
    }

    /// What a recording is to the thread: samples, and nothing said of glances.
    struct Recorded(Nothing);

    impl SampleSource for Recorded {
        fn next_sample(&mut self) -> Result<Option<Sample>, String> {
            self.0.next_sample()
        }
    }

    #[test]
    fn a_recording_has_samples_only() {
        let mut look = Look::at(Box::new(Recorded(Nothing::default())), Choice::default());
        for _ in 0..5 {
            assert!(is_sample(&ask(&mut look, focus(100))));
        }
    }
}
