//! The one stats page of this process for all its client connections.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::Config;
use crate::stats::page::{PageDescription, PageWriter};
use crate::stats::registry::{self, Announcement};
use crate::stats::slot::SlotWriter;
use crate::stats::{Role, SlotKind};

/// The page and its link; replaced in a forked child, where the parent's is not mapped.
static PAGE: Mutex<Option<(Arc<PageWriter>, Option<Announcement>)>> = Mutex::new(None);

/// A slot for a connection to the server at `path`. Made on the heap, unseen, when the page is full.
pub(super) fn slot(path: &Path, config: &Config) -> SlotWriter {
    let mut guard = PAGE.lock().unwrap_or_else(PoisonError::into_inner);
    if guard.as_ref().is_some_and(|(page, _)| !page.is_ours()) {
        *guard = None;
    }
    let (page, _) = guard.get_or_insert_with(|| {
        let page = PageWriter::create(&PageDescription {
            name: &config.name,
            role: Role::Client,
            socket_path: path,
            slots: PageDescription::default_slots(Role::Client),
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
    if let Ok(mut guard) = PAGE.try_lock()
        && let Some((_, link)) = guard.as_mut()
    {
        *link = None;
    }
}
