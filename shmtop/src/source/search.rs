//! The search for stats pages. Called by `pages`.
//!
//! Two ways lead to a page: its link in the runtime directory, looked for once a second, and a scan of every process's
//! descriptors, every five seconds at most, for a five-thousandth of the time and every two minutes in any case. Where it rests for longer than five
//! seconds, processes that are new since are looked at meanwhile. The scan finds descriptors of rings as well, which nobody should hold.

use super::budget::{self, Budget};
use super::clock;
use super::file::{harmless, harmless_path, why};
use super::rings;
use crate::reading::{Reading, Why};
use crate::sample::{Discovery, FoundBy, Page, PageContent, ProcScan};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use transport::stats::registry::{self, Found, Scan};

const SCAN_NS: u64 = 5_000_000_000;
/// Longer than the steps in which file systems tell the time.
const TICK: Duration = Duration::from_millis(100);
/// A scan rests for this many times the CPU time that it cost.
const SCAN_REST: u64 = 5000;
/// But no longer than this: somebody may hold half a million descriptors, and others' pages are not found meanwhile.
const LONGEST_REST_NS: u64 = 120_000_000_000;
/// A process may have a page only some time after it began.
const YOUNG_NS: u64 = 60_000_000_000;
/// Processes by which one page may be found: all but its owner have inherited it.
const FINDERS: usize = 8;
/// Processes that are named for holding one ring.
const HOLDERS: usize = 64;

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
    /// When the processes that are young are looked at again, and when each process was first seen: 0 = by the first scan.
    young_due_ns: u64,
    first_seen_ns: HashMap<u32, u64>,
    scanned: Vec<Found>,
    /// How many pages those users have who have more than are looked at.
    crowds: HashMap<u32, usize>,
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
            crowds: HashMap::new(),
            young_due_ns: 0,
            first_seen_ns: HashMap::new(),
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

    /// How many pages those users have who have more than are looked at.
    pub(super) fn crowds(&self) -> &HashMap<u32, usize> {
        &self.crowds
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
            self.scan_now(now_ns, budget);
        } else if self.scans && now_ns >= self.young_due_ns {
            self.scan_young(now_ns, budget);
        } else if self.discovery.ring_holders.known().is_some() {
            self.discovery.ring_holders = Ok(rings::holders(&self.rings)).into();
        }
    }

    fn scan_now(&mut self, now_ns: u64, budget: Budget) {
        // In CPU time: on a busy machine a scan takes long by the clock, and would then rest for minutes.
        let start_ns = clock::thread_cpu_ns();
        let mut before = std::mem::take(&mut self.first_seen_ns);
        let first = before.is_empty();
        let seen_ns = if first { 0 } else { now_ns };
        let result = registry::scan_proc_of(&self.proc_root, |pid| {
            let at_ns = before.remove(&pid).unwrap_or(seen_ns);
            self.first_seen_ns.insert(pid, at_ns);
            true
        });
        let result = result.map_err(|e| why(&e, &self.proc_root));
        let (pages, denied) = result.as_ref().map_or((0, 0), |scan| {
            (scan.found.len() as u32, scan.unreadable.len() as u32)
        });
        let failed = result.as_ref().err().cloned();
        let scan = result.unwrap_or_default();
        // What is left of it is looked at each second until the next scan, so this is part of what a scan costs.
        self.take(scan, budget);
        if let Some(why) = &failed {
            self.discovery.ring_holders = Err(why.clone()).into();
        }
        let end_ns = clock::monotonic_ns();
        let rest_ns = rest_ns(start_ns);
        self.scan_due_ns = end_ns.saturating_add(rest_ns);
        self.young_due_ns = end_ns.saturating_add(SCAN_NS);
        self.discovery.scan = failed
            .map_or(
                Ok(ProcScan {
                    at_ns: end_ns,
                    pages,
                    denied,
                }),
                Err,
            )
            .into();
    }

    /// Looks at the processes that are new since the last scan: who began since has no page that it could have found.
    fn scan_young(&mut self, now_ns: u64, budget: Budget) {
        let start_ns = clock::thread_cpu_ns();
        let mut before = std::mem::take(&mut self.first_seen_ns);
        let mut young = HashSet::new();
        let scan = registry::scan_proc_of(&self.proc_root, |pid| {
            let at_ns = before.remove(&pid).unwrap_or(now_ns);
            self.first_seen_ns.insert(pid, at_ns);
            let is_young = at_ns > now_ns.saturating_sub(YOUNG_NS);
            if is_young {
                young.insert(pid);
            }
            is_young
        });
        // What keeps /proc from being read is said by the next scan.
        let mut scan = scan.unwrap_or_default();
        for (known, new) in [
            (&self.scanned, &mut scan.found),
            (&self.rings, &mut scan.rings),
        ] {
            new.extend(known.iter().filter(|f| !young.contains(&f.pid)).cloned());
            new.sort_by(|a, b| (a.pid, &a.link).cmp(&(b.pid, &b.link)));
        }
        let crowds = std::mem::take(&mut self.crowds);
        self.take(scan, budget);
        for (uid, all) in crowds {
            let now = self.crowds.entry(uid).or_default();
            *now = all.max(*now);
        }
        self.young_due_ns = now_ns.saturating_add(rest_ns(start_ns));
    }

    /// Keeps of what was found as much as is looked at each second.
    fn take(&mut self, scan: Scan, budget: Budget) {
        let most = budget.of_a_scan();
        (self.scanned, self.crowds) = budget::distinct(scan.found, most, FINDERS);
        (self.rings, _) = budget::distinct(scan.rings, most, HOLDERS);
        self.discovery.ring_holders = Ok(rings::holders(&self.rings)).into();
    }
}

/// How long to rest after a scan that began at this CPU time.
fn rest_ns(start_ns: u64) -> u64 {
    let cost_ns = clock::thread_cpu_ns().saturating_sub(start_ns);
    let rest_ns = cost_ns.saturating_mul(SCAN_REST);
    rest_ns.clamp(SCAN_NS, LONGEST_REST_NS)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};
    use transport::stats::Role;
    use transport::stats::page::{PageDescription, PageWriter};

    #[test]
    fn a_process_that_comes_while_the_scan_rests_is_looked_at_all_the_same() {
        let page = PageWriter::create(&PageDescription {
            name: "late",
            role: Role::Server,
            socket_path: Path::new("/nowhere"),
            slots: 1,
        });
        let mut search = Search::new("/nowhere".into(), "/proc".into(), true);
        let finders = |search: &Search| {
            let found = search.found().into_iter();
            found.map(|(_, f)| f.pid).collect::<Vec<u32>>()
        };
        search.scan(1, Budget::default());
        assert!(finders(&search).contains(&std::process::id()));
        search.scan_due_ns = u64::MAX;
        // A descriptor that it inherits stands for one of its own.
        let fd = page.fd().unwrap().try_clone_to_owned().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        let mut late = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::open(path).unwrap())
            .spawn()
            .unwrap();
        assert!(!finders(&search).contains(&late.id()));
        search.scan(search.young_due_ns, Budget::default());
        assert!(finders(&search).contains(&late.id()));
        assert!(
            finders(&search).contains(&std::process::id()),
            "and the old ones stay"
        );
        drop(late.stdin.take());
        late.wait().unwrap();
    }
}
