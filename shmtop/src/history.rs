//! Bounded past of one client or endpoint, for sparklines, charts and the latency heatmap.
//!
//! Kept as it was seen, at whatever moments the dashboard came to look, and asked for by time: each column of a chart has the value
//! of its own span, however rare the looks are and however wide the chart is. Kept in shared chunks, so that the next model's copy
//! costs a few reference counts. Filled by the model builder only.

mod chunked;

use std::sync::Arc;

use chunked::Chunked;

/// Span kept at the refresh rate.
pub const FINE_NS: u64 = 60_000_000_000;
/// Most points kept at the refresh rate (60 s at 20 Hz).
const FINE_POINTS: usize = 1200;
/// One-second means kept: a minute.
const MEANS: usize = 60;
/// Heat columns kept, one per second or refresh.
const HEAT_COLUMNS: usize = 120;
/// Span of heat columns kept.
const HEAT_NS: u64 = 120_000_000_000;
/// What was seen at one moment says nothing of a longer time before it than this: no refresh is as rare.
const LEVEL_NS: u64 = 12_000_000_000;
/// What lies at most this far back is shown at the right edge: rows that are off the screen are looked at once a second.
const LATE_NS: u64 = 2_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// What was seen at one moment; `None` is a gap and is drawn as one. Rates and shares are means over the time since the point before.
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
    /// Pointer-cache hits of the outgoing ring (0..=1).
    pub hit_ratio: Option<f32>,
}

/// Round trips of one second, or of one refresh if those are rarer: (bucket, count), ascending; see
/// [`transport::stats::histogram`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatColumn {
    /// CLOCK_MONOTONIC ns of its beginning.
    pub from_ns: u64,
    /// CLOCK_MONOTONIC ns of its end.
    pub at_ns: u64,
    /// Buckets that grew.
    pub buckets: Vec<(u16, u64)>,
}

/// Requests per second from the mean before to `at_ns`.
type MeanRate = (u64, Option<f32>);

/// What will be the next one-second mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Second {
    from_ns: u64,
    /// How long the rate was known, and how many requests that makes.
    known_ns: u64,
    sum: f64,
}

impl Second {
    fn add(&mut self, ns: u64, rate: Option<f32>) {
        if let Some(rate) = rate {
            self.known_ns += ns;
            self.sum += f64::from(rate) * ns as f64;
        }
    }

    fn mean(&self) -> Option<f32> {
        (self.known_ns > 0).then(|| (self.sum / self.known_ns as f64) as f32)
    }
}

/// The past of one client or endpoint. A clone costs three pairs of reference counts.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    fine: Chunked<Point>,
    means: Chunked<MeanRate>,
    heat: Chunked<Arc<HeatColumn>>,
    /// Since the last mean.
    second: Second,
    /// Largest mean within [`FINE_NS`] of the last one.
    peak: f32,
}

impl Default for History {
    fn default() -> Self {
        Self {
            fine: Chunked::new(FINE_POINTS),
            means: Chunked::new(MEANS),
            heat: Chunked::new(HEAT_COLUMNS),
            second: Second::default(),
            peak: 0.0,
        }
    }
}

/// Columns of equal time. They end at whole multiples of their length: what was measured stays in its column while time passes,
/// and a chart moves by whole columns. The newest may have only begun.
#[derive(Clone, Copy)]
struct Columns {
    count: usize,
    step_ns: u64,
    end_ns: u64,
}

impl Columns {
    fn new(count: usize, span_ns: u64, now_ns: u64) -> Self {
        let step_ns = (span_ns / count.max(1) as u64).max(1);
        Self {
            count,
            step_ns,
            end_ns: now_ns.div_ceil(step_ns).saturating_mul(step_ns),
        }
    }

    /// In which column a moment lies, counted from the newest; a column has its end and not its beginning.
    fn back(self, at_ns: u64) -> usize {
        (self.end_ns.saturating_sub(at_ns) / self.step_ns) as usize
    }

    /// Where the time between two looks stands, newest first: in the columns that end in it, but at least in that of its end.
    /// So each look stands somewhere, and no column in between is empty.
    fn of_look(self, from_ns: u64, at_ns: u64) -> std::ops::Range<usize> {
        let (first, last) = (self.back(at_ns), self.back(from_ns));
        first.min(self.count)..last.max(first + 1).min(self.count)
    }

    /// The mean of each column, weighted by time, oldest first. `points` come newest first, each with the value since the one before.
    fn means(self, points: impl Iterator<Item = (u64, Option<f32>)>) -> Vec<Option<f32>> {
        let mut sums = vec![(0u64, 0f64); self.count];
        each_with_its_beginning(points, |from_ns, at_ns, value| {
            let (first, last) = (self.back(at_ns), self.back(from_ns + 1));
            if let Some(value) = value {
                for (back, (ns, sum)) in sums.iter_mut().enumerate().take(last + 1).skip(first) {
                    let end = self.end_ns - back as u64 * self.step_ns;
                    let begin = end.saturating_sub(self.step_ns);
                    let part = at_ns.min(end).saturating_sub(from_ns.max(begin));
                    *ns += part;
                    *sum += f64::from(value) * part as f64;
                }
            }
            last < self.count
        });
        let mean = |(ns, sum): (u64, f64)| (ns > 0).then(|| (sum / ns as f64) as f32);
        sums.into_iter().rev().map(mean).collect()
    }

    /// The largest of each column, oldest first, of values that were seen at the moments of `points`, which come newest first. One
    /// stands for the time since the one before, unless that is longer than [`LEVEL_NS`].
    fn largest(self, points: impl Iterator<Item = (u64, Option<f32>)>) -> Vec<Option<f32>> {
        let mut out = vec![None; self.count];
        each_with_its_beginning(points, |from_ns, at_ns, value| {
            let is_near = at_ns - from_ns <= LEVEL_NS;
            let from_ns = if is_near { from_ns } else { at_ns - 1 };
            if let Some(value) = value {
                for slot in &mut out[self.of_look(from_ns, at_ns)] {
                    *slot = Some(slot.map_or(value, |old: f32| old.max(value)));
                }
            }
            self.back(from_ns) < self.count
        });
        out.reverse();
        out
    }
}

/// Hands each of the points, which come newest first, to `take`, with the moment of the one before it (of the first, a moment before
/// its own), until that wants no more.
fn each_with_its_beginning<V>(
    points: impl Iterator<Item = (u64, V)>,
    mut take: impl FnMut(u64, u64, V) -> bool,
) {
    let mut points = points.peekable();
    while let Some((at_ns, value)) = points.next() {
        let before = points.peek().map(|(before, _)| *before);
        let from_ns = before.unwrap_or_else(|| at_ns.saturating_sub(1));
        if from_ns < at_ns && !take(from_ns, at_ns, value) {
            break;
        }
    }
}

impl History {
    /// Adds what was seen at one moment. A point of the same moment as the last one is ignored; where time ran backwards (another boot, a
    /// spliced recording), the past is another one's.
    pub fn push(&mut self, point: Point) {
        let Some(before) = self.latest().map(|p| p.at_ns) else {
            self.second.from_ns = point.at_ns;
            self.fine.push(point, |_| false);
            return;
        };
        if point.at_ns <= before {
            if point.at_ns < before {
                *self = Self::default();
                self.push(point);
            }
            return;
        }
        let at_ns = point.at_ns;
        self.fine.push(point, |p| at_ns - p.at_ns > FINE_NS);
        self.second.add(at_ns - before, point.requests_per_s);
        if at_ns - self.second.from_ns >= SECOND_NS {
            let mean = self.second.mean();
            self.means
                .push((at_ns, mean), |(old, _)| at_ns - old > FINE_NS);
            self.second = Second {
                from_ns: at_ns,
                ..Second::default()
            };
            let minute = self.means.iter().rev();
            self.peak = minute
                .take_while(|(then, _)| at_ns - then < FINE_NS)
                .filter_map(|(_, rate)| *rate)
                .fold(0.0, f32::max);
        }
    }

    /// Adds the round trips of one second or refresh.
    pub fn push_heat(&mut self, column: HeatColumn) {
        let at_ns = column.at_ns;
        let is_old = |old: &Arc<HeatColumn>| at_ns.saturating_sub(old.at_ns) > HEAT_NS;
        self.heat.push(Arc::new(column), is_old);
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

    /// `count` columns of a second, up to `now_ns`, newest first: the round trips that ended in each. Where looks are rarer, those of
    /// the whole time between two.
    pub fn heat(&self, count: usize, now_ns: u64) -> Vec<Vec<&HeatColumn>> {
        let mut out = vec![Vec::new(); count];
        let Some(newest) = self.heat.iter().next_back() else {
            return out;
        };
        let edge = edge(now_ns, newest.at_ns);
        let columns = Columns::new(count, count as u64 * SECOND_NS, edge);
        for column in self.heat.iter().rev() {
            for place in &mut out[columns.of_look(column.from_ns, column.at_ns)] {
                place.push(&**column);
            }
            if columns.back(column.from_ns) >= count {
                break;
            }
        }
        out
    }

    fn columns(&self, count: usize, now_ns: u64, span_ns: u64) -> Columns {
        let latest = self.latest().map_or(0, |p| p.at_ns);
        Columns::new(count, span_ns, edge(now_ns, latest))
    }

    /// `count` columns that together cover `span_ns`, at most [`FINE_NS`], up to `now_ns`, oldest first: the mean over the time of each,
    /// for rates and shares. `None` where nothing was known.
    pub fn means(
        &self,
        count: usize,
        now_ns: u64,
        span_ns: u64,
        value: impl Fn(&Point) -> Option<f32>,
    ) -> Vec<Option<f32>> {
        let points = self.fine.iter().rev().map(|p| (p.at_ns, value(p)));
        self.columns(count, now_ns, span_ns).means(points)
    }

    /// The same for what is seen at a moment, as the fill of a ring: the largest of each column.
    pub fn largest(
        &self,
        count: usize,
        now_ns: u64,
        span_ns: u64,
        value: impl Fn(&Point) -> Option<f32>,
    ) -> Vec<Option<f32>> {
        let points = self.fine.iter().rev().map(|p| (p.at_ns, value(p)));
        self.columns(count, now_ns, span_ns).largest(points)
    }

    /// Requests per second as [`Self::means`], out of one-second means: for many rows of few columns.
    pub fn rates(&self, count: usize, now_ns: u64, span_ns: u64) -> Vec<Option<f32>> {
        let begun = self.latest().map(|p| (p.at_ns, self.second.mean()));
        let points = begun.into_iter().chain(self.means.iter().rev().copied());
        self.columns(count, now_ns, span_ns).means(points)
    }

    /// The mean over the last second of what was known of it, or over the time since the last look if that is longer: a number that changes
    /// ten times a second can't be read.
    pub fn last_second(&self, value: impl Fn(&Point) -> Option<f32>) -> Option<f64> {
        let end = self.latest()?.at_ns;
        let (mut known_ns, mut sum) = (0, 0.0);
        let points = self.fine.iter().rev().map(|p| (p.at_ns, value(p)));
        each_with_its_beginning(points, |from_ns, at_ns, value| {
            let begin = end.saturating_sub(SECOND_NS);
            let ns = at_ns.saturating_sub(from_ns.max(begin));
            if let Some(value) = value {
                known_ns += ns;
                sum += f64::from(value) * ns as f64;
            }
            from_ns > begin
        });
        (known_ns > 0).then(|| sum / known_ns as f64)
    }
}

/// The right edge of a chart: now, or the last look if that is not long ago.
fn edge(now_ns: u64, latest_ns: u64) -> u64 {
    if now_ns.saturating_sub(latest_ns) <= LATE_NS {
        now_ns.min(latest_ns)
    } else {
        now_ns
    }
}

#[cfg(test)]
mod tests;
