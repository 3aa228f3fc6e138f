//! The stats page of another process, written over as only root can: through its memory, because the page itself is sealed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

/// One mapped page.
pub(crate) struct Page {
    memory: File,
    start: u64,
}

impl Page {
    /// The page that this process writes.
    pub(crate) fn of(pid: i32) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a process of ours");
        let line = maps
            .lines()
            .find(|l| l.contains("rw-s") && l.contains("memfd:shmtop"))
            .unwrap_or_else(|| panic!("no page in {maps}"));
        let start = line.split('-').next().expect("a range");
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .expect("we are root");
        Self {
            memory,
            start: u64::from_str_radix(start, 16).expect("an address"),
        }
    }

    /// The word at a byte offset.
    pub(crate) fn read(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        let read = self.memory.read_exact_at(&mut bytes, self.start + offset);
        read.expect("a mapped page");
        u64::from_le_bytes(bytes)
    }

    /// A word of the header, by its number.
    pub(crate) fn word(&self, number: usize) -> u64 {
        self.read(8 * number as u64)
    }

    /// Overwrites the word at a byte offset.
    pub(crate) fn write(&self, offset: u64, value: u64) {
        let written = self
            .memory
            .write_all_at(&value.to_le_bytes(), self.start + offset);
        written.expect("a mapped page");
    }
}
