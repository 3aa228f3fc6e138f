//! What the pages of one user may take of a sample. Anybody may publish pages, and a viewer that is root reads everybody's: one user's must
//! neither fill its memory nor keep the others' out.
//!
//! Called by `pages`. Whose a page is says the kernel (the owner of its file), not the page.

use std::collections::HashMap;
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

/// Each file with the first `finders` processes that have it open, and of one user's files no more than `budget` says; and for each user who
/// has more, how many. `found` is by pid. A process may have half a million descriptors of one file, and thousands of children may have
/// inherited it.
pub(super) fn distinct(
    found: Vec<Found>,
    budget: Budget,
    finders: usize,
) -> (Vec<Found>, HashMap<u32, usize>) {
    /// Whether the file counts, by how many processes it was found, and by which last.
    struct Seen {
        admitted: bool,
        finders: usize,
        pid: u32,
    }
    let mut files: HashMap<(u64, u64), Seen> = HashMap::new();
    let mut counted = Counted::default();
    let mut kept = |f: &Found| {
        // Closed meanwhile, or not to be seen.
        let Ok(file) = std::fs::metadata(&f.link) else {
            return false;
        };
        let seen = files
            .entry((file.dev(), file.ino()))
            .or_insert_with(|| Seen {
                admitted: counted.admits(file.uid(), budget),
                finders: 0,
                pid: 0,
            });
        let first = std::mem::replace(&mut seen.pid, f.pid) != f.pid;
        seen.finders += usize::from(first);
        seen.admitted && first && seen.finders <= finders
    };
    let found = found.into_iter().filter(|f| kept(f)).collect();
    (found, counted.crowds())
}

/// What the pages of one user may still take of one sample.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) left_bytes: usize,
    /// Pages that were read and did not fit: each takes time for nothing, and a user may have thousands.
    pub(super) in_vain: u32,
}

impl Share {
    pub(super) fn of(budget: Budget) -> Self {
        Self {
            left_bytes: budget.user_bytes,
            in_vain: 0,
        }
    }

    /// Whether a page that took so many bytes the last time is worth reading; 0: it was not read yet.
    pub(super) fn is_worth(&self, bytes: usize, refused: bool) -> bool {
        let fits = bytes <= self.left_bytes;
        match bytes {
            0 => self.in_vain < 2,
            _ if self.in_vain > 0 || refused => fits && self.in_vain < 3,
            _ => true,
        }
    }
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
    /// Whether this user may have one more, which is counted then, one way or the other.
    fn admits(&mut self, uid: u32, budget: Budget) -> bool {
        let has_room = self.has_room(uid, budget);
        match has_room {
            true => self.admit(uid),
            false => self.refuse(uid),
        }
        has_room
    }

    /// Whether this user may have one more.
    pub(super) fn has_room(&self, uid: u32, budget: Budget) -> bool {
        let mine = self.by_user.get(&uid).copied().unwrap_or(0);
        mine < budget.user_pages && self.all < budget.pages
    }

    pub(super) fn admit(&mut self, uid: u32) {
        *self.by_user.entry(uid).or_default() += 1;
        self.all += 1;
    }

    pub(super) fn refuse(&mut self, uid: u32) {
        *self.left_out.entry(uid).or_default() += 1;
    }

    /// A user is known to have so many.
    pub(super) fn of_a_crowd(&mut self, uid: u32, all: usize) {
        let mine = self.by_user.get(&uid).copied().unwrap_or(0);
        let left_out = self.left_out.entry(uid).or_default();
        *left_out = all.saturating_sub(mine).max(*left_out);
    }

    /// How many those users have who have too many.
    fn crowds(&self) -> HashMap<u32, usize> {
        let mine = |uid| self.by_user.get(uid).copied().unwrap_or(0);
        let crowds = self.left_out.iter();
        crowds.map(|(uid, more)| (*uid, mine(uid) + more)).collect()
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
