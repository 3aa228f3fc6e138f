//! The ladder: spins, then yields, then sleep or park; and the adaptive policy, which decides from what it sees.
//!
//! # How `adaptive` decides
//! Two questions, both answered by the waits themselves:
//! * *Is there a CPU to spin on?* How long yields take tells: [`super::crowd`]. In a crowd there is no spinning:
//!   three yields, then park, which beats spinning, yielding long and sleeping on throughput, tail and fairness alike.
//! * *Is spinning worth it?* Spinning pays if what is waited for comes before a park would have been over. The budget doubles (to
//!   50 µs, about what waking a halted virtual CPU costs) after waits that spinning would have caught, and halves (to 4 µs)
//!   after those it would not.
//!
//! Two exceptions. A client in a crowd spins for a few answers in a row while they come at once: [`super::turn`]. And who has just woken
//! the other side yields before it spins, if it waits for it soon: [`Waiter::has_woken`]. (A group does not: what it waits for may come from others.)

mod progress;

use std::time::Duration;

use super::crowd::Crowd;
use super::slice;
use super::turn::Turn;
use super::{Look, Rung, Waited};
use crate::clock::Ticks;
use crate::config::WaitPolicy;
use progress::Progress;

/// Spins before the first look at the clock: some hundred nanoseconds, in which a fast answer arrives.
const FIRST_SPINS: u32 = 64;
/// Spins between looks at the clock.
const SPINS_PER_CLOCK: u32 = 32;
/// Spinning time between yields: the yield is the probe for a crowd, at a tenth of the time.
const YIELD_EVERY_NS: u64 = 3_000;
/// Yields before parking in a crowd. Three did best with 16 clients on two cores; more only burn time others could use.
const CROWD_YIELDS: u64 = 3;
/// Bounds of the spin budget.
const MIN_BUDGET_NS: u64 = 4_000;
const MAX_BUDGET_NS: u64 = 50_000;
/// A wait shorter than this, wake-up included, would rather have been spun: budget and wake-up cost together.
const WORTH_SPINNING_NS: u64 = 100_000;
/// After so long (10 ms) one who was woken has run, wherever the kernel put it: it moves waiting threads to free CPUs with each tick.
const WOKEN_FOR_NS: u64 = 10_000_000;
/// One sleep or park at most: then comes the next chance of a [`Look::tend`].
const LONGEST_PARK: Duration = Duration::from_millis(100);

/// One waiting side: its policy and what it has learnt. Lives as long as the connection or poller.
#[derive(Debug)]
pub(crate) struct Waiter {
    policy: WaitPolicy,
    crowd: Crowd,
    budget_ns: u64,
    /// Measured cost of a spin iteration, in 1/16 ns.
    spin_cost: u64,
    /// When the one to be waited for was woken: the next wait, if it is soon, begins with a yield.
    woke: Option<Ticks>,
    /// Of a client: when it may spin although there is a crowd.
    turn: Option<Turn>,
    /// When the first wait began that was in vain, since the last [`Look::tend`]: of limits that are shorter than the time between two of those, none
    /// would come in any one wait.
    in_vain: Option<Ticks>,
}

impl Waiter {
    /// A waiter that has learnt nothing yet.
    pub(crate) fn new(policy: WaitPolicy) -> Self {
        // What the thread needs in a crowd is allocated now, not on the path of a request: most wait where they were made.
        slice::prepare_thread();
        Self {
            policy,
            crowd: Crowd::new(),
            budget_ns: MAX_BUDGET_NS,
            spin_cost: 10 << 4,
            woke: None,
            turn: None,
            in_vain: None,
        }
    }

    /// One that waits for the answers to single requests, and may spin for a few of them in a crowd.
    pub(crate) fn of_client(policy: WaitPolicy) -> Self {
        Self {
            turn: (policy == WaitPolicy::Adaptive).then(Turn::new),
            ..Self::new(policy)
        }
    }

    /// The one to be waited for was asleep and has just been woken. The kernel may well have put it on this CPU (a halted virtual CPU
    /// does not count as free), where it can't run while we spin: the next adaptive wait begins with a yield.
    #[cold]
    #[inline(never)]
    pub(crate) fn has_woken(&mut self) {
        if self.policy == WaitPolicy::Adaptive {
            self.woke = Some(Ticks::now());
        }
    }

    /// What was asked long ago was answered without a wait.
    #[cold]
    #[inline(never)]
    fn forget_old_wake(&mut self) {
        let now = Ticks::now();
        self.woke = self.woke.filter(|at| now.waited_since(*at) < WOKEN_FOR_NS);
    }

    /// True while the CPUs are taken to be oversubscribed.
    pub(crate) fn crowded(&self) -> bool {
        self.crowd.is_here()
    }

    /// How long a sleep of this policy is meant to last, in ns; 0 if it parks until it is woken.
    pub(crate) fn asked_sleep_ns(&self) -> u64 {
        match self.policy {
            WaitPolicy::Ladder { sleep, .. } => u64::try_from(sleep.as_nanos()).unwrap_or(u64::MAX),
            WaitPolicy::Adaptive | WaitPolicy::Spin | WaitPolicy::Park => 0,
        }
    }

    /// Spin time after which this waiter parks, at the moment, in ns.
    pub(crate) fn budget_ns(&self) -> u64 {
        match self.policy {
            WaitPolicy::Adaptive if self.crowded() => 0,
            WaitPolicy::Adaptive => self.budget_ns,
            WaitPolicy::Spin => u64::MAX,
            WaitPolicy::Park => 0,
            WaitPolicy::Ladder { spins, .. } => u64::from(spins) * (self.spin_cost >> 4),
        }
    }

    /// Waits until something is found or `limit` has passed. Call it after a first look that found nothing; of a limit of zero that was all.
    #[inline]
    pub(crate) fn wait<L: Look>(
        &mut self,
        what: &mut L,
        limit: Duration,
    ) -> (Option<L::Found>, Waited) {
        if limit.is_zero() {
            return self.pass(what);
        }
        if self.woke.is_some() {
            self.forget_old_wake();
        }
        let spin_first = match self.policy {
            WaitPolicy::Spin => true,
            WaitPolicy::Adaptive => !self.crowded() && self.woke.is_none(),
            WaitPolicy::Park | WaitPolicy::Ladder { .. } => false,
        };
        let mut spins = 0;
        if spin_first {
            for n in 1..=FIRST_SPINS {
                std::hint::spin_loop();
                if let Some(found) = what.look() {
                    return (Some(found), self.short(n));
                }
            }
            spins = FIRST_SPINS;
        } else if self.woke.is_none()
            && let Some(turn) = &mut self.turn
        {
            let looks = turn.looks();
            for n in 1..=looks {
                std::hint::spin_loop();
                if let Some(found) = what.look() {
                    turn.looked(true);
                    return (Some(found), self.short(n));
                }
            }
            if looks > 0 {
                turn.looked(false);
            }
            spins = looks;
        }
        self.long(what, limit, spins)
    }

    /// Parks once, and at once, for at most `limit`: for who knows that what it waits for takes its time. Nothing is learnt from it.
    pub(crate) fn rest<L: Look>(
        &self,
        what: &mut L,
        limit: Duration,
    ) -> (Option<L::Found>, Waited) {
        let mut p = Progress::begin(Waited::default(), limit, None);
        what.park(limit);
        p.waited.sleeps += 1;
        p.account(Rung::Sleep);
        let found = what.look().or_else(|| p.tend(what));
        (found, p.waited)
    }

    /// Accounts for a wait that ended before the clock was read.
    #[inline]
    fn short(&self, spins: u32) -> Waited {
        let spins = u64::from(spins);
        Waited {
            spins,
            spin_ns: (spins * self.spin_cost) >> 4,
            ..Waited::default()
        }
    }

    #[cold]
    #[inline(never)]
    fn long<L: Look>(
        &mut self,
        what: &mut L,
        limit: Duration,
        spins: u32,
    ) -> (Option<L::Found>, Waited) {
        let mut p = Progress::begin(self.short(spins), limit, self.in_vain);
        let found = match self.policy {
            WaitPolicy::Adaptive => self.adaptive(what, &mut p),
            WaitPolicy::Spin => self.spin(what, &mut p, u64::MAX),
            WaitPolicy::Park => self
                .yields(what, &mut p, CROWD_YIELDS)
                .or_else(|| self.parks(what, &mut p)),
            WaitPolicy::Ladder {
                spins,
                yields,
                sleep,
            } => self.ladder(what, &mut p, spins, yields, sleep),
        };
        // Who has chosen another policy has plans of their own with this thread.
        let to_leave = match self.policy {
            WaitPolicy::Adaptive => what.is_to_leave(),
            _ => None,
        };
        self.crowd.fit_thread(&p.waited, to_leave, p.now);
        self.in_vain = p.in_vain(found.is_some());
        (found, p.waited)
    }

    /// There is no time to wait.
    #[cold]
    #[inline(never)]
    fn pass<L: Look>(&mut self, what: &mut L) -> (Option<L::Found>, Waited) {
        let mut p = Progress::begin(Waited::default(), Duration::ZERO, self.in_vain);
        let found = p.tend(what);
        self.in_vain = p.in_vain(found.is_some());
        (found, p.waited)
    }

    fn adaptive<L: Look>(&mut self, what: &mut L, p: &mut Progress) -> Option<L::Found> {
        let mut found = None;
        if self.woke.take().is_some() {
            p.waited.hand_over();
            p.now = Ticks::now();
            found = what.look();
            p.waited.rung = Rung::Yield;
        }
        if found.is_some() {
            return found;
        }
        if self.crowded() {
            found = self.yields(what, p, CROWD_YIELDS);
        } else {
            let budget = self.budget_ns;
            // A limit may be shorter than the budget.
            while found.is_none() && !p.over() && p.elapsed() < budget && !self.crowded() {
                found = self.spin(what, p, YIELD_EVERY_NS);
                if found.is_none() && !p.over() {
                    found = self.yields(what, p, 1);
                }
            }
        }
        if found.is_some() {
            if p.waited.rung != Rung::Sleep && !self.crowded() {
                self.budget_ns = (self.budget_ns * 2).min(MAX_BUDGET_NS);
            }
            return found;
        }
        if p.over() {
            return None;
        }
        let found = self.parks(what, p);
        if p.elapsed() < WORTH_SPINNING_NS {
            self.budget_ns = (self.budget_ns * 2).min(MAX_BUDGET_NS);
        } else {
            self.budget_ns = (self.budget_ns / 2).max(MIN_BUDGET_NS);
        }
        found
    }

    /// The fixed ladder, from the start again after each sleep.
    fn ladder<L: Look>(
        &mut self,
        what: &mut L,
        p: &mut Progress,
        spins: u32,
        yields: u32,
        sleep: Duration,
    ) -> Option<L::Found> {
        loop {
            for _ in 0..spins {
                std::hint::spin_loop();
                p.waited.spins += 1;
                if let Some(found) = what.look() {
                    p.account(Rung::Spin);
                    return Some(found);
                }
            }
            p.account(Rung::Spin);
            if let Some(found) = self.yields(what, p, u64::from(yields)) {
                return Some(found);
            }
            // Neither past the deadline nor past the next look whether there is still somebody to wait for.
            std::thread::sleep(sleep.min(p.left()).min(LONGEST_PARK));
            p.waited.sleeps += 1;
            p.account(Rung::Sleep);
            if let Some(found) = what.look().or_else(|| p.tend(what)) {
                return Some(found);
            }
            if p.over() {
                return None;
            }
        }
    }

    /// Spins for `for_ns`.
    fn spin<L: Look>(&mut self, what: &mut L, p: &mut Progress, for_ns: u64) -> Option<L::Found> {
        let begun = p.now;
        loop {
            let before = p.now;
            for n in 1..=SPINS_PER_CLOCK {
                std::hint::spin_loop();
                if let Some(found) = what.look() {
                    p.waited.spins += u64::from(n);
                    p.account(Rung::Spin);
                    return Some(found);
                }
            }
            p.waited.spins += u64::from(SPINS_PER_CLOCK);
            p.account(Rung::Spin);
            let cost = p.now.ns_since(before) * 16 / u64::from(SPINS_PER_CLOCK);
            // An outlier is a preemption, not a spin: let the average move by an eighth of at most its double.
            self.spin_cost = (self.spin_cost * 7 + cost.min(self.spin_cost * 2 + 16)) / 8;
            if let Some(found) = p.tend(what) {
                return Some(found);
            }
            if p.over() || p.now.ns_since(begun) >= for_ns {
                return None;
            }
        }
    }

    /// Yields up to `count` times, and learns from how long they take.
    fn yields<L: Look>(&mut self, what: &mut L, p: &mut Progress, count: u64) -> Option<L::Found> {
        for _ in 0..count {
            let before = p.now;
            std::thread::yield_now();
            p.waited.yields += 1;
            p.account(Rung::Yield);
            self.crowd.has_yielded(p.now.ns_since(before));
            // In a crowd one of them may take milliseconds, and a ladder have thousands.
            if let Some(found) = what.look().or_else(|| p.tend(what)) {
                return Some(found);
            }
            if p.over() {
                return None;
            }
        }
        None
    }

    /// Parks until found or over.
    fn parks<L: Look>(&mut self, what: &mut L, p: &mut Progress) -> Option<L::Found> {
        loop {
            what.park(LONGEST_PARK.min(p.left()));
            p.waited.sleeps += 1;
            p.account(Rung::Sleep);
            if let Some(found) = what.look() {
                return Some(found);
            }
            if let Some(found) = p.tend(what) {
                return Some(found);
            }
            if p.over() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests;
