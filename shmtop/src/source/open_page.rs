//! One stats page that is kept open, and what it says each time. Called by `pages`.

use super::budget::{self, Share};
use super::file::why;
use super::pages::admissions;
use crate::reading::Reading;
use crate::sample::{Ended, FoundBy, PageContent};
use std::path::Path;
use std::sync::Arc;
use transport::stats::registry::Found;
use transport::stats::{PageReader, ReadError, Slot, SlotKind, SlotState, Snapshot, schema};

/// A page that was found.
#[derive(Debug)]
pub(super) struct OpenPage {
    pub(super) pid: u32,
    pub(super) found_by: FoundBy,
    /// Device and inode of the memfd behind the link, if they may be seen.
    pub(super) identity: Option<(u64, u64)>,
    /// Owner of the memfd.
    pub(super) uid: u32,
    pub(super) reader: Result<Arc<PageReader>, PageContent>,
    /// When it was last found to say more than its user may, if it did the last time.
    pub(super) refused_ns: Option<u64>,
    /// What a copy of it took when it was last read.
    pub(super) bytes: usize,
    /// What stood in it of connections that come and go when that was last asked.
    admitted: [u64; 5],
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
        let reader = PageReader::open(&found.link).map(Arc::new);
        let reader = reader.map_err(|e| unreadable(&e, &found.link));
        let admitted = reader.as_ref().map(|r| admissions(&r.process()));
        Self {
            pid: found.pid,
            found_by,
            identity,
            uid,
            refused_ns: None,
            bytes: 0,
            admitted: admitted.unwrap_or_default(),
            reader,
            scratch: Snapshot::default(),
        }
    }

    /// What it says now, if that fits into its user's share, which it is taken from.
    pub(super) fn content(&mut self, link: &Path, share: &mut Share, now_ns: u64) -> PageContent {
        let reader = match &self.reader {
            Ok(reader) => reader,
            Err(content) => return content.clone(),
        };
        if let Err(e) = reader.snapshot_into(&mut self.scratch) {
            return unreadable(&e, link);
        }
        self.bytes = budget::bytes(&self.scratch);
        match share.left_bytes.checked_sub(self.bytes) {
            Some(rest) => {
                share.left_bytes = rest;
                self.refused_ns = None;
                PageContent::Read(Box::new(self.scratch.clone()))
            }
            None => {
                share.in_vain += 1;
                self.refused_ns = Some(now_ns);
                self.scratch = Snapshot::default();
                self.too_much()
            }
        }
    }

    /// Whether connections came or went since this was last asked.
    pub(super) fn has_admitted(&mut self) -> bool {
        let Ok(reader) = &self.reader else {
            return false;
        };
        let now = admissions(&reader.process());
        std::mem::replace(&mut self.admitted, now) != now
    }

    /// The connections that it left open, if its process has ended: a mapping outlives its owner, and what stands in it is the last that
    /// was written.
    pub(super) fn left_open(&mut self) -> Option<Ended> {
        let reader = self.reader.as_ref().ok()?;
        reader.snapshot_into(&mut self.scratch).ok()?;
        let page = &self.scratch;
        let open =
            |s: &&Slot| s.info.kind == SlotKind::Connection && s.info.state == SlotState::Open;
        let connections: Vec<u64> = page
            .slots
            .iter()
            .filter(open)
            .map(|s| s.info.connection_id)
            .collect();
        (!connections.is_empty()).then(|| Ended {
            pid: self.pid,
            name: page.name.clone(),
            role: page.role,
            connections,
        })
    }

    /// What stands for it while its user's pages say too much.
    pub(super) fn too_much(&self) -> PageContent {
        PageContent::Unreadable(format!(
            "the pages of user {} say more than one user's may: this one is not read",
            self.uid
        ))
    }

    /// A forked child that kept the descriptor: the page itself says whose it is. Across pid namespaces (`own_pid_ns` is the reader's) it can't
    /// be told.
    pub(super) fn is_inherited(&self, own_pid_ns: &Reading<u64>) -> bool {
        if self.found_by == FoundBy::Registry {
            return false;
        }
        let Ok(Ok(snapshot)) = self.reader.as_ref().map(|r| r.snapshot()) else {
            return false;
        };
        *own_pid_ns == Ok(snapshot.pid_ns_inode) && snapshot.pid != self.pid
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
