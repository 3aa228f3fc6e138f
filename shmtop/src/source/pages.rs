//! The stats pages: kept open and copied each time, as far as each user's may take room. Called by `World`.
//!
//! `search` finds them. A mapping outlives its owner, so a page counts only while it is still found.

use super::budget::{Budget, Counted};
use super::open_page::OpenPage;
use super::search::Search;
use crate::sample::{Discovery, FoundBy, Glance, Page, PageContent};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use transport::stats::ProcessCounters;

const REGISTRY_NS: u64 = 1_000_000_000;
/// What said too much is read again after this long.
const TOO_MUCH_NS: u64 = 10_000_000_000;
/// Owner of a page whose owner may not be seen.
const NOBODY: u32 = u32::MAX;

/// All pages.
#[derive(Debug)]
pub(super) struct PageStore {
    search: Search,
    /// Whether the first look leaves the scan to the second.
    hurries: bool,
    registry_due_ns: u64,
    budget: Budget,
    counted: Counted,
    too_much_until_ns: u64,
    open: BTreeMap<PathBuf, OpenPage>,
    /// Where the pages that were last read stand in `open`, by pid and name.
    names: HashMap<(u32, String), PathBuf>,
}

impl PageStore {
    pub(super) fn new(
        runtime_dir: PathBuf,
        proc_root: PathBuf,
        scans: bool,
        hurries: bool,
    ) -> Self {
        Self {
            search: Search::new(runtime_dir, proc_root, scans),
            hurries,
            registry_due_ns: 0,
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
        self.search.discovery()
    }

    /// All pages now.
    pub(super) fn read(&mut self, now_ns: u64) -> Vec<Page> {
        if now_ns >= self.registry_due_ns {
            self.registry_due_ns = now_ns + REGISTRY_NS;
            let hurries = std::mem::take(&mut self.hurries);
            if hurries && self.found_announced() {
                self.registry_due_ns = now_ns;
            } else {
                self.search.scan(now_ns, self.budget);
                self.find();
            }
        }
        let mut pages = self.search.strays().to_vec();
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
            let name = self.search.name_of(link, page.found_by);
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
        self.search.list();
        let mut before = std::mem::take(&mut self.open);
        let mut identities = BTreeSet::new();
        self.counted = Counted::default();
        self.counted.left_out.clone_from(self.search.beyond());
        for (found_by, found) in self.search.found() {
            let metadata = std::fs::metadata(&found.link);
            let nowhere = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
            if metadata.as_ref().is_err_and(nowhere) {
                if found_by == FoundBy::Registry {
                    self.search.list_again();
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
                    let page = OpenPage::open(&found, found_by, identity, uid);
                    if page.is_inherited() {
                        continue;
                    }
                    page
                }
            };
            identities.extend(identity);
            self.open.insert(found.link, page);
        }
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
