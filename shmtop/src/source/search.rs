//! The search for stats pages. Called by `pages`.
//!
//! Two ways lead to a page: its link in the runtime directory, looked for once a second, and a scan of every process's
//! descriptors, every five seconds at most and never for more than a two-thousandth of the time. The scan finds descriptors
//! of rings as well, which nobody should hold.

use super::budget::{self, Budget};
use super::clock;
use super::file::{harmless, harmless_path, why};
use super::rings;
use crate::reading::{Reading, Why};
use crate::sample::{Discovery, FoundBy, Page, PageContent, ProcScan};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use transport::stats::registry::{self, Found, Scan};

const SCAN_NS: u64 = 5_000_000_000;
/// Longer than the steps in which file systems tell the time.
const TICK: Duration = Duration::from_millis(100);
/// A scan rests for this many times the CPU time that it cost.
const SCAN_REST: u64 = 2000;

/// Where pages are looked for, and what was found there last.
#[derive(Debug)]
pub(super) struct Search {
    runtime_dir: PathBuf,
    proc_root: PathBuf,
    /// Whether /proc is scanned at all.
    scans: bool,
    /// What the runtime directory announced when it was last listed, and when it had last changed then; `None` if it has to be listed
    /// again.
    announced: Vec<Found>,
    announced_at: Option<SystemTime>,
    scan_due_ns: u64,
    scanned: Vec<Found>,
    /// Pages that the last scan found and left out, by user.
    beyond: HashMap<u32, usize>,
    /// Descriptors of rings that the last scan found; each second it is seen which of them are still open.
    rings: Vec<Found>,
    /// Links in the runtime directory that are named like pages and lead elsewhere.
    strays: Vec<Page>,
    discovery: Discovery,
}

impl Search {
    pub(super) fn new(runtime_dir: PathBuf, proc_root: PathBuf, scans: bool) -> Self {
        let not_yet = || Why::not_yet("not looked yet");
        let scan = if scans {
            not_yet()
        } else {
            Why::not_applicable("switched off")
        };
        Self {
            discovery: Discovery {
                runtime_dir: harmless_path(&runtime_dir),
                registry_links: Err(not_yet()).into(),
                scan: Err(scan.clone()).into(),
                ring_holders: Err(scan).into(),
            },
            runtime_dir,
            proc_root,
            scans,
            announced: Vec::new(),
            announced_at: None,
            scan_due_ns: 0,
            scanned: Vec::new(),
            beyond: HashMap::new(),
            rings: Vec::new(),
            strays: Vec::new(),
        }
    }

    /// How far the search saw.
    pub(super) fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Links in the runtime directory that are named like pages and lead elsewhere.
    pub(super) fn strays(&self) -> &[Page] {
        &self.strays
    }

    /// Pages that the last scan found and left out, by user.
    pub(super) fn beyond(&self) -> &HashMap<u32, usize> {
        &self.beyond
    }

    /// What the last listing and the last scan found, announced pages first.
    pub(super) fn found(&self) -> Vec<(FoundBy, Found)> {
        let announced = self.announced.iter().map(|f| (FoundBy::Registry, f));
        let scanned = self.scanned.iter().map(|f| (FoundBy::ProcScan, f));
        let all = announced.chain(scanned);
        all.map(|(by, found)| (by, found.clone())).collect()
    }

    /// "4711-exchange" by registry, "4711/fd/5" by scan.
    pub(super) fn name_of(&self, link: &Path, found_by: FoundBy) -> String {
        let below = match found_by {
            FoundBy::Registry => &self.runtime_dir,
            FoundBy::ProcScan => &self.proc_root,
        };
        harmless_path(link.strip_prefix(below).unwrap_or(link))
    }

    /// A link leads nowhere: as a rule its process has ended, and a listing sweeps it.
    pub(super) fn list_again(&mut self) {
        self.announced_at = None;
    }

    /// Lists the runtime directory, unless it is as it was.
    pub(super) fn list(&mut self) {
        let changed = std::fs::metadata(&self.runtime_dir).and_then(|m| m.modified());
        if let (Ok(changed), Some(listed)) = (&changed, &self.announced_at)
            && changed == listed
        {
            return;
        }
        let announced: Reading<Vec<Found>> =
            registry::discover(&self.runtime_dir).map_err(|e| why(&e, &self.runtime_dir));
        self.discovery.registry_links = announced
            .as_ref()
            .map(|found| found.len() as u32)
            .map_err(Why::clone)
            .into();
        self.strays = strays(&self.runtime_dir);
        self.announced = announced.unwrap_or_default();
        // A change in the tick of the clock in which it was listed would not show in the time.
        let settled = |at: &SystemTime| at.elapsed().is_ok_and(|ago| ago > TICK);
        self.announced_at = changed.ok().filter(settled);
    }

    /// Scans /proc if that is due, or looks whether the rings that the last scan found are still open.
    pub(super) fn scan(&mut self, now_ns: u64, budget: Budget) {
        if self.scans && now_ns >= self.scan_due_ns {
            self.scan_now(budget);
        } else if self.discovery.ring_holders.known().is_some() {
            self.discovery.ring_holders = Ok(rings::holders(&self.rings)).into();
        }
    }

    fn scan_now(&mut self, budget: Budget) {
        // In CPU time: on a busy machine a scan takes long by the clock, and would then rest for minutes.
        let start_ns = clock::thread_cpu_ns();
        let result = registry::scan_proc(&self.proc_root);
        let pages = result.as_ref().map_or(0, |scan| scan.found.len() as u32);
        let mut beyond = HashMap::new();
        // What is left of it is looked at each second until the next scan, so this is part of what a scan costs.
        let result = result.map(|scan| {
            let found;
            (found, beyond) = budget::distinct(scan.found, budget.of_a_scan());
            let (rings, _) = budget::distinct(scan.rings, budget.of_a_scan());
            Scan {
                found,
                rings,
                ..scan
            }
        });
        self.beyond = beyond;
        let held = result.as_ref().map(|scan| rings::holders(&scan.rings));
        self.discovery.ring_holders = held.map_err(|e| why(e, &self.proc_root)).into();
        let end_ns = clock::monotonic_ns();
        let cost_ns = clock::thread_cpu_ns().saturating_sub(start_ns);
        self.scan_due_ns = end_ns + SCAN_NS.max(cost_ns.saturating_mul(SCAN_REST));
        let scan = result.map_err(|e| why(&e, &self.proc_root));
        self.discovery.scan = scan
            .as_ref()
            .map(|scan| ProcScan {
                at_ns: end_ns,
                pages,
                denied: scan.unreadable.len() as u32,
            })
            .map_err(Why::clone)
            .into();
        let scan = scan.unwrap_or_default();
        (self.scanned, self.rings) = (scan.found, scan.rings);
    }
}

/// Links named `PID-NAME` that lead to anything but a descriptor of that process. They are not followed: whatever is there is no
/// page that was announced by this library.
fn strays(runtime_dir: &Path) -> Vec<Page> {
    const MOST: usize = 16;
    let Ok(entries) = std::fs::read_dir(runtime_dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let name = entry.file_name();
            let (pid, _) = name.to_str()?.split_once('-')?;
            let pid: u32 = pid.parse().ok()?;
            let fd = target
                .to_str()
                .and_then(|t| t.strip_prefix(&format!("/proc/{pid}/fd/")));
            if fd.is_some_and(|fd| fd.parse::<u32>().is_ok()) {
                return None;
            }
            Some(Page {
                link: harmless(name.as_encoded_bytes()),
                pid: 0,
                found_by: FoundBy::Registry,
                content: PageContent::Hostile(format!(
                    "its link leads to {}, not to a descriptor of process {pid}; not followed",
                    harmless_path(&target)
                )),
            })
        })
        .take(MOST)
        .collect()
}
