//! What the pages of one user may take of a sample. Anybody may publish pages, and a viewer that is root reads everybody's: one user's must
//! neither fill its memory nor keep the others' out.
//!
//! Called by `pages`. Whose a page is says the kernel (the owner of its file), not the page.

use std::collections::{BTreeSet, HashMap};
use std::mem::size_of;
use std::os::unix::fs::MetadataExt;

use transport::stats::registry::Found;
use transport::stats::{Slot, Snapshot};

/// Limits of one user, and of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Pages of one user.
    pub(super) user_pages: usize,
    /// Pages of all users.
    pub(super) pages: usize,
    /// Bytes of the copies of one user's pages in one sample. A dozen samples are kept; a thousand clients with pages of their own take 10 MB.
    pub(super) user_bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            user_pages: 1_024,
            pages: 4_096,
            user_bytes: 32 << 20,
        }
    }
}

impl Budget {
    /// Of what a scan finds, what is looked at each second: twice the pages, since some turn out to be inherited.
    pub(super) fn of_a_scan(self) -> Self {
        Self {
            user_pages: self.user_pages.saturating_mul(2),
            pages: self.pages.saturating_mul(2),
            ..self
        }
    }
}

/// Each file once per process that has it open, and of one user's files no more than `budget` says; and how many were left out for
/// that, by user. A process may have half a million descriptors of one file.
pub(super) fn distinct(found: Vec<Found>, budget: Budget) -> (Vec<Found>, HashMap<u32, usize>) {
    let mut seen = BTreeSet::new();
    let mut counted = Counted::default();
    let mut kept = |f: &Found| {
        // Closed meanwhile, or not to be seen.
        let Ok(file) = std::fs::metadata(&f.link) else {
            return false;
        };
        seen.insert((f.pid, file.dev(), file.ino())) && counted.admits(file.uid(), budget)
    };
    let found = found.into_iter().filter(|f| kept(f)).collect();
    (found, counted.left_out)
}

/// Pages that were counted, by user.
#[derive(Debug, Default)]
pub(super) struct Counted {
    all: usize,
    by_user: HashMap<u32, usize>,
    /// Pages that were too many, by user.
    pub(super) left_out: HashMap<u32, usize>,
}

impl Counted {
    /// Whether this user may have one more.
    pub(super) fn admits(&mut self, uid: u32, budget: Budget) -> bool {
        let mine = self.by_user.entry(uid).or_default();
        if *mine < budget.user_pages && self.all < budget.pages {
            *mine += 1;
            self.all += 1;
            return true;
        }
        *self.left_out.entry(uid).or_default() += 1;
        false
    }
}

/// Memory that a copy of a page takes.
pub(super) fn bytes(snapshot: &Snapshot) -> usize {
    let named = |unknown: &[(String, u64)]| -> usize {
        let each = unknown.iter().map(|(name, _)| name.len());
        each.sum::<usize>() + size_of_val(unknown)
    };
    let slot = |s: &Slot| {
        let histograms = [&s.rtt, &s.handler, &s.park];
        let buckets = histograms.iter().map(|h| size_of_val(&*h.buckets));
        size_of::<Slot>() + buckets.sum::<usize>() + named(&s.unknown)
    };
    snapshot.slots.iter().map(slot).sum::<usize>() + named(&snapshot.unknown)
}
