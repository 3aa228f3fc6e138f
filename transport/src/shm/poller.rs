//! The serving loop: one thread, many connections, round robin with a bound per turn.
//!
//! A poller sleeps on all its connections at once, each on its own futex word (`futex_waitv`): a word in common would let one client
//! keep the others from being heard. A thread per client is the same loop with one connection.

mod look;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::inbox::{Inbox, MAX_CONNECTIONS};
use super::isolation::{Isolation, Work};
use super::server::{ShmServer, Turn};
use crate::clock::Ticks;
use crate::error::CloseReason;
use crate::handler::Handler;
use crate::mem::buffer::Buffer;
use crate::record;
use crate::stats::recorder::{bump, set};
use crate::stats::slot::SlotWriter;
use crate::wait::Waited;
use crate::wait::futex::WaitWord;
use crate::wait::migration::{current_cpu, go_to};
use crate::wait::policy::Waiter;
use crate::wait::slice::ShortSlice;
use look::Anything;

/// Between two looks whether there is room.
const FAREWELL_SLICE: Duration = Duration::from_millis(1);
/// After a sleep this long (1 ms) it is likely that nobody else has asked for anything yet.
const LONG_SLEEP_NS: u64 = 1_000_000;
/// After one this long (5 ms) the books are cold, too: the one client there is has its CPU back before them. After shorter ones the switch costs more.
const COLD_SLEEP_NS: u64 = 5_000_000;
/// After a sleep this long (0.2 ms) the next one of a poller with one client is likely to be as long; after a shorter one that client is busy.
const REST_NS: u64 = 200_000;
/// How long a poller sleeps at most.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// How often a poller looks at most whether it is on its CPU (1 ms).
const SEAT_EVERY_NS: u64 = 1_000_000;
/// Busy rounds between looks at the clock for the books.
const ROUNDS_PER_MARK: u32 = 1024;

/// One serving thread's state.
pub(crate) struct Poller {
    connections: Vec<ShmServer>,
    /// The request buffer: every request is copied into it before the handler sees it; reused across connections.
    buffer: Buffer,
    inbox: Arc<Inbox>,
    waiter: Waiter,
    slot: Arc<SlotWriter>,
    seen_news: u32,
    first: usize,
    /// End of the time that is booked.
    booked: Ticks,
    /// Time waited since then.
    waited_ns: u64,
    /// Busy rounds since then.
    rounds: u32,
    /// A handler took so long that its time is booked before the usual number of rounds.
    overdue: bool,
    /// How long it slept in the last wait.
    last_sleep_ns: u64,
    /// When it looked last whether it is on its CPU.
    seated: Ticks,
    /// Requests served since the last mark.
    served: u64,
    isolation: Isolation,
    /// The CPU that all connections have been told to leave.
    to_leave: Option<usize>,
    /// What it sleeps on; made once, and filled in before each sleep.
    words: Vec<WaitWord>,
}

impl Poller {
    /// A poller for messages as large as `buffer`.
    pub(crate) fn new(
        inbox: Arc<Inbox>,
        buffer: Buffer,
        waiter: Waiter,
        slot: Arc<SlotWriter>,
    ) -> Self {
        let now = Ticks::now();
        Self {
            connections: Vec::new(),
            buffer,
            inbox,
            waiter,
            slot,
            seen_news: 0,
            first: 0,
            booked: now,
            waited_ns: 0,
            rounds: 0,
            overdue: false,
            last_sleep_ns: 0,
            seated: now,
            served: 0,
            isolation: Isolation::new(now.monotonic_ns()),
            to_leave: None,
            words: Vec::with_capacity(1 + MAX_CONNECTIONS),
        }
    }

    /// Takes in what arrived and drops what ended. True if the poller is to stop.
    #[cold]
    fn read_news(&mut self, news: u32) -> bool {
        self.seen_news = news;
        for connection in self.inbox.take_arrivals() {
            connection.served_by(self.slot.index());
            connection.tell_to_leave(self.to_leave);
            self.connections.push(connection);
        }
        for i in (0..self.connections.len()).rev() {
            if self.connections[i].is_gone() {
                self.remove(i, CloseReason::PeerGone);
            }
        }
        if self.inbox.is_stopped() {
            return true;
        }
        for i in (0..self.connections.len()).rev() {
            self.move_on(i);
        }
        false
    }

    /// Hands a connection on that is to be served elsewhere.
    ///
    /// Here, between two rounds, all announcements have been taken back: its client finds nobody to wake, and the other poller looks at it
    /// before it announces a sleep of its own, as at a new connection.
    fn move_on(&mut self, index: usize) {
        if let Some(place) = self.connections[index].ends().leave() {
            self.give(index, &place);
        }
    }

    fn give(&mut self, index: usize, place: &Inbox) {
        match place.offer(self.connections.swap_remove(index)) {
            None => self.inbox.cancel(),
            // The server ends. We are told next, and have the time that it takes to find room for what this client is owed.
            Some((connection, CloseReason::Shutdown)) => self.connections.push(connection),
            Some((connection, reason)) => {
                connection.end(reason);
                self.inbox.cancel();
            }
        }
    }

    /// Goes back to the CPU where its clients are, if it has been taken elsewhere.
    fn take_seat(&mut self, now: Ticks) {
        if let Some(cpu) = self.inbox.seat()
            && now.ns_since(self.seated) >= SEAT_EVERY_NS
        {
            self.seated = now;
            go_to(cpu);
        }
    }

    #[cold]
    fn remove(&mut self, index: usize, reason: CloseReason) {
        self.connections.swap_remove(index).end(reason);
        self.inbox.cancel();
    }

    /// One round over all connections: how many requests were served.
    fn round(&mut self, handler: &Handler) -> u32 {
        let n = self.connections.len();
        let mut served = 0;
        let mut over = None;
        // Another one comes first each round, so that none is always behind a busy neighbour.
        self.first = if self.first + 1 >= n {
            0
        } else {
            self.first + 1
        };
        for i in (self.first..n).chain(0..self.first) {
            match self.connections[i].turn(handler, &mut self.buffer) {
                Turn::Idle => {}
                Turn::Served(count) => served += count,
                Turn::ServedLong(count) => {
                    served += count;
                    self.overdue = true;
                }
                Turn::Over(reason) => over = Some((i, reason)),
            }
        }
        if let Some((i, reason)) = over {
            self.remove(i, reason);
        }
        served
    }

    /// Books the time since the last mark that was not spent waiting as useful.
    fn mark(&mut self) {
        let now = Ticks::now();
        let useful = now.ns_since(self.booked).saturating_sub(self.waited_ns);
        bump(&self.slot.wait().useful_ns, useful);
        let now_ns = now.monotonic_ns();
        set(&self.slot.req().last_progress_ns, now_ns);
        let work = Work {
            served: std::mem::take(&mut self.served),
            useful_ns: useful,
        };
        if self.inbox.seat().is_none() {
            let crowded = self.waiter.crowded();
            self.isolation.has_worked(work, crowded, now_ns);
        } else {
            // We are here for those who wait on this CPU.
            self.isolation = Isolation::new(now_ns);
        }
        self.tell_to_leave();
        (self.booked, self.waited_ns, self.rounds) = (now, 0, 0);
        self.overdue = false;
        self.take_seat(now);
    }

    /// Tells all connections which CPU is to be left to us, if that has changed.
    fn tell_to_leave(&mut self) {
        let wanted = self.isolation.is_wanted();
        let to_leave = if wanted { current_cpu() } else { None };
        if to_leave != self.to_leave {
            self.to_leave = to_leave;
            self.connections
                .iter()
                .for_each(|connection| connection.tell_to_leave(to_leave));
        }
    }

    /// A busy round is over. From time to time the indices are checked and the time is booked.
    fn busy(&mut self, served: u32) {
        self.rounds += 1;
        self.served += u64::from(served);
        if self.rounds >= ROUNDS_PER_MARK || self.overdue {
            self.connections.iter_mut().for_each(ShmServer::cross_check);
            self.mark();
        }
    }

    /// Whether to sleep at once: there is nobody, or one client, who thinks for long, also just now.
    fn rests(&self) -> bool {
        let thinks = self.inbox.is_paired() && self.last_sleep_ns >= REST_NS;
        thinks || self.connections.is_empty()
    }

    /// Waits until a connection or the inbox has something. A wait that ended while spinning is not booked yet: whoever was waited for
    /// is answered first.
    fn wait(&mut self, handler: &Handler) -> Option<Unbooked> {
        let rests = self.rests();
        let mut look = Anything {
            connections: &mut self.connections,
            inbox: &self.inbox,
            words: &mut self.words,
            seen: self.seen_news,
            slot: &self.slot,
            parked: false,
            woken: None,
        };
        let (found, mut waited) = if rests {
            self.waiter.rest(&mut look, LONGEST_WAIT)
        } else {
            self.waiter.wait(&mut look, LONGEST_WAIT)
        };
        self.last_sleep_ns = waited.sleep_ns;
        let (parked, mut woken) = (look.parked, look.woken);
        if let Some(i) = woken {
            // Whoever rang first: everything else here touches memory of all connections, which is cold after a sleep.
            let connection = &mut self.connections[i];
            connection.retract();
            connection.paused();
            if let Turn::Over(reason) = connection.turn(handler, &mut self.buffer) {
                self.remove(i, reason);
                woken = None;
            }
            let long_ns = if rests { COLD_SLEEP_NS } else { LONG_SLEEP_NS };
            if waited.sleep_ns >= long_ns {
                // The kernel likes to wake us where the client runs, and it may have yielded to us: what is below can wait for it.
                waited.hand_over();
            }
        }
        if parked {
            self.connections.iter().for_each(ShmServer::retract);
        }
        self.waited_ns += waited.spin_ns + waited.yield_ns + waited.sleep_ns;
        let unbooked = Unbooked {
            waited,
            found: found.is_some(),
        };
        if waited.yields + waited.sleeps == 0 {
            return Some(unbooked);
        }
        self.book(unbooked);
        self.mark();
        if waited.sleeps > 0 {
            for (i, connection) in self.connections.iter_mut().enumerate() {
                if woken != Some(i) {
                    connection.paused();
                }
            }
        }
        None
    }

    /// Answers that outgrew their place have a moment to find another one: their requests were carried out. Who is owed nothing is told of the end
    /// at once, and so is who arrives meanwhile: one client that takes no replies is not to keep the others. How many answers found no room.
    fn finish(&mut self) -> usize {
        let begun = Instant::now();
        self.connections
            .extend(self.inbox.close(CloseReason::Shutdown));
        loop {
            for i in (0..self.connections.len()).rev() {
                if !self.connections[i].still_owes() {
                    self.remove(i, CloseReason::Shutdown);
                }
            }
            if self.connections.is_empty() || begun.elapsed() >= self.inbox.farewell() {
                // One each: no request is taken while an answer waits.
                return self.connections.len();
            }
            std::thread::sleep(FAREWELL_SLICE);
        }
    }

    #[inline(always)]
    fn book(&self, Unbooked { waited, found }: Unbooked) {
        record::waited(&self.slot, &self.waiter, &waited, found);
    }
}

/// A wait that is over, and not in the books.
struct Unbooked {
    waited: Waited,
    found: bool,
}

/// Serves connections until the inbox says stop; drops (and so closes) all of them then. This is the server's hot loop. How many answers were dropped
/// because their clients left them no room.
pub(crate) fn handle_shm_loop(mut poller: Poller, handler: &Handler) -> usize {
    let _slice = ShortSlice::hold();
    let mut unbooked = None;
    loop {
        // Acquire pairs with the Release in `Inbox::nudge`.
        let news = poller.inbox.news().load(Ordering::Acquire);
        if news != poller.seen_news && poller.read_news(news) {
            break;
        }
        let served = poller.round(handler);
        // After the round, like all books that can wait: what was found is answered first.
        bump(&poller.slot.wait().polls, 1);
        if let Some(unbooked) = unbooked.take() {
            poller.book(unbooked);
        }
        if served == 0 {
            unbooked = poller.wait(handler);
        } else {
            poller.busy(served);
        }
    }
    if let Some(unbooked) = unbooked {
        poller.book(unbooked);
    }
    poller.finish()
}

impl Drop for Poller {
    /// Whatever ended the poller, a defect of ours included: nobody stays connected to a thread that is no more, or is sent to it.
    fn drop(&mut self) {
        let reason = if std::thread::panicking() {
            CloseReason::Local
        } else {
            CloseReason::Shutdown
        };
        self.slot.close(reason);
        let arrivals = self.inbox.close(reason);
        for connection in self.connections.drain(..).chain(arrivals) {
            connection.end(reason);
        }
    }
}

#[cfg(test)]
mod tests;
