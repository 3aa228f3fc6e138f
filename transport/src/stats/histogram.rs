//! Log-linear latency buckets: the arithmetic, and a reader's copy.
//!
//! Values below 16 have a bucket each; above, every power of two is cut into 16 equal buckets, so a bucket is
//! at most 1/16 (6.25 %) wide relative to its lower bound (the layout of HdrHistogram with 4 significant bits).
//! Values from 31 · 2^32 ns (133 s) on share the last bucket.

/// Linear sub-buckets per power of two.
pub const SUB_BUCKETS: usize = 16;
/// log2 of [`SUB_BUCKETS`].
const SUB_BITS: u32 = 4;
/// Number of buckets: 16 linear ones and 33 octaves (2^4 … 2^37) of 16.
pub const BUCKETS: usize = SUB_BUCKETS + 33 * SUB_BUCKETS;

/// Bits of the mask that says which groups of [`SUB_BUCKETS`] were ever used.
pub const OCTAVES: usize = BUCKETS / SUB_BUCKETS;

/// Bucket of `value` (ns); total over all u64.
#[inline]
pub const fn bucket_of(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let msb = 63 - value.leading_zeros();
    let shift = msb - SUB_BITS;
    let index =
        ((shift as usize + 1) * SUB_BUCKETS) + ((value >> shift) as usize & (SUB_BUCKETS - 1));
    if index < BUCKETS { index } else { BUCKETS - 1 }
}

/// Lowest value of bucket `index` (ns). `index` is clamped to the last bucket.
#[inline]
pub const fn lower_bound(index: usize) -> u64 {
    let index = if index < BUCKETS { index } else { BUCKETS - 1 };
    if index < SUB_BUCKETS {
        return index as u64;
    }
    let shift = (index / SUB_BUCKETS - 1) as u32;
    ((SUB_BUCKETS + index % SUB_BUCKETS) as u64) << shift
}

/// A reader's copy of a histogram, or the difference of two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default)
)]
pub struct Histogram {
    /// Sum of the values in ns (weighted; wraps only after centuries).
    pub sum_ns: u64,
    /// Largest value ever recorded, in ns; of a difference: of the later operand (not of the interval).
    pub max_ns: u64,
    /// Non-empty buckets as (index, count), ascending.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "real_buckets"))]
    pub buckets: Vec<(u16, u64)>,
}

/// A recording is a stranger's word, too: there are no buckets beyond the last.
#[cfg(feature = "serde")]
fn real_buckets<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<(u16, u64)>, D::Error> {
    let mut buckets: Vec<(u16, u64)> = serde::Deserialize::deserialize(from)?;
    buckets.retain(|(index, _)| usize::from(*index) < BUCKETS);
    Ok(buckets)
}

impl Histogram {
    /// Number of recorded values (weighted by the sampling period).
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum, (_, n)| sum.saturating_add(*n))
    }

    /// The value below which a share `q` (0.0 ..= 1.0) of the recorded values lies, in ns: the midpoint of
    /// its bucket, never above [`Self::max_ns`], and for the open-ended last bucket [`Self::max_ns`] itself.
    /// `None` when nothing was recorded.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        self.quantiles([q]).map(|[value]| value)
    }

    /// Several of them in one pass; `shares` must ascend.
    pub fn quantiles<const N: usize>(&self, shares: [f64; N]) -> Option<[u64; N]> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let mut buckets = self.buckets.iter();
        let (mut seen, mut index) = (0u64, 0);
        Some(shares.map(|q| {
            let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
            while seen < rank
                && let Some(&(i, n)) = buckets.next()
            {
                seen = seen.saturating_add(n);
                index = usize::from(i);
            }
            self.middle(index)
        }))
    }

    /// What stands for the values of a bucket.
    fn middle(&self, index: usize) -> u64 {
        let low = lower_bound(index);
        if index >= BUCKETS - 1 {
            return self.max_ns.max(low);
        }
        let next = lower_bound(index + 1);
        let mid = low + next.saturating_sub(low) / 2;
        if self.max_ns > 0 {
            mid.min(self.max_ns)
        } else {
            mid
        }
    }

    /// Mean in ns, or `None` when nothing was recorded.
    pub fn mean(&self) -> Option<f64> {
        let n = self.count();
        (n > 0).then(|| self.sum_ns as f64 / n as f64)
    }

    /// What was recorded after `earlier` was copied. `None` when any bucket went backwards (a restart).
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        let mut buckets = Vec::with_capacity(self.buckets.len());
        let mut before = earlier.buckets.iter().peekable();
        for &(index, n) in &self.buckets {
            let mut old = 0;
            while let Some(&&(i, m)) = before.peek() {
                if i > index {
                    break;
                }
                if i < index && m > 0 {
                    return None;
                }
                if i == index {
                    old = m;
                }
                before.next();
            }
            let delta = n.checked_sub(old)?;
            if delta > 0 {
                buckets.push((index, delta));
            }
        }
        if before.any(|&(_, m)| m > 0) {
            return None;
        }
        Some(Self {
            sum_ns: self.sum_ns.checked_sub(earlier.sum_ns)?,
            max_ns: self.max_ns,
            buckets,
        })
    }

    /// Adds another histogram's values to this one.
    pub fn merge(&mut self, other: &Self) {
        let mut merged = Vec::with_capacity(self.buckets.len().max(other.buckets.len()));
        let mut ours = self.buckets.iter().copied().peekable();
        let mut theirs = other.buckets.iter().copied().peekable();
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(&(i, n)), Some(&(j, m))) if i == j => {
                    ours.next();
                    theirs.next();
                    (i, n.saturating_add(m))
                }
                (Some(&a), Some(&b)) if a.0 < b.0 => {
                    ours.next();
                    a
                }
                (_, Some(&b)) => {
                    theirs.next();
                    b
                }
                (Some(&a), None) => {
                    ours.next();
                    a
                }
                (None, None) => break,
            };
            merged.push(next);
        }
        self.buckets = merged;
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }
}
