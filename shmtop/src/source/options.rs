//! Where and how to look.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// Where and how to look.
#[derive(Clone, Debug)]
pub struct Options {
    /// `/proc`, or a fixture tree.
    pub proc_root: PathBuf,
    /// `/sys`, or a fixture tree.
    pub sys_root: PathBuf,
    /// Where pages are announced.
    pub runtime_dir: PathBuf,
    /// Also look for pages through every process's descriptors.
    pub scan: bool,
    /// The first sample is waited for: if pages are announced it is content with them, and the scan comes with the second.
    pub hurry: bool,
    /// Which perf counters to open.
    pub perf: PerfScope,
    /// Processes to look at more closely: their ring mappings are read (milliseconds each, once a second), and the
    /// kernel's own perf counters opened.
    pub detail: BTreeSet<u32>,
}

/// Which perf counters to open on the threads that own a slot. Whatever is opened costs the counted thread up to 2 µs at
/// each of its context switches, for as long as shmtop runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PerfScope {
    /// None.
    Off,
    /// Hardware counters where the machine has them, so nothing in most VMs; the kernel's own only for
    /// [`Options::detail`].
    #[default]
    Hardware,
    /// Both kinds for every thread.
    All,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proc_root: "/proc".into(),
            sys_root: "/sys".into(),
            runtime_dir: transport::stats::registry::default_dir(),
            scan: true,
            hurry: false,
            perf: PerfScope::default(),
            detail: BTreeSet::new(),
        }
    }
}
