//! Where a thread's time goes.

/// Where a thread's wall time went; the shares add up to 1.
///
/// `no_core` comes from the scheduler and overlaps with what the page measured, so it is taken out of yield,
/// spin, useful and sleep in that order: an estimate, as runs and gaps are not matched one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TimeShares {
    /// Handler, copies, the caller's own code.
    pub useful: f64,
    /// Spinning.
    pub spin: f64,
    /// In sched_yield.
    pub yielding: f64,
    /// Asleep or parked.
    pub sleep: f64,
    /// Waiting for room in a full ring.
    pub blocked: f64,
    /// Runnable without a core.
    pub no_core: f64,
    /// The rest: nothing to do.
    pub idle: f64,
}

impl TimeShares {
    /// What and its share, in the order of display.
    pub fn parts(&self) -> [(TimeUse, f64); 7] {
        [
            (TimeUse::Useful, self.useful),
            (TimeUse::Spin, self.spin),
            (TimeUse::Yield, self.yielding),
            (TimeUse::Sleep, self.sleep),
            (TimeUse::Blocked, self.blocked),
            (TimeUse::NoCore, self.no_core),
            (TimeUse::Idle, self.idle),
        ]
    }
}

/// What a share of [`TimeShares`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUse {
    /// [`TimeShares::useful`].
    Useful,
    /// [`TimeShares::spin`].
    Spin,
    /// [`TimeShares::yielding`].
    Yield,
    /// [`TimeShares::sleep`].
    Sleep,
    /// [`TimeShares::blocked`].
    Blocked,
    /// [`TimeShares::no_core`].
    NoCore,
    /// [`TimeShares::idle`].
    Idle,
}

impl TimeUse {
    /// Name on the screen: a sleep is a park there, as in the wait mix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Useful => "useful",
            Self::Spin => "spin",
            Self::Yield => "yield",
            Self::Sleep => "park",
            Self::Blocked => "blocked",
            Self::NoCore => "no core",
            Self::Idle => "idle",
        }
    }
}
