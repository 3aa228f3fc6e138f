//! The thread that looks at the world and makes models, so that a slow look never holds up a key.
//!
//! The runtime asks for one model at a time and polls [`Feed::fd`] for the answer.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use crate::model::{Model, ModelBuilder};
use crate::sample::Sample;
use crate::source::World;

/// Where samples come from: the live world or a recording.
pub trait SampleSource: Send {
    /// The next sample; `None` when a recording has come to its end.
    ///
    /// # Errors
    /// In a sentence: a recording that can't be read on.
    fn next_sample(&mut self) -> Result<Option<Sample>, String>;

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

    fn look_closely(&mut self, pids: &BTreeSet<u32>) {
        self.set_detail(pids.clone());
    }
}

/// What came of a request.
#[derive(Debug)]
pub(super) enum Fed {
    /// The next model.
    Model(Arc<Model>),
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
    requests: Option<Sender<BTreeSet<u32>>>,
    answers: Receiver<Fed>,
    bell: UnixStream,
    thread: Option<JoinHandle<()>>,
    asked: bool,
}

impl Feed {
    /// Starts the thread.
    pub(super) fn start(mut source: Box<dyn SampleSource>) -> io::Result<Self> {
        let (requests, asked) = channel::<BTreeSet<u32>>();
        let (answer, answers) = channel();
        let (bell, mut far) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        let thread = std::thread::Builder::new()
            .name("sampler".to_owned())
            .spawn(move || {
                let mut builder = ModelBuilder::new();
                for closely in asked {
                    source.look_closely(&closely);
                    let fed = match source.next_sample() {
                        Ok(Some(sample)) => Fed::Model(Arc::new(builder.push(sample))),
                        Ok(None) => Fed::Ended,
                        Err(why) => Fed::Failed(why),
                    };
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
        })
    }

    /// What to poll for reading.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Asks for the next model, unless one is on its way.
    pub(super) fn ask(&mut self, closely: BTreeSet<u32>) {
        if !self.asked
            && let Some(requests) = &self.requests
        {
            // A thread that is gone shows in `take`.
            self.asked = requests.send(closely).is_ok();
        }
    }

    /// The answer, if it is there.
    pub(super) fn take(&mut self) -> Option<Fed> {
        let mut rings = [0u8; 16];
        // Only empties the bell; what counts is the channel.
        let _ = self.bell.read(&mut rings);
        match self.answers.try_recv() {
            Ok(fed) => {
                self.asked = false;
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
