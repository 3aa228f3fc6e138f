//! Bounded past of one client or endpoint, for sparklines, charts and the latency heatmap.
//!
//! Points are kept in shared chunks that are only ever added to: cloning a history into the next model costs a few reference
//! counts, not a copy, and a frozen dashboard that keeps old models shares their memory. Filled by the model builder only.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Points per shared chunk.
const CHUNK: usize = 64;
/// Span kept at the refresh rate.
pub const FINE_NS: u64 = 60_000_000_000;
/// Most points kept at the refresh rate (60 s at 20 Hz).
const FINE_POINTS: usize = 1200;
/// Seconds kept as one-second means: ten minutes.
const COARSE_POINTS: usize = 600;
/// Heat columns kept, one per second.
const HEAT_COLUMNS: usize = 120;

/// Values at one moment; `None` is a gap and is drawn as one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// CLOCK_MONOTONIC ns.
    pub at_ns: u64,
    /// Requests per second.
    pub requests_per_s: Option<f32>,
    /// Payload bytes per second, both directions.
    pub bytes_per_s: Option<f32>,
    /// Occupancy of the request ring, bytes.
    pub request_ring_bytes: Option<f32>,
    /// Occupancy of the reply ring, bytes.
    pub reply_ring_bytes: Option<f32>,
    /// Median round trip, ns.
    pub p50_ns: Option<f32>,
    /// 99th percentile of the round trip, ns.
    pub p99_ns: Option<f32>,
    /// Pointer-cache hits of the outgoing ring (0..=1).
    pub hit_ratio: Option<f32>,
}

/// Values of a point.
const VALUES: usize = 7;

impl Point {
    fn values(&self) -> [Option<f32>; VALUES] {
        [
            self.requests_per_s,
            self.bytes_per_s,
            self.request_ring_bytes,
            self.reply_ring_bytes,
            self.p50_ns,
            self.p99_ns,
            self.hit_ratio,
        ]
    }

    fn of(at_ns: u64, values: [Option<f32>; VALUES]) -> Self {
        let [
            requests_per_s,
            bytes_per_s,
            request_ring_bytes,
            reply_ring_bytes,
            p50_ns,
            p99_ns,
            hit_ratio,
        ] = values;
        Self {
            at_ns,
            requests_per_s,
            bytes_per_s,
            request_ring_bytes,
            reply_ring_bytes,
            p50_ns,
            p99_ns,
            hit_ratio,
        }
    }
}

/// Round trips of one second: (bucket, count), ascending; see [`transport::stats::histogram`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatColumn {
    /// CLOCK_MONOTONIC ns of the second's end.
    pub at_ns: u64,
    /// Buckets that grew.
    pub buckets: Vec<(u16, u64)>,
}

/// Values that are added one by one and never change. Who has a copy sees as many as there were.
#[derive(Debug)]
struct Chunk<T>([OnceLock<T>; CHUNK]);

impl<T> Chunk<T> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

/// A bounded queue in shared chunks.
#[derive(Clone, Debug)]
struct Chunked<T> {
    full: Arc<VecDeque<Arc<Chunk<T>>>>,
    /// The last chunk and how many of its values are ours: the original goes on writing behind them. `None` while empty.
    tail: Option<Arc<Chunk<T>>>,
    filled: usize,
    limit: usize,
}

impl<T: Clone> Chunked<T> {
    fn new(limit: usize) -> Self {
        Self {
            full: Arc::default(),
            tail: None,
            filled: 0,
            limit,
        }
    }

    fn push(&mut self, value: T) {
        let tail = self.tail.get_or_insert_with(|| Arc::new(Chunk::new()));
        if let Err(value) = tail.0[self.filled].set(value) {
            // Another copy has gone on from here: this one needs a chunk of its own.
            let own = Chunk::new();
            let ours = tail.0[..self.filled].iter().filter_map(OnceLock::get);
            for (place, old) in own.0.iter().zip(ours.cloned().chain([value])) {
                // The chunk was made here: all its places are empty.
                let _ = place.set(old);
            }
            *tail = Arc::new(own);
        }
        self.filled += 1;
        if self.filled == CHUNK {
            let full = Arc::make_mut(&mut self.full);
            full.extend(self.tail.take());
            self.filled = 0;
            // Whole chunks leave, so between `limit` and `limit + CHUNK` values stay.
            while (full.len() - 1) * CHUNK >= self.limit {
                full.pop_front();
            }
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        let tail = self.tail.iter().flat_map(|c| &c.0[..self.filled]);
        let full = self.full.iter().flat_map(|c| &c.0);
        full.chain(tail).filter_map(OnceLock::get)
    }
}

impl<T: Clone + PartialEq> PartialEq for Chunked<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

/// The points since the last one-second mean, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Second {
    first_ns: u64,
    points: u32,
    /// Sum and number of what was there, in the order of [`Point::values`].
    sums: [(f32, u32); VALUES],
}

impl Second {
    fn add(&mut self, point: &Point) {
        if self.points == 0 {
            self.first_ns = point.at_ns;
        }
        self.points += 1;
        for ((sum, n), value) in self.sums.iter_mut().zip(point.values()) {
            if let Some(v) = value {
                *sum += v;
                *n += 1;
            }
        }
    }

    /// Means of what was there; the moment of the last point.
    fn mean(&self, at_ns: u64) -> Point {
        let means = self.sums.map(|(sum, n)| (n > 0).then(|| sum / n as f32));
        Point::of(at_ns, means)
    }
}

/// The past of one client or endpoint. A clone costs three pairs of reference counts.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    fine: Chunked<Point>,
    coarse: Chunked<Point>,
    heat: Chunked<Arc<HeatColumn>>,
    /// Since the last coarse point.
    second: Second,
    /// Largest coarse rate within [`FINE_NS`] of the last coarse point.
    peak: f32,
}

impl Default for History {
    fn default() -> Self {
        Self {
            fine: Chunked::new(FINE_POINTS),
            coarse: Chunked::new(COARSE_POINTS),
            heat: Chunked::new(HEAT_COLUMNS),
            second: Second::default(),
            peak: 0.0,
        }
    }
}

impl History {
    /// Adds the values of one refresh. Points that are not later than the last one are ignored.
    pub fn push(&mut self, point: Point) {
        if self.latest().is_some_and(|last| last.at_ns >= point.at_ns) {
            return;
        }
        self.fine.push(point);
        self.second.add(&point);
        if point.at_ns - self.second.first_ns >= 1_000_000_000 {
            self.coarse.push(self.second.mean(point.at_ns));
            self.second = Second::default();
            let minute = self.coarse.iter().rev();
            self.peak = minute
                .take_while(|p| point.at_ns - p.at_ns < FINE_NS)
                .filter_map(|p| p.requests_per_s)
                .fold(0.0, f32::max);
        }
    }

    /// Adds the round trips of one second.
    pub fn push_heat(&mut self, column: HeatColumn) {
        self.heat.push(Arc::new(column));
    }

    /// The last point.
    pub fn latest(&self) -> Option<&Point> {
        self.fine.iter().next_back()
    }

    /// The largest requests per second of the last minute, as one-second means.
    pub fn peak_requests_per_s(&self) -> f32 {
        self.peak
    }

    /// Points at the refresh rate, oldest first.
    pub fn fine(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.fine.iter()
    }

    /// One-second means, oldest first.
    pub fn coarse(&self) -> impl DoubleEndedIterator<Item = &Point> {
        self.coarse.iter()
    }

    /// Heat columns, oldest first.
    pub fn heat(&self) -> impl DoubleEndedIterator<Item = &HeatColumn> {
        self.heat.iter().map(|c| &**c)
    }

    /// `width` columns that cover `span_ns` up to `now_ns`, oldest first: the largest value that falls into each, `None`
    /// where there is none. Takes the one-second means when the span is longer than [`FINE_NS`].
    pub fn columns(
        &self,
        width: usize,
        now_ns: u64,
        span_ns: u64,
        value: impl Fn(&Point) -> Option<f32>,
    ) -> Vec<Option<f32>> {
        let mut out = vec![None; width];
        if width == 0 || span_ns == 0 {
            return out;
        }
        let start = now_ns.saturating_sub(span_ns);
        let mut add = |p: &Point| {
            if p.at_ns <= start || p.at_ns > now_ns {
                return;
            }
            let i =
                (u128::from(p.at_ns - start - 1) * width as u128 / u128::from(span_ns)) as usize;
            if let (Some(v), Some(slot)) = (value(p), out.get_mut(i)) {
                *slot = Some(slot.map_or(v, |old: f32| old.max(v)));
            }
        };
        if span_ns > FINE_NS {
            self.coarse.iter().for_each(&mut add);
        } else {
            self.fine.iter().for_each(&mut add);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, rate: f32) -> Point {
        Point {
            at_ns: ms * 1_000_000,
            requests_per_s: Some(rate),
            ..Point::default()
        }
    }

    #[test]
    fn the_past_is_bounded_and_keeps_the_newest() {
        let mut h = History::default();
        for i in 1..10_000 {
            h.push(at(i * 100, i as f32));
        }
        let n = h.fine().count();
        assert!((FINE_POINTS..FINE_POINTS + 2 * CHUNK).contains(&n), "{n}");
        assert_eq!(h.latest().unwrap().requests_per_s, Some(9999.0));
        assert!(h.coarse().count() < COARSE_POINTS + 2 * CHUNK);
    }

    #[test]
    fn columns_without_a_value_stay_gaps() {
        let mut h = History::default();
        h.push(at(500, 1.0));
        h.push(at(3_500, 7.0));
        h.push(at(3_600, 5.0));
        let c = h.columns(4, 4_000_000_000, 4_000_000_000, |p| p.requests_per_s);
        assert_eq!(c, [Some(1.0), None, None, Some(7.0)]);
    }

    #[test]
    fn a_clone_keeps_its_past_while_the_original_goes_on() {
        let mut h = History::default();
        for i in 1..100 {
            h.push(at(i * 100, i as f32));
        }
        let frozen = h.clone();
        h.push(at(20_000, 1.0));
        assert_eq!(frozen.latest().unwrap().requests_per_s, Some(99.0));
        assert_eq!(frozen.fine().count(), 99);
        let mut other = frozen.clone();
        other.push(at(20_000, 2.0));
        assert_eq!(h.latest().unwrap().requests_per_s, Some(1.0));
        assert_eq!(other.latest().unwrap().requests_per_s, Some(2.0));
        assert_eq!(other.fine().count(), h.fine().count());
    }
}
