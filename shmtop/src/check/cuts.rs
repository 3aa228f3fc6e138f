//! The samples that cut a watch into equal parts, however long it gets.

use std::sync::Arc;

use crate::sample::Sample;

/// Parts that a watch is cut into, at most: how much the figures differ from one to the next says how much they vary by themselves.
pub(super) const PARTS: usize = 16;

/// See the module.
#[derive(Default)]
pub(super) struct Cuts {
    /// The first sample and every `stride`-th after it.
    borders: Vec<Arc<Sample>>,
    stride: u64,
    last: Option<Arc<Sample>>,
    samples: u64,
}

impl Cuts {
    /// Keeps so many samples that they cut the watch into equal parts, however long it gets.
    pub(super) fn keep(&mut self, sample: Arc<Sample>) {
        let stride = self.stride.max(1);
        if self.samples.is_multiple_of(stride) {
            self.borders.push(Arc::clone(&sample));
        }
        self.stride = stride;
        if self.borders.len() > PARTS {
            let mut number = 0u32;
            self.borders.retain(|_| {
                number += 1;
                number % 2 == 1
            });
            self.stride *= 2;
        }
        self.last = Some(sample);
        self.samples += 1;
    }

    /// How many samples there were.
    pub(super) fn samples(&self) -> u64 {
        self.samples
    }

    pub(super) fn first(&self) -> Option<&Arc<Sample>> {
        self.borders.first()
    }

    pub(super) fn last(&self) -> Option<&Arc<Sample>> {
        self.last.as_ref()
    }

    /// Where parts begin and end.
    pub(super) fn ends(&self) -> Vec<Arc<Sample>> {
        let mut ends = self.borders.clone();
        let last = self.last.iter().filter(|l| {
            let border = ends.last();
            border.is_none_or(|b| b.time.monotonic_ns < l.time.monotonic_ns)
        });
        ends.extend(last.cloned().collect::<Vec<_>>());
        ends
    }
}
