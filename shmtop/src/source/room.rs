//! How many files may be held open between two looks: whoever keeps some takes them out of here first.

use nix::sys::resource::{Resource, getrlimit};

/// Without a limit, or with a very high one.
const MOST: usize = 2_048;

/// Descriptors that may still be kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room(usize);

impl Room {
    /// Half of what this process may open: pages and what is read once need some, too.
    pub(super) fn of_this_process() -> Self {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
        Self(usize::try_from(soft / 2).unwrap_or(MOST).min(MOST))
    }

    /// What is left of it beside those held already.
    pub(super) fn beside(self, held: usize) -> Self {
        Self(self.0.saturating_sub(held))
    }

    /// Takes so many, if there are as many.
    pub(super) fn take(&mut self, descriptors: usize) -> bool {
        let left = self.0.checked_sub(descriptors);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    /// For nothing.
    pub(super) fn none() -> Self {
        Self(0)
    }

    #[cfg(test)]
    pub(super) fn for_so_many(descriptors: usize) -> Self {
        Self(descriptors)
    }
}
