//! The byte map of [`super::schema`] as types, for the writer: a header and a slot as structs of atomics.
//!
//! The writer's counterpart of the descriptor table; readers don't use it, because the page they look at may be of
//! another minor version. All-zero memory is a valid value of every type here, and the compiler checks that
//! each group stands where the schema says.

use std::mem::{offset_of, size_of};
use std::sync::atomic::AtomicU64;

use super::histogram::BUCKETS;
use super::schema::{
    self, HouseWords, ProcessWords, ReqWords, RxWords, SentWords, TakenWords, TxWords, WaitWords,
};

/// A group of counters on its own two lines, however few it has.
#[repr(C, align(256))]
#[derive(Debug)]
pub(super) struct Group<T>(pub(super) T);

/// Head of a histogram. One writer: the thread that records.
#[repr(C)]
#[derive(Debug)]
pub struct HistogramHead {
    /// Sum of the values in ns, weighted.
    pub sum_ns: AtomicU64,
    /// Largest value in ns.
    pub max_ns: AtomicU64,
    /// Bit i is set once a bucket of octave i (buckets 16·i ..) was used.
    pub octaves: AtomicU64,
    reserved: AtomicU64,
}

/// The buckets of a histogram.
pub type Buckets = [AtomicU64; BUCKETS];

/// The writer's handle of one histogram.
#[derive(Clone, Copy, Debug)]
pub struct HistogramWords<'a> {
    /// Sum, max, octave mask.
    pub head: &'a HistogramHead,
    /// The buckets.
    pub buckets: &'a Buckets,
}

/// One slot.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct SlotWords {
    /// Facts behind the seqlock whose sequence is word 0; see [`schema::info`].
    pub(super) info: [AtomicU64; schema::INFO_WORDS],
    pub(super) tx: TxWords,
    pub(super) sent: SentWords,
    pub(super) rx: RxWords,
    pub(super) taken: TakenWords,
    pub(super) wait: Group<WaitWords>,
    pub(super) req: Group<ReqWords>,
    pub(super) house: Group<HouseWords>,
    pub(super) rtt_head: HistogramHead,
    pub(super) handler_head: HistogramHead,
    reserved: [AtomicU64; 8],
    pub(super) park_head: HistogramHead,
    reserved_2: [AtomicU64; 12],
    pub(super) rtt: Buckets,
    pub(super) handler: Buckets,
    pub(super) park: Buckets,
}

const _: () = {
    assert!(offset_of!(SlotWords, info) == schema::INFO_OFFSET);
    assert!(offset_of!(SlotWords, tx) == schema::TX_OFFSET);
    assert!(offset_of!(SlotWords, sent) == schema::SENT_OFFSET);
    assert!(offset_of!(SlotWords, taken) == schema::TAKEN_OFFSET);
    assert!(offset_of!(SlotWords, rx) == schema::RX_OFFSET);
    assert!(offset_of!(SlotWords, wait) == schema::WAIT_OFFSET);
    assert!(offset_of!(SlotWords, req) == schema::REQ_OFFSET);
    assert!(offset_of!(SlotWords, house) == schema::HOUSE_OFFSET);
    assert!(offset_of!(SlotWords, rtt_head) == schema::RTT_HEAD_OFFSET);
    assert!(offset_of!(SlotWords, handler_head) == schema::HANDLER_HEAD_OFFSET);
    assert!(offset_of!(SlotWords, park_head) == schema::PARK_HEAD_OFFSET);
    assert!(offset_of!(SlotWords, rtt) == schema::RTT_OFFSET);
    assert!(offset_of!(SlotWords, handler) == schema::HANDLER_OFFSET);
    assert!(offset_of!(SlotWords, park) == schema::PARK_OFFSET);
    assert!(size_of::<SlotWords>() == schema::SLOT_STRIDE);
};

/// The first 4 KiB of a page.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct HeaderWords {
    /// See [`schema::header`].
    pub(super) words: [AtomicU64; schema::PROCESS_OFFSET / 8],
    pub(super) process: Group<ProcessWords>,
}

const _: () = {
    assert!(offset_of!(HeaderWords, process) == schema::PROCESS_OFFSET);
    assert!(size_of::<HeaderWords>() == schema::DESCRIPTORS_OFFSET);
};

impl SlotWords {
    pub(super) fn histograms(&self) -> [HistogramWords<'_>; 3] {
        [
            HistogramWords {
                head: &self.rtt_head,
                buckets: &self.rtt,
            },
            HistogramWords {
                head: &self.handler_head,
                buckets: &self.handler,
            },
            HistogramWords {
                head: &self.park_head,
                buckets: &self.park,
            },
        ]
    }
}
