//! The loops that drive clients whose calls block: closed loop, pipelined, idle. [`tasks`] has the same for async ones.

pub(crate) mod tasks;

use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::clock::{self, Clock, ticks};
use crate::gate::Gate;
use crate::histogram::Histogram;
use crate::job::{ClientReport, Job, Plan, Shape};
use crate::meter::{Meter, Payload, corrupt};
use crate::system;

/// Requests before the idle time, so that nothing is done for the first time after it.
const IDLE_WARM_UP: u64 = 200;
/// Single requests of each client after the idle time.
const IDLE_REQUESTS: u64 = 4;
/// Between two of them, of whichever client: everybody has been asleep for that long.
const IDLE_SPACING: Duration = Duration::from_millis(12);

/// When the last request of an idle run has been sent, after its end.
pub(crate) fn idle_tail(clients: usize) -> Duration {
    IDLE_SPACING * (clients as u32 * IDLE_REQUESTS as u32 + 2)
}

/// A connection of a subject whose calls block.
pub(crate) trait Client {
    /// A reply, wherever the subject keeps it.
    type Reply<'a>: Deref<Target = [u8]>
    where
        Self: 'a;
    /// Sends a request and waits for its reply.
    fn echo<'a>(&'a mut self, request: &[u8]) -> io::Result<Self::Reply<'a>>;
    /// Sends a request; false if there is no room for it now.
    fn submit(&mut self, request: &[u8]) -> io::Result<bool>;
    /// The next reply if it is there.
    fn try_receive(&mut self) -> io::Result<Option<Self::Reply<'_>>>;
}

/// Runs this process's blocking clients, each on a thread of its own or all on one; `connect` makes client number n.
pub(crate) fn run<C: Client>(
    job: &Job,
    gate: &Gate,
    connect: impl Fn(usize) -> io::Result<C> + Sync,
) -> io::Result<Vec<ClientReport>> {
    if job.shape == Shape::Pipelined {
        pin_client(job)?;
        let clients: Vec<C> = (0..job.here).map(&connect).collect::<io::Result<_>>()?;
        let (clock, plan) = gate.pass(clients.len());
        return pipelined(clients, job, clock, plan);
    }
    let one = |number: usize| {
        pin_client(job)?;
        let mut client = connect(number)?;
        let (clock, plan) = gate.pass(1);
        let mut payload = Payload::new(job.size, number);
        if job.shape == Shape::Idle {
            idle(&mut client, &mut payload, number, job, plan)
        } else if !job.think.is_zero() {
            thinking(
                &mut client,
                &mut payload,
                job.think,
                Meter::new(clock, plan),
            )
        } else {
            closed(&mut client, &mut payload, Meter::new(clock, plan))
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (job.first..job.first + job.here)
            .map(|number| {
                let one = &one;
                scope.spawn(move || one(number))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a client panicked")))
            })
            .collect()
    })
}

/// The process is bound already, except where it is the server too.
fn pin_client(job: &Job) -> io::Result<()> {
    job.pin.map_or(Ok(()), |(_, client)| system::pin(client))
}

fn closed<C: Client>(
    client: &mut C,
    payload: &mut Payload,
    mut meter: Meter,
) -> io::Result<ClientReport> {
    for number in 1.. {
        checked(client, payload, number)?;
        if !meter.lap() {
            break;
        }
    }
    Ok(meter.report())
}

/// A pause after each reply: others are served meanwhile, or everybody sleeps.
fn thinking<C: Client>(
    client: &mut C,
    payload: &mut Payload,
    think: Duration,
    mut meter: Meter,
) -> io::Result<ClientReport> {
    for number in 1.. {
        let sent = ticks();
        checked(client, payload, number)?;
        if !meter.account_since(sent, ticks()) {
            break;
        }
        std::thread::sleep(think);
    }
    Ok(meter.report())
}

#[inline(always)]
fn checked<C: Client>(client: &mut C, payload: &mut Payload, number: u64) -> io::Result<()> {
    payload.stamped(number);
    let reply = client.echo(payload.bytes())?;
    if *reply != *payload.bytes() {
        return Err(corrupt(payload.bytes(), &reply));
    }
    Ok(())
}

fn idle<C: Client>(
    client: &mut C,
    payload: &mut Payload,
    number: usize,
    job: &Job,
    plan: Plan,
) -> io::Result<ClientReport> {
    for n in 0..IDLE_WARM_UP {
        checked(client, payload, n)?;
    }
    let mut round_trips = Histogram::new();
    for n in 0..IDLE_REQUESTS {
        clock::sleep_until(idle_moment(plan, job, number, n));
        let sent = Instant::now();
        checked(client, payload, n)?;
        round_trips.record(sent.elapsed().as_nanos() as u64);
    }
    Ok(ClientReport {
        requests: IDLE_REQUESTS,
        round_trips: round_trips.sparse(),
    })
}

/// When client `number` sends its `n`th request after the idle time.
fn idle_moment(plan: Plan, job: &Job, number: usize, n: u64) -> u64 {
    let turn = n * job.clients as u64 + number as u64 + 1;
    plan.end_ns + turn * IDLE_SPACING.as_nanos() as u64
}

/// One connection of the pipelined loop.
struct Lane<C> {
    client: C,
    outgoing: Payload,
    expected: Payload,
    sent: u64,
    answered: u64,
    /// When those in flight were sent.
    since: VecDeque<u64>,
    /// Requests counted by the meter.
    requests: u64,
}

/// Round robin: fill every connection up to its depth, then take what is there.
fn pipelined<C: Client>(
    clients: Vec<C>,
    job: &Job,
    clock: Clock,
    plan: Plan,
) -> io::Result<Vec<ClientReport>> {
    let mut lanes: Vec<Lane<C>> = clients
        .into_iter()
        .enumerate()
        .map(|(number, client)| Lane {
            client,
            outgoing: Payload::new(job.size, number),
            expected: Payload::new(job.size, number),
            sent: 0,
            answered: 0,
            since: VecDeque::with_capacity(job.depth),
            requests: 0,
        })
        .collect();
    // One for all: a histogram per connection would be more memory to walk through than what is measured has.
    let mut meter = Meter::new(clock, plan);
    let mut going = true;
    while going {
        for lane in &mut lanes {
            let before = meter.requests();
            going &= lane.turn(job.depth, &mut meter)?;
            lane.requests += meter.requests() - before;
        }
    }
    let mut round_trips = meter.report().round_trips;
    let report = |lane: Lane<C>| ClientReport {
        requests: lane.requests,
        // All stand in the first one's report.
        round_trips: std::mem::take(&mut round_trips),
    };
    Ok(lanes.into_iter().map(report).collect())
}

impl<C: Client> Lane<C> {
    fn turn(&mut self, depth: usize, meter: &mut Meter) -> io::Result<bool> {
        // Two looks at the clock per turn stand for all its requests: before the first is sent, and after the last reply was checked.
        let begin = ticks();
        while self.since.len() < depth {
            if !self.client.submit(self.outgoing.stamped(self.sent))? {
                break;
            }
            self.sent += 1;
            self.since.push_back(begin);
        }
        let before = self.answered;
        while let Some(reply) = self.client.try_receive()? {
            let expected = self.expected.stamped(self.answered);
            if *reply != *expected {
                return Err(corrupt(expected, &reply));
            }
            self.answered += 1;
        }
        if self.answered == before {
            // A lane that starves must end too.
            return Ok(!meter.over(begin));
        }
        let (now, mut going) = (ticks(), true);
        for _ in before..self.answered {
            let Some(sent) = self.since.pop_front() else {
                return Err(io::Error::other("a reply to no request"));
            };
            going &= meter.account_since(sent, now);
        }
        Ok(going)
    }
}
