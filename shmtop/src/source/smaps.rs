//! Mappings of rings in a process, by /proc/PID/smaps. Called by `process` for the processes asked for in detail, and
//! for those with major faults while swap is in use: the kernel walks page tables for it.

use super::file::{nonsense, text};
use crate::reading::Reading;
use crate::sample::RingMapping;
use std::collections::BTreeMap;
use std::path::Path;

/// How the kernel shows a ring's memfd.
pub(super) const RING_NAME: &str = "/memfd:shm-ring";

/// The rings mapped by the process whose directory is `process_dir`; several mappings of one memfd are added up.
pub(super) fn rings(process_dir: &Path) -> Reading<Vec<RingMapping>> {
    let path = process_dir.join("smaps");
    parse(&text(&path)?).ok_or_else(|| nonsense(&path))
}

fn parse(text: &str) -> Option<Vec<RingMapping>> {
    let mut rings = BTreeMap::<u64, RingMapping>::new();
    let mut inside = None;
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(key) = words.next() else { continue };
        if let Some(key) = key.strip_suffix(':') {
            let Some(inode) = inside else { continue };
            let ring = rings.entry(inode).or_default();
            let sum = match key {
                "Size" => &mut ring.size_bytes,
                "Rss" => &mut ring.rss_bytes,
                "Pss" => &mut ring.pss_bytes,
                "Swap" => &mut ring.swap_bytes,
                _ => continue,
            };
            let kb: u64 = words.next()?.parse().ok()?;
            *sum = sum.saturating_add(kb.checked_mul(1024)?);
        } else {
            // address perms offset dev inode path
            let inode = words.nth(3)?.parse().ok()?;
            let is_ring = words.next().is_some_and(|path| path.starts_with(RING_NAME));
            inside = is_ring.then_some(inode);
            if let Some(inode) = inside {
                rings.entry(inode).or_default().inode = inode;
            }
        }
    }
    Some(rings.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rings_are_counted_and_their_parts_add_up() {
        let text = "\
7f00-7f10 rw-s 00000000 00:01 41 /memfd:shm-ring (deleted)
Size: 64 kB
Rss: 8 kB
Pss: 4 kB
Pss_Dirty: 1 kB
Swap: 0 kB
VmFlags: rd wr sh
7f20-7f30 rw-p 00000000 00:00 0 [heap]
Rss: 100 kB
7f40-7f50 rw-s 00000000 00:01 41 /memfd:shm-ring (deleted)
Size: 64 kB
Rss: 16 kB
Swap: 4 kB
7f60-7f70 r--s 00000000 00:01 9 /memfd:other (deleted)
Size: 64 kB
";
        assert_eq!(
            parse(text).unwrap(),
            [RingMapping {
                inode: 41,
                size_bytes: 128 << 10,
                rss_bytes: 24 << 10,
                pss_bytes: 4 << 10,
                swap_bytes: 4 << 10,
            }]
        );
    }

    #[test]
    fn a_broken_smaps_is_unknown_and_an_empty_one_has_no_rings() {
        assert_eq!(parse(""), Some(vec![]));
        assert_eq!(parse("garbage"), None);
        assert_eq!(
            parse("1-2 rw-s 0 0:1 41 /memfd:shm-ring\nRss: many kB"),
            None
        );
    }
}
