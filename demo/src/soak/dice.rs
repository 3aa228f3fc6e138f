//! Random numbers that come again with the same seed.

use crate::protocol::{GOLDEN, mix};

/// A sequence of numbers.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// From `0` to below `n`.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        // The upper half of the product: a multiplication where `%` would be a division, once or twice per message.
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }
}
