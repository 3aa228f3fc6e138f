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
    /// A question about the transport alone.
    ours_only: bool,
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
        ours_only: false,
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
        ours_only: true,
        ..workload(id, title, Shape::Pipelined, 64, clients)
    }
}

impl Workload {
    /// True if what counts is what it costs to do nothing.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.shape, Shape::Idle)
    }

    /// Whether it is put to this subject, and the subject can do it.
    pub(crate) fn is_for(&self, subject: &dyn Subject) -> bool {
        (!self.ours_only || subject.id().starts_with("transport"))
            && subject.does(self.shape, self.clients)
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
            duration: Duration::from_secs_f64(seconds),
        }
    }
}
