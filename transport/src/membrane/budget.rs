//! Ring memory of all clients together: reserved before it is made, so that clients who come at the same time can't
//! exceed the budget between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Step;
use crate::mem::StepError;

/// How much there may be, and how much is taken.
pub(super) struct Budget {
    /// Bytes; 0 = no limit of ours.
    limit: u64,
    used: AtomicU64,
}

/// A part of the budget, given back on drop.
pub(super) struct Reserved {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        let used = AtomicU64::new(0);
        Arc::new(Self { limit, used })
    }

    /// Takes `bytes` of it.
    ///
    /// # Errors
    /// What there may be and what is taken, if that is not left.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reserved, StepError> {
        let most = if self.limit == 0 {
            u64::MAX
        } else {
            self.limit
        };
        // Relaxed: a number, not a message; the update itself is atomic.
        let taken = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= most)
            });
        match taken {
            Ok(_) => Ok(Reserved {
                budget: Arc::clone(self),
                bytes,
            }),
            Err(used) => Err(StepError {
                step: Step::Headroom,
                errno: 0,
                limit: self.limit,
                used,
            }),
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[test]
    fn threads_that_reserve_at_once_never_exceed_it_between_them() {
        const LIMIT: u64 = 3;
        let budget = Budget::new(LIMIT);
        let held = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100_000 {
                        match budget.reserve(1) {
                            Ok(reserved) => {
                                let now = held.fetch_add(1, SeqCst) + 1;
                                assert!(now <= LIMIT, "{now} of {LIMIT}");
                                held.fetch_sub(1, SeqCst);
                                drop(reserved);
                            }
                            Err(why) => {
                                assert_eq!((why.step, why.limit), (Step::Headroom, LIMIT));
                            }
                        }
                    }
                });
            }
        });
        // All is given back, and no more than that.
        let again: Vec<_> = (0..LIMIT).filter_map(|_| budget.reserve(1).ok()).collect();
        assert_eq!(again.len() as u64, LIMIT);
        assert!(budget.reserve(1).is_err());
    }
}
