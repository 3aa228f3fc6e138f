//! Looks at a page of another process: opens it, makes sure it can't be pulled away, and copies what it says.
//!
//! Called by viewers, as often as they like: nothing here writes to a page, and its owner never notices. What a page
//! says is input: `layout` and `parse` check all of it. Left out: finding pages ([`super::registry`]).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::layout::{Bytes, Layout, Words};
use super::memory::is_size_sealed;
use super::schema::{self, ProcessCounters};
use super::snapshot::{Slot, Snapshot};
use crate::mem::huge::is_in_huge_pages;

/// Largest page a reader maps: far above what [`schema::MAX_SLOTS`] slots of this version take.
pub const MAX_PAGE_BYTES: u64 = 256 << 20;

/// Why a page can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Opening or mapping failed: EACCES (another user's), ENOENT (gone).
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else, or contradicts itself.
    #[error("not a stats page: {0}")]
    NotAPage(String),
    /// It could be truncated under the reader, which would kill the reader: not even mapped. (So could a hole in huge pages; that is
    /// `NotAPage`, likewise unmapped.)
    #[error("not a stats page: its size is not sealed")]
    Unsealed,
    /// Written by a version this reader would misread.
    #[error("stats page has layout {}.{}, this reader understands {} to {}.x", .found.0, .found.1, schema::OLDEST_MAJOR, .ours.0)]
    Version {
        /// Its version (major, minor).
        found: (u32, u32),
        /// Ours.
        ours: (u32, u32),
    },
    /// It is shorter than it says.
    #[error("stats page is cut short: {found} of {needed} bytes")]
    Truncated {
        /// Bytes there should be.
        needed: u64,
        /// Bytes there are.
        found: u64,
    },
}

impl From<nix::errno::Errno> for ReadError {
    fn from(e: nix::errno::Errno) -> Self {
        Self::Io(e.into())
    }
}

/// An open page. Keeps its mapping, but no descriptor; when the owner dies, the last numbers stay readable, so
/// whether it lives must be asked of the kernel.
#[derive(Debug)]
pub struct PageReader {
    map: MmapRaw,
    words: usize,
    layout: Layout,
}

impl PageReader {
    /// Opens the page behind `path`: a link of the runtime directory, or `/proc/PID/fd/N`.
    ///
    /// # Errors
    /// See [`ReadError`]. A page that is being created is `NotAPage`; it can be tried again.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ReadError> {
        // NONBLOCK and NOCTTY: what the path leads to is a stranger's choice, and may be a pipe or a terminal.
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        Self::from_fd(&open(path.as_ref(), flags, Mode::empty())?)
    }

    fn from_fd(fd: &OwnedFd) -> Result<Self, ReadError> {
        let stat = fstat(fd)?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(ReadError::NotAPage("not a regular file".into()));
        }
        // From here on the size can't change, so the one below is good for as long as the mapping lives.
        if !is_size_sealed(fd) {
            return Err(ReadError::Unsealed);
        }
        // No page of ours is, and there a hole can be SIGBUS.
        if is_in_huge_pages(fd)? {
            return Err(ReadError::NotAPage("in huge pages".into()));
        }
        let bytes = u64::try_from(fstat(fd)?.st_size).unwrap_or(0);
        if bytes < schema::DESCRIPTORS_OFFSET as u64 {
            return Err(ReadError::Truncated {
                needed: schema::DESCRIPTORS_OFFSET as u64,
                found: bytes,
            });
        }
        if bytes > MAX_PAGE_BYTES {
            return Err(ReadError::NotAPage(format!("{bytes} bytes is too much")));
        }
        let map = MmapOptions::new()
            .len(bytes as usize)
            .map_raw_read_only(fd)?;
        let words = bytes as usize / 8;
        let layout = Layout::resolve(words_of(&map, words))?;
        Ok(Self { map, words, layout })
    }

    /// Copies what the page says now. Slots whose facts kept changing are left out and counted in `torn`.
    ///
    /// # Errors
    /// As [`Self::snapshot_into`].
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let mut snapshot = Snapshot::default();
        self.snapshot_into(&mut snapshot)?;
        Ok(snapshot)
    }

    /// The same into an older snapshot, whose memory is used again: who keeps two of them and swaps allocates little
    /// even with a thousand slots.
    ///
    /// # Errors
    /// `NotAPage` if its owner has scribbled over the magic since it was opened; nothing else can have changed. `snapshot`
    /// is unchanged then.
    pub fn snapshot_into(&self, snapshot: &mut Snapshot) -> Result<(), ReadError> {
        if self.live().word(schema::header::MAGIC) != schema::MAGIC {
            return Err(ReadError::NotAPage("the magic is gone".into()));
        }
        self.layout.snapshot_into(self.live(), snapshot);
        Ok(())
    }

    /// Reads the counters of a slot again, into an earlier copy of it; facts and histograms stay as they were: a few lines of
    /// memory instead of dozens. False, and nothing changed, if the slot is no longer what the copy says, or ceased to be while it was
    /// read: another connection, another state or transport.
    pub fn refresh(&self, slot: &mut Slot) -> bool {
        self.layout.refresh(self.live(), slot)
    }

    /// The counters of the process alone.
    pub fn process(&self) -> ProcessCounters {
        self.layout.process(self.live())
    }

    /// Copies the page itself, as far as it is in use: the same numbers in the writer's own layout, for a recording that a
    /// newer reader may understand better.
    pub fn raw(&self) -> RawPage {
        RawPage {
            bytes: self.layout.image(self.live()),
        }
    }

    fn live(&self) -> &[AtomicU64] {
        words_of(&self.map, self.words)
    }
}

fn words_of(map: &MmapRaw, words: usize) -> &[AtomicU64] {
    // SAFETY: the mapping is page-aligned and at least `words * 8` bytes long (see `from_fd`) for as long as `map` is
    // borrowed. The file can't shrink (sealed), and a hole in it reads as zeros (no huge pages). It is only ever loaded from here, Relaxed and 8 bytes at a time,
    // which is promised to work on read-only memory; its writer uses atomics, and a writer that does not can
    // only make the values nonsense, which `parse` expects.
    unsafe { std::slice::from_raw_parts(map.as_ptr().cast::<AtomicU64>(), words) }
}

/// A page's own bytes, out of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPage {
    /// The bytes, in the layout of [`schema`]; any bytes may stand here.
    pub bytes: Vec<u8>,
}

impl RawPage {
    /// What the page said.
    ///
    /// # Errors
    /// See [`ReadError`]; never panics, whatever the bytes are.
    pub fn parse(&self) -> Result<Snapshot, ReadError> {
        parse(&self.bytes)
    }
}

/// Reads a page out of any bytes.
///
/// # Errors
/// See [`ReadError`]; never panics, whatever the bytes are.
pub fn parse(bytes: &[u8]) -> Result<Snapshot, ReadError> {
    if bytes.len() as u64 > MAX_PAGE_BYTES {
        return Err(ReadError::NotAPage(format!(
            "{} bytes is too much",
            bytes.len()
        )));
    }
    parse_words(Bytes(bytes))
}

/// Reads a page out of words that others may be writing at the same time.
///
/// # Errors
/// See [`ReadError`].
#[doc(hidden)]
pub fn parse_live(words: &[AtomicU64]) -> Result<Snapshot, ReadError> {
    parse_words(words)
}

fn parse_words(words: impl Words) -> Result<Snapshot, ReadError> {
    let mut snapshot = Snapshot::default();
    Layout::resolve(words)?.snapshot_into(words, &mut snapshot);
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::os::fd::AsRawFd;
    use std::sync::Arc;

    use super::*;
    use crate::stats::page::{PageDescription, PageWriter};
    use crate::stats::recorder::bump;
    use crate::stats::slot::{SlotFacts, SlotWriter};
    use crate::stats::{Role, SlotKind};

    /// Words whose owner does something in the middle of a look.
    #[derive(Clone, Copy)]
    struct Meddled<'a> {
        words: &'a [AtomicU64],
        /// Loads until then.
        left: &'a Cell<u32>,
        meddle: &'a dyn Fn(),
    }

    impl Words for Meddled<'_> {
        fn count(self) -> usize {
            self.words.len()
        }

        fn word(self, index: usize) -> u64 {
            if self.left.replace(self.left.get().wrapping_sub(1)) == 0 {
                (self.meddle)();
            }
            self.words.word(index)
        }
    }

    fn connection(page: &Arc<PageWriter>, id: u64, count: u64) -> SlotWriter {
        let slot = page.slot(SlotKind::Connection).expect("a free slot");
        slot.publish_info(&SlotFacts {
            open: true,
            connection_id: id,
            ..SlotFacts::default()
        });
        bump(&slot.tx().tx_full, count);
        bump(&slot.req().errors, count);
        slot
    }

    #[test]
    fn a_slot_read_again_while_it_becomes_another_connections_has_the_counters_of_one_of_them() {
        let (mut refreshed, mut refused) = (0, 0);
        // The place changes hands before the first load, before the second, and so on; the second time to one of the same number.
        for n in 0..400 {
            let page = PageWriter::create(&PageDescription {
                name: "n",
                role: Role::Client,
                socket_path: Path::new("/s"),
                slots: 1,
            });
            let first = RefCell::new(Some(connection(&page, 1, 5)));
            let fd = page.fd().expect("a file").as_raw_fd();
            let reader = PageReader::open(format!("/proc/self/fd/{fd}")).expect("a page");
            let before = reader.snapshot().expect("a page").slots.remove(0);
            bump(&first.borrow().as_ref().expect("there").tx().tx_full, 1);
            let second = RefCell::new(None);
            let meddle = || {
                drop(first.take());
                second.replace(Some(connection(&page, 1 + n as u64 % 2, 100)));
            };
            let words = Meddled {
                words: reader.live(),
                left: &Cell::new(n),
                meddle: &meddle,
            };
            let mut kept = before.clone();
            if reader.layout.refresh(words, &mut kept) {
                assert_eq!((kept.tx.tx_full, kept.req.errors), (6, 5), "{n}");
                refreshed += 1;
            } else {
                assert_eq!(kept, before, "{n}");
                refused += 1;
            }
        }
        assert!(refreshed > 0 && refused > 50, "{refreshed}, {refused}");
    }
}
