//! Who holds a descriptor of a ring. The two ends close theirs once the ring is mapped, so after the handshake nobody
//! should. Called by `pages` when it has scanned /proc, and each second for those it found then.

use crate::sample::RingHolder;
use std::os::unix::fs::MetadataExt;
use transport::stats::registry::Found;

/// Every process with a ring open, once per ring. Processes whose descriptors may not be seen are left out; the scan
/// for pages counts them.
pub(super) fn holders(rings: &[Found]) -> Vec<RingHolder> {
    let held = |ring: &Found| {
        // Closed meanwhile: then it is not held. If the number leads to another file by now, its inode says so.
        let inode = std::fs::metadata(&ring.link).ok()?.ino();
        Some(RingHolder {
            pid: ring.pid,
            comm: ring.name.clone(),
            inode,
        })
    };
    let mut holders: Vec<RingHolder> = rings.iter().filter_map(held).collect();
    holders.sort_by_key(|h| (h.inode, h.pid));
    holders.dedup();
    holders
}
