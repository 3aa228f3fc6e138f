//! Whether a poller asks its clients to leave its CPU to it, decided by what that brings.
//!
//! Where there are more threads than CPUs, the kernel puts clients beside the poller. With small requests more are answered if they are not
//! (`wait/migration` tells why): 16 processes with 64 B on two CPUs 1.7 times as many. With large ones it is the other way round, as it is where
//! clients work for long between their requests or others need CPUs, too. None of that can be seen from here, but its outcome can. So it is tried: requests
//! answered per time while nothing is asked for, then for a moment while it is, and what was better is kept for a while.
//!
//! Knows no clock and no ring: times and counts come in, a wish comes out.

use std::time::Duration;

/// Counted so long before anything is concluded.
const MEASURED: Duration = Duration::from_millis(30);
/// Not counted at the beginning of a trial: clients that are asked to leave do so within their next wait.
const UNTIL_LEFT: Duration = Duration::from_millis(10);
/// Not counted after one: the kernel spreads threads every 32 ms where all CPUs are busy (2 ms × `busy_factor` 16, for two CPUs).
const UNTIL_SPREAD: Duration = Duration::from_millis(60);
/// What is better by less may be chance: 16 clients on a virtual machine answer ±10 % in 30 ms.
const WORTH_IT: f64 = 1.1;
/// Below this share of what it brought, for so many windows in a row, something has changed.
const CHANGED: f64 = 2.0 / 3.0;
const CHANGED_WINDOWS: u32 = 3;
/// Trials in a row that must have brought it: beside a computing thread one of them may only show where that happened to run…
const CONVINCING: u32 = 2;
/// …unless it brought so much: 16 processes at 64 B have 1.4 to 1.9 times as much.
const DECISIVE: f64 = 1.4;
/// A better arrangement is put to the test again after so long.
const KEPT: Duration = Duration::from_secs(60);
/// Time to the next trial after the first that brought nothing, doubled by each further one, and at most: one trial takes 40 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Requests a second below which there is nothing to gain…
const LEAST_RATE: f64 = 20_000.0;
/// …and time per request above which the poller needs more of a CPU than can be left to it alone.
const LONGEST_REQUEST: Duration = Duration::from_micros(1);

/// What a poller has done since the last time it was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    /// Requests answered.
    pub(super) served: u64,
    /// Time that was not spent waiting, in ns.
    pub(super) useful_ns: u64,
}

/// See the module. Of one poller.
#[derive(Debug)]
pub(super) struct Isolation {
    state: State,
    /// When the state began, or was last judged.
    since_ns: u64,
    /// Time from `since_ns` on that is not counted.
    settles: Duration,
    /// What was done since `since_ns` plus `settles`.
    work: Work,
    /// Successful trials in a row; 0 again after one that failed, and once there were enough.
    successes: u32,
    /// When the last trial failed, and the pause until the next.
    failed: Option<(u64, Duration)>,
    /// The pause after the next trial that fails.
    next_pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// Nothing is asked for.
    Shared,
    /// A CPU of its own is asked for on trial: does it bring more than `shared_rate` requests a second?
    Trial { shared_rate: f64 },
    /// It is asked for, since the trial answered `rate` requests a second. For `slow` windows in a row it has answered far fewer.
    Alone { rate: f64, since_ns: u64, slow: u32 },
}

impl Isolation {
    pub(super) const fn new(now_ns: u64) -> Self {
        Self {
            state: State::Shared,
            since_ns: now_ns,
            settles: UNTIL_SPREAD,
            work: Work {
                served: 0,
                useful_ns: 0,
            },
            successes: 0,
            failed: None,
            next_pause: FIRST_PAUSE,
        }
    }

    /// True while clients are asked to leave.
    pub(super) const fn is_wanted(&self) -> bool {
        !matches!(self.state, State::Shared)
    }

    /// So much was done since the last call, which may be as long ago as it likes; `crowded` says whether the poller's CPU is shared, as far as it can
    /// tell. Cheap, but for once in 30 ms.
    pub(super) fn has_worked(&mut self, work: Work, crowded: bool, now_ns: u64) {
        let ns = now_ns.saturating_sub(self.since_ns);
        if ns < nanos(self.settles) {
            return;
        }
        if self.settles > Duration::ZERO {
            self.begin_counting(now_ns);
            return;
        }
        self.work.served += work.served;
        self.work.useful_ns += work.useful_ns;
        if ns >= nanos(MEASURED) {
            self.judge(self.work.served as f64 * 1e9 / ns as f64, crowded, now_ns);
        }
    }

    fn begin_counting(&mut self, now_ns: u64) {
        (self.since_ns, self.settles, self.work) = (now_ns, Duration::ZERO, Work::default());
    }

    fn enter(&mut self, state: State, settles: Duration, now_ns: u64) {
        self.begin_counting(now_ns);
        (self.state, self.settles) = (state, settles);
    }

    fn stay_alone(&mut self, rate: f64, since_ns: u64, slow: u32, now_ns: u64) {
        let state = State::Alone {
            rate,
            since_ns,
            slow,
        };
        self.enter(state, Duration::ZERO, now_ns);
    }

    #[cold]
    fn judge(&mut self, rate: f64, crowded: bool, now_ns: u64) {
        match self.state {
            State::Shared if crowded && self.is_worth_a_trial(rate, now_ns) => {
                self.enter(State::Trial { shared_rate: rate }, UNTIL_LEFT, now_ns);
            }
            State::Trial { shared_rate } if rate >= shared_rate * WORTH_IT => {
                self.successes += 1;
                if self.successes < CONVINCING && rate < shared_rate * DECISIVE {
                    self.enter(State::Shared, UNTIL_SPREAD, now_ns);
                    return;
                }
                self.successes = 0;
                (self.next_pause, self.failed) = (FIRST_PAUSE, None);
                self.stay_alone(rate, now_ns, 0, now_ns);
            }
            State::Trial { .. } => {
                self.successes = 0;
                self.failed = Some((now_ns, self.next_pause));
                self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
                self.enter(State::Shared, UNTIL_SPREAD, now_ns);
            }
            State::Alone {
                rate: brought,
                since_ns,
                slow,
            } => {
                let slow = if rate < brought * CHANGED {
                    slow + 1
                } else {
                    0
                };
                if slow >= CHANGED_WINDOWS || now_ns.saturating_sub(since_ns) >= nanos(KEPT) {
                    self.enter(State::Shared, UNTIL_SPREAD, now_ns);
                } else {
                    self.stay_alone(brought, since_ns, slow, now_ns);
                }
            }
            State::Shared => self.begin_counting(now_ns),
        }
    }

    fn is_worth_a_trial(&self, rate: f64, now_ns: u64) -> bool {
        let Work { served, useful_ns } = self.work;
        let pauses = |(failed, pause)| now_ns.saturating_sub(failed) < nanos(pause);
        rate >= LEAST_RATE
            && useful_ns <= served * nanos(LONGEST_REQUEST)
            && !self.failed.is_some_and(pauses)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl Isolation {
    /// In the midst of being wanted.
    pub(super) const fn wanted(now_ns: u64) -> Self {
        let mut isolation = Self::new(now_ns);
        isolation.state = State::Trial {
            shared_rate: LEAST_RATE,
        };
        isolation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);

    /// Clients and a poller that answer so many requests a second, depending on whether the poller is alone, each for so many ns.
    struct World {
        isolation: Isolation,
        now_ns: u64,
        trials: u32,
    }

    #[derive(Clone, Copy)]
    struct Rates {
        shared: f64,
        alone: f64,
        request_ns: u64,
        crowded: bool,
    }

    /// What 16 processes with 64 B have.
    const SMALL: Rates = Rates {
        shared: 650_000.0,
        alone: 950_000.0,
        request_ns: 400,
        crowded: true,
    };

    impl World {
        fn new() -> Self {
            Self {
                isolation: Isolation::new(0),
                now_ns: 0,
                trials: 0,
            }
        }

        /// So long; the share of it that the poller wanted to be alone.
        fn run(&mut self, time: Duration, rates: Rates) -> f64 {
            let ticks = time.as_millis() as u32;
            let mut alone = 0;
            for _ in 0..ticks {
                let wanted = self.isolation.is_wanted();
                let rate = if wanted { rates.alone } else { rates.shared };
                let served = (rate * TICK.as_secs_f64()) as u64;
                let work = Work {
                    served,
                    useful_ns: served * rates.request_ns,
                };
                self.now_ns += nanos(TICK);
                self.isolation
                    .has_worked(work, rates.crowded && !wanted, self.now_ns);
                self.trials += u32::from(!wanted && self.isolation.is_wanted());
                alone += u32::from(wanted);
            }
            f64::from(alone) / f64::from(ticks)
        }
    }

    #[test]
    fn a_poller_that_answers_more_alone_is_soon_alone_and_stays_so() {
        let mut world = World::new();
        world.run(Duration::from_millis(300), SMALL);
        assert!(world.isolation.is_wanted());
        let share = world.run(Duration::from_secs(300), SMALL);
        assert!(share > 0.99, "{share}");
    }

    #[test]
    fn where_it_brings_nothing_trials_become_rare() {
        for alone in [100_000.0, 650_000.0, 650_000.0 * (WORTH_IT - 0.01)] {
            let mut world = World::new();
            let share = world.run(Duration::from_secs(600), Rates { alone, ..SMALL });
            assert!(share < 0.002 && world.trials > 5, "{share}");
        }
    }

    #[test]
    fn nothing_is_tried_without_a_crowd_or_with_few_requests_or_dear_ones() {
        let not_worth_it = [
            Rates {
                crowded: false,
                ..SMALL
            },
            Rates {
                shared: 10_000.0,
                ..SMALL
            },
            Rates {
                request_ns: 1_100,
                ..SMALL
            },
        ];
        for rates in not_worth_it {
            let mut world = World::new();
            world.run(Duration::from_secs(10), rates);
            assert_eq!(world.trials, 0);
        }
    }

    #[test]
    fn what_no_longer_pays_is_given_up_at_once_and_what_slows_for_a_moment_is_not() {
        let mut world = World::new();
        world.run(Duration::from_secs(1), SMALL);
        let slow = Rates {
            alone: 300_000.0,
            ..SMALL
        };
        for rates in [slow, SMALL, slow, SMALL] {
            let share = world.run(MEASURED * (CHANGED_WINDOWS - 1), rates);
            assert!(share == 1.0, "a moment");
        }
        let share = world.run(Duration::from_secs(2), slow);
        assert!(share < 0.15, "{share}");
        // What slows both ways is kept.
        let mut world = World::new();
        world.run(Duration::from_secs(1), SMALL);
        let half = Rates {
            shared: SMALL.shared / 2.0,
            alone: SMALL.alone / 2.0,
            ..SMALL
        };
        let share = world.run(Duration::from_secs(2), half);
        assert!(share > 0.8, "{share}");
    }

    #[test]
    fn an_advantage_is_put_to_the_test_from_time_to_time() {
        let mut world = World::new();
        world.run(Duration::from_secs(1), SMALL);
        // Not slower than before, but by now it would be faster without.
        let even = Rates {
            shared: 2_000_000.0,
            ..SMALL
        };
        let share = world.run(KEPT * 10, even);
        assert!(share < 0.12, "{share}");
    }

    #[test]
    fn one_lucky_trial_is_not_enough() {
        let mut world = World::new();
        let lucky = |trials: u32| Rates {
            alone: if trials % 2 == 1 { 1.3 } else { 0.5 } * SMALL.shared,
            ..SMALL
        };
        let mut alone = 0.0;
        for _ in 0..60_000 {
            alone += world.run(TICK, lucky(world.trials));
        }
        assert!(world.trials > 5 && alone / 60_000.0 < 0.02, "{alone} ms");
    }

    #[test]
    fn a_long_silence_is_no_slow_moment_of_anything() {
        let mut world = World::new();
        world.run(Duration::from_secs(1), SMALL);
        world.now_ns += nanos(Duration::from_secs(3600));
        let share = world.run(Duration::from_secs(1), SMALL);
        assert!(share > 0.8, "{share}");
    }
}
