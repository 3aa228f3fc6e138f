//! The page for its owner: created once per `Membrane` and once per process for all its `Synapse`s.
//!
//! Creating it can't fail: where a memfd can't be had, the counters live in private memory and the reason
//! is kept ([`PageWriter::unpublished`]). Hands out slots; left out are the slots' words ([`super::slot`]) and the
//! announcement ([`super::registry`]). The page is gone when the last holder (slots included) is.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};

use super::memory::Memory;
use super::schema::{self, Descriptor, HISTOGRAM_HEADS, HISTOGRAMS, Kind, ProcessWords, header};
use super::slot::{SlotWriter, text_words};
use super::snapshot::{Role, SlotKind};
use super::words::{HeaderWords, SlotWords};
use crate::clock::{monotonic_ns, uses_tsc};
use crate::error::Step;
use crate::process::start_ticks;

/// How long a closed slot stays readable if there is any other to take: some looks of a slow viewer.
const KEEP_CLOSED_NS: u64 = 10_000_000_000;

/// What a page says about its process.
#[derive(Clone, Debug)]
pub struct PageDescription<'a> {
    /// Endpoint name; cut to 63 bytes.
    pub name: &'a str,
    /// Server or client.
    pub role: Role,
    /// The server's socket; cut to 127 bytes (a socket address has 107).
    pub socket_path: &'a Path,
    /// Most connection sides and pollers at one time. Only slots in use take memory.
    pub slots: usize,
}

/// See the module.
#[derive(Debug)]
pub struct PageWriter {
    memory: Memory,
    slots: u32,
    free: Mutex<FreeList>,
    unpublished: Option<(Step, i32)>,
}

#[derive(Debug, Default)]
struct FreeList {
    /// Slots from here on were never used.
    fresh: u32,
    /// Closed ones with the time of their closing, the longest closed first.
    closed: VecDeque<(u64, u32)>,
}

impl FreeList {
    /// The longest closed slot if viewers had their time with it, else one never used, else the longest closed.
    fn take(&mut self, slots: u32, now_ns: u64) -> Option<u32> {
        let rested =
            |&(closed_ns, _): &(u64, u32)| now_ns.saturating_sub(closed_ns) >= KEEP_CLOSED_NS;
        if self.fresh < slots && !self.closed.front().is_some_and(rested) {
            self.fresh += 1;
            return Some(self.fresh - 1);
        }
        self.closed.pop_front().map(|(_, index)| index)
    }
}

impl PageWriter {
    /// Creates the page. Without a memfd the rest works the same, unseen.
    pub fn create(description: &PageDescription<'_>) -> Arc<Self> {
        let slots = description.slots.min(schema::MAX_SLOTS);
        let wanted = schema::SLOTS_OFFSET + slots * schema::SLOT_STRIDE;
        let (memory, unpublished) = Memory::new(schema::SLOTS_OFFSET, wanted);
        let slots = (memory.bytes() - schema::SLOTS_OFFSET) / schema::SLOT_STRIDE;
        let page = Self {
            memory,
            slots: slots as u32,
            free: Mutex::default(),
            unpublished,
        };
        page.write_header(description);
        page.write_descriptors();
        // Release: partner of the Acquire fence after a reader's load of the magic, so that who sees the magic sees the
        // header and the table.
        page.header().words[header::MAGIC].store(schema::MAGIC, Release);
        Arc::new(page)
    }

    /// Why no viewer can see this page: the step that failed and its errno. `None` if they can.
    pub fn unpublished(&self) -> Option<(Step, i32)> {
        self.unpublished
    }

    /// The memfd; viewers find the page through it, so it stays open. `None` if unpublished.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.memory.fd()
    }

    /// Slots there are in all.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// False in a forked child, where the words are not mapped.
    pub fn is_ours(&self) -> bool {
        self.memory.is_ours()
    }

    /// The process-wide counters; not to be touched in a forked child, see [`Self::is_ours`]. Several threads of a server write them: atomic
    /// additions and maxima for what the threads that do handshakes count, plain stores for what is the control thread's alone.
    pub fn process(&self) -> &ProcessWords {
        &self.header().process.0
    }

    /// A slot, zeroed and marked as handshaking. `None` when all are in use, or in a forked child:
    /// [`SlotWriter::private`] then does.
    pub fn slot(self: &Arc<Self>, kind: SlotKind) -> Option<SlotWriter> {
        if !self.is_ours() {
            return None;
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let index = free.take(self.slots, monotonic_ns())?;
        // SAFETY: `index < slots`, so the slot ends within the memory (see `create`); SLOTS_OFFSET and SLOT_STRIDE are
        // multiples of 4096 and the base is too (I1), so it is aligned.
        let words = unsafe {
            self.memory
                .base()
                .add(schema::SLOTS_OFFSET + index as usize * schema::SLOT_STRIDE)
                .cast::<SlotWords>()
        };
        let slot = SlotWriter::in_page(self.clone(), words, index, kind);
        let used = &self.header().words[header::SLOTS_USED];
        // Under the lock, hence one writer. Readers that come too early see the slot the next time.
        used.store(used.load(Relaxed).max(u64::from(index) + 1), Relaxed);
        Some(slot)
    }

    /// [`SlotWriter`] on drop, in the owner's process only.
    pub(super) fn give_back(&self, index: u32) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.closed.push_back((monotonic_ns(), index));
    }

    fn header(&self) -> &HeaderWords {
        // SAFETY: the memory has at least SLOTS_OFFSET bytes, is aligned and mapped while `self` lives (I1), was zero, which
        // is a valid `HeaderWords` (I2), and is touched through atomics only. Not in a forked child, of which I1 says nothing: a server's own threads
        // are not there, `slot` refuses, and calls of a `Membrane` or a `Synapse` look for a fork before anything else.
        unsafe { self.memory.base().cast::<HeaderWords>().as_ref() }
    }

    fn write_header(&self, description: &PageDescription<'_>) {
        let words = &self.header().words;
        let put = |word: usize, value: u64| words[word].store(value, Relaxed);
        let text = |word: usize, text: &str, bytes: usize| {
            // One byte stays zero, for who reads it as a C string.
            let end = text.floor_char_boundary(bytes - 1);
            for (i, value) in text_words(&text[..end], bytes).enumerate() {
                put(word + i, value);
            }
        };
        put(
            header::VERSION,
            u64::from(schema::VERSION_MAJOR) << 32 | u64::from(schema::VERSION_MINOR),
        );
        put(
            header::PAGE_BYTES,
            (schema::SLOTS_OFFSET + self.slots as usize * schema::SLOT_STRIDE) as u64,
        );
        put(header::SLOTS_OFFSET, schema::SLOTS_OFFSET as u64);
        put(header::SLOT_COUNT, self.slots.into());
        put(header::SLOT_STRIDE, schema::SLOT_STRIDE as u64);
        put(header::DESCRIPTOR_COUNT, schema::DESCRIPTOR_COUNT as u64);
        put(header::PID, std::process::id().into());
        put(header::START_TICKS, start_ticks("self").unwrap_or(0));
        put(header::UID, nix::unistd::geteuid().as_raw().into());
        put(header::ROLE, description.role as u64);
        put(
            header::BUILD_FLAGS,
            u64::from(cfg!(debug_assertions)) | u64::from(uses_tsc()) << 1,
        );
        put(header::CREATED_MONOTONIC_NS, monotonic_ns());
        put(header::CREATED_REALTIME_NS, realtime_ns());
        put(
            header::PID_NS_INODE,
            std::fs::metadata("/proc/self/ns/pid").map_or(0, |m| m.ino()),
        );
        for (i, word) in boot_id().into_iter().enumerate() {
            put(header::BOOT_ID + i, word);
        }
        text(header::NAME, description.name, 64);
        text(
            header::SOCKET_PATH,
            &description.socket_path.to_string_lossy(),
            128,
        );
        text(header::LIBRARY, env!("CARGO_PKG_VERSION"), 16);
    }

    fn write_descriptors(&self) {
        let heads = HISTOGRAMS.iter().zip(HISTOGRAM_HEADS);
        let plain = schema::descriptors().map(|d| (d, 0));
        let rows = plain.chain(heads);
        let stored = rows.filter_map(|(d, head)| d.offset.map(|offset| (d, offset, head)));
        for (i, (descriptor, at, head)) in stored.enumerate() {
            let offset = schema::DESCRIPTORS_OFFSET + i * schema::DESCRIPTOR_BYTES;
            for (j, word) in encode(descriptor, at, head).into_iter().enumerate() {
                // SAFETY: `i < DESCRIPTOR_COUNT`, so the word lies before SLOTS_OFFSET, within the memory (I1), and is aligned to
                // 8. Whoever has found the memfd already can only load it.
                let place = unsafe {
                    self.memory
                        .base()
                        .add(offset + j * 8)
                        .cast::<AtomicU64>()
                        .as_ref()
                };
                // Relaxed: the magic, stored later, publishes it.
                place.store(word, Relaxed);
            }
        }
    }
}

/// A descriptor as it stands in the page; see the byte map in [`schema`].
fn encode(d: &Descriptor, offset: usize, head: usize) -> [u64; schema::DESCRIPTOR_BYTES / 8] {
    debug_assert!((d.kind == Kind::Histogram) == (head != 0));
    let mut words = [0; schema::DESCRIPTOR_BYTES / 8];
    for (i, word) in text_words(d.name, schema::NAME_BYTES).enumerate() {
        words[i] = word;
    }
    words[5] =
        d.kind as u64 | (d.unit as u64) << 8 | (d.scope as u64) << 16 | (offset as u64) << 32;
    words[6] = head as u64;
    for (i, word) in text_words(d.help, schema::HELP_BYTES).enumerate() {
        words[7 + i] = word;
    }
    words
}

/// The boot id's 16 bytes as two words; zeros if /proc is not there.
fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&hex, 16).unwrap_or(0).to_be_bytes();
    [0, 8].map(|at| {
        id[at..at + 8]
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
    })
}

fn realtime_ns() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64)
}

const _: () = assert!(
    std::mem::size_of::<NonNull<SlotWords>>() == 8,
    "a page is for 64-bit hosts"
);
