//! Turns the words of a page into a [`Snapshot`]: the only code that interprets what another process counts.
//!
//! Used by `reader` on live pages and on recorded bytes alike, with the positions that `layout` has checked. A word is
//! loaded once per look and any value of it is survived. Left out: where things stand.

use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::fence;

use super::derived::derive;
use super::histogram::{Histogram, OCTAVES, SUB_BUCKETS};
use super::layout::{HistogramAt, Layout, Words, small};
use super::schema::{
    self, Descriptor, HouseCounters, ProcessCounters, ReqCounters, RxCounters, SentCounters,
    TakenCounters, TxCounters, WaitCounters, header, info,
};
use super::seqlock::{self, SeqRead};
use super::snapshot::{FallbackFact, Slot, SlotInfo, SlotKind, SlotState, Snapshot, Via};
use super::text::sanitise;
use crate::config::PolicyKind;

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
    /// Copies the page as it is now into `out`, whose memory is used again. `words` must be (as long as) those it was
    /// resolved from.
    pub(super) fn snapshot_into(&self, words: impl Words, out: &mut Snapshot) {
        let mut slots = std::mem::take(&mut out.slots);
        out.clone_from(&self.facts);
        out.process = self.process(words);
        named(words, &self.unknown_process, 0, &mut out.unknown);
        let mut filled = 0;
        for index in 0..self.slots_used(words) {
            let base = self.slots_at + index * self.stride;
            if words.word(base + info::STATE) == SlotState::Free as u64 {
                continue;
            }
            if filled == slots.len() {
                slots.push(Slot::default());
            }
            let slot = &mut slots[filled];
            let facts = seqlock::read(&Sequence(words, base + info::SEQUENCE), TRIES, || {
                self.slot(words, base, slot)
            });
            match facts.and_then(|facts| slot_info(&facts)) {
                Some(info) if info.state == SlotState::Free => {}
                Some(info) => {
                    slot.info = info;
                    slot.index = index as u32;
                    filled += 1;
                }
                None => out.torn += 1,
            }
        }
        slots.truncate(filled);
        out.slots = slots;
    }

    /// The counters of the process.
    pub(super) fn process(&self, words: impl Words) -> ProcessCounters {
        let mut known = self.known.iter();
        ProcessCounters::from_fn(|_| {
            let at = known.next().copied().flatten();
            at.map_or(0, |at| words.word(at))
        })
    }

    /// See [`super::PageReader::refresh`]. Counters are no facts: of those, any time's will do; but all must be of the same owner, whose
    /// facts were not written meanwhile.
    pub(super) fn refresh(&self, words: impl Words, slot: &mut Slot) -> bool {
        let index = slot.index as usize;
        if index >= self.slots_used(words) {
            return false;
        }
        let base = self.slots_at + index * self.stride;
        let before = (slot.tx, slot.rx, slot.wait, slot.req, slot.house);
        let same = seqlock::read(&Sequence(words, base + info::SEQUENCE), TRIES, || {
            let i = &slot.info;
            let same = words.word(base + info::CONNECTION_ID) == i.connection_id
                && words.word(base + info::STATE) == i.state as u64
                && words.word(base + info::TRANSPORT) == i.transport as u64
                && words.word(base + info::OPENED_NS) == i.opened_ns;
            if same {
                self.counters(words, base, slot);
            }
            same
        });
        let same = same == Some(true);
        if !same {
            (slot.tx, slot.rx, slot.wait, slot.req, slot.house) = before;
        }
        same
    }

    /// Slots to look at.
    fn slots_used(&self, words: impl Words) -> usize {
        usize::try_from(words.word(header::SLOTS_USED))
            .unwrap_or(usize::MAX)
            .min(self.slot_count)
    }

    /// One look at a slot: everything but the facts goes into `slot`, the facts are returned as words.
    fn slot(&self, words: impl Words, base: usize, slot: &mut Slot) -> [u64; schema::INFO_WORDS] {
        self.counters(words, base, slot);
        let histograms = [&mut slot.rtt, &mut slot.handler, &mut slot.park];
        for (histogram, at) in histograms.into_iter().zip(self.histograms) {
            load_histogram(words, base, at, histogram);
        }
        named(words, &self.unknown_slot, base, &mut slot.unknown);
        std::array::from_fn(|i| words.word(base + i))
    }

    fn counters(&self, words: impl Words, base: usize, slot: &mut Slot) {
        let mut known = self.known[ProcessCounters::DESCRIPTORS.len()..].iter();
        let mut next = |_: &Descriptor| {
            let at = known.next().copied().flatten();
            at.map_or(0, |at| words.word(base + at))
        };
        slot.tx = TxCounters::from_fn(&mut next);
        let sent = SentCounters::from_fn(&mut next);
        // Acquire, for the order of the loads alone: see `derived`, in flight.
        fence(Acquire);
        slot.rx = RxCounters::from_fn(&mut next);
        let taken = TakenCounters::from_fn(&mut next);
        slot.wait = WaitCounters::from_fn(&mut next);
        slot.req = ReqCounters::from_fn(&mut next);
        slot.house = HouseCounters::from_fn(&mut next);
        if self.derives {
            derive(self.facts.role, &sent, &taken, slot);
        }
    }

    /// The bytes of a page with the slots used so far and no more, without touching what was never written.
    pub(super) fn image(&self, words: impl Words) -> Vec<u8> {
        let used = self.slots_used(words);
        let mut image = vec![0u64; self.slots_at + used * self.stride];
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
            for octave in octaves(words.word(base + h.head + 2)) {
                for bucket in octave * SUB_BUCKETS..(octave + 1) * SUB_BUCKETS {
                    copy[h.buckets + bucket] = words.word(base + h.buckets + bucket);
                }
            }
        }
    }
}

/// The octaves in `mask`, ascending; bits that stand for none are passed over.
fn octaves(mask: u64) -> impl Iterator<Item = usize> {
    let mut left = mask & ((1 << OCTAVES) - 1);
    std::iter::from_fn(move || {
        let octave = (left != 0).then(|| left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some(octave)
    })
}

fn load_histogram(words: impl Words, base: usize, at: Option<HistogramAt>, out: &mut Histogram) {
    (out.sum_ns, out.max_ns) = (0, 0);
    out.buckets.clear();
    let Some(at) = at else { return };
    let head = base + at.head;
    let mask = words.word(head + 2);
    if mask == 0 {
        return;
    }
    (out.sum_ns, out.max_ns) = (words.word(head), words.word(head + 1));
    let used = (mask & ((1 << OCTAVES) - 1)).count_ones() as usize;
    out.buckets.reserve(used * SUB_BUCKETS);
    let first = base + at.buckets;
    for octave in octaves(mask) {
        for bucket in octave * SUB_BUCKETS..(octave + 1) * SUB_BUCKETS {
            let n = words.word(first + bucket);
            if n > 0 {
                out.buckets.push((bucket as u16, n));
            }
        }
    }
}

fn named(words: impl Words, list: &[(String, usize)], base: usize, out: &mut Vec<(String, u64)>) {
    out.clear();
    out.extend(
        list.iter()
            .map(|(name, at)| (name.clone(), words.word(base + at))),
    );
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
        wait_policy: PolicyKind::of(small(words[info::WAIT_POLICY])),
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
