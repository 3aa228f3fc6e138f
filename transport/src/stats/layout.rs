//! Where things stand in a page: its header and its own descriptor table, checked once.
//!
//! Made by `reader` when it opens a page or is given bytes; used by `parse`, which then loads words at positions
//! known to lie inside. Every word is loaded once into a local and judged there, so a writer that changes it meanwhile
//! changes nothing. Every count is bounded; arithmetic on what the page says is checked.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, fence};

use super::histogram::BUCKETS;
use super::reader::ReadError;
use super::schema::{self, Descriptor, HISTOGRAMS, Kind, Scope, header};
use super::snapshot::{Role, Snapshot};
use super::text::sanitise;

/// Largest slot a page may have.
const MAX_STRIDE: u64 = 1 << 20;
/// Counters of a slot that are passed on under their own name; a hostile page can't ask for more.
const MAX_UNKNOWN: usize = 128;
/// Words of one descriptor.
const DESCRIPTOR_WORDS: usize = schema::DESCRIPTOR_BYTES / 8;

/// Where words come from.
pub(super) trait Words: Copy {
    /// How many there are.
    fn count(self) -> usize;
    /// The one at `index < count()`.
    fn word(self, index: usize) -> u64;
}

impl Words for &[AtomicU64] {
    fn count(self) -> usize {
        self.len()
    }

    fn word(self, index: usize) -> u64 {
        self[index].load(Relaxed)
    }
}

/// Recorded bytes; an incomplete last word is not counted.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl Words for Bytes<'_> {
    fn count(self) -> usize {
        self.0.len() / 8
    }

    fn word(self, index: usize) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[index * 8..index * 8 + 8]);
        u64::from_le_bytes(word)
    }
}

/// What is known of a page once its header and table are checked. All positions are in words and lie inside.
#[derive(Debug)]
pub(super) struct Layout {
    /// Everything about the process that does not change.
    pub(super) facts: Snapshot,
    pub(super) slots_at: usize,
    pub(super) slot_count: usize,
    pub(super) stride: usize,
    /// For each of [`schema::descriptors`], in that order.
    pub(super) known: Vec<Option<usize>>,
    /// The page has all that the counters are derived from which it does not store.
    pub(super) derives: bool,
    pub(super) histograms: [Option<HistogramAt>; 3],
    pub(super) unknown_process: Vec<(String, usize)>,
    pub(super) unknown_slot: Vec<(String, usize)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HistogramAt {
    pub(super) head: usize,
    pub(super) buckets: usize,
}

impl Layout {
    pub(super) fn resolve(words: impl Words) -> Result<Self, ReadError> {
        let found = words.count() as u64 * 8;
        need(schema::DESCRIPTORS_OFFSET as u64, found)?;
        if words.word(header::MAGIC) != schema::MAGIC {
            return Err(not_a_page("no magic (or still being created)"));
        }
        // Partner of the Release store of the magic in `PageWriter::create`: the header and the table are there.
        fence(Acquire);
        let version = words.word(header::VERSION);
        let version = ((version >> 32) as u32, version as u32);
        if !(schema::OLDEST_MAJOR..=schema::VERSION_MAJOR).contains(&version.0) {
            let ours = (schema::VERSION_MAJOR, schema::VERSION_MINOR);
            return Err(ReadError::Version {
                found: version,
                ours,
            });
        }
        let page_bytes = words.word(header::PAGE_BYTES);
        need(page_bytes, found)?;
        let slots_offset = words.word(header::SLOTS_OFFSET);
        let slot_count = words.word(header::SLOT_COUNT);
        let stride = words.word(header::SLOT_STRIDE);
        let descriptors = words.word(header::DESCRIPTOR_COUNT);
        if slot_count > schema::MAX_SLOTS as u64 || descriptors > schema::MAX_DESCRIPTORS as u64 {
            return Err(not_a_page("more slots or descriptors than there may be"));
        }
        if !stride.is_multiple_of(8)
            || !(schema::INFO_WORDS as u64 * 8..=MAX_STRIDE).contains(&stride)
        {
            return Err(not_a_page("impossible slot size"));
        }
        let table_end =
            schema::DESCRIPTORS_OFFSET as u64 + descriptors * schema::DESCRIPTOR_BYTES as u64;
        let slots_end = slots_offset.checked_add(slot_count * stride);
        if !slots_offset.is_multiple_of(8)
            || slots_offset < table_end
            || slots_end.is_none_or(|end| end > page_bytes)
        {
            return Err(not_a_page("slots overlap the header or leave the page"));
        }
        let mut layout = Self {
            facts: process_facts(words, version)?,
            slots_at: (slots_offset / 8) as usize,
            slot_count: slot_count as usize,
            stride: (stride / 8) as usize,
            known: vec![None; schema::descriptors().count()],
            derives: false,
            histograms: [None; 3],
            unknown_process: Vec::new(),
            unknown_slot: Vec::new(),
        };
        let ours: Vec<&Descriptor> = schema::descriptors().collect();
        // A page of our own version has our order, without those that have no row.
        let rows = (0..ours.len()).filter(|i| ours[*i].offset.is_some());
        let mut rows = rows.map(Some).chain(std::iter::repeat(None));
        for i in 0..descriptors as usize {
            layout.descriptor(words, i, rows.next().flatten(), &ours)?;
        }
        let mut found = ours.iter().copied().zip(&layout.known);
        layout.derives = found.all(|(d, at)| at.is_some() || !schema::is_source(d));
        let derives = |d: &Descriptor| layout.derives && d.offset.is_none();
        let plain = ours
            .iter()
            .copied()
            .zip(&layout.known)
            .filter(|(d, at)| at.is_none() && !derives(d) && !schema::is_source(d))
            .map(|(d, _)| d);
        let histograms = HISTOGRAMS
            .iter()
            .zip(&layout.histograms)
            .filter(|(_, at)| at.is_none())
            .map(|(d, _)| d);
        layout.facts.missing = plain.chain(histograms).map(|d| d.name.to_owned()).collect();
        Ok(layout)
    }

    /// Takes entry `index` of the page's table, which is probably the one that we know as `guess`.
    fn descriptor(
        &mut self,
        words: impl Words,
        index: usize,
        guess: Option<usize>,
        ours: &[&Descriptor],
    ) -> Result<(), ReadError> {
        let at = schema::DESCRIPTORS_OFFSET / 8 + index * DESCRIPTOR_WORDS;
        let name = bytes_at(words, at, 5);
        let shape = words.word(at + 5);
        let (kind, scope) = (shape as u8, (shape >> 16) as u8);
        let offset = shape >> 32;
        let process_scope = scope == Scope::Process as u8;
        if !process_scope && scope != Scope::Slot as u8 {
            // A newer page may have scopes we know nothing of.
            return Ok(());
        }
        let room = if process_scope {
            schema::DESCRIPTORS_OFFSET / 8
        } else {
            self.stride
        };
        let position = |offset: u64, words: usize| {
            let word = usize::try_from(offset / 8).unwrap_or(usize::MAX);
            (offset.is_multiple_of(8) && word.checked_add(words).is_some_and(|end| end <= room))
                .then_some(word)
                .ok_or_else(|| not_a_page("a descriptor points outside its scope"))
        };
        if kind == Kind::Histogram as u8 {
            let known = HISTOGRAMS.iter().position(|d| d.name.as_bytes() == name);
            if let Some(i) = known.filter(|_| !process_scope) {
                let head = position(words.word(at + 6), schema::HEAD_WORDS)?;
                let buckets = position(offset, BUCKETS)?;
                self.histograms[i].get_or_insert(HistogramAt { head, buckets });
            }
            return Ok(());
        }
        let at = position(offset, 1)?;
        let is_it = |d: &Descriptor| d.name.as_bytes() == name && d.scope as u8 == scope;
        let known = guess
            .filter(|i| is_it(ours[*i]))
            .or_else(|| ours.iter().position(|d| is_it(d)));
        match known {
            Some(i) => {
                self.known[i].get_or_insert(at);
            }
            None => {
                let list = if process_scope {
                    &mut self.unknown_process
                } else {
                    &mut self.unknown_slot
                };
                if list.len() < MAX_UNKNOWN {
                    list.push((sanitise(name), at));
                }
            }
        }
        Ok(())
    }
}

fn need(needed: u64, found: u64) -> Result<(), ReadError> {
    if needed <= found {
        Ok(())
    } else {
        Err(ReadError::Truncated { needed, found })
    }
}

fn not_a_page(why: &str) -> ReadError {
    ReadError::NotAPage(why.into())
}

/// `count` words from `at` as bytes up to the first zero.
fn bytes_at(words: impl Words, at: usize, count: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (at..at + count)
        .flat_map(|i| words.word(i).to_le_bytes())
        .collect();
    bytes.truncate(bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len()));
    bytes
}

fn process_facts(words: impl Words, version: (u32, u32)) -> Result<Snapshot, ReadError> {
    let text = |at, count| sanitise(bytes_at(words, at, count));
    let boot_id = (0..2).flat_map(|i| words.word(header::BOOT_ID + i).to_le_bytes());
    Ok(Snapshot {
        version,
        pid: small(words.word(header::PID)),
        start_ticks: words.word(header::START_TICKS),
        uid: small(words.word(header::UID)),
        role: match words.word(header::ROLE) {
            1 => Role::Server,
            2 => Role::Client,
            _ => return Err(not_a_page("neither a server's nor a client's")),
        },
        debug_build: words.word(header::BUILD_FLAGS) & 1 == 1,
        boot_id: boot_id.map(|byte| format!("{byte:02x}")).collect(),
        pid_ns_inode: words.word(header::PID_NS_INODE),
        created_monotonic_ns: words.word(header::CREATED_MONOTONIC_NS),
        created_realtime_ns: words.word(header::CREATED_REALTIME_NS),
        name: text(header::NAME, 8),
        socket_path: text(header::SOCKET_PATH, 16),
        library: text(header::LIBRARY, 2),
        ..Snapshot::default()
    })
}

/// A number that should fit 32 bits; 0, "not known", if it does not.
pub(super) fn small(word: u64) -> u32 {
    u32::try_from(word).unwrap_or(0)
}
