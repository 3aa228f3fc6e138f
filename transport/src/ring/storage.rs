//! The bytes and atomics of one ring: the only door to shared memory for producer and consumer.
//!
//! [`Storage`] is what the protocol needs; [`Mapped`] is a connection's mapping. Models use heap twins of it (std atomics in
//! `model_tests`, loom's in `loom_tests`), so that the code that runs in production is the code that is proved.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::mem::mapping::Mapping;

/// A shared word of one ring's control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Producer → consumer.
    Tail,
    /// Producer → viewers.
    Produced,
    /// Client → server, request ring only: where the client waits; see `HouseView::look`.
    Cpu,
    /// Consumer → producer.
    Head,
    /// Consumer → viewers.
    Consumed,
    /// Server → producer.
    Window,
    /// Server → client, in the reply ring.
    Leave,
}

/// Who sleeps on a futex word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    /// The producer, until there is room.
    Full,
    /// The consumer, until there is a record.
    Empty,
}

/// How a sleeper wants to be woken: what it stores in its futex word. 0 = it is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Bell {
    /// Wake the futex word itself.
    Futex = 1,
    /// Send a byte over the connection's socket: the sleeper waits for descriptors. Clients only; a server sleeps on futex words.
    Socket = 2,
}

impl Bell {
    /// What a word taken from the peer asks for. Numbers of nobody's making wake a futex that nobody sleeps on.
    #[inline(always)]
    const fn of(word: u32) -> Option<Self> {
        match word {
            0 => None,
            2 => Some(Self::Socket),
            _ => Some(Self::Futex),
        }
    }
}

/// Access to one ring. All offsets are into the data area; an offset and length beyond it panics.
///
/// Everything is `&self`: the two roles own disjoint words, and what the peer process does to the memory is only input here.
///
/// That is an assumption where payloads are copied: Rust's memory model knows no other processes, and a copy that overlaps with a foreign
/// store is a race in its terms. We take stores of another process for what a device's are: opaque to the compiler, which sees none
/// that could race with ours. A copy may tear, and its result is any bytes; they are used only after the copy, from private memory,
/// and nothing is concluded from memory read twice. Words that both sides use to agree are atomics.
pub(crate) trait Storage {
    /// Relaxed load.
    fn load(&self, word: Word) -> u64;
    /// Acquire load; each use names its partner.
    fn load_acquire(&self, word: Word) -> u64;
    /// Relaxed store.
    fn store(&self, word: Word, value: u64);
    /// Release store; each use names its partner.
    fn store_release(&self, word: Word, value: u64);
    /// Acquire load of the u64 at `offset` (a commit word).
    fn commit_acquire(&self, offset: usize) -> u64;
    /// Release store of the u64 at `offset` (a commit word).
    fn commit_release(&self, offset: usize, value: u64);
    /// Relaxed load of the u64 at `offset`.
    fn word(&self, offset: usize) -> u64;
    /// Relaxed store of the u64 at `offset`.
    fn set_word(&self, offset: usize, value: u64);
    /// Copies private bytes in.
    fn write(&self, offset: usize, bytes: &[u8]);
    /// Copies shared bytes out. What arrives is what was there byte by byte: torn if the peer writes meanwhile.
    fn read(&self, offset: usize, into: &mut [u8]);
    /// Relaxed load of a futex word.
    fn flag(&self, flag: Flag) -> u32;
    /// Relaxed store of a futex word.
    fn set_flag(&self, flag: Flag, value: u32);
    /// Relaxed swap of a futex word.
    fn swap_flag(&self, flag: Flag, value: u32) -> u32;
    /// Sequentially consistent fence.
    fn fence(&self);

    /// Whether records stand in the ring, to somebody who is neither end of it; a claim of both. What a producer's call has committed before
    /// it returned counts; so "no" is true of one moment, that of the second load.
    fn holds_records(&self, capacity: u64) -> bool {
        // Acquire, partner: the Release in `Consumer::release`. What was there when the consumer took its last record is seen below, so a tail that is
        // older than this head is so only by what was not yet, or not wholly, sent then.
        let head = self.load_acquire(Word::Head);
        (1..=capacity).contains(&self.load(Word::Tail).wrapping_sub(head))
    }

    /// Whether somebody sleeps on this word, and how to wake them; at most once per announcement.
    #[inline(always)]
    fn take_bell(&self, flag: Flag) -> Option<Bell> {
        if self.flag(flag) == 0 {
            return None;
        }
        Bell::of(self.swap_flag(flag, 0))
    }
}

/// Bytes of the control area in front of the data of both rings.
pub(crate) const CONTROL_BYTES: usize = 0x1000;
/// Bytes of one ring's control block.
const RING_CONTROL_BYTES: usize = 0x400;
/// Bytes of two lines: processors fetch them in pairs.
const LINES: usize = 128;

const fn word_offset(word: Word) -> usize {
    match word {
        Word::Tail => 0x000,
        Word::Produced => 0x008,
        Word::Cpu => 0x010,
        Word::Head => 0x100,
        Word::Consumed => 0x108,
        Word::Window => 0x200,
        Word::Leave => 0x208,
    }
}

const fn flag_offset(flag: Flag) -> usize {
    match flag {
        Flag::Full => 0x080,
        Flag::Empty => 0x180,
    }
}

/// No two of them overlap, and what one side writes shares no pair of lines with what another does, nor with a flag, which both swap.
const _: () = {
    let written_together: [&[usize]; 5] = [
        &[
            word_offset(Word::Tail),
            word_offset(Word::Produced),
            word_offset(Word::Cpu),
        ],
        &[flag_offset(Flag::Full)],
        &[word_offset(Word::Head), word_offset(Word::Consumed)],
        &[flag_offset(Flag::Empty)],
        &[word_offset(Word::Window), word_offset(Word::Leave)],
    ];
    let mut end = 0;
    let mut i = 0;
    while i < written_together.len() {
        let first = written_together[i][0];
        assert!(first.is_multiple_of(LINES) && first >= end);
        let mut j = 0;
        while j < written_together[i].len() {
            let at = written_together[i][j];
            assert!(at.is_multiple_of(8) && at >= end);
            end = at + 8;
            j += 1;
        }
        assert!(end <= first + LINES);
        i += 1;
    }
    assert!(end <= RING_CONTROL_BYTES);
};

/// Which of a connection's two rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client to server.
    Request,
    /// Server to client.
    Reply,
}

/// Bytes of a connection's memory with `capacity` bytes per direction.
pub(crate) const fn connection_bytes(capacity: usize) -> usize {
    CONTROL_BYTES + 2 * capacity
}

/// One ring in a connection's shared mapping.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    /// Keeps the memory mapped as long as any pointer into it lives.
    _mapping: Arc<Mapping>,
    control: *mut u8,
    data: *mut u8,
    capacity: usize,
}

// SAFETY: the pointers lead into `_mapping`, which lives as long as `self` and is not tied to a thread; all
// access through them is by atomics or by copies into and out of private memory.
unsafe impl Send for Mapped {}
// SAFETY: as for Send: every method takes `&self` and is either one atomic access or a raw copy. Two threads of this process that
// copy the same bytes would race, which the roles exclude: `Producer` and `Consumer` take `&mut self`, and each exists
// once per mapping (they are made together in `shm::link`).
unsafe impl Sync for Mapped {}

impl Mapped {
    /// One ring of a mapping that holds `connection_bytes(capacity)` bytes.
    ///
    /// # Panics
    /// If the mapping is smaller than that, or `capacity` no multiple of 8.
    pub(crate) fn new(mapping: &Arc<Mapping>, direction: Direction, capacity: usize) -> Self {
        assert!(capacity.is_multiple_of(8) && mapping.len() >= connection_bytes(capacity));
        let (control_at, data_at) = match direction {
            Direction::Request => (0, CONTROL_BYTES),
            Direction::Reply => (RING_CONTROL_BYTES, CONTROL_BYTES + capacity),
        };
        let base = mapping.ptr();
        // SAFETY: both offsets are below the mapping's length (asserted above), so the results stay inside one allocation.
        let (control, data) = unsafe { (base.add(control_at), base.add(data_at)) };
        Self {
            _mapping: Arc::clone(mapping),
            control,
            data,
            capacity,
        }
    }

    /// The futex word itself, for the system call.
    pub(crate) fn futex(&self, flag: Flag) -> &AtomicU32 {
        // SAFETY: the offset is a multiple of 4 inside the control block, which `new` checked to be inside the mapping; the mapping is
        // page-aligned and lives as long as `self`. Atomics may be shared with another process.
        unsafe { AtomicU32::from_ptr(self.control.add(flag_offset(flag)).cast()) }
    }

    /// Bytes of the data area, where they lie.
    ///
    /// # Safety
    /// Nobody writes to them, in whatever process, for as long as the slice lives.
    #[inline]
    pub(crate) unsafe fn bytes(&self, offset: usize, length: usize) -> &[u8] {
        assert!(offset <= self.capacity && length <= self.capacity - offset);
        // SAFETY: inside the data area (asserted), which is mapped and initialised (a memfd's bytes are zero or written) for as long as
        // `self`; that nobody writes is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.data.add(offset), length) }
    }

    fn control_word(&self, word: Word) -> &AtomicU64 {
        // SAFETY: as in `futex`, with an offset that is a multiple of 8.
        unsafe { AtomicU64::from_ptr(self.control.add(word_offset(word)).cast()) }
    }

    #[inline(always)]
    fn data_word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.capacity);
        // SAFETY: `offset` is a multiple of 8 below `capacity`, itself a multiple of 8 (asserted here and in `new`), so the 8 bytes are inside
        // the data area and aligned: the area starts at a multiple of 8 of a page-aligned mapping.
        unsafe { AtomicU64::from_ptr(self.data.add(offset).cast()) }
    }
}

impl Storage for Mapped {
    #[inline(always)]
    fn load(&self, word: Word) -> u64 {
        self.control_word(word).load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn load_acquire(&self, word: Word) -> u64 {
        self.control_word(word).load(Ordering::Acquire)
    }
    #[inline(always)]
    fn store(&self, word: Word, value: u64) {
        self.control_word(word).store(value, Ordering::Relaxed);
    }
    #[inline(always)]
    fn store_release(&self, word: Word, value: u64) {
        self.control_word(word).store(value, Ordering::Release);
    }
    #[inline(always)]
    fn commit_acquire(&self, offset: usize) -> u64 {
        self.data_word(offset).load(Ordering::Acquire)
    }
    #[inline(always)]
    fn commit_release(&self, offset: usize, value: u64) {
        self.data_word(offset).store(value, Ordering::Release);
    }
    #[inline(always)]
    fn word(&self, offset: usize) -> u64 {
        self.data_word(offset).load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn set_word(&self, offset: usize, value: u64) {
        self.data_word(offset).store(value, Ordering::Relaxed);
    }
    #[inline(always)]
    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.capacity && bytes.len() <= self.capacity - offset);
        // SAFETY: source is a live private slice; destination is inside the data area (asserted); private memory and the
        // mapping don't overlap. A peer may read or write these bytes meanwhile: see the assumption at `Storage`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.data.add(offset), bytes.len()) }
    }
    #[inline(always)]
    fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(offset <= self.capacity && into.len() <= self.capacity - offset);
        // SAFETY: as in `write`, the other way round: the destination is private and exclusively borrowed.
        unsafe {
            std::ptr::copy_nonoverlapping(self.data.add(offset), into.as_mut_ptr(), into.len())
        }
    }
    #[inline(always)]
    fn flag(&self, flag: Flag) -> u32 {
        self.futex(flag).load(Ordering::Relaxed)
    }
    #[inline(always)]
    fn set_flag(&self, flag: Flag, value: u32) {
        self.futex(flag).store(value, Ordering::Relaxed);
    }
    #[inline(always)]
    fn swap_flag(&self, flag: Flag, value: u32) -> u32 {
        self.futex(flag).swap(value, Ordering::Relaxed)
    }
    #[inline(always)]
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}
