//! Where the threads of a role wait for their orders: clients at the gate until all are connected and the plan is known, a server for its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

use crate::clock::{Calibration, Clock};
use crate::job::{Plan, Said};
use crate::role::say;

#[derive(Default)]
struct State {
    connected: usize,
    plan: Option<Plan>,
    /// The working thread ended, with a result or without.
    ended: bool,
}

/// Where clients wait.
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    calibration: Calibration,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            calibration: Calibration::begin(),
        }
    }

    /// `count` clients of this process are connected; waits until it is time to work.
    pub(crate) fn pass(&self, count: usize) -> (Clock, Plan) {
        let mut state = self.lock();
        state.connected += count;
        self.changed.notify_all();
        let plan = loop {
            match state.plan {
                Some(plan) => break plan,
                None => {
                    state = self
                        .changed
                        .wait(state)
                        .unwrap_or_else(PoisonError::into_inner)
                }
            }
        };
        drop(state);
        (self.calibration.end(), plan)
    }

    /// Waits until `count` clients are connected; false if the work ended before.
    pub(crate) fn all_connected(&self, count: usize) -> bool {
        let mut state = self.lock();
        while state.connected < count && !state.ended {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.connected >= count
    }

    /// Opens the gate.
    pub(crate) fn open(&self, plan: Plan) {
        self.lock().plan = Some(plan);
        self.changed.notify_all();
    }

    /// The work ended.
    pub(crate) fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server's end, announced by the conductor.
pub(crate) struct Stop {
    now: AtomicBool,
    lock: Mutex<()>,
    changed: Condvar,
    speaks: bool,
}

impl Stop {
    /// `speaks`: whether this is a server process, which reports that it is ready, or a thread beside the clients.
    pub(crate) fn new(speaks: bool) -> Self {
        Self {
            now: AtomicBool::new(false),
            lock: Mutex::new(()),
            changed: Condvar::new(),
            speaks,
        }
    }

    /// The server listens.
    pub(crate) fn ready(&self) {
        if self.speaks {
            say(&Said::Ready {
                records: !cfg!(transport_no_stats),
            });
        }
    }

    /// True once it is over; for servers that poll.
    #[inline(always)]
    pub(crate) fn is_set(&self) -> bool {
        self.now.load(Ordering::Relaxed)
    }

    /// Sleeps until it is over; for servers with threads of their own.
    pub(crate) fn wait(&self) {
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.is_set() {
            guard = self
                .changed
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// It is over.
    pub(crate) fn set(&self) {
        let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.now.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }
}
