//! One stats page that is kept open, and what it says each time. Called by `pages`.

use super::budget;
use super::file::why;
use super::place::ns_inode;
use crate::sample::{FoundBy, PageContent};
use std::path::Path;
use transport::stats::registry::Found;
use transport::stats::{PageReader, ReadError, Snapshot, schema};

/// A page that was found.
#[derive(Debug)]
pub(super) struct OpenPage {
    pub(super) pid: u32,
    pub(super) found_by: FoundBy,
    /// Device and inode of the memfd behind the link, if they may be seen.
    pub(super) identity: Option<(u64, u64)>,
    /// Owner of the memfd.
    pub(super) uid: u32,
    pub(super) reader: Result<PageReader, PageContent>,
    /// It was found to say more than its user may: it is not copied for a while.
    pub(super) too_much: bool,
    /// What a copy of it took when it was last read.
    pub(super) bytes: usize,
    /// Read into first: its vectors have grown already, and a copy of it has vectors as long as they need to be.
    scratch: Snapshot,
}

impl OpenPage {
    pub(super) fn open(
        found: &Found,
        found_by: FoundBy,
        identity: Option<(u64, u64)>,
        uid: u32,
    ) -> Self {
        Self {
            pid: found.pid,
            found_by,
            identity,
            uid,
            too_much: false,
            bytes: 0,
            reader: PageReader::open(&found.link).map_err(|e| unreadable(&e, &found.link)),
            scratch: Snapshot::default(),
        }
    }

    /// What it says now, if that takes no more than `left` bytes, which it is taken from.
    pub(super) fn content(&mut self, link: &Path, left: &mut usize) -> PageContent {
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

    /// A forked child that kept the descriptor: the page itself says whose it is. Across pid namespaces it can't be told.
    pub(super) fn is_inherited(&self) -> bool {
        if self.found_by == FoundBy::Registry {
            return false;
        }
        let Ok(Ok(snapshot)) = self.reader.as_ref().map(PageReader::snapshot) else {
            return false;
        };
        let here = ns_inode(Path::new("/proc/self"), "pid");
        here == Ok(snapshot.pid_ns_inode) && snapshot.pid != self.pid
    }
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
