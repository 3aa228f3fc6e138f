//! The thread that looks at the world and makes models, so that a slow look never holds up a key.
//!
//! The runtime asks for one model at a time and polls [`Feed::fd`] for the answer.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::judge::Judge;
use crate::model::{Choice, Model};
use crate::sample::{Glance, Sample};
use crate::source::World;

/// Least time between two samples: all but the counters changes over seconds, and rules judge whole seconds.
const SAMPLE: Duration = Duration::from_millis(945);
/// A refresh as rare as this is worth a sample each time.
const RARE: Duration = Duration::from_millis(700);
/// The first samples follow at once: two make the first rates.
const FIRST: u32 = 2;
/// A sample that a glance found due ahead of its time rests for this many times what the last one took: connections that
/// come and go by the hundred are no reason to spend more than this share of a core on them.
const REST: u32 = 50;

/// Where samples come from: the live world or a recording.
pub trait SampleSource: Send {
    /// The next sample; `None` when a recording has come to its end.
    ///
    /// # Errors
    /// In a sentence: a recording that can't be read on.
    fn next_sample(&mut self) -> Result<Option<Sample>, String>;

    /// What has happened since it was asked last, in one sentence for the foot of the screen. Asked before each sample, whose place it
    /// does not take.
    fn news(&mut self) -> Option<String> {
        None
    }

    /// Reads again what `glance` is about, if this source can: a recording has samples only.
    fn glance(&mut self, glance: &mut Glance) -> bool {
        let _ = glance;
        false
    }

    /// Name of the recording; `None` if this is the live world.
    fn recording(&self) -> Option<String> {
        None
    }

    /// Processes that the user looks at closely, worth a look that costs more.
    fn look_closely(&mut self, pids: &BTreeSet<u32>) {
        // A recording shows what it has.
        let _ = pids;
    }
}

impl SampleSource for World {
    fn next_sample(&mut self) -> Result<Option<Sample>, String> {
        Ok(Some(self.sample()))
    }

    fn glance(&mut self, glance: &mut Glance) -> bool {
        World::glance(self, glance);
        true
    }

    fn look_closely(&mut self, pids: &BTreeSet<u32>) {
        self.set_detail(pids.clone());
    }
}

/// What the user looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Focus {
    /// Processes worth a look that costs more.
    pub(super) closely: BTreeSet<u32>,
    /// Connections on the screen.
    pub(super) on_screen: HashSet<u64>,
    /// Time between refreshes.
    pub(super) interval: Duration,
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Fed {
    /// The next model, of a sample.
    Model(Arc<Model>),
    /// The next model, of a glance.
    Glance(Arc<Model>),
    /// What the source has to say, beside the answer that follows it.
    News(String),
    /// The recording is over.
    Ended,
    /// The source failed.
    Failed(String),
    /// The thread is gone: it panicked, and said so.
    Lost,
}

/// What the thread owns: it decides whether a glance will do.
struct Look {
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
    fn at(source: Box<dyn SampleSource>, choice: Choice) -> Self {
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
    fn look(&mut self, focus: Focus, tell: impl FnOnce(String)) -> Fed {
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

/// The thread and the way to it.
#[derive(Debug)]
pub(super) struct Feed {
    requests: Option<Sender<Focus>>,
    answers: Receiver<Fed>,
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
    asked: bool,
    /// Rings of the bell still to come: one per question. One may come after its answer was found.
    rings_due: usize,
}

impl Feed {
    /// Starts the thread.
    pub(super) fn start(source: Box<dyn SampleSource>, choice: Choice) -> io::Result<Self> {
        let (requests, asked) = channel::<Focus>();
        let (answer, answers) = channel();
        let (bell, mut far) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || {
                let mut look = Look::at(source, choice);
                for focus in asked {
                    // It rings with the answer, which comes at once; a runtime that has left shows there.
                    let fed = look.look(focus, |news| _ = answer.send(Fed::News(news)));
                    // Both fail only when the runtime has left.
                    if answer.send(fed).is_err() || far.write_all(b"!").is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            requests: Some(requests),
            answers,
            bell,
            thread: Some(thread),
            asked: false,
            rings_due: 0,
        })
    }

    /// What to poll for reading.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Asks for the next model, unless one is on its way.
    pub(super) fn ask(&mut self, focus: Focus) {
        if !self.asked
            && let Some(requests) = &self.requests
        {
            // A thread that is gone shows in `take`.
            self.asked = requests.send(focus).is_ok();
            self.rings_due += 1;
        }
    }

    /// The answer, if it is there.
    pub(super) fn take(&mut self) -> Option<Fed> {
        if self.rings_due > 0 {
            let mut rings = [0u8; 16];
            // Only empties the bell; what counts is the channel.
            let rung = self.bell.read(&mut rings).unwrap_or(0);
            self.rings_due = self.rings_due.saturating_sub(rung);
        }
        match self.answers.try_recv() {
            Ok(fed) => {
                // The answer is still to come after news.
                self.asked &= matches!(fed, Fed::News(_));
                Some(fed)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Fed::Lost),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // Without a sender the thread's loop ends.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic in it has been reported by the hook already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// A world where something has happened before each sample.
    struct Eventful(Nothing);

    impl SampleSource for Eventful {
        fn next_sample(&mut self) -> Result<Option<Sample>, String> {
            self.0.next_sample()
        }

        fn news(&mut self) -> Option<String> {
            Some("it ended".to_owned())
        }
    }

    #[test]
    fn news_come_beside_the_sample_and_do_not_cost_it() {
        let source = Eventful(Nothing::default());
        let mut feed = Feed::start(Box::new(source), Choice::default()).unwrap();
        for _ in 0..3 {
            feed.ask(focus(1_000));
            let mut told = Vec::new();
            while told.len() < 2 {
                let bell = nix::poll::PollFd::new(feed.fd(), nix::poll::PollFlags::POLLIN);
                nix::poll::poll(&mut [bell], nix::poll::PollTimeout::NONE).unwrap();
                while let Some(fed) = feed.take() {
                    assert_eq!(
                        feed.asked,
                        matches!(fed, Fed::News(_)),
                        "one question, one answer"
                    );
                    told.push(fed);
                }
            }
            assert!(
                matches!(&told[..], [Fed::News(news), Fed::Model(_)] if news == "it ended"),
                "{told:?}"
            );
        }
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

    #[test]
    fn a_bell_that_rings_after_its_answer_was_found_does_not_keep_the_runtime_awake() {
        let (requests, _asked) = channel();
        let (answer, answers) = channel();
        let (bell, mut far) = UnixStream::pair().unwrap();
        bell.set_nonblocking(true).unwrap();
        let mut feed = Feed {
            requests: Some(requests),
            answers,
            bell,
            thread: None,
            asked: false,
            rings_due: 0,
        };
        feed.ask(focus(100));
        answer.send(Fed::Ended).unwrap();
        assert!(feed.take().is_some());
        far.write_all(b"!").unwrap();
        assert!(feed.take().is_none());
        let mut heard = [0u8; 1];
        let silent = feed.bell.read(&mut heard).expect_err("it rings on");
        assert_eq!(silent.kind(), io::ErrorKind::WouldBlock);
    }
}
