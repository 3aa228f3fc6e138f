//! The kinds of work that subjects are compared on.

use std::time::Duration;

use crate::conductor::Work;
use crate::job::Shape;
use crate::subject::Subject;

/// One kind of work, by name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    shape: Shape,
    pub(crate) size: usize,
    pub(crate) clients: usize,
    /// Part of the table unless asked otherwise.
    pub(crate) listed: bool,
    /// How long each client sleeps between a reply and its next request.
    think: Duration,
    /// Whether it is put to the subject of this id.
    put_to: fn(&str) -> bool,
}

const fn workload(
    id: &'static str,
    title: &'static str,
    shape: Shape,
    size: usize,
    clients: usize,
) -> Workload {
    Workload {
        id,
        title,
        shape,
        size,
        clients,
        listed: true,
        think: Duration::ZERO,
        put_to: |_| true,
    }
}

/// All, in the order of the table.
pub(crate) const ALL: &[Workload] = &[
    workload("64-1", "64 B echo, 1 client", Shape::Processes, 64, 1),
    workload(
        "20000-1",
        "20,000 B echo, 1 client",
        Shape::Processes,
        20_000,
        1,
    ),
    workload(
        "64-16p",
        "64 B echo, 16 client processes",
        Shape::Processes,
        64,
        16,
    ),
    workload(
        "20000-16p",
        "20,000 B echo, 16 client processes",
        Shape::Processes,
        20_000,
        16,
    ),
    workload(
        "64-16t",
        "64 B echo, 16 threads of one client process",
        Shape::Threads,
        64,
        16,
    ),
    workload(
        "20000-16t",
        "20,000 B echo, 16 threads of one client process",
        Shape::Threads,
        20_000,
        16,
    ),
    workload(
        "64-16c",
        "64 B, 16 connections from one thread, pipelined",
        Shape::Pipelined,
        64,
        16,
    ),
    workload(
        "idle",
        "16 idle client processes, then one request now and then",
        Shape::Idle,
        64,
        16,
    ),
    thinking(
        "think-1ms",
        "64 B, 16 client processes that sleep 1 ms before each request",
        Duration::from_millis(1),
    ),
    thinking(
        "think-50us",
        "64 B, 16 client processes that sleep 50 µs before each request",
        Duration::from_micros(50),
    ),
    ours_only("64-1c", "64 B, 1 connection, pipelined", 1),
    ours_only(
        "64-100c",
        "64 B, 100 connections from one thread, pipelined",
        100,
    ),
    ours_only(
        "64-1000c",
        "64 B, 1,000 connections from one thread, pipelined",
        1000,
    ),
];

/// What work costs the transport per message from 1 to 1,000 connections.
const fn ours_only(id: &'static str, title: &'static str, clients: usize) -> Workload {
    Workload {
        put_to: |subject| subject.starts_with("transport"),
        ..workload(id, title, Shape::Pipelined, 64, clients)
    }
}

/// Clients that do something else between two requests: most of the time the server has nobody to serve, and is asleep or should be.
const fn thinking(id: &'static str, title: &'static str, think: Duration) -> Workload {
    Workload {
        think,
        // One of each kind: both ends of ours, those who sleep, those who poll, and what there is without a transport.
        put_to: |subject| THINKERS.contains(&subject) || subject.starts_with("transport-"),
        ..workload(id, title, Shape::Processes, 64, 16)
    }
}

const THINKERS: &[&str] = &[
    "transport",
    "iceoryx2",
    "iceoryx2-events",
    "shmipc",
    "shmipc-default",
    "unix",
    "futex",
];

impl Workload {
    /// True if what counts is what it costs to do nothing.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.shape, Shape::Idle)
    }

    /// True if what counts is the answer to one who did something else before: how many ask is up to them.
    pub(crate) fn is_thinking(&self) -> bool {
        !self.think.is_zero()
    }

    /// Whether it is put to this subject, and the subject can do it.
    pub(crate) fn is_for(&self, subject: &dyn Subject) -> bool {
        (self.put_to)(subject.id()) && subject.does(self.shape, self.clients)
    }

    /// The work to do.
    pub(crate) fn work(&self, seconds: f64, depth: usize) -> Work {
        // Idle costs are small: a longer look, whatever the rest is given.
        let seconds = if self.is_idle() {
            seconds.max(0.5) * 2.0
        } else {
            seconds
        };
        Work {
            shape: self.shape,
            size: self.size,
            clients: self.clients,
            depth,
            think: self.think,
            duration: Duration::from_secs_f64(seconds),
        }
    }
}
