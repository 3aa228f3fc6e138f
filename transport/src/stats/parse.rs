//! Turns the words of a page into a [`Snapshot`]. The only code that interprets what another process wrote.
//!
//! Used by `reader` on live pages and on recorded bytes alike. Two steps: [`Layout::resolve`] checks the header and
//! the page's own descriptor table once; [`Layout::snapshot`] then loads words at offsets known to lie inside. Every
//! word is loaded once into a local and judged there, so a writer that changes it meanwhile changes nothing. Every
//! count is bounded; arithmetic on what the page says is checked.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, fence};

use super::histogram::{BUCKETS, Histogram, OCTAVES, SUB_BUCKETS};
use super::reader::ReadError;
use super::schema::{
    self, Descriptor, HISTOGRAMS, HouseCounters, Kind, ProcessCounters, ReqCounters, RxCounters,
    Scope, TxCounters, WaitCounters, header, info,
};
use super::seqlock::{self, SeqRead};
use super::snapshot::{FallbackFact, Role, Slot, SlotInfo, SlotKind, SlotState, Snapshot, Via};
use super::text::sanitise;
use crate::config::WaitPolicy;

/// Looks at a slot before it is given up as torn.
const TRIES: u32 = 16;
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

/// A sequence word for [`seqlock::read`].
struct Sequence<S>(S, usize);

impl<S: Words> SeqRead for Sequence<S> {
    fn load(&self) -> u64 {
        self.0.word(self.1)
    }

    fn fence_acquire() {
        fence(Acquire);
    }
}

/// What is known of a page once its header and table are checked. All positions are in words and lie inside.
#[derive(Debug)]
pub(super) struct Layout {
    /// Everything about the process that does not change.
    facts: Snapshot,
    words: usize,
    slots_at: usize,
    slot_count: usize,
    stride: usize,
    /// For each of [`schema::descriptors`], in that order.
    known: Vec<Option<usize>>,
    histograms: [Option<HistogramAt>; 3],
    unknown_process: Vec<(String, usize)>,
    unknown_slot: Vec<(String, usize)>,
}

#[derive(Clone, Copy, Debug)]
struct HistogramAt {
    head: usize,
    buckets: usize,
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
        if version.0 != schema::VERSION_MAJOR {
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
            words: (page_bytes / 8) as usize,
            slots_at: (slots_offset / 8) as usize,
            slot_count: slot_count as usize,
            stride: (stride / 8) as usize,
            known: vec![None; schema::descriptors().count()],
            histograms: [None; 3],
            unknown_process: Vec::new(),
            unknown_slot: Vec::new(),
        };
        let ours: Vec<&Descriptor> = schema::descriptors().collect();
        for i in 0..descriptors as usize {
            layout.descriptor(words, i, &ours)?;
        }
        let plain = ours
            .iter()
            .copied()
            .zip(&layout.known)
            .filter(|(_, at)| at.is_none())
            .map(|(d, _)| d);
        let histograms = HISTOGRAMS
            .iter()
            .zip(&layout.histograms)
            .filter(|(_, at)| at.is_none())
            .map(|(d, _)| d);
        layout.facts.missing = plain.chain(histograms).map(|d| d.name.to_owned()).collect();
        Ok(layout)
    }

    /// Takes entry `index` of the page's table.
    fn descriptor(
        &mut self,
        words: impl Words,
        index: usize,
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
        // A page of our own version has our order.
        let known = ours
            .get(index)
            .and_then(|d| is_it(d).then_some(index))
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

    /// Copies the page as it is now. `words` must be (as long as) those it was resolved from.
    pub(super) fn snapshot(&self, words: impl Words) -> Snapshot {
        let mut snapshot = self.facts.clone();
        let mut known = self.known.iter();
        let mut next = |base: usize| {
            known
                .next()
                .copied()
                .flatten()
                .map_or(0, |at| words.word(base + at))
        };
        snapshot.process = ProcessCounters::from_fn(|_| next(0));
        snapshot.unknown = named(words, &self.unknown_process, 0);
        for index in 0..self.slots_used(words) {
            let base = self.slots_at + index * self.stride;
            if words.word(base + info::STATE) == SlotState::Free as u64 {
                continue;
            }
            let slot = seqlock::read(&Sequence(words, base + info::SEQUENCE), TRIES, || {
                self.slot(words, base)
            })
            .and_then(|(facts, slot)| {
                Some(Slot {
                    info: slot_info(&facts)?,
                    index: index as u32,
                    ..slot
                })
            });
            match slot {
                Some(slot) if slot.info.state == SlotState::Free => {}
                Some(slot) => snapshot.slots.push(slot),
                None => snapshot.torn += 1,
            }
        }
        snapshot
    }

    /// Slots to look at.
    fn slots_used(&self, words: impl Words) -> usize {
        usize::try_from(words.word(header::SLOTS_USED))
            .unwrap_or(usize::MAX)
            .min(self.slot_count)
    }

    /// One look at a slot: the facts as words, and everything else.
    fn slot(&self, words: impl Words, base: usize) -> ([u64; schema::INFO_WORDS], Slot) {
        let facts = std::array::from_fn(|i| words.word(base + i));
        let mut known = self.known[ProcessCounters::DESCRIPTORS.len()..].iter();
        let mut next = |_: &Descriptor| {
            known
                .next()
                .copied()
                .flatten()
                .map_or(0, |at| words.word(base + at))
        };
        let slot = Slot {
            tx: TxCounters::from_fn(&mut next),
            rx: RxCounters::from_fn(&mut next),
            wait: WaitCounters::from_fn(&mut next),
            req: ReqCounters::from_fn(&mut next),
            house: HouseCounters::from_fn(&mut next),
            rtt: histogram(words, base, self.histograms[0]),
            handler: histogram(words, base, self.histograms[1]),
            park: histogram(words, base, self.histograms[2]),
            unknown: named(words, &self.unknown_slot, base),
            ..Slot::default()
        };
        (facts, slot)
    }

    /// The bytes of a page with the slots used so far and no more, without touching what was never written.
    pub(super) fn image(&self, words: impl Words) -> Vec<u8> {
        let used = self.slots_used(words);
        let total = self.slots_at + used * self.stride;
        let mut image = vec![0u64; total.min(self.words)];
        for (i, word) in image[..self.slots_at].iter_mut().enumerate() {
            *word = words.word(i);
        }
        image[header::SLOT_COUNT] = used as u64;
        image[header::SLOTS_USED] = used as u64;
        image[header::PAGE_BYTES] = image.len() as u64 * 8;
        for index in 0..used {
            let base = self.slots_at + index * self.stride;
            let copy = &mut image[base..base + self.stride];
            if words.word(base + info::STATE) == SlotState::Free as u64 {
                continue;
            }
            let whole = seqlock::read(&Sequence(words, base + info::SEQUENCE), TRIES, || {
                self.copy_slot(words, base, copy);
            });
            if whole.is_none() {
                // Odd: who parses the image counts it as torn.
                copy[info::SEQUENCE] |= 1;
            }
        }
        image.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Copies what stands before the first bucket, and the octaves in use.
    fn copy_slot(&self, words: impl Words, base: usize, copy: &mut [u64]) {
        let histograms = || self.histograms.iter().flatten();
        let plain = histograms().map(|h| h.buckets).min().unwrap_or(self.stride);
        for (i, word) in copy[..plain].iter_mut().enumerate() {
            *word = words.word(base + i);
        }
        for h in histograms() {
            for bucket in used_buckets(words.word(base + h.head + 2)) {
                copy[h.buckets + bucket] = words.word(base + h.buckets + bucket);
            }
        }
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

/// The buckets of the octaves in `mask`, ascending.
fn used_buckets(mask: u64) -> impl Iterator<Item = usize> {
    (0..OCTAVES)
        .filter(move |octave| mask >> octave & 1 == 1)
        .flat_map(|octave| octave * SUB_BUCKETS..(octave + 1) * SUB_BUCKETS)
}

fn histogram(words: impl Words, base: usize, at: Option<HistogramAt>) -> Histogram {
    let Some(at) = at else {
        return Histogram::default();
    };
    let head = base + at.head;
    let mask = words.word(head + 2);
    if mask == 0 {
        return Histogram::default();
    }
    let buckets = used_buckets(mask)
        .map(|bucket| (bucket as u16, words.word(base + at.buckets + bucket)))
        .filter(|(_, n)| *n > 0)
        .collect();
    Histogram {
        sum_ns: words.word(head),
        max_ns: words.word(head + 1),
        buckets,
    }
}

fn named(words: impl Words, list: &[(String, usize)], base: usize) -> Vec<(String, u64)> {
    list.iter()
        .map(|(name, at)| (name.clone(), words.word(base + at)))
        .collect()
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

/// The facts in words, understood; `None` if a number means nothing to this version.
fn slot_info(words: &[u64; schema::INFO_WORDS]) -> Option<SlotInfo> {
    let via = |word: u64| match word {
        1 => Some(Via::Socket),
        2 => Some(Via::Shm),
        _ => None,
    };
    let fallback = (words[info::FALLBACK_STEP] != 0).then(|| FallbackFact {
        step: small(words[info::FALLBACK_STEP]),
        errno: i32::try_from(words[info::FALLBACK_ERRNO]).unwrap_or(0),
        limit: words[info::FALLBACK_LIMIT],
        used: words[info::FALLBACK_USED],
        at_peer: words[info::FALLBACK_AT_PEER] != 0,
    });
    let mut peer_name: Vec<u8> = words[info::PEER_NAME..info::PEER_NAME + 8]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    peer_name.truncate(
        peer_name
            .iter()
            .position(|b| *b == 0)
            .unwrap_or(peer_name.len()),
    );
    Some(SlotInfo {
        state: match words[info::STATE] {
            0 => SlotState::Free,
            1 => SlotState::Handshaking,
            2 => SlotState::Open,
            3 => SlotState::Closed,
            _ => return None,
        },
        kind: match words[info::KIND] {
            1 => SlotKind::Connection,
            2 => SlotKind::Poller,
            _ => return None,
        },
        connection_id: words[info::CONNECTION_ID],
        client_number: small(words[info::CLIENT_NUMBER]),
        transport: via(words[info::TRANSPORT])?,
        wanted: via(words[info::WANTED])?,
        fallback,
        peer_pid: small(words[info::PEER_PID]),
        peer_uid: small(words[info::PEER_UID]),
        peer_start_ticks: words[info::PEER_START_TICKS],
        peer_name: sanitise(peer_name),
        tid: small(words[info::TID]),
        wait_policy: WaitPolicy::name_of(small(words[info::WAIT_POLICY])).into(),
        tx_capacity: words[info::TX_CAPACITY],
        rx_capacity: words[info::RX_CAPACITY],
        max_message: words[info::MAX_MESSAGE],
        opened_ns: words[info::OPENED_NS],
        closed_ns: words[info::CLOSED_NS],
        close_reason: small(words[info::CLOSE_REASON]),
        poller_slot: words[info::POLLER_SLOT]
            .checked_sub(1)
            .and_then(|i| u32::try_from(i).ok()),
        huge_pages: small(words[info::HUGE_PAGES]),
        ring_inode: words[info::RING_INODE],
    })
}

/// A number that should fit 32 bits; 0, "not known", if it does not.
fn small(word: u64) -> u32 {
    u32::try_from(word).unwrap_or(0)
}
