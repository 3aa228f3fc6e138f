//! The stats pages: found, kept open, copied each time. Called by `World`.
//!
//! Two ways lead to a page: its link in the runtime directory, looked for once a second, and a scan of every process's
//! descriptors, every five seconds at most and never for more than a two-thousandth of the time. A mapping outlives its
//! owner, so a page counts only while one of the two still finds it.

use super::budget::{self, Budget, Counted};
use super::clock;
use super::file::{harmless, why};
use super::rings;
use crate::reading::{Reading, Why};
use crate::sample::{Discovery, FoundBy, Glance, Page, PageContent, ProcScan};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use transport::stats::registry::{self, Found, Scan};
use transport::stats::{PageReader, ProcessCounters, ReadError, Snapshot, schema};

const REGISTRY_NS: u64 = 1_000_000_000;
const SCAN_NS: u64 = 5_000_000_000;
/// What said too much is read again after this long.
const TOO_MUCH_NS: u64 = 10_000_000_000;
/// Longer than the steps in which file systems tell the time.
const TICK: Duration = Duration::from_millis(100);
/// A scan rests for this many times the CPU time that it cost.
const SCAN_REST: u64 = 2000;
/// Owner of a page whose owner may not be seen.
const NOBODY: u32 = u32::MAX;

/// All pages.
#[derive(Debug)]
pub(super) struct PageStore {
    runtime_dir: PathBuf,
    proc_root: PathBuf,
    /// Whether /proc is scanned at all.
    scans: bool,
    /// Whether the first look leaves the scan to the second.
    hurries: bool,
    registry_due_ns: u64,
    /// What the runtime directory announced when it was last listed, and when it had last changed then; `None` if it has to be listed
    /// again.
    announced: Vec<Found>,
    announced_at: Option<SystemTime>,
    scan_due_ns: u64,
    scanned: Vec<Found>,
    /// Pages that the last scan found and left out, by user.
    scanned_beyond: HashMap<u32, usize>,
    /// Descriptors of rings that the last scan found; each second it is seen which of them are still open.
    rings: Vec<Found>,
    /// Links in the runtime directory that are named like pages and lead elsewhere.
    strays: Vec<Page>,
    budget: Budget,
    counted: Counted,
    too_much_until_ns: u64,
    open: BTreeMap<PathBuf, OpenPage>,
    /// Where the pages that were last read stand in `open`, by pid and name.
    names: HashMap<(u32, String), PathBuf>,
    discovery: Discovery,
}

#[derive(Debug)]
struct OpenPage {
    pid: u32,
    found_by: FoundBy,
    /// Device and inode of the memfd behind the link, if they may be seen.
    identity: Option<(u64, u64)>,
    /// Owner of the memfd.
    uid: u32,
    reader: Result<PageReader, PageContent>,
    /// It was found to say more than its user may: it is not copied for a while.
    too_much: bool,
    /// What a copy of it took when it was last read.
    bytes: usize,
    /// Read into first: its vectors have grown already, and a copy of it has vectors as long as they need to be.
    scratch: Snapshot,
}

impl OpenPage {
    /// What it says now, if that takes no more than `left` bytes, which it is taken from.
    fn content(&mut self, link: &Path, left: &mut usize) -> PageContent {
        let too_much = |uid| {
            PageContent::Unreadable(format!(
                "the pages of user {uid} say more than one user's may: this one is not read"
            ))
        };
        match &self.reader {
            Ok(_) if self.too_much => too_much(self.uid),
            Ok(reader) => match reader.snapshot_into(&mut self.scratch) {
                Ok(()) => {
                    self.bytes = budget::bytes(&self.scratch);
                    match left.checked_sub(self.bytes) {
                        Some(rest) => {
                            *left = rest;
                            PageContent::Read(Box::new(self.scratch.clone()))
                        }
                        None => {
                            self.too_much = true;
                            self.scratch = Snapshot::default();
                            too_much(self.uid)
                        }
                    }
                }
                Err(e) => unreadable(&e, link),
            },
            Err(content) => content.clone(),
        }
    }
}

impl PageStore {
    pub(super) fn new(
        runtime_dir: PathBuf,
        proc_root: PathBuf,
        scans: bool,
        hurries: bool,
    ) -> Self {
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
            hurries,
            registry_due_ns: 0,
            announced: Vec::new(),
            announced_at: None,
            scan_due_ns: 0,
            scanned: Vec::new(),
            scanned_beyond: HashMap::new(),
            rings: Vec::new(),
            strays: Vec::new(),
            budget: Budget::default(),
            counted: Counted::default(),
            too_much_until_ns: 0,
            open: BTreeMap::new(),
            names: HashMap::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// How far the search saw.
    pub(super) fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// All pages now.
    pub(super) fn read(&mut self, now_ns: u64) -> Vec<Page> {
        if now_ns >= self.registry_due_ns {
            self.registry_due_ns = now_ns + REGISTRY_NS;
            let hurries = std::mem::take(&mut self.hurries);
            if hurries && self.found_announced() {
                self.registry_due_ns = now_ns;
            } else {
                if self.scans && now_ns >= self.scan_due_ns {
                    self.scan();
                } else if self.discovery.ring_holders.known().is_some() {
                    self.discovery.ring_holders = Ok(rings::holders(&self.rings)).into();
                }
                self.find();
            }
        }
        let mut pages = self.strays.clone();
        pages.extend(self.left_out());
        let mut left: HashMap<u32, usize> = HashMap::new();
        self.names.clear();
        let mut open = std::mem::take(&mut self.open);
        if now_ns >= self.too_much_until_ns {
            self.too_much_until_ns = now_ns.saturating_add(TOO_MUCH_NS);
            for page in open.values_mut() {
                page.too_much = false;
            }
        }
        // The smallest first: whoever says too much is the one that is cut.
        let mut smallest: Vec<_> = open.iter_mut().collect();
        smallest.sort_by_key(|(_, page)| page.bytes);
        for (link, page) in smallest {
            let name = self.name_of(link, page);
            self.names.insert((page.pid, name.clone()), link.clone());
            let left = left.entry(page.uid).or_insert(self.budget.user_bytes);
            pages.push(Page {
                link: name,
                pid: page.pid,
                found_by: page.found_by,
                content: page.content(link, left),
            });
        }
        self.open = open;
        pages.sort_by(|a, b| (a.pid, &a.link).cmp(&(b.pid, &b.link)));
        pages
    }

    /// Reads the counters again that `glance` is about.
    pub(super) fn glance(&self, glance: &mut Glance) {
        for page in &mut glance.pages {
            let name = (page.pid, std::mem::take(&mut page.link));
            let open = self.names.get(&name).and_then(|link| self.open.get(link));
            page.link = name.1;
            let Some(Ok(reader)) = open.map(|o| &o.reader) else {
                glance.outdated = true;
                continue;
            };
            glance.outdated |= admissions(&reader.process()) != admissions(&page.process);
            for seen in &mut page.slots {
                std::mem::swap(&mut seen.slot, &mut seen.before);
                glance.outdated |= !reader.refresh(&mut seen.slot);
            }
        }
    }

    /// "4711-exchange" by registry, "4711/fd/5" by scan.
    fn name_of(&self, link: &Path, page: &OpenPage) -> String {
        let below = match page.found_by {
            FoundBy::Registry => &self.runtime_dir,
            FoundBy::ProcScan => &self.proc_root,
        };
        harmless_path(link.strip_prefix(below).unwrap_or(link))
    }

    /// That there are more pages than are looked at, for each user who has too many.
    fn left_out(&self) -> impl Iterator<Item = Page> {
        let users = self.counted.left_out.iter();
        users.map(|(uid, more)| Page {
            link: format!("user {uid}"),
            content: PageContent::Unreadable(format!(
                "{more} more pages of this user are not looked at"
            )),
            ..Page::default()
        })
    }

    /// Looks for announced pages alone; false if there are none.
    fn found_announced(&mut self) -> bool {
        self.find();
        !self.open.is_empty()
    }

    /// Brings `open` in line with what the registry and the last scan found.
    fn find(&mut self) {
        self.list();
        let announced = self.announced.clone();
        let announced = announced.into_iter().map(|f| (FoundBy::Registry, f));
        let scanned = self.scanned.iter().cloned().map(|f| (FoundBy::ProcScan, f));
        let mut before = std::mem::take(&mut self.open);
        let mut identities = BTreeSet::new();
        self.counted = Counted::default();
        self.counted.left_out.clone_from(&self.scanned_beyond);
        for (found_by, found) in announced.chain(scanned) {
            let metadata = std::fs::metadata(&found.link);
            let nowhere = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
            if metadata.as_ref().is_err_and(nowhere) {
                if found_by == FoundBy::Registry {
                    // As a rule its process has ended: a listing sweeps its link.
                    self.announced_at = None;
                }
                continue;
            }
            let uid = metadata.as_ref().map_or(NOBODY, MetadataExt::uid);
            let identity = metadata.ok().map(|m| (m.dev(), m.ino()));
            // One page is one entry: announced twice, found by the scan as well, or inherited by a fork.
            if identity.is_some_and(|i| identities.contains(&i)) {
                continue;
            }
            if !self.counted.admits(uid, self.budget) {
                continue;
            }
            let page = match before.remove(&found.link) {
                Some(page) if page.reader.is_ok() && page.identity == identity => page,
                _ => {
                    let page = OpenPage {
                        pid: found.pid,
                        found_by,
                        identity,
                        uid,
                        too_much: false,
                        bytes: 0,
                        reader: PageReader::open(&found.link)
                            .map_err(|e| unreadable(&e, &found.link)),
                        scratch: Snapshot::default(),
                    };
                    if inherited(&page) {
                        continue;
                    }
                    page
                }
            };
            identities.extend(identity);
            self.open.insert(found.link, page);
        }
    }

    /// Lists the runtime directory, unless it is as it was.
    fn list(&mut self) {
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

    fn scan(&mut self) {
        // In CPU time: on a busy machine a scan takes long by the clock, and would then rest for minutes.
        let start_ns = clock::thread_cpu_ns();
        let result = registry::scan_proc(&self.proc_root);
        let pages = result.as_ref().map_or(0, |scan| scan.found.len() as u32);
        let mut beyond = HashMap::new();
        // What is left of it is looked at each second until the next scan, so this is part of what a scan costs.
        let result = result.map(|scan| {
            let found;
            (found, beyond) = budget::distinct(scan.found, self.budget.of_a_scan());
            let (rings, _) = budget::distinct(scan.rings, self.budget.of_a_scan());
            Scan {
                found,
                rings,
                ..scan
            }
        });
        self.scanned_beyond = beyond;
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

/// What changes with every connection that comes or goes.
pub(super) fn admissions(p: &ProcessCounters) -> [u64; 5] {
    [
        p.accepted,
        p.handshakes,
        p.upgrades,
        p.fallbacks,
        p.open_clients,
    ]
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

/// A forked child that kept the descriptor: the page itself says whose it is. Across pid namespaces it can't be told.
fn inherited(page: &OpenPage) -> bool {
    if page.found_by == FoundBy::Registry {
        return false;
    }
    let Ok(Ok(snapshot)) = page.reader.as_ref().map(PageReader::snapshot) else {
        return false;
    };
    let here = super::process::ns_inode(Path::new("/proc/self"), "pid");
    here == Ok(snapshot.pid_ns_inode) && snapshot.pid != page.pid
}

fn unreadable(error: &ReadError, link: &Path) -> PageContent {
    match error {
        ReadError::Io(e) => match e.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => {
                PageContent::Permission(why(e, link).text.into_owned())
            }
            _ => PageContent::Unreadable(why(e, link).text.into_owned()),
        },
        ReadError::Version { found, .. } => PageContent::Incompatible {
            page: *found,
            viewer: (schema::VERSION_MAJOR, schema::VERSION_MINOR),
        },
        // No page, not sealed, cut short.
        _ => PageContent::Hostile(error.to_string()),
    }
}

fn harmless_path(path: &Path) -> String {
    harmless(path.as_os_str().as_encoded_bytes())
}
