//! How often to refresh: the wanted rate, a little jitter, and less often when shmtop itself costs too much.
//!
//! Pure: the runtime feeds it own cost and asks for the next interval.

use std::time::Duration;

/// Rates to choose from with `+` and `-`, as intervals in ms.
const STEPS_MS: [u64; 8] = [50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];
/// Share of a core above which the refresh slows down.
pub(super) const TOO_MUCH: f64 = 0.02;
/// Share of a core below which it speeds up again.
const LITTLE: f64 = 0.007;
/// Weight of a new sample in the running mean of own cost, per second of interval.
const SMOOTHING_S: f64 = 2.0;
/// Own cost of the first seconds is start-up.
const SETTLE_NS: u64 = 3_000_000_000;
/// Never slower than this because of own cost: what is wrong is looked for every second, however the screen is paced.
const SLOWEST: Duration = Duration::from_secs(1);

/// Decides when to refresh.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    wanted: Duration,
    /// Times the wanted interval is stretched because of own cost.
    stretch: u32,
    /// Running mean of own cost.
    cost: Option<f64>,
    seen_ns: u64,
    /// Nanoseconds seen since the stretch last changed.
    since_ns: u64,
    random: u64,
}

impl Pace {
    /// Refreshes every `wanted`; `seed` varies the jitter.
    pub(super) fn new(wanted: Duration, seed: u64) -> Self {
        Self {
            wanted: wanted.max(Duration::from_millis(STEPS_MS[0])),
            stretch: 1,
            cost: None,
            seen_ns: 0,
            since_ns: 0,
            random: seed | 1,
        }
    }

    /// The interval as it is now, without jitter.
    pub(super) fn interval(&self) -> Duration {
        let stretched = self.wanted * self.stretch;
        if self.stretch > 1 {
            stretched.min(SLOWEST.max(self.wanted))
        } else {
            stretched
        }
    }

    /// The time to the next refresh: within 5 % of the interval, so that a load which beats in time with the refresh
    /// doesn't look constant.
    pub(super) fn next(&mut self) -> Duration {
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let spread = (self.random % 1_001) as f64 / 1_000.0 - 0.5;
        self.interval().mul_f64(1.0 + spread * 0.1)
    }

    /// Refreshes more (+1) or less (−1) often.
    pub(super) fn change(&mut self, by: i8) {
        let now = self.wanted.as_millis() as u64;
        let next = if by > 0 {
            STEPS_MS.iter().rev().find(|s| **s < now)
        } else {
            STEPS_MS.iter().find(|s| **s > now)
        };
        if let Some(ms) = next {
            self.wanted = Duration::from_millis(*ms);
            self.stretch = 1;
            self.since_ns = 0;
        }
    }

    /// Takes down own cost of an interval, as a share of one core.
    pub(super) fn observe(&mut self, share: f64, interval_ns: u64) {
        self.seen_ns = self.seen_ns.saturating_add(interval_ns);
        self.since_ns = self.since_ns.saturating_add(interval_ns);
        if self.seen_ns < SETTLE_NS {
            return;
        }
        let weight = (interval_ns as f64 / 1e9 / SMOOTHING_S).min(1.0);
        let cost = self.cost.map_or(share, |old| old + (share - old) * weight);
        self.cost = Some(cost);
        // A change shows in the mean only after a while, so one at a time.
        if self.since_ns < 2 * SETTLE_NS {
            return;
        }
        if cost > TOO_MUCH && self.interval() < SLOWEST {
            // At once as far as it takes: with a thousand clients, doubling would be ten times too much for half a minute.
            let excess = (cost / TOO_MUCH).ceil().min(64.0) as u32;
            self.stretch = (self.stretch * excess.next_power_of_two()).min(1 << 10);
            self.since_ns = 0;
        } else if cost < LITTLE && self.stretch > 1 {
            self.stretch /= 2;
            self.since_ns = 0;
        }
    }

    /// Own cost, smoothed; `None` in the first seconds.
    pub(super) fn cost(&self) -> Option<f64> {
        self.cost
    }

    /// Whether it refreshes less often than wanted.
    pub(super) fn is_slowed(&self) -> bool {
        self.stretch > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: Duration = Duration::from_millis(100);

    #[test]
    fn refreshes_jitter_around_the_wanted_rate() {
        let mut pace = Pace::new(TENTH, 42);
        let times: Vec<Duration> = (0..1_000).map(|_| pace.next()).collect();
        assert!(
            times
                .iter()
                .all(|t| t.as_millis() >= 94 && t.as_millis() <= 106)
        );
        let mean = times.iter().sum::<Duration>() / 1_000;
        assert!((99..=101).contains(&mean.as_millis()), "{mean:?}");
        assert!(times.iter().any(|t| t.as_millis() < 97));
        assert!(times.iter().any(|t| t.as_millis() > 103));
    }

    #[test]
    fn it_slows_down_while_it_costs_too_much_and_recovers() {
        let mut pace = Pace::new(TENTH, 1);
        for _ in 0..200 {
            pace.observe(0.05, 100_000_000);
        }
        assert!(pace.is_slowed());
        assert!(pace.interval() > TENTH && pace.interval() <= SLOWEST);
        for _ in 0..2_000 {
            pace.observe(0.001, 100_000_000);
        }
        assert!(!pace.is_slowed());
        assert_eq!(pace.interval(), TENTH);
    }

    #[test]
    fn ten_times_too_much_is_answered_in_one_step() {
        let mut pace = Pace::new(TENTH, 1);
        let needed = 2 * SETTLE_NS / 100_000_000 + 1;
        for _ in 0..needed {
            pace.observe(0.2, 100_000_000);
        }
        assert!(pace.interval() >= 10 * TENTH, "{:?}", pace.interval());
        assert!(pace.interval() <= SLOWEST);
    }

    #[test]
    fn the_cost_of_starting_is_not_held_against_it() {
        let mut pace = Pace::new(TENTH, 1);
        for _ in 0..20 {
            pace.observe(0.9, 100_000_000);
        }
        assert!(!pace.is_slowed());
        assert_eq!(pace.cost(), None);
    }

    #[test]
    fn the_rate_keys_stop_at_the_ends() {
        let mut pace = Pace::new(TENTH, 1);
        for _ in 0..20 {
            pace.change(1);
        }
        assert_eq!(pace.interval(), Duration::from_millis(50));
        for _ in 0..20 {
            pace.change(-1);
        }
        assert_eq!(pace.interval(), Duration::from_secs(10));
    }
}
