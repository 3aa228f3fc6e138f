//! Which requests are timed, and how many each of them stands for.
//!
//! Two timestamps cost as much as a tenth of a short round trip, and percentiles don't need millions of samples a
//! second. So requests are cut into strides of a power of two (1 ..= 256); one request of each stride is
//! timed and recorded with the stride's length as its weight. The period follows the load: strides
//! grow while a thread's sampling points come closer than 50 µs, shrink when they are further apart than 250 µs, and
//! are 1 after a pause, so a slow connection has every request timed.
//!
//! What is bounded is what timing costs a thread, not a connection: a hundred connections, each of which took all it was allowed, spent 6 %
//! of their messages on it. So the connections of a thread share its sampling points, down to 30 a second for each.
//!
//! # Why the estimate is not biased
//! The length p of a stride is fixed before its first request, from the past only. Which of its requests is
//! timed is drawn uniformly from a generator that sees nothing of the workload, also before the first one.
//! Given the past, each request of the stride is therefore timed with probability 1/p and then counts p times:
//! one in expectation, whatever it will turn out to cost. That a slow request makes *later* strides shorter
//! changes p, not the argument. A fixed position instead (always the first, say) would be drawn by whatever period
//! the caller has: with batches of 64 it would time the head of each batch and nothing else. The generator is
//! seeded, so the same calls are always followed by the same choices.

/// Longest stride.
pub const MAX_PERIOD: u32 = 256;
/// Sampling points of a thread closer than this: the stride doubles (at most 20 k samples a second: some 150 ns each on both sides together, so 0.3 % of a core).
const TOO_CLOSE_NS: u64 = 50_000;
/// Sampling points of a thread further apart than this: the stride halves.
const TOO_FAR_NS: u64 = 250_000;
/// So does one that takes longer than this, however much its thread samples elsewhere.
const LONGEST_NS: u64 = 32_000_000;
/// A gap this long is a pause: the stride is 1 at once.
const IDLE_NS: u64 = 10_000_000;

/// One thread's choice. Owned by whoever submits (client) or handles (server).
#[derive(Clone, Debug)]
pub struct Sampler {
    /// Calls left until the next timed one, itself included; at least 1.
    until: u32,
    /// What `until` started from: the distance between the last timed request and the next.
    distance: u32,
    /// The distance before that one: what the time given to [`Self::adapt`] is divided by.
    last_distance: u32,
    /// Of `distance`: requests that still belong to the stride before.
    tail: u32,
    /// Requests the next stride has after its timed one.
    rest: u32,
    /// Length of the stride that holds the next timed request.
    period: u32,
    /// Length of the one before.
    last_period: u32,
    /// State of the generator.
    random: u64,
}

impl Sampler {
    /// Starts with every request timed. `seed` keeps several samplers from choosing alike.
    pub const fn new(seed: u64) -> Self {
        Self {
            until: 1,
            distance: 1,
            last_distance: 1,
            tail: 0,
            rest: 0,
            period: 1,
            last_period: 1,
            random: seed,
        }
    }

    /// Asked once per request, before it is carried out: its weight if it is to be timed. After `Some`, tell
    /// [`Self::adapt`] the time; who never does keeps the period.
    #[inline(always)]
    pub fn due(&mut self) -> Option<u64> {
        if cfg!(transport_no_stats) {
            return None;
        }
        self.until -= 1;
        if self.until > 0 {
            return None;
        }
        Some(self.chosen())
    }

    /// Out of line, as everything that a timed request needs.
    #[cold]
    #[inline(never)]
    fn chosen(&mut self) -> u64 {
        self.last_period = self.period;
        self.last_distance = self.distance;
        self.tail = self.rest;
        self.plan(self.period);
        u64::from(self.last_period)
    }

    /// Tells, right after [`Self::due`] said `Some`, how long ago the previous sampling point was (not called at the
    /// first one, which has none), and how many the thread has had since, this one included; sets the length of the
    /// stride after the current one.
    #[inline]
    pub fn adapt(&mut self, ns_since_last: u64, points: u64) {
        // What a whole stride takes: the distance between two points varies with the positions drawn.
        let stride_ns = ns_since_last.saturating_mul(u64::from(self.last_period))
            / u64::from(self.last_distance);
        let apart_ns = stride_ns / points.max(1);
        let period = if apart_ns > TOO_FAR_NS && ns_since_last >= IDLE_NS {
            1
        } else if apart_ns > TOO_FAR_NS || stride_ns > LONGEST_NS {
            (self.last_period / 2).max(1)
        } else if apart_ns < TOO_CLOSE_NS && stride_ns < LONGEST_NS / 4 {
            (self.last_period * 2).min(MAX_PERIOD)
        } else {
            return;
        };
        if period != self.period {
            self.plan(period);
        }
    }

    /// Tells that the thread slept before this request: the current stride ends here and the next has length 1, so that a
    /// connection that became slow is not left untimed for a minute.
    ///
    /// Not biased either, as long as the caller decides without knowing which request is the timed one: of a stride cut off after k
    /// requests, the timed one was among them with probability k/p and then counted p times, k in expectation.
    #[inline]
    pub fn paused(&mut self) {
        if self.period > 1 || self.until > 1 {
            self.tail = 0;
            self.plan(1);
        }
    }

    /// Length of the stride that holds the next timed request: `req.sample_period` in the page.
    pub fn period(&self) -> u64 {
        u64::from(self.period)
    }

    /// Draws the timed request of the next stride, which begins after `tail` more requests.
    fn plan(&mut self, period: u32) {
        // A linear congruential generator with Knuth's MMIX constants; its high bits are the random ones.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let position = (self.random >> 33) as u32 & (period - 1);
        self.period = period;
        self.rest = period - 1 - position;
        self.distance = self.tail + 1 + position;
        self.until = self.distance;
    }
}

#[cfg(all(test, not(transport_no_stats)))]
mod tests {
    use super::*;

    /// Runs `costs` (ns per request) and returns (sum of weights, weighted sum of costs, samples).
    fn estimate(costs: impl IntoIterator<Item = u64>) -> (u64, u64, u64) {
        let mut sampler = Sampler::new(7);
        let (mut weights, mut sum, mut samples) = (0, 0, 0);
        let (mut now, mut last) = (0, None);
        for cost in costs {
            if let Some(weight) = sampler.due() {
                if let Some(last) = last.replace(now) {
                    sampler.adapt(now - last, 1);
                }
                weights += weight;
                sum += weight * cost;
                samples += 1;
            }
            now += cost;
        }
        (weights, sum, samples)
    }

    fn within(estimate: u64, truth: u64, share: f64) -> bool {
        (estimate as f64 / truth as f64 - 1.0).abs() < share
    }

    #[test]
    fn weights_add_up_to_the_requests() {
        for (n, cost) in [
            (1_000_000, 100),
            (1_000_000, 2_000),
            (20_000, 50_000),
            (1_000, 1_000_000),
        ] {
            let (weights, _, _) = estimate(std::iter::repeat_n(cost, n));
            assert!(
                weights.abs_diff(n as u64) <= u64::from(MAX_PERIOD),
                "{weights} of {n} at {cost} ns"
            );
        }
    }

    #[test]
    fn a_pattern_in_the_workload_does_not_bias_the_estimate() {
        // The first of each batch of 64 costs 50 times the others: a fixed position would see only it, or never.
        let costs: Vec<u64> = (0..2_000_000)
            .map(|i| if i % 64 == 0 { 10_000 } else { 200 })
            .collect();
        let (_, sum, _) = estimate(costs.iter().copied());
        let truth = costs.iter().sum();
        assert!(within(sum, truth, 0.05), "{sum} against {truth}");
    }

    #[test]
    fn slow_requests_that_shorten_strides_are_not_counted_twice() {
        // Fast phases with long strides, slow ones with short strides, changing often.
        let costs: Vec<u64> = (0..2_000_000u64)
            .map(|i| if (i / 1_000) % 7 == 3 { 60_000 } else { 300 })
            .collect();
        let (weights, sum, _) = estimate(costs.iter().copied());
        let truth = costs.iter().sum();
        assert!(within(sum, truth, 0.05), "{sum} against {truth}");
        assert!(within(weights, costs.len() as u64, 0.01));
    }

    #[test]
    fn sampling_is_bounded_when_busy_and_complete_when_slow() {
        let (_, _, samples) = estimate(std::iter::repeat_n(300, 1_000_000));
        assert!(samples <= 1_000_000 / 60, "{samples} samples in 0.3 s");
        let (_, _, samples) = estimate(std::iter::repeat_n(200_000, 1_000));
        assert_eq!(samples, 1_000, "every slow request is timed");
    }

    #[test]
    fn many_connections_of_a_thread_take_no_more_samples_than_one_and_share_them() {
        // In turn, each asking every 200 ns · 300 of them; one in ten is slow, and asks once in 64 turns.
        let mut lanes: Vec<(Sampler, u64, u64)> =
            (0..300).map(|seed| (Sampler::new(seed), 0, 0)).collect();
        let (mut now, mut points) = (0u64, 0u64);
        let mut taken = vec![0u64; lanes.len()];
        for turn in 0..10_000u64 {
            let settled = turn >= 5_000;
            for (i, (sampler, last, last_points)) in lanes.iter_mut().enumerate() {
                now += 200;
                if i % 10 == 0 && turn % 64 != 0 {
                    continue;
                }
                if sampler.due().is_some() {
                    points += 1;
                    sampler.adapt(now - *last, points - *last_points);
                    (*last, *last_points) = (now, points);
                    taken[i] += u64::from(settled);
                }
            }
        }
        // 5,000 turns of 60 µs: 0.3 s.
        let total: u64 = taken.iter().sum();
        assert!((1_000..=12_000).contains(&total), "{total} samples");
        let fewest = taken.iter().min().copied();
        assert!(fewest >= Some(2), "{taken:?}");
    }

    #[test]
    fn after_a_pause_the_next_request_is_timed_and_the_estimate_stays_right() {
        let mut sampler = Sampler::new(3);
        let (mut requests, mut weights) = (0u64, 0u64);
        for burst in 0..20_000u64 {
            sampler.paused();
            for i in 0..(burst % 150) + 1 {
                requests += 1;
                let weight = sampler.due();
                assert!(i > 0 || weight == Some(1), "the first after a pause");
                if let Some(weight) = weight {
                    weights += weight;
                    sampler.adapt(100, 1);
                }
            }
        }
        assert!(within(weights, requests, 0.01), "{weights} of {requests}");
    }
}
