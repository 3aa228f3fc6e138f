//! The loops that drive clients whose calls are futures: tasks of one runtime.

use std::future::Future;
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use super::{IDLE_REQUESTS, IDLE_WARM_UP, idle_moment};
use crate::clock::{self, Clock, ticks};
use crate::gate::Gate;
use crate::histogram::Histogram;
use crate::job::{ClientReport, Job, Plan, Shape};
use crate::meter::{Meter, Payload, corrupt};

/// A connection of a subject whose calls are futures.
pub(crate) trait AsyncClient: Send {
    /// A reply, wherever the subject keeps it.
    type Reply<'a>: Deref<Target = [u8]> + Send
    where
        Self: 'a;
    /// Sends a request.
    fn send(&mut self, request: &[u8]) -> impl Future<Output = io::Result<()>> + Send;
    /// Waits for the next reply.
    fn receive(&mut self) -> impl Future<Output = io::Result<Self::Reply<'_>>> + Send;
}

/// Runs this process's async clients: tasks of `runtime`.
pub(crate) fn run<C: AsyncClient + 'static>(
    job: &Job,
    gate: &Gate,
    runtime: &tokio::runtime::Runtime,
    connect: impl AsyncFn(usize) -> io::Result<C>,
) -> io::Result<Vec<ClientReport>> {
    runtime.block_on(async {
        let mut clients = Vec::new();
        for number in job.first..job.first + job.here {
            clients.push(connect(number).await?);
        }
        let (clock, plan) = gate.pass(clients.len());
        let job = Arc::new(job.clone());
        let tasks: Vec<_> = (job.first..)
            .zip(clients)
            .map(|(number, client)| {
                tokio::spawn(task(client, number, Arc::clone(&job), clock, plan))
            })
            .collect();
        let mut reports = Vec::new();
        for task in tasks {
            reports.push(task.await.map_err(io::Error::other)??);
        }
        Ok(reports)
    })
}

async fn task<C: AsyncClient>(
    mut client: C,
    number: usize,
    job: Arc<Job>,
    clock: Clock,
    plan: Plan,
) -> io::Result<ClientReport> {
    let mut payload = Payload::new(job.size, number);
    if job.shape == Shape::Idle {
        return idle_async(client, payload, number, &job, plan).await;
    }
    let mut expected = Payload::new(job.size, number);
    let mut meter = Meter::new(clock, plan);
    let depth = if job.shape == Shape::Pipelined {
        job.depth as u64
    } else {
        1
    };
    let (mut number, mut going) = (0, true);
    while going {
        let sent = ticks();
        for n in 0..depth {
            client.send(payload.stamped(number + n)).await?;
        }
        for n in 0..depth {
            let reply = client.receive().await?;
            let expected = expected.stamped(number + n);
            if *reply != *expected {
                return Err(corrupt(expected, &reply));
            }
            drop(reply);
            going &= if depth == 1 && job.think.is_zero() {
                meter.lap()
            } else {
                meter.account_since(sent, ticks())
            };
        }
        if !job.think.is_zero() {
            // The thread, not the task: the runtime's timers count milliseconds, and its only task has nothing else to do.
            std::thread::sleep(job.think);
        }
        number += depth;
    }
    Ok(meter.report())
}

async fn idle_async<C: AsyncClient>(
    mut client: C,
    mut payload: Payload,
    number: usize,
    job: &Job,
    plan: Plan,
) -> io::Result<ClientReport> {
    let mut round_trips = Histogram::new();
    for n in 0..IDLE_WARM_UP + IDLE_REQUESTS {
        if let Some(n) = n.checked_sub(IDLE_WARM_UP) {
            tokio::time::sleep(clock::until(idle_moment(plan, job, number, n))).await;
        }
        let sent = Instant::now();
        client.send(payload.stamped(n)).await?;
        let reply = client.receive().await?;
        if *reply != *payload.bytes() {
            return Err(corrupt(payload.bytes(), &reply));
        }
        if n >= IDLE_WARM_UP {
            round_trips.record(sent.elapsed().as_nanos() as u64);
        }
    }
    Ok(ClientReport {
        requests: IDLE_REQUESTS,
        round_trips: round_trips.sparse(),
    })
}
