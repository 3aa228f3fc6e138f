//! The one stats page of this process for all its client connections.

use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Config;
use crate::mem::fork;
use crate::stats::page::{PageDescription, PageWriter};
use crate::stats::registry::{self, Announcement};
use crate::stats::slot::SlotWriter;
use crate::stats::{Role, SlotKind};

/// The page and its link.
type Page = Option<(Arc<PageWriter>, Option<Announcement>)>;

/// Where the page of one process is: a fork can neither write its parent's nor wait for the lock, which a thread may have held that the fork
/// does not have.
struct Place {
    generation: u64,
    page: Mutex<Page>,
}

/// This process's, or its parent's before the first connection of a fork. Null or leaked, so what it points to lives for ever.
static PLACE: AtomicPtr<Place> = AtomicPtr::new(null_mut());

/// This process's.
fn place() -> &'static Place {
    // An errno: then a fork can be told by its pid, as `is_ours` does.
    let _ = fork::watch();
    let generation = fork::generation();
    // Acquire: with the exchange below, so that what it points to is seen whole.
    let known = PLACE.load(Ordering::Acquire);
    // SAFETY: null or leaked, and shared references are all that there is to it.
    let parents = unsafe { known.as_ref() };
    if let Some(place) = parents
        && place.generation == generation
    {
        return place;
    }
    let new = Box::into_raw(Box::new(Place {
        generation,
        page: Mutex::new(None),
    }));
    // Release: with the loads, here and above. Acquire: as above, if another thread was first.
    match PLACE.compare_exchange(known, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            // The copies of its descriptors are of no use here. If its lock was held, it stays.
            if let Some(Ok(mut page)) = parents.map(|place| place.page.try_lock()) {
                *page = None;
            }
            // SAFETY: just leaked.
            unsafe { &*new }
        }
        Err(others) => {
            // SAFETY: made above and seen by nobody.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: as of `known`; it is not null, since whoever replaces it does so by one that was made.
            unsafe { &*others }
        }
    }
}

/// Connections of one process that a page can show at a time.
const SLOTS: usize = 128;

/// A slot for a connection to the server at `path`. Made on the heap, unseen, when the page is full.
pub(super) fn slot(path: &Path, config: &Config) -> SlotWriter {
    let mut guard = place().page.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.as_ref().is_some_and(|(page, _)| !page.is_ours()) {
        *guard = None;
    }
    let (page, _) = guard.get_or_insert_with(|| {
        // As the server's page names it. Without a current directory as it was given.
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
        let page = PageWriter::create(&PageDescription {
            name: &config.name,
            role: Role::Client,
            socket_path: &absolute,
            slots: SLOTS,
        });
        let dir = config
            .stats_dir
            .clone()
            .unwrap_or_else(registry::default_dir);
        // Without the link a viewer finds the page by scanning /proc; the transport works all the same.
        let link = page
            .fd()
            .and_then(|fd| registry::announce(&dir, &config.name, std::process::id(), fd).ok());
        // SAFETY: atexit accepts any function of this type at any time. Failing (no memory) leaves a dangling link.
        unsafe { libc::atexit(remove_link) };
        (page, link)
    });
    page.slot(SlotKind::Connection)
        .unwrap_or_else(|| SlotWriter::private(SlotKind::Connection))
}

/// Statics are not dropped: an exit in good order takes the link away here. One that is not leaves it dangling, to be swept.
extern "C" fn remove_link() {
    // Held only by a thread that connects at this very moment; waiting for it could wait for ever.
    if let Ok(mut guard) = place().page.try_lock()
        && let Some((_, link)) = guard.as_mut()
    {
        *link = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds: ends a hang.
    const WATCHDOG: u32 = 60;

    #[test]
    fn a_fork_waits_for_no_thread_that_it_does_not_have_and_gets_a_page_of_its_own() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config {
            stats_dir: Some(dir.path().into()),
            ..Config::default()
        };
        let ours = slot(dir.path(), &config);
        let links = || std::fs::read_dir(dir.path()).expect("links").count();
        let before = links();
        let held = place().page.lock();
        // SAFETY: the child leaves by _exit, without running anything of the parent's. It allocates, for which the C library keeps its
        // allocator usable.
        match unsafe { libc::fork() } {
            0 => {
                nix::unistd::alarm::set(WATCHDOG);
                let slot = slot(dir.path(), &config);
                let right = slot.index() == Some(0) && links() == before + 1;
                // SAFETY: as said.
                unsafe { libc::_exit(i32::from(!right)) }
            }
            child => {
                let mut status = 0;
                // SAFETY: our child, waited for once, into a valid int.
                unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!(status, 0, "wrong in the child (256), or its signal");
            }
        }
        drop((held, ours));
    }
}
