//! The thread that looks at the world and makes models, so that a slow look never holds up a key.
//!
//! The runtime asks for one model at a time and polls [`Feed::fd`] for the answer. Whether that takes a sample, `look` decides.

mod look;

use std::collections::{BTreeSet, HashSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use look::Look;

use crate::model::{Choice, Model};
use crate::sample::{Glance, Sample};
use crate::source::World;

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
    pub(super) on_screen: Arc<HashSet<u64>>,
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

    /// Whether an answer is on its way, or there and not taken.
    pub(super) fn is_asked(&self) -> bool {
        self.asked
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

    fn focus(ms: u64) -> Focus {
        Focus {
            interval: Duration::from_millis(ms),
            ..Focus::default()
        }
    }

    /// A world in which nothing is, and where something has happened before each sample.
    #[derive(Default)]
    struct Eventful {
        now_ns: u64,
    }

    impl SampleSource for Eventful {
        fn next_sample(&mut self) -> Result<Option<Sample>, String> {
            self.now_ns += 100_000_000;
            let mut sample = Sample::default();
            sample.time.monotonic_ns = self.now_ns;
            Ok(Some(sample))
        }

        fn news(&mut self) -> Option<String> {
            Some("it ended".to_owned())
        }
    }

    #[test]
    fn news_come_beside_the_sample_and_do_not_cost_it() {
        let source = Eventful::default();
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
