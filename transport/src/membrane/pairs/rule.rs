//! When a poller for each client is worth while. Knows no clock and no client: what was seen comes in.

use std::time::Duration;

use super::super::pause::{Pause, REFUSED};

/// Clients that have a poller each at most: more threads than that are no trifle, and were not measured.
const MOST_CLIENTS: usize = 32;
/// Requests a second of the busiest client up to which they think for long. Of 16 processes on two CPUs those that think for 1 ms have half of the
/// median so; of those that think for 50 µs some have a fifth, at the cost of the others (fairness 0.4).
const FEW_PER_SECOND: u64 = 2_000;
/// What all requests together take of one CPU at most, in percent: handlers that compute are not what this is for.
const IDLE_PERCENT: u64 = 25;
/// In pairs, both may be so many times as much before they are given up.
const SLACK: u64 = 2;
/// Looks in a row (0.1 s each) that must find it otherwise than it is.
const CONVINCING: u32 = 2;
/// How long there are none after pairs, twice as long each time that they did not last, and at most: who is busy for a part of every second would
/// move everybody each time.
const SHORT_LIVED: Duration = Duration::from_millis(400);
const LONGEST_PAUSE: Duration = Duration::from_millis(6_400);
/// How long pairs are there for to have lasted.
const LASTED: Duration = Duration::from_secs(10);

/// What was seen of all clients since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// On shared memory.
    pub(super) clients: usize,
    /// Pollers that are there, busy or not.
    pub(super) pollers: usize,
    /// Requests of the busiest.
    pub(super) most: u64,
    /// Who asked for something, and slept in a blocking call for the last answer…
    pub(super) asleep: usize,
    /// …or did not: it came too soon; or the client waits for many connections at once, whose requests one poller answers in one go.
    pub(super) awake: usize,
    /// Time that requests took.
    pub(super) useful_ns: u64,
    /// Time since the last look.
    pub(super) ns: u64,
}

impl Seen {
    fn is_calm(self, paired: bool) -> bool {
        let slack = if paired { SLACK } else { 1 };
        let second = Duration::from_secs(1).as_nanos() as u64;
        let at_most = |did: u64, times: u64, of: u64| {
            did.saturating_mul(times) <= (of * slack).saturating_mul(self.ns)
        };
        (2..=MOST_CLIENTS).contains(&self.clients)
            && at_most(self.most, second, FEW_PER_SECOND)
            && at_most(self.useful_ns, 100, IDLE_PERCENT)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Rule {
    /// Looks in a row that found it otherwise.
    otherwise: u32,
    /// How long there have been pairs.
    lasts: Duration,
    over: Pause,
    refused: Pause,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            otherwise: 0,
            lasts: Duration::ZERO,
            over: Pause::new(SHORT_LIVED, LONGEST_PAUSE),
            refused: Pause::new(REFUSED, Duration::MAX),
        }
    }
}

impl Rule {
    /// A thread was not to be had.
    pub(super) fn refused(&mut self) {
        self.refused.begin();
    }

    /// They were.
    pub(super) fn had(&mut self) {
        self.refused.forget();
    }

    /// Whether so many pollers are there, or may be started.
    fn may_have(&self, seen: Seen, pollers: usize) -> bool {
        pollers <= seen.pollers || self.refused.is_over()
    }

    /// How many pollers there should be so that each of `clients` has its own; `None` if there are enough.
    pub(super) fn more(&self, seen: Seen, clients: usize, pollers: usize) -> Option<usize> {
        // The look that finds too many is not yet the one that ends the pairs: nobody gets one on the way.
        let more = clients > pollers && clients <= MOST_CLIENTS && self.may_have(seen, clients);
        more.then_some(clients)
    }

    /// Whether there should be a poller for each client, if there is or is not now.
    pub(super) fn wants(&mut self, seen: Seen, paired: bool) -> bool {
        let passed = Duration::from_nanos(seen.ns);
        self.refused.pass(passed);
        self.over.pass(passed);
        self.lasts = if paired {
            self.lasts.saturating_add(passed)
        } else {
            Duration::ZERO
        };
        if self.lasts >= LASTED {
            self.over.forget();
        }
        let calm = seen.is_calm(paired);
        // When nobody asks for anything, nothing is known that is new.
        let otherwise = if paired {
            !calm
        } else {
            calm && seen.asleep > seen.awake
                && self.may_have(seen, seen.clients)
                && self.over.is_over()
        };
        let silent = calm && seen.most == 0;
        if otherwise {
            self.otherwise += 1;
        } else if !silent {
            self.otherwise = 0;
        }
        let changes = self.otherwise >= CONVINCING;
        if changes {
            self.otherwise = 0;
            if paired {
                self.over.begin();
            }
        }
        paired != changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOK: Duration = Duration::from_millis(100);
    const LOOK_NS: u64 = LOOK.as_nanos() as u64;

    /// Looks within that time.
    const fn looks(time: Duration) -> u32 {
        (time.as_nanos() / LOOK.as_nanos()) as u32
    }

    /// 16 clients that sleep for their answers and have so many a second each, which take the pollers so long.
    fn seen(per_second: u64, request_ns: u64) -> Seen {
        let most = per_second / 10;
        Seen {
            clients: 16,
            pollers: 1,
            most,
            asleep: 16,
            awake: 0,
            useful_ns: 16 * most * request_ns,
            ns: LOOK_NS,
        }
    }

    /// Whether there are pairs after so many such looks, from without and from with.
    fn after(looks: u32, seen: Seen) -> [bool; 2] {
        [false, true].map(|mut paired| {
            let mut rule = Rule::default();
            for _ in 0..looks {
                paired = rule.wants(seen, paired);
            }
            paired
        })
    }

    #[test]
    fn who_thinks_for_long_has_a_poller_and_who_is_busy_shares_one() {
        assert_eq!(after(9, seen(900, 2_000)), [true, true], "1 ms");
        assert_eq!(after(9, seen(5_000, 2_000)), [false, false], "50 µs");
        assert_eq!(after(9, seen(40_000, 400)), [false, false], "no pause");
        assert_eq!(after(9, seen(900, 40_000)), [false, false], "they compute");
        // In between it stays as it is.
        assert_eq!(after(9, seen(3_000, 2_000)), [false, true]);
        assert_eq!(after(9, seen(900, 25_000)), [false, true]);
        // Once is an accident.
        assert_eq!(after(1, seen(900, 2_000)), [false, true]);
        assert_eq!(after(1, seen(40_000, 400)), [false, true]);
    }

    #[test]
    fn one_client_and_very_many_share_a_poller_as_ever() {
        let of = |clients| Seen {
            clients,
            ..seen(100, 2_000)
        };
        assert_eq!(after(9, of(1)), [false, false]);
        assert_eq!(after(9, of(2)), [true, true]);
        assert_eq!(after(9, of(MOST_CLIENTS)), [true, true]);
        assert_eq!(after(9, of(MOST_CLIENTS + 1)), [false, false]);
    }

    #[test]
    fn who_comes_gets_a_poller_too_and_a_burst_of_many_gets_none() {
        let mut rule = Rule::default();
        let burst = Seen {
            clients: 500,
            ..seen(100, 2_000)
        };
        assert!(rule.wants(burst, true), "not yet over");
        assert_eq!(rule.more(burst, burst.clients, 2), None);
        assert_eq!([3, 32].map(|n| rule.more(burst, n, 2)), [Some(3), Some(32)]);
        assert_eq!(rule.more(burst, 2, 3), None, "there are enough");
        rule.refused();
        assert_eq!(rule.more(burst, 3, 2), None);
        let there = Seen {
            pollers: 3,
            ..burst
        };
        assert_eq!(rule.more(there, 3, 2), Some(3), "none has to be started");
    }

    #[test]
    fn one_busy_client_among_many_that_think_is_enough_to_share() {
        let one = Seen {
            most: 4_000,
            ..seen(900, 400)
        };
        assert_eq!(after(9, one), [false, false]);
    }

    #[test]
    fn clients_that_do_not_sleep_in_their_calls_get_no_pollers_of_their_own() {
        let half = Seen {
            asleep: 8,
            awake: 8,
            ..seen(900, 2_000)
        };
        assert_eq!(after(9, half), [false, true]);
    }

    #[test]
    fn silence_changes_nothing_and_looks_that_find_nobody_asking_do_not_count() {
        let silent = Seen {
            asleep: 0,
            ..seen(0, 0)
        };
        assert_eq!(after(100, silent), [false, true]);
        // One request now and then.
        let mut rule = Rule::default();
        assert!(!rule.wants(seen(10, 2_000), false));
        assert!(!rule.wants(silent, false));
        assert!(rule.wants(seen(10, 2_000), false));
    }

    #[test]
    fn a_server_that_was_refused_a_thread_lets_others_have_them_for_long() {
        let calm = seen(900, 2_000);
        let mut rule = Rule::default();
        for pause in [REFUSED, 2 * REFUSED].map(looks) {
            rule.refused();
            assert!((1..pause).all(|_| !rule.wants(calm, false) && !rule.may_have(calm, 16)));
            assert!(!rule.wants(calm, false) && rule.may_have(calm, 16));
            assert!(rule.wants(calm, false));
        }
        // Nor does it grow; but those who have one keep it.
        rule.refused();
        assert!(
            (1..looks(4 * REFUSED)).all(|_| rule.wants(calm, true) && !rule.may_have(calm, 16))
        );
    }

    /// How often in so many looks pairs begin.
    fn begins(rule: &mut Rule, looks: u32, seen: impl Fn(u32) -> Seen) -> usize {
        let paired: Vec<bool> = (0..looks)
            .scan(false, |paired, look| {
                *paired = rule.wants(seen(look), *paired);
                Some(*paired)
            })
            .collect();
        paired.windows(2).filter(|p| !p[0] && p[1]).count()
    }

    #[test]
    fn who_is_busy_for_a_part_of_every_second_moves_the_others_every_few_seconds() {
        let (calm, busy) = (seen(900, 2_000), seen(40_000, 400));
        let bursts = |look: u32| if look % 10 < 3 { busy } else { calm };
        let mut rule = Rule::default();
        assert!((3..=8).contains(&begins(&mut rule, 200, bursts)), "20 s");
        assert!(
            (5..=10).contains(&begins(&mut rule, 600, bursts)),
            "a minute"
        );
        // Once pairs have lasted, a burst is an accident again.
        let lasting = looks(LONGEST_PAUSE + LASTED) + CONVINCING;
        begins(&mut rule, lasting, |_| calm);
        assert!((0..CONVINCING).all(|look| rule.wants(busy, true) == (look + 1 < CONVINCING)));
        let back = (1..).find(|_| rule.wants(calm, false));
        assert_eq!(back, Some(looks(SHORT_LIVED) + CONVINCING - 1));
    }

    /// Without clients the control thread looks once a second.
    #[test]
    fn a_pause_is_as_long_however_often_it_is_looked_at() {
        let mut rule = Rule::default();
        rule.refused();
        let nobody = Seen {
            clients: 0,
            ns: 10 * LOOK_NS,
            ..seen(0, 0)
        };
        assert!((1..looks(REFUSED) / 10).all(|_| !rule.wants(nobody, false)));
        assert!(!rule.may_have(seen(900, 2_000), 16));
        assert!(!rule.wants(nobody, false));
        assert!(rule.may_have(seen(900, 2_000), 16));
    }

    #[test]
    fn numbers_of_any_size_are_compared_and_overflow_nothing() {
        let of = |useful_ns, ns| Seen {
            useful_ns,
            ns,
            ..seen(900, 2_000)
        };
        assert_eq!(after(9, of(u64::MAX, LOOK_NS)), [false, false]);
        assert_eq!(after(9, of(0, u64::MAX)), [true, true]);
        let endless = Seen {
            most: u64::MAX,
            ..seen(900, 2_000)
        };
        assert_eq!(after(9, endless), [false, false]);
    }
}
