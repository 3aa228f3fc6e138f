//! The stats pages: kept open and copied each time, as far as each user's may take room. Called by `World`.
//!
//! `search` finds them. A mapping outlives its owner, so a page counts only while it is still found.

use super::Options;
use super::budget::{Budget, Counted, Share};
use super::open_page::OpenPage;
use super::place::ns_inode;
use super::search::Search;
use crate::reading::Reading;
use crate::sample::{Discovery, Ended, FoundBy, Glance, Page, PageContent};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use transport::stats::{PageReader, ProcessCounters};

const REGISTRY_NS: u64 = 1_000_000_000;
/// The same where somebody has connected or left, whose page would be missed until then. However many come and go, it is no more often.
const BUSY_REGISTRY_NS: u64 = 100_000_000;
/// Of what said too much one page of each user is tried again after this long.
const TOO_MUCH_NS: u64 = 10_000_000_000;
/// Owner of a page whose owner may not be seen.
const NOBODY: u32 = u32::MAX;

/// All pages.
#[derive(Debug)]
pub(super) struct PageStore {
    search: Search,
    /// Whether the first look leaves the scan to the second.
    hurries: bool,
    own_pid_ns: Reading<u64>,
    registry_due_ns: u64,
    /// When the registry was last listed.
    listed_ns: u64,
    /// Whether a page has told of connections that came or went since.
    admitted: bool,
    budget: Budget,
    counted: Counted,
    /// By user: when one of the pages that said too much was last tried again.
    tried_ns: HashMap<u32, u64>,
    open: BTreeMap<PathBuf, OpenPage>,
    /// The pages that were last read, by pid and name.
    names: HashMap<(u32, String), Named>,
    /// Of pages whose process has ended, since they were last asked for.
    ended: Vec<Ended>,
}

/// Where a page stands in `open`, and the way to its words for a glance, which comes ten times a second.
#[derive(Debug)]
struct Named {
    link: PathBuf,
    reader: Option<Arc<PageReader>>,
}

impl PageStore {
    pub(super) fn new(options: &Options) -> Self {
        let (runtime_dir, proc_root) = (&options.runtime_dir, &options.proc_root);
        Self {
            search: Search::new(runtime_dir.clone(), proc_root.clone(), options.scan),
            hurries: options.hurry,
            own_pid_ns: ns_inode(&proc_root.join("self"), "pid"),
            registry_due_ns: 0,
            listed_ns: 0,
            admitted: false,
            budget: Budget::default(),
            counted: Counted::default(),
            tried_ns: HashMap::new(),
            open: BTreeMap::new(),
            names: HashMap::new(),
            ended: Vec::new(),
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

    /// The process of a page that was just read has ended.
    pub(super) fn bury(&mut self, page: &Page) {
        let named = self.names.remove(&(page.pid, page.link.clone()));
        if let Some(mut open) = named.and_then(|named| self.open.remove(&named.link)) {
            self.ended.extend(open.left_open());
        }
    }

    /// Whoever has ended since this was last asked.
    pub(super) fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Looks for pages that are new, and for those that have gone, if that is due. It may take as long as all of /proc, so it comes before
    /// the moment that the counters are told to be of.
    pub(super) fn look_for(&mut self, now_ns: u64) {
        for page in self.open.values_mut() {
            self.admitted |= page.has_admitted();
        }
        if now_ns < self.registry_due_ns {
            // The scan of /proc keeps its own time.
            if self.admitted && now_ns >= self.listed_ns + BUSY_REGISTRY_NS {
                self.list(now_ns);
            }
            return;
        }
        self.registry_due_ns = now_ns + REGISTRY_NS;
        let hurries = std::mem::take(&mut self.hurries);
        if hurries && self.found_announced(now_ns) {
            self.registry_due_ns = now_ns;
        } else {
            self.search.scan(now_ns, self.budget);
            self.list(now_ns);
        }
    }

    /// All known pages now.
    pub(super) fn read(&mut self, now_ns: u64) -> Vec<Page> {
        let mut pages = self.search.strays().to_vec();
        pages.extend(self.left_out());
        let mut shares: HashMap<u32, Share> = HashMap::new();
        self.names.clear();
        let mut open = std::mem::take(&mut self.open);
        let trials = self.trials(&open, now_ns);
        // The smallest first: whoever says too much is the one that is cut.
        let mut smallest: Vec<_> = open.iter_mut().collect();
        smallest.sort_by_key(|(_, page)| page.bytes);
        for (link, page) in smallest {
            let name = self.search.name_of(link, page.found_by);
            let named = Named {
                link: link.clone(),
                reader: page.reader.as_ref().ok().map(Arc::clone),
            };
            self.names.insert((page.pid, name.clone()), named);
            let share = shares.entry(page.uid);
            let share = share.or_insert_with(|| Share::of(self.budget));
            let worth = share.is_worth(page.bytes, page.refused_ns.is_some());
            let content = if worth || page.reader.is_err() || trials.contains(link) {
                page.content(link, share, now_ns)
            } else {
                page.too_much()
            };
            pages.push(Page {
                link: name,
                pid: page.pid,
                found_by: page.found_by,
                content,
            });
        }
        self.open = open;
        pages.sort_by(|a, b| (a.pid, &a.link).cmp(&(b.pid, &b.link)));
        pages
    }

    /// Of each user's pages that said too much, the one to be tried again: the one that was not for the longest.
    fn trials(&mut self, open: &BTreeMap<PathBuf, OpenPage>, now_ns: u64) -> BTreeSet<PathBuf> {
        let mut oldest: HashMap<u32, (u64, &PathBuf)> = HashMap::new();
        for (link, page) in open {
            let Some(at_ns) = page.refused_ns else {
                continue;
            };
            let tried_ns = *self.tried_ns.entry(page.uid).or_insert(at_ns);
            if now_ns >= tried_ns.saturating_add(TOO_MUCH_NS) {
                let first = oldest.entry(page.uid).or_insert((at_ns, link));
                *first = (at_ns, link).min(*first);
            }
        }
        for uid in oldest.keys() {
            self.tried_ns.insert(*uid, now_ns);
        }
        oldest.into_values().map(|(_, link)| link.clone()).collect()
    }

    /// Pages whose size is known.
    #[cfg(test)]
    pub(super) fn sized(&self) -> usize {
        self.open.values().filter(|p| p.bytes > 0).count()
    }

    /// Reads the counters again that `glance` is about.
    pub(super) fn glance(&self, glance: &mut Glance) {
        for page in &mut glance.pages {
            let name = (page.pid, std::mem::take(&mut page.link));
            let named = self.names.get(&name);
            page.link = name.1;
            let Some(reader) = named.and_then(|n| n.reader.as_deref()) else {
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
    fn found_announced(&mut self, now_ns: u64) -> bool {
        self.list(now_ns);
        !self.open.is_empty()
    }

    fn list(&mut self, now_ns: u64) {
        (self.listed_ns, self.admitted) = (now_ns, false);
        self.find();
    }

    /// Brings `open` in line with what the registry and the last scan found.
    fn find(&mut self) {
        self.search.list();
        let mut before = std::mem::take(&mut self.open);
        let (mut identities, mut refused) = (BTreeSet::new(), BTreeSet::new());
        self.counted = Counted::default();
        for (found_by, found) in self.search.found() {
            let metadata = std::fs::metadata(&found.link);
            let nowhere = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
            if metadata.as_ref().is_err_and(nowhere) {
                if found_by == FoundBy::Registry {
                    self.search.list_again();
                }
                // Left in `before`, as those that the search finds no longer are.
                continue;
            }
            let uid = metadata.as_ref().map_or(NOBODY, MetadataExt::uid);
            let identity = metadata.ok().map(|m| (m.dev(), m.ino()));
            // One page is one entry: announced twice, found by the scan as well, or inherited by a fork.
            if identity.is_some_and(|i| identities.contains(&i) || refused.contains(&i)) {
                continue;
            }
            if !self.counted.has_room(uid, self.budget) {
                self.counted.refuse(uid);
                refused.extend(identity);
                continue;
            }
            let page = match before.remove(&found.link) {
                Some(page) if page.reader.is_ok() && page.identity == identity => page,
                _ => {
                    let page = OpenPage::open(&found, found_by, identity, uid);
                    if page.is_inherited(&self.own_pid_ns) {
                        continue;
                    }
                    page
                }
            };
            self.counted.admit(uid);
            identities.extend(identity);
            self.open.insert(found.link, page);
        }
        for (link, mut page) in before {
            let nowhere = |e: io::Error| e.kind() == io::ErrorKind::NotFound;
            if std::fs::metadata(&link).is_err_and(nowhere) {
                self.ended.extend(page.left_open());
            }
        }
        // Announced pages are found by the scan as well: whichever saw more of them.
        for (uid, all) in self.search.crowds() {
            self.counted.of_a_crowd(*uid, *all);
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
