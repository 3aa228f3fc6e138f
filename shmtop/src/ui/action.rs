//! Everything a user can ask for, by key, click or wheel, and what the runtime must do about it.

use super::jump::Jump;
use super::state::View;
use crate::model::Model;
use crate::model::listing::SortKey;

/// What a key, a click or the wheel means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Leave.
    Quit,
    /// Stop the process as the shell's job control does.
    Suspend,
    /// Show or hide the help.
    Help,
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// Sort by the column before; in a client, the client before.
    Left,
    /// Sort by the next column; in a client, the next client.
    Right,
    /// First row.
    First,
    /// Last row.
    Last,
    /// A screenful up.
    PageUp,
    /// A screenful down.
    PageDown,
    /// Open what is selected.
    Open,
    /// Close what is open, end the filter; never quits.
    Back,
    /// Type a filter.
    Filter,
    /// Sort by the next column.
    Sort,
    /// Invert the order.
    Invert,
    /// Freeze the screen, or go on.
    Freeze,
    /// One refresh back in time.
    StepBack,
    /// One refresh forward.
    StepForward,
    /// Ten seconds back.
    JumpBack,
    /// Ten seconds forward.
    JumpForward,
    /// Type a moment to look at.
    Jump,
    /// Refresh more often; in a replay, play faster.
    Faster,
    /// Refresh less often; in a replay, play slower.
    Slower,
    /// The next view.
    NextView,
    /// The view before.
    PreviousView,
    /// This view.
    Show(View),
    /// Show more about each row, or less.
    Expand,
    /// The next theme.
    Theme,
    /// Mouse: select this row (and open it when it is selected already).
    Select(usize),
    /// Mouse: sort by this column (and invert when it is sorted by already).
    SortBy(SortKey),
    /// A letter of the filter, or of the moment.
    Type(char),
    /// Take the last letter away.
    Erase,
}

/// What the runtime has to do after an action; everything else is in the state already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Draw again.
    Redraw,
    /// Leave.
    Quit,
    /// Stop the process until SIGCONT.
    Suspend,
    /// Move in time.
    Time(TimeMove),
    /// Look at this moment.
    Jump(Jump),
    /// Change the refresh rate (live) or the speed (replay): +1 faster, −1 slower.
    Rate(i8),
}

/// A move in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMove {
    /// Freeze at the newest, or go back to it.
    Toggle,
    /// So many refreshes forward (or back, if negative).
    Step(i32),
    /// So many seconds forward (or back).
    Seconds(i32),
    /// The last refresh up to this moment of CLOCK_MONOTONIC, ns.
    To(u64),
    /// The last refresh up to this moment of CLOCK_REALTIME, ns since 1970; the later one if that clock was set back over it.
    ToClock(u64),
}

impl TimeMove {
    /// Of a move to a moment: that moment, and the one that `model` is of on the same clock, ns.
    pub fn moment(self, model: &Model) -> Option<(u64, u64)> {
        match self {
            Self::To(wanted) => Some((wanted, model.at_ns)),
            Self::ToClock(wanted) => Some((wanted, model.at_realtime_ns)),
            Self::Toggle | Self::Step(_) | Self::Seconds(_) => None,
        }
    }
}
