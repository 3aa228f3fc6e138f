//! The loops that keep one or many lanes busy from one thread.
//!
//! [`fire`] is the plain blocking call in a loop, for one connection with one request in flight. [`pump`] does
//! everything else: windows, schedules, many connections. It sweeps all lanes; when a sweep moved nothing it waits
//! for all of them at once, so a thread with many lanes sleeps while the exchange works. Only an
//! open loop with room in its window must look at both the clock and the replies, and yields between looks.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use transport::Group;
use transport::error::RequestError;

use super::lane::{Lane, Outcome};
use super::{Event, Pace, Plan, Shared, Way, reconnect};

/// How much earlier than due an open loop wakes, and yields the rest away: with the timer slack that the trader
/// asks for, a sleep here ends some 15 µs late, which would otherwise count as the exchange's latency.
const EARLY: Duration = Duration::from_micros(20);
/// Sweeps that move nothing before a thread with several lanes waits for all of them.
const IDLE_SWEEPS: u32 = 2;

/// A thread's surroundings.
pub(crate) struct Context<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) shared: &'a Shared,
    pub(crate) events: &'a Sender<(usize, Event)>,
}

impl Context<'_> {
    /// Reports; the coordinator listens for as long as clients run.
    pub(crate) fn tell(&self, client: usize, event: Event) {
        _ = self.events.send((client, event));
    }
}

/// Runs the lanes until the plan is done, the run is stopped or the exchange is gone for good, and reports each.
pub(crate) fn run(context: &Context<'_>, mut lanes: Vec<(usize, Lane<'_>)>, start: Instant) {
    for (_, lane) in &mut lanes {
        lane.books.start(start);
    }
    let simple = context.plan.depth == 1 && matches!(context.plan.pace, Pace::Closed { .. });
    match lanes.as_mut_slice() {
        [(client, lane)] if simple => {
            if fire(context, *client, lane).is_err() {
                lane.books.give_up();
            }
        }
        lanes => pump(context, lanes),
    }
    for (client, lane) in lanes {
        context.tell(client, Event::Finished(lane.books.account()));
    }
}

/// The exchange did not come back.
struct GaveUp;

/// One request at a time. One clock reading per request: the end of one is the start of the next.
fn fire(context: &Context<'_>, client: usize, lane: &mut Lane<'_>) -> Result<(), GaveUp> {
    let think = match context.plan.pace {
        Pace::Closed { think } => think,
        Pace::Open { .. } => Duration::ZERO,
    };
    let mut since = Instant::now();
    while lane.books.may_send() && !context.shared.stopping() {
        let sequence = lane.books.sent();
        let Lane { synapse, books, .. } = lane;
        match synapse.fire_bytes(books.request(sequence)) {
            Ok(reply) => {
                let now = Instant::now();
                books.reply(sequence, now.saturating_duration_since(since), reply);
                since = now;
            }
            Err(e) => {
                mend(context, client, lane, &e, 1)?;
                since = Instant::now();
            }
        }
        if !think.is_zero() {
            context.shared.sleep_until(since + think);
            since = Instant::now();
        }
    }
    Ok(())
}

/// Any number of lanes with any number of requests in flight.
fn pump(context: &Context<'_>, lanes: &mut [(usize, Lane<'_>)]) {
    let mut idle = 0;
    let mut group = Group::new(context.plan.config.wait);
    let single = lanes.len() == 1;
    let patience = if single { 0 } else { IDLE_SWEEPS };
    loop {
        if context.shared.stopping() {
            lanes.iter_mut().for_each(|(_, lane)| lane.books.close());
        }
        let now = Instant::now();
        let mut moved = false;
        for (client, lane) in lanes.iter_mut() {
            let outcome = lane.send(now).and_then(|sent| Ok(lane.collect()? | sent));
            moved |= settle(context, *client, lane, outcome);
        }
        if moved {
            idle = 0;
            continue;
        }
        idle += 1;
        let due = lanes.iter().filter_map(|(_, lane)| lane.next_due()).min();
        let done = lanes.iter().all(|(_, lane)| !lane.books.may_send());
        let oldest = lanes
            .iter_mut()
            .filter(|(_, lane)| lane.in_flight() > 0)
            .min_by_key(|(_, lane)| lane.oldest());
        match (oldest, due) {
            (None, None) if done => return,
            (None, Some(due)) => wait_for(context, due),
            (Some((client, lane)), None) if idle > patience => {
                if single {
                    let outcome = lane.receive().map(|()| true);
                    settle(context, *client, lane, outcome);
                } else {
                    wait_for_any(context, &mut group, lanes);
                }
            }
            _ => std::thread::yield_now(),
        }
    }
}

/// Something is in flight, and there is nothing to do before a reply comes.
fn wait_for_any(context: &Context<'_>, group: &mut Group, lanes: &mut [(usize, Lane<'_>)]) {
    let timeout = context.plan.config.request_timeout;
    let mut members: Vec<_> = lanes
        .iter_mut()
        .filter(|(_, lane)| lane.in_flight() > 0)
        .map(|(_, lane)| &mut lane.synapse)
        .collect();
    let found = group.wait(&mut members, timeout);
    // Who has something is found by the next sweep. Nobody: as when waiting for one.
    let error = match found {
        Ok(Some(_)) => return,
        Ok(None) => RequestError::timed_out(timeout),
        Err(error) => error,
    };
    let oldest = lanes
        .iter_mut()
        .filter(|(_, lane)| lane.in_flight() > 0)
        .min_by_key(|(_, lane)| lane.oldest());
    if let Some((client, lane)) = oldest {
        settle(context, *client, lane, Err(error));
    }
}

/// Nothing is in flight and nothing due before `due`.
fn wait_for(context: &Context<'_>, due: Instant) {
    if matches!(context.plan.pace, Pace::Closed { .. }) {
        return context.shared.sleep_until(due);
    }
    context.shared.sleep_until(due - EARLY);
    while Instant::now() < due && !context.shared.stopping() {
        std::thread::yield_now();
    }
}

/// Repairs a lane after an error; one that can't be repaired sends no more. True if anything moved.
fn settle(
    context: &Context<'_>,
    client: usize,
    lane: &mut Lane<'_>,
    outcome: Result<bool, RequestError>,
) -> bool {
    match outcome {
        Ok(moved) => moved,
        Err(e) => {
            if mend(context, client, lane, &e, 0).is_err() {
                lane.books.give_up();
            }
            true
        }
    }
}

/// Books an error; after a lost connection connects again. The lost requests are reported, never repeated.
#[cold]
fn mend(
    context: &Context<'_>,
    client: usize,
    lane: &mut Lane<'_>,
    error: &RequestError,
    fired: usize,
) -> Result<(), GaveUp> {
    let Outcome::Lost { reason, unknown } = lane.failed(error, fired) else {
        return Ok(());
    };
    context.tell(client, Event::Lost { reason, unknown });
    if context.plan.reconnect.is_zero() || context.shared.stopping() {
        return Err(GaveUp);
    }
    match reconnect::again(context.plan, context.shared) {
        Ok(synapse) => {
            let way = Way::of(&synapse);
            lane.synapse = synapse;
            context.tell(client, Event::Back(way));
            Ok(())
        }
        Err(failure) => {
            context.tell(client, Event::GaveUp(failure));
            Err(GaveUp)
        }
    }
}
