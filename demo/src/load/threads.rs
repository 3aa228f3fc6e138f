//! Clients as threads of this process: one each, or a few threads with several connections each.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Instant;

use super::drive::{Context, run};
use super::lane::Lane;
use super::{Crew, Event, Plan, Shared, Way, reconnect};
use crate::failure::{FAULT, Failure};

/// Client threads.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts threads for these clients of the plan. They connect, report and wait for the start.
    pub(crate) fn start(
        plan: &Arc<Plan>,
        clients: Range<usize>,
        events: &Sender<(usize, Event)>,
    ) -> Result<Self, Failure> {
        let mut crew = Self {
            shared: Arc::new(Shared::new(clients.len())),
            handles: Vec::new(),
        };
        let threads = plan.threads.clamp(1, clients.len().max(1));
        let first = clients.start;
        for thread in 0..threads {
            // As even as it goes: the first threads take one more.
            let begin = |t: usize| first + clients.len() * t / threads;
            let part = begin(thread)..begin(thread + 1);
            let name = format!("trader-{}", part.start + 1);
            let work = Work {
                plan: Arc::clone(plan),
                shared: Arc::clone(&crew.shared),
                events: events.clone(),
                slots: part.start - first,
                clients: part,
            };
            match std::thread::Builder::new().name(name).spawn(|| work.run()) {
                Ok(handle) => crew.handles.push(handle),
                Err(e) => {
                    crew.stop();
                    Box::new(crew).join();
                    return Err(Failure::io("starting a thread", &e));
                }
            }
        }
        Ok(crew)
    }
}

impl Crew for Threads {
    fn go(&mut self, at: Instant) {
        self.shared.go(at);
    }

    fn stop(&mut self) {
        self.shared.stop();
    }

    fn requests(&self) -> u64 {
        self.shared.requests()
    }

    fn join(self: Box<Self>) {
        for handle in self.handles {
            // A panic has been reported by the thread's own guard.
            _ = handle.join();
        }
    }
}

/// What one thread does.
struct Work {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    events: Sender<(usize, Event)>,
    /// First of this thread's progress slots.
    slots: usize,
    clients: Range<usize>,
}

impl Work {
    fn run(self) {
        let context = Context {
            plan: &self.plan,
            shared: &self.shared,
            events: &self.events,
        };
        let _guard = PanicGuard(&context, &self.clients);
        if let Err(failure) = self.plan.pin.trader(self.clients.start) {
            context.tell(self.clients.start, Event::Died(self.clients.len(), failure));
            return;
        }
        let lanes = self.connect(&context);
        let start = self.shared.wait_for_start();
        run(&context, lanes, start);
    }

    /// One that is refused is reported and left out: the others have work to do.
    fn connect(&self, context: &Context<'_>) -> Vec<(usize, Lane<'_>)> {
        let mut lanes = Vec::with_capacity(self.clients.len());
        for (index, client) in self.clients.clone().enumerate() {
            let synapse = match reconnect::connect(&self.plan) {
                Ok(synapse) => synapse,
                Err(failure) => {
                    context.tell(client, Event::Died(1, failure));
                    continue;
                }
            };
            context.tell(client, Event::Connected(Way::of(&synapse)));
            let progress = self.shared.progress(self.slots + index);
            lanes.push((client, Lane::new(&self.plan, client, synapse, progress)));
        }
        lanes
    }
}

/// Tells the coordinator about a thread that panicked, or it would wait for it forever.
struct PanicGuard<'a>(&'a Context<'a>, &'a Range<usize>);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failure = Failure::new(FAULT, "a client thread panicked");
            self.0
                .tell(self.1.start, Event::Died(self.1.len(), failure));
        }
    }
}
