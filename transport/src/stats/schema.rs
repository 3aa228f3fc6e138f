//! The one list of everything a stats page counts.
//!
//! Each counter is declared once, here: name, unit, kind and meaning. The page layout, the descriptor table
//! inside the page, the reader's struct, JSON fields, metric names and docs all come from this list, so
//! none of them can drift from another, and a viewer that is older than a page still shows what it does
//! not know.
//!
//! # Byte map of a page (all words are little-endian u64, naturally aligned)
//! ```text
//! 0x0000  header            one 4 KiB page, see below; the magic is stored last
//! 0x1000  descriptor table  `DESCRIPTOR_COUNT` × 128 bytes, written once before the magic
//! slots   `slots_offset`    `slot_count` × `slot_stride` (16 KiB), sparse: an unused slot costs no memory
//!
//! a slot
//! 0x0000  info     4 lines   behind a seqlock (word 0); written at open, upgrade, close
//! 0x0200  tx       1 line    written by the thread that produces into the outgoing ring
//! 0x0280  sent     1 line    by the same; what every message changes stands first
//! 0x0300  rx       1 line    written by the thread that consumes the incoming ring
//! 0x0380  taken    1 line    by the same; what every message changes stands first
//! 0x0400  wait     2 lines   written by the thread that waits on this side
//! 0x0500  req      2 lines   written by the thread that submits (client) or handles (server)
//! 0x0600  house    2 lines   written by the housekeeping (control) thread
//! 0x0700  heads    1 line    sum, max and octave mask of rtt (word 0) and of handler (word 4)
//! 0x0780  head     1 line    sum, max and octave mask of park
//! 0x0800  rtt      544 buckets  round trips
//! 0x1900  handler  544 buckets  time in the handler
//! 0x2a00  park     544 buckets  how long a sleep really lasted
//! 0x3b00  unused up to 0x4000
//!
//! a descriptor, 128 bytes
//! 0x00  name    40 bytes, zero padded
//! 0x28  word    kind | unit << 8 | scope << 16 | offset << 32
//! 0x30  word    histograms: offset of the head (sum, max, octave mask); else 0
//! 0x38  help    72 bytes, zero padded
//! ```
//! A histogram's head stands apart from its buckets so that a reader learns from the slot's first 4 KiB which
//! octaves (16 buckets each) were ever used: it loads those only, and never makes the kernel back an unused part
//! of the sparse page by looking at it.
//!
//! A line is 128 bytes: two 64-byte lines, because adjacent-line prefetch pairs them. Every group starts
//! on its own line and has one writer, so a counter is a plain Relaxed store by its owner. Only the process group has
//! several: the threads that do a server's handshakes count there too, with atomic additions. And one word has two: into `handler_since_ns`,
//! where it is 0, the housekeeping writes since when a request is with the handler that was not drawn for timing, with an atomic exchange.
//!
//! A message stores two words at each end of a ring, and a third one if its length is no multiple of 8: `tx_slack_bytes`, `rx_slack_bytes`. Who pipelines fills its store buffer with what goes to the other side, and then each
//! further store keeps the next message waiting; so what follows from other words is not stored: such a counter is marked `derived`,
//! has a name and a meaning here but no word and no row in the page, and is made by the reader, in `derived`.

mod descriptor;
#[macro_use]
mod groups;
pub mod header;
pub mod info;

use std::sync::atomic::AtomicU64;

pub use crate::limits::MAX_SLOTS;
pub use descriptor::{Descriptor, Kind, Scope, Unit};

/// First word of a page; read as bytes it spells `SHMTOP01`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"SHMTOP01");
/// Changes when an old reader would misread a new page.
pub const VERSION_MAJOR: u32 = 2;
/// Oldest one that is still read: it stored what is derived now, under the same names.
pub const OLDEST_MAJOR: u32 = 1;
/// Changes when something was added that an old reader may ignore.
pub const VERSION_MINOR: u32 = 2;
/// Bytes between writers: two cache lines, since the adjacent-line prefetcher pairs them.
pub const LINE_BYTES: usize = 128;
/// Offset of the descriptor table.
pub const DESCRIPTORS_OFFSET: usize = 0x1000;
/// Bytes of one descriptor in the page.
pub const DESCRIPTOR_BYTES: usize = 128;
/// Of them, what its name may have.
pub const NAME_BYTES: usize = 40;
/// And its help.
pub const HELP_BYTES: usize = 72;
/// Bytes of one slot.
pub const SLOT_STRIDE: usize = 16 * 1024;
/// Upper bound a reader accepts for the number of descriptors.
pub const MAX_DESCRIPTORS: usize = 512;

/// Ring bytes of a message beside its payload and slack.
pub const RECORD_HEADER_BYTES: u64 = 16;

/// Words of one group (two lines).
pub const GROUP_WORDS: usize = 2 * LINE_BYTES / 8;

/// In a group of words, the place of a counter that has none: readers derive it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Derived;

/// Offset of the process counters in the header page.
pub const PROCESS_OFFSET: usize = 0x400;
/// Offset of the seqlock-guarded facts in a slot.
pub const INFO_OFFSET: usize = 0x000;
/// Words of the info block, the sequence word included.
pub const INFO_WORDS: usize = 64;
/// Offset of the `tx` group in a slot.
pub const TX_OFFSET: usize = 0x200;
/// Offset of the `sent` group in a slot.
pub const SENT_OFFSET: usize = 0x280;
/// Offset of the `rx` group in a slot.
pub const RX_OFFSET: usize = 0x300;
/// Offset of the `taken` group in a slot.
pub const TAKEN_OFFSET: usize = 0x380;
/// Offset of the `wait` group in a slot.
pub const WAIT_OFFSET: usize = 0x400;
/// Offset of the `req` group in a slot.
pub const REQ_OFFSET: usize = 0x500;
/// Offset of the `house` group in a slot.
pub const HOUSE_OFFSET: usize = 0x600;
/// Bytes of a histogram's buckets.
pub const BUCKETS_BYTES: usize = super::histogram::BUCKETS * 8;
/// Words of a histogram's head: sum, max, octave mask.
pub const HEAD_WORDS: usize = 3;
/// Offset of the round-trip histogram's head in a slot.
pub const RTT_HEAD_OFFSET: usize = 0x700;
/// Offset of the handler-time histogram's head in a slot; on the line of the round-trip's, because one side of a
/// connection has only one of the two.
pub const HANDLER_HEAD_OFFSET: usize = 0x720;
/// Offset of the sleep-duration histogram's head in a slot.
pub const PARK_HEAD_OFFSET: usize = 0x780;
/// Offset of the round-trip buckets in a slot.
pub const RTT_OFFSET: usize = 0x800;
/// Offset of the handler-time buckets in a slot.
pub const HANDLER_OFFSET: usize = RTT_OFFSET + BUCKETS_BYTES;
/// Offset of the sleep-duration buckets in a slot.
pub const PARK_OFFSET: usize = HANDLER_OFFSET + BUCKETS_BYTES;
const _: () = assert!(PARK_OFFSET + BUCKETS_BYTES <= SLOT_STRIDE);
/// Descriptors in a page of this version.
pub const DESCRIPTOR_COUNT: usize = stored_count() + HISTOGRAMS.len();
/// Offset of slot 0 in a page of this version: the next 4 KiB boundary after the descriptor table.
pub const SLOTS_OFFSET: usize =
    (DESCRIPTORS_OFFSET + DESCRIPTOR_COUNT * DESCRIPTOR_BYTES).next_multiple_of(4096);

groups! {
    /// What concerns the whole process: admission of clients. Written by a server's control thread and those that do handshakes.
    process, ProcessWords, ProcessCounters, Process, PROCESS_OFFSET => {
        heartbeat_ns: Gauge, MonotonicNs, "when this page was last touched by its housekeeping; 0 for a client";
        max_clients: Gauge, Count, "clients the server admits at most; 0 for a client";
        open_clients: Gauge, Count, "clients connected now";
        pending_handshakes: Gauge, Count, "connections accepted whose handshake is not finished";
        oldest_pending_ns: Gauge, MonotonicNs, "when the oldest pending handshake was accepted; 0 if none";
        accepted: Counter, Count, "connections accepted";
        handshakes: Counter, Count, "handshakes completed";
        upgrades: Counter, Count, "connections switched to shared memory";
        fallbacks: Counter, Count, "connections that wanted shared memory and stay on the socket";
        accept_errors: Counter, Count, "connections that could not be accepted: no descriptor or memory";
        rejected_magic: Counter, Count, "handshakes refused: not our protocol";
        rejected_version: Counter, Count, "handshakes refused: another protocol version";
        rejected_layout: Counter, Count, "handshakes refused: impossible sizes or order of messages";
        rejected_uid: Counter, Count, "handshakes refused: user not allowed";
        rejected_timeout: Counter, Count, "handshakes refused: too slow";
        rejected_full: Counter, Count, "handshakes refused: max clients reached";
        rejected_pending: Counter, Count, "handshakes refused: too many of this user under way";
        last_rejected_uid: Gauge, Count, "uid of the last refused peer";
        last_rejected_pid: Gauge, Count, "pid of the last refused peer";
        fds_per_client: Gauge, Count, "file descriptors one more client costs this process";
        ring_bytes: Gauge, Bytes, "memory of one more client: both rings and their control block";
        listener_inode: Gauge, Count, "inode of the listening socket's path when bound; 0 for a client";
        handshake_max_ns: Gauge, Nanoseconds, "longest handshake since start";
        rejected_resources: Counter, Count, "handshakes refused: no memory or thread for one more client";
        stopping_since_ns: Gauge, MonotonicNs, "since when the server ends, once it does; 0 while it serves";
        long_handler_ns: Gauge, Nanoseconds, "how long one handler run may take, as declared; 0 if it was not";
    }

    /// The outgoing ring as its producer sees it.
    tx, TxWords, TxCounters, Slot, TX_OFFSET => {
        tx_messages: Counter, Count, derived, "messages committed";
        tx_bytes: Counter, Bytes, derived, "payload bytes committed";
        tx_record_bytes: Counter, Bytes, derived, "ring bytes committed: payload, headers, alignment; no padding";
        tx_padding_bytes: Counter, Bytes, "ring bytes skipped by padding records at a wrap";
        tx_wraps: Counter, Count, "padding records written";
        tx_full: Counter, Count, "times a message found no room";
        tx_blocked_ns: Counter, Nanoseconds, "time spent waiting for room";
        tx_index_loads: Counter, Count, "loads of the consumer's index (pointer-cache misses)";
        tx_index_hits: Counter, Count, derived, "messages sent on the cached index alone (pointer-cache hits)";
        tx_high_water_bytes: Gauge, Bytes, "largest occupancy seen, padding not counted";
        tx_occupancy_bytes: Gauge, Bytes, "occupancy at the last look at the consumer's index";
        tx_index: Gauge, Index, derived, "producer index: end of the last committed record";
        tx_touched_bytes: Gauge, Bytes, "how far into the ring's memory was ever written";
        tx_window_bytes: Gauge, Bytes, "where the producer wraps while the consumer keeps up";
        tx_wakes: Counter, Count, "wake-up calls made to a sleeping consumer";
        tx_rejected_size: Counter, Count, "messages refused: above the largest allowed";
        tx_rejected_bytes: Gauge, Bytes, "size of the last message refused";
        tx_largest_bytes: Gauge, Bytes, derived, "largest payload sent";
        tx_blocked_since_ns: Gauge, MonotonicNs, "since when the producer waits for room; 0 if it does not";
    }

    /// Messages on their way out: what counters of `tx` and requests or replies are derived from.
    sent, SentWords, SentCounters, Slot, SENT_OFFSET => {
        tx_straight: Counter, Count, "messages sent through the ring on the cached index alone";
        tx_ring_bytes: Counter, Bytes, "payload bytes sent through the ring";
        tx_slack_bytes: Counter, Bytes, "ring bytes after payloads, up to a multiple of 8";
        tx_peak_bytes: Gauge, Bytes, "largest payload sent, whichever way";
        tx_looked: Counter, Count, "messages sent through the ring after a look at the consumer's index";
        tx_socket_messages: Counter, Count, "messages sent over the socket";
        tx_socket_bytes: Counter, Bytes, "payload bytes sent over the socket";
    }

    /// The incoming ring as its consumer sees it.
    rx, RxWords, RxCounters, Slot, RX_OFFSET => {
        rx_messages: Counter, Count, derived, "messages received";
        rx_bytes: Counter, Bytes, derived, "payload bytes received";
        rx_record_bytes: Counter, Bytes, derived, "ring bytes received: payload, headers, alignment; no padding";
        rx_padding_bytes: Counter, Bytes, "ring bytes skipped as padding";
        rx_index_loads: Counter, Count, "loads of the producer's index (pointer-cache misses)";
        rx_index_hits: Counter, Count, derived, "messages received without a load of the producer's index";
        rx_index: Gauge, Index, derived, "consumer index: end of the last consumed record";
        rx_invalid: Counter, Count, "records refused: impossible length, kind or index";
        rx_largest_bytes: Gauge, Bytes, derived, "largest payload received";
        rx_wakes: Counter, Count, "wake-up calls made to a producer waiting for room";
        rx_follow_loads: Counter, Count, "index loads while following large messages piece by piece";
    }

    /// Messages on their way in: what counters of `rx` and requests or replies are derived from.
    taken, TakenWords, TakenCounters, Slot, TAKEN_OFFSET => {
        rx_straight: Counter, Count, "messages from the ring without a load of the producer's index";
        rx_ring_bytes: Counter, Bytes, "payload bytes taken from the ring";
        rx_slack_bytes: Counter, Bytes, "ring bytes after payloads, up to a multiple of 8";
        rx_peak_bytes: Gauge, Bytes, "largest payload received, whichever way";
        rx_looked: Counter, Count, "messages from the ring after a load of the producer's index";
        rx_void_straight: Counter, Count, "rx_straight of replies that nobody waited for, counted here alone";
        rx_void_looked: Counter, Count, "rx_looked of replies that nobody waited for, counted here alone";
        rx_socket_messages: Counter, Count, "messages received over the socket";
        rx_socket_void: Counter, Count, "replies over the socket that nobody waited for, counted here alone";
        rx_socket_bytes: Counter, Bytes, "payload bytes received over the socket";
        given_up: Counter, Count, "requests that nobody waits for any more, unanswered (client)";
    }

    /// The waiter: the code that spins, yields and sleeps for this side. In poller mode the poller's own slot has it.
    wait, WaitWords, WaitCounters, Slot, WAIT_OFFSET => {
        waits: Counter, Count, "times nothing was there and waiting began";
        spins: Counter, Count, "spin iterations";
        yields: Counter, Count, "sched_yield calls";
        sleeps: Counter, Count, "sleeps and parks";
        spin_ns: Counter, Nanoseconds, "time spent spinning";
        yield_ns: Counter, Nanoseconds, "time spent yielding";
        sleep_ns: Counter, Nanoseconds, "time spent asleep or parked";
        ended_spin: Counter, Count, "waits that ended while spinning";
        ended_yield: Counter, Count, "waits that ended while yielding";
        ended_sleep: Counter, Count, "waits that ended after a sleep or park";
        timed_out: Counter, Count, "waits that ended without what was waited for";
        waiting_since_ns: Gauge, MonotonicNs, "since when the waiter sleeps; 0 while it runs";
        asked_sleep_ns: Gauge, Nanoseconds, "what a sleep asks for; 0 when parking";
        crowded: Gauge, Count, "1 while the waiter takes the CPUs to be oversubscribed";
        polls: Counter, Count, "rounds of a poller over its clients";
        useful_ns: Counter, Nanoseconds, "time not spent waiting: handler, copies, the caller's own code";
        spin_budget_ns: Gauge, Nanoseconds, "spin time after which this waiter parks, at the moment";
    }

    /// Requests and replies.
    req, ReqWords, ReqCounters, Slot, REQ_OFFSET => {
        requests: Counter, Count, derived, "requests submitted (client) or taken (server)";
        replies: Counter, Count, derived, "replies received (client) or sent (server)";
        in_flight: Gauge, Count, derived, "requests without a reply yet (client; 0 at a server)";
        oldest_ns: Gauge, MonotonicNs, "in a wait: since the first one for the oldest request (50 ms on); or 0";
        timeouts: Counter, Count, "requests given up after their timeout";
        late_replies: Counter, Count, "replies that came after their request was given up";
        errors: Counter, Count, "error replies (handler error, panic, refused size)";
        panics: Counter, Count, "handler panics caught";
        handler_since_ns: Gauge, MonotonicNs, "when the running handler began; 0 if none runs";
        last_progress_ns: Gauge, MonotonicNs, "when a message last moved (updated at the sampling points)";
        sample_period: Gauge, Count, "one request in so many is timed; its weight in the histograms";
        handler_ns: Counter, Nanoseconds, "time in the handler, extrapolated from the timed requests";
        socket_requests: Counter, Count, "of the requests: over the socket";
    }

    /// What the server's housekeeping sees of both rings, a few times a second: the server's cross-check of a client's claims.
    house, HouseWords, HouseCounters, Slot, HOUSE_OFFSET => {
        house_ns: Gauge, MonotonicNs, "when the occupancies were taken";
        house_rx_occupancy_bytes: Gauge, Bytes, "bytes the client has produced and the server not consumed";
        house_tx_occupancy_bytes: Gauge, Bytes, "bytes the server has produced and the client not consumed";
        house_rx_high_water_bytes: Gauge, Bytes, "largest of house_rx_occupancy_bytes";
        house_tx_high_water_bytes: Gauge, Bytes, "largest of house_tx_occupancy_bytes";
        house_rx_moved_ns: Gauge, MonotonicNs, "last move of the server's consumer index, or bytes in its empty ring";
        house_tx_moved_ns: Gauge, MonotonicNs, "last move of the client's consumer index, or bytes in its empty ring";
        house_peer_asleep: Gauge, Count, "1 if the client's waiter was parked at that moment";
        house_inconsistent: Counter, Count, "times the client's indices made no sense";
    }
}

/// Whether this is one that others are derived from; a reader has no field for it.
pub fn is_source(descriptor: &Descriptor) -> bool {
    let mut sources = SentCounters::DESCRIPTORS
        .iter()
        .chain(TakenCounters::DESCRIPTORS);
    sources.any(|source| source.name == descriptor.name)
}

const fn stored_count() -> usize {
    let (mut count, mut group) = (0, 0);
    while group < GROUPS.len() {
        let mut row = 0;
        while row < GROUPS[group].len() {
            count += GROUPS[group][row].offset.is_some() as usize;
            row += 1;
        }
        group += 1;
    }
    count
}

/// What the page has room for: a descriptor's text would be cut there.
const _: () = {
    let (mut group, mut row) = (0, 0);
    while group < GROUPS.len() {
        assert!(
            GROUPS[group][row].name.len() <= NAME_BYTES
                && GROUPS[group][row].help.len() <= HELP_BYTES
        );
        row += 1;
        if row == GROUPS[group].len() {
            (group, row) = (group + 1, 0);
        }
    }
    while row < HISTOGRAMS.len() {
        assert!(
            HISTOGRAMS[row].name.len() <= NAME_BYTES && HISTOGRAMS[row].help.len() <= HELP_BYTES
        );
        row += 1;
    }
};

/// The histograms of a slot; `offset` is that of the buckets.
pub const HISTOGRAMS: [Descriptor; 3] = [
    Descriptor {
        name: "rtt_ns",
        kind: Kind::Histogram,
        unit: Unit::Nanoseconds,
        scope: Scope::Slot,
        offset: Some(RTT_OFFSET),
        help: "round trip: submit to reply received (client)",
    },
    Descriptor {
        name: "handler_time_ns",
        kind: Kind::Histogram,
        unit: Unit::Nanoseconds,
        scope: Scope::Slot,
        offset: Some(HANDLER_OFFSET),
        help: "time in the handler (server)",
    },
    Descriptor {
        name: "park_ns",
        kind: Kind::Histogram,
        unit: Unit::Nanoseconds,
        scope: Scope::Slot,
        offset: Some(PARK_OFFSET),
        help: "how long a sleep or park really lasted",
    },
];

/// Offsets of the heads of [`HISTOGRAMS`], in the same order.
pub const HISTOGRAM_HEADS: [usize; 3] = [RTT_HEAD_OFFSET, HANDLER_HEAD_OFFSET, PARK_HEAD_OFFSET];
