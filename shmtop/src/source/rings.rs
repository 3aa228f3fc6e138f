//! Who holds a descriptor of a ring. The two ends close theirs once the ring is mapped, so after the handshake nobody
//! should. Called by `pages`, as rarely as it scans /proc.

use super::file::{harmless, line, why};
use super::smaps::RING_NAME;
use crate::reading::Reading;
use crate::sample::RingHolder;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every process with a ring open, once per ring. Processes whose descriptors may not be seen are left out; the scan
/// for pages counts them.
pub(super) fn holders(proc_root: &Path) -> Reading<Vec<RingHolder>> {
    let mut holders = Vec::new();
    let processes = std::fs::read_dir(proc_root).map_err(|e| why(&e, proc_root))?;
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Ok(fds) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for fd in fds.flatten() {
            let ring = std::fs::read_link(fd.path()).is_ok_and(|to| {
                to.as_os_str()
                    .as_encoded_bytes()
                    .starts_with(RING_NAME.as_bytes())
            });
            if !ring {
                continue;
            }
            // Closed meanwhile: then it is not held.
            let Ok(metadata) = std::fs::metadata(fd.path()) else {
                continue;
            };
            holders.push(RingHolder {
                pid,
                comm: line(&process.path().join("comm")).map_or(String::new(), harmless),
                inode: metadata.ino(),
            });
        }
    }
    holders.sort_by_key(|h| (h.inode, h.pid));
    holders.dedup();
    Ok(holders)
}
