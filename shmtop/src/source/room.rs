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

    /// What is left of it for files, beside so many of them and of counters that are held already: of counters at least
    /// `set_aside` keep their place, or half of all there is.
    pub(super) fn for_files(self, held: usize, counters: usize, set_aside: usize) -> Self {
        self.beside(held + counters.max(set_aside.min(self.0 / 2)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_crowd_leave_room_for_counters() {
        for (all, for_counters) in [(512, 256), (100, 50), (2_048, 256)] {
            let room = Room(all);
            let mut held = 0;
            while room.for_files(held, 0, 256).take(8) {
                held += 8;
            }
            assert!(room.beside(held).take(for_counters), "{all}: {held} files");
            // Those that are open are not set aside once more.
            assert!(!room.for_files(held, for_counters, 256).take(8));
        }
        assert!(Room(512).for_files(0, 0, 0).take(512), "nothing is counted");
    }
}
