//! A time to let pass before something is tried again, twice as long each time. Knows no clock: what has passed comes in.

use std::time::Duration;

/// How long more pollers are not tried again when a thread was refused, the first time: a limit that leaves too few is most often there to
/// stay, and each try has nearly all that are left for a moment.
pub(super) const REFUSED: Duration = Duration::from_secs(600);

/// See the module. Not begun at first.
#[derive(Debug)]
pub(super) struct Pause {
    left: Duration,
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Pause {
    /// The first and the longest one.
    pub(super) fn new(first: Duration, most: Duration) -> Self {
        Self {
            left: Duration::ZERO,
            next: first,
            first,
            most,
        }
    }

    pub(super) fn begin(&mut self) {
        self.left = self.next;
        self.next = self.next.saturating_mul(2).min(self.most);
    }

    /// So much time has passed.
    pub(super) fn pass(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    pub(super) fn is_over(&self) -> bool {
        self.left.is_zero()
    }

    /// The next one is a first one again.
    pub(super) fn forget(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_twice_as_long_up_to_the_longest_until_they_are_forgotten() {
        let s = Duration::from_secs;
        let mut pause = Pause::new(s(2), s(7));
        assert!(pause.is_over());
        let lasts = |pause: &mut Pause, step: Duration| {
            pause.begin();
            let passed = (1..).find(|_| {
                pause.pass(step);
                pause.is_over()
            });
            step * passed.unwrap_or(0)
        };
        assert_eq!(lasts(&mut pause, s(1)), s(2));
        // However often it is looked at.
        assert_eq!(lasts(&mut pause, Duration::from_millis(100)), s(4));
        assert_eq!(lasts(&mut pause, s(1)), s(7));
        assert_eq!(lasts(&mut pause, s(7)), s(7));
        pause.forget();
        assert_eq!(lasts(&mut pause, s(1)), s(2));
        let mut endless = Pause::new(s(1), Duration::MAX);
        (0..100).for_each(|_| endless.begin());
        assert!(!endless.is_over());
    }
}
