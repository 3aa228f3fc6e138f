//! Bounded past of one client or endpoint, for sparklines, charts and the latency heatmap.
//!
//! Points are kept in shared chunks: cloning a history into the next model costs a few reference counts, not a
//! copy, and a frozen dashboard that keeps old models shares their memory. Filled by the model builder only.

use std::collections::VecDeque;
use std::sync::Arc;

/// Points per shared chunk: each refresh of each client clones one reference per full chunk and half a chunk of points.
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

/// Round trips of one second: (bucket, count), ascending; see [`transport::stats::histogram`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatColumn {
    /// CLOCK_MONOTONIC ns of the second's end.
    pub at_ns: u64,
    /// Buckets that grew.
    pub buckets: Vec<(u16, u64)>,
}

/// A bounded queue in shared chunks.
#[derive(Clone, Debug, PartialEq)]
struct Chunked<T> {
    full: VecDeque<Arc<Vec<T>>>,
    tail: Vec<T>,
    limit: usize,
}

impl<T: Clone> Chunked<T> {
    fn new(limit: usize) -> Self {
        Self {
            full: VecDeque::new(),
            tail: Vec::new(),
            limit,
        }
    }

    fn push(&mut self, value: T) {
        self.tail.push(value);
        if self.tail.len() == CHUNK {
            self.full
                .push_back(Arc::new(std::mem::take(&mut self.tail)));
            // Whole chunks leave, so between `limit` and `limit + CHUNK` values stay.
            while (self.full.len() - 1) * CHUNK >= self.limit {
                self.full.pop_front();
            }
        }
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.full.iter().flat_map(|c| c.iter()).chain(&self.tail)
    }
}

/// The past of one client or endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    fine: Chunked<Point>,
    coarse: Chunked<Point>,
    heat: Chunked<Arc<HeatColumn>>,
    /// Points since the last coarse one.
    second: Vec<Point>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            fine: Chunked::new(FINE_POINTS),
            coarse: Chunked::new(COARSE_POINTS),
            heat: Chunked::new(HEAT_COLUMNS),
            second: Vec::new(),
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
        self.second.push(point);
        if self
            .second
            .first()
            .is_some_and(|first| point.at_ns - first.at_ns >= 1_000_000_000)
        {
            let mean = mean(&self.second);
            self.coarse.push(mean);
            self.second.clear();
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

/// Means of what is there; the moment of the last point.
fn mean(points: &[Point]) -> Point {
    let of = |f: fn(&Point) -> Option<f32>| {
        let (n, sum) = points
            .iter()
            .filter_map(f)
            .fold((0u32, 0f32), |(n, sum), v| (n + 1, sum + v));
        (n > 0).then(|| sum / n as f32)
    };
    Point {
        at_ns: points.last().map_or(0, |p| p.at_ns),
        requests_per_s: of(|p| p.requests_per_s),
        bytes_per_s: of(|p| p.bytes_per_s),
        request_ring_bytes: of(|p| p.request_ring_bytes),
        reply_ring_bytes: of(|p| p.reply_ring_bytes),
        p50_ns: of(|p| p.p50_ns),
        p99_ns: of(|p| p.p99_ns),
        hit_ratio: of(|p| p.hit_ratio),
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
    }
}
