//! Turns the words of a page into a [`Snapshot`]: the only code that interprets what another process counts.
//!
//! Used by `reader` on live pages and on recorded bytes alike, with the positions that `layout` has checked. A word is
//! loaded once per look and any value of it is survived. Left out: where things stand.

use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::fence;

use super::histogram::{Histogram, OCTAVES, SUB_BUCKETS};
use super::layout::{HistogramAt, Layout, Words, small};
use super::schema::{
    self, Descriptor, HouseCounters, ProcessCounters, ReqCounters, RxCounters, TxCounters,
    WaitCounters, header, info,
};
use super::seqlock::{self, SeqRead};
use super::snapshot::{FallbackFact, Slot, SlotInfo, SlotKind, SlotState, Snapshot, Via};
use super::text::sanitise;
use crate::config::WaitPolicy;

/// Looks at a slot before it is given up as torn.
const TRIES: u32 = 16;

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

impl Layout {
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
