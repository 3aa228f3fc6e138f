//! What the page of this process's own client connections says.

use transport::stats::{PageReader, Role, Slot};

/// The slot of a connection. The page was made with this process's first connection, in the directory of whichever test that was.
pub(crate) fn slot_of(connection_id: u64) -> Slot {
    let fds = std::fs::read_dir("/proc/self/fd").expect("ours").flatten();
    let pages = fds
        .map(|fd| fd.path())
        .filter(|path| {
            std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().contains("shmtop-stats"))
        })
        .filter_map(|path| PageReader::open(path).ok()?.snapshot().ok())
        .filter(|page| page.role == Role::Client);
    let mut slots = pages.flat_map(|page| page.slots);
    let slot = slots.find(|slot| slot.info.connection_id == connection_id);
    slot.expect("its slot")
}
