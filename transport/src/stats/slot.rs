//! One slot for its writers: the words of one connection side, or of one poller.
//!
//! Taken from a [`PageWriter`] or, when the page is full, made on the heap ([`SlotWriter::private`]), so that who
//! counts never asks which. Several threads may hold one slot, each writing its own groups; the facts go
//! through a seqlock under a mutex. Left out: what the numbers mean ([`super::schema`]), how to add
//! ([`super::recorder`]).

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use super::page::PageWriter;
use super::schema::{
    HouseWords, ReqWords, RxWords, SentWords, TakenWords, TxWords, WaitWords, info,
};
use super::seqlock;
use super::snapshot::{SlotKind, SlotState, Via};
use super::words::{HistogramWords, SlotWords};
use crate::clock::monotonic_ns;
use crate::config::WaitPolicy;
use crate::error::{CloseReason, Fallback};

/// Bytes of a peer's name that fit.
const PEER_NAME_BYTES: usize = 64;

/// What [`SlotWriter::publish_info`] tells: the whole of it each time. 0 stands for "not known" as in [`info`].
#[derive(Clone, Debug, Default)]
pub struct SlotFacts {
    /// True once the transport is decided; false while handshaking.
    pub open: bool,
    /// Joins the two sides; for a poller its number.
    pub connection_id: u64,
    /// Number of the client at its server, from 1.
    pub client_number: u32,
    /// Transport in use.
    pub transport: Via,
    /// Transport asked for.
    pub wanted: Via,
    /// Why they differ.
    pub fallback: Option<Fallback>,
    /// Peer's pid.
    pub peer_pid: u32,
    /// Peer's uid.
    pub peer_uid: u32,
    /// Peer's start time in clock ticks.
    pub peer_start_ticks: u64,
    /// Peer's name from its hello; cut to 64 bytes.
    pub peer_name: String,
    /// Thread that owns this side.
    pub tid: u32,
    /// Policy in force.
    pub wait_policy: WaitPolicy,
    /// Outgoing ring in bytes.
    pub tx_capacity: u64,
    /// Incoming ring in bytes.
    pub rx_capacity: u64,
    /// Largest payload in bytes.
    pub max_message: u64,
    /// Slot of the poller that waits for this connection.
    pub poller_slot: Option<u32>,
    /// 0 not asked, 1 in use, 2 asked but short, 3 short and transparent ones instead.
    pub huge_pages: u32,
    /// Inode of the ring's memfd.
    pub ring_inode: u64,
}

/// See the module. Dropping it closes the slot and gives it back.
///
/// After a fork the words are not there in the child: it may drop a slot, and nothing else.
#[derive(Debug)]
pub struct SlotWriter {
    /// I4: points to a `SlotWords` that lives as long as `home`, see [`SlotWriter::words`].
    words: NonNull<SlotWords>,
    home: Home,
    /// Serialises writers of the facts. True once closed.
    closed: Mutex<bool>,
}

#[derive(Debug)]
enum Home {
    /// The page and the index of the slot in it.
    Page(Arc<PageWriter>, u32),
    /// From `Box::leak`, freed on drop.
    Heap,
}

// SAFETY: the words are atomics behind a pointer that is not tied to a thread; the rest is Send.
unsafe impl Send for SlotWriter {}
// SAFETY: as above; all access is through atomics or the mutex.
unsafe impl Sync for SlotWriter {}

impl SlotWriter {
    /// A slot of `page`, zeroed and marked as handshaking. Called by [`PageWriter::slot`], which lends each index once.
    pub(super) fn in_page(
        page: Arc<PageWriter>,
        words: NonNull<SlotWords>,
        index: u32,
        kind: SlotKind,
    ) -> Self {
        Self::new(words, Home::Page(page, index), kind)
    }

    /// A slot that no viewer sees.
    pub fn private(kind: SlotKind) -> Self {
        let words = Box::<SlotWords>::new_zeroed();
        // SAFETY: all-zero bytes are a valid `SlotWords`: it consists of atomics.
        let words = unsafe { words.assume_init() };
        Self::new(NonNull::from(Box::leak(words)), Home::Heap, kind)
    }

    fn new(words: NonNull<SlotWords>, home: Home, kind: SlotKind) -> Self {
        let slot = Self {
            words,
            home,
            closed: Mutex::new(false),
        };
        // A slot of the same page and time is another slot: viewers tell by the time of opening, so it must differ even
        // if the clock did not move since the last.
        let before = slot.info(info::OPENED_NS).load(Relaxed);
        let opened_ns = monotonic_ns().max(before + 1);
        slot.write_info(|slot| {
            slot.zero();
            slot.put(info::STATE, SlotState::Handshaking as u64);
            slot.put(info::KIND, kind as u64);
            slot.put(info::TRANSPORT, Via::Socket as u64);
            slot.put(info::WANTED, Via::Socket as u64);
            slot.put(info::OPENED_NS, opened_ns);
        });
        slot
    }

    #[inline(always)]
    fn words(&self) -> &SlotWords {
        // SAFETY: I4. In a page: `PageWriter::slot` computed it inside the page's memory, which `home` keeps alive (I1 of
        // `memory`), zeroed (I2) and only touched through atomics. On the heap: from a box that only `drop` frees. Not in a forked child, of which
        // I1 says nothing: who has a slot of a page (a `Synapse`, a server's threads) looks for a fork first, or is not there; so does `drop`.
        unsafe { self.words.as_ref() }
    }

    /// Index in the page; `None` for a private slot.
    pub fn index(&self) -> Option<u32> {
        match self.home {
            Home::Page(_, index) => Some(index),
            Home::Heap => None,
        }
    }

    /// Outgoing ring.
    #[inline(always)]
    pub fn tx(&self) -> &TxWords {
        &self.words().tx
    }

    /// Messages on their way out.
    #[inline(always)]
    pub fn sent(&self) -> &SentWords {
        &self.words().sent
    }

    /// Incoming ring.
    #[inline(always)]
    pub fn rx(&self) -> &RxWords {
        &self.words().rx
    }

    /// Messages on their way in.
    #[inline(always)]
    pub fn taken(&self) -> &TakenWords {
        &self.words().taken
    }

    /// Waiter.
    #[inline(always)]
    pub fn wait(&self) -> &WaitWords {
        &self.words().wait.0
    }

    /// Requests.
    #[inline(always)]
    pub fn req(&self) -> &ReqWords {
        &self.words().req.0
    }

    /// Housekeeping.
    #[inline(always)]
    pub fn house(&self) -> &HouseWords {
        &self.words().house.0
    }

    /// Round trips.
    #[inline(always)]
    pub fn rtt(&self) -> HistogramWords<'_> {
        let words = self.words();
        HistogramWords {
            head: &words.rtt_head,
            buckets: &words.rtt,
        }
    }

    /// Times in the handler.
    #[inline(always)]
    pub fn handler(&self) -> HistogramWords<'_> {
        let words = self.words();
        HistogramWords {
            head: &words.handler_head,
            buckets: &words.handler,
        }
    }

    /// Sleeps.
    #[inline(always)]
    pub fn park(&self) -> HistogramWords<'_> {
        let words = self.words();
        HistogramWords {
            head: &words.park_head,
            buckets: &words.park,
        }
    }

    /// Publishes the facts, all at once for a reader. After [`Self::close`] it does nothing.
    pub fn publish_info(&self, facts: &SlotFacts) {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return;
        }
        let state = if facts.open {
            SlotState::Open
        } else {
            SlotState::Handshaking
        };
        let fallback = facts.fallback.as_ref();
        self.write_info(|slot| {
            slot.put(info::STATE, state as u64);
            slot.put(info::CONNECTION_ID, facts.connection_id);
            slot.put(info::CLIENT_NUMBER, facts.client_number.into());
            slot.put(info::TRANSPORT, facts.transport as u64);
            slot.put(info::WANTED, facts.wanted as u64);
            slot.put(info::FALLBACK_STEP, fallback.map_or(0, |f| f.step as u64));
            slot.put(
                info::FALLBACK_ERRNO,
                fallback.map_or(0, |f| f.errno.unsigned_abs().into()),
            );
            slot.put(info::FALLBACK_LIMIT, fallback.map_or(0, |f| f.limit));
            slot.put(info::FALLBACK_USED, fallback.map_or(0, |f| f.used));
            slot.put(
                info::FALLBACK_AT_PEER,
                fallback.map_or(0, |f| f.at_peer.into()),
            );
            slot.put(info::PEER_PID, facts.peer_pid.into());
            slot.put(info::PEER_UID, facts.peer_uid.into());
            slot.put(info::PEER_START_TICKS, facts.peer_start_ticks);
            slot.put(info::TID, facts.tid.into());
            slot.put(info::WAIT_POLICY, facts.wait_policy.number().into());
            slot.put(info::TX_CAPACITY, facts.tx_capacity);
            slot.put(info::RX_CAPACITY, facts.rx_capacity);
            slot.put(info::MAX_MESSAGE, facts.max_message);
            slot.put(
                info::POLLER_SLOT,
                facts.poller_slot.map_or(0, |i| u64::from(i) + 1),
            );
            slot.put(info::HUGE_PAGES, facts.huge_pages.into());
            slot.put(info::RING_INODE, facts.ring_inode);
            for (i, word) in text_words(&facts.peer_name, PEER_NAME_BYTES).enumerate() {
                slot.put(info::PEER_NAME + i, word);
            }
        });
    }

    /// Publishes who waits on this side, if it is another thread than before: connections are handed on. Called before sleeping; a system
    /// call, so not on the way of a request that is answered at once.
    pub fn waits_here(&self) {
        let tid = u64::from(nix::unistd::gettid().as_raw().unsigned_abs());
        // Relaxed: a hint whether to write at all; who waits is the only one that changes it.
        if self.info(info::TID).load(Relaxed) == tid {
            return;
        }
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if !*closed {
            self.write_info(|slot| slot.put(info::TID, tid));
        }
    }

    /// Publishes which poller serves the connection, by its slot, if it is another one than before.
    pub fn served_by(&self, poller_slot: Option<u32>) {
        let word = poller_slot.map_or(0, |i| u64::from(i) + 1);
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: under the lock of all who write it.
        if !*closed && self.info(info::POLLER_SLOT).load(Relaxed) != word {
            self.write_info(|slot| slot.put(info::POLLER_SLOT, word));
        }
    }

    /// Marks the slot as closed; it stays readable until it is used again. The first reason stays. The words may still
    /// be written until the last holder drops the slot.
    pub fn close(&self, reason: CloseReason) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *closed, true) {
            return;
        }
        self.write_info(|slot| {
            slot.put(info::STATE, SlotState::Closed as u64);
            slot.put(info::CLOSED_NS, monotonic_ns());
            slot.put(info::CLOSE_REASON, reason as u64);
        });
    }

    /// Caller: the constructor, or a holder of `closed`'s lock.
    fn write_info(&self, store: impl FnOnce(&Self)) {
        seqlock::write(self.info(info::SEQUENCE), || store(self));
    }

    fn info(&self, word: usize) -> &AtomicU64 {
        &self.words().info[word]
    }

    fn put(&self, word: usize, value: u64) {
        self.info(word).store(value, Relaxed);
    }

    /// Everything but the sequence. Inside the seqlock, so that no reader mixes two connections' numbers.
    fn zero(&self) {
        let words = self.words();
        let groups = [
            self.tx().all(),
            self.sent().all(),
            self.rx().all(),
            self.taken().all(),
            self.wait().all(),
            self.req().all(),
            self.house().all(),
        ];
        let facts = &words.info[info::SEQUENCE + 1..];
        for word in facts.iter().chain(groups.into_iter().flatten()) {
            word.store(0, Relaxed);
        }
        words
            .histograms()
            .into_iter()
            .for_each(HistogramWords::clear);
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        match &self.home {
            Home::Page(page, index) => {
                if page.is_ours() {
                    self.close(CloseReason::Local);
                    page.give_back(*index);
                }
            }
            // SAFETY: from `Box::leak` in `private`, and nobody borrows the words any more.
            Home::Heap => drop(unsafe { Box::from_raw(self.words.as_ptr()) }),
        }
    }
}

/// `text` as words, cut at a character's end to `bytes`, zero padded.
pub(super) fn text_words(text: &str, bytes: usize) -> impl Iterator<Item = u64> {
    let mut room = vec![0; bytes];
    let end = text.floor_char_boundary(bytes);
    room[..end].copy_from_slice(&text.as_bytes()[..end]);
    (0..bytes / 8).map(move |i| {
        let mut word = [0; 8];
        word.copy_from_slice(&room[i * 8..i * 8 + 8]);
        u64::from_le_bytes(word)
    })
}
