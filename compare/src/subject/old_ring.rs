//! The ring of the old design: one for everybody, multi-producer and multi-consumer.
//!
//! All producers claim room on one write pointer, all consumers claim records on one read pointer, each by compare-and-swap, and each
//! publishes in the order of the claims (the scheme of the classic MP/MC rings, for instance DPDK's `rte_ring`). Kinder than the
//! account that we have of it: it looks at the pointers per record, not per byte, and keeps the two pointers on lines of their own.
//!
//! # Byte map
//! ```text
//! 0x000 write claimed u64    0x080 write published u64    0x100 read claimed u64    0x180 read released u64    0x1000 data
//! ```
//! All are free-running. A record is `length u32 | client u32 | payload`, padded to 8: who a request is from, or who a reply is for. It never
//! spans the end: a record whose client is [`PADDING`] skips to the start.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::system::Shared;

/// Bytes of data: what each direction of a single client has in the new design.
const CAPACITY: u64 = 32 << 20;
const DATA: usize = 0x1000;
const HEADER: u64 = 8;
/// Client of a record that only skips to the start.
const PADDING: u32 = u32::MAX;

/// The four pointers.
#[derive(Clone, Copy)]
enum Pointer {
    WriteClaimed = 0x000,
    WritePublished = 0x080,
    ReadClaimed = 0x100,
    ReadReleased = 0x180,
}

/// The ring, as seen from one process. Any thread may do anything.
pub(super) struct Ring(Shared);

impl Ring {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Shared::create(path, DATA + CAPACITY as usize).map(Self)
    }

    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Shared::open(path, DATA + CAPACITY as usize).map(Self)
    }

    fn pointer(&self, which: Pointer) -> &AtomicU64 {
        // SAFETY: inside the mapping (`at` checks), aligned to 8, alive as long as `self`, and only ever used atomically.
        unsafe { AtomicU64::from_ptr(self.0.at(which as usize, 8).cast()) }
    }

    fn header(&self, at: u64) -> &AtomicU64 {
        // SAFETY: as in `pointer`; all positions are multiples of 8. A reader that is late may look at
        // what has become payload: it gets nonsense, and its claim fails.
        unsafe { AtomicU64::from_ptr(self.0.at(DATA + (at % CAPACITY) as usize, 8).cast()) }
    }

    /// Sends a record; waits with `pause` while the ring is full and until those who claimed room before have published.
    pub(super) fn push(&self, client: u32, payload: &[u8], mut pause: impl FnMut()) {
        let record = HEADER + (payload.len() as u64).next_multiple_of(8);
        let claimed = self.pointer(Pointer::WriteClaimed);
        let (start, padding) = loop {
            let start = claimed.load(Ordering::Relaxed);
            let to_end = CAPACITY - start % CAPACITY;
            let padding = if record > to_end { to_end } else { 0 };
            let end = start + padding + record;
            // Acquire, partner: the Release in `publish` by whoever read there last: their reads are done.
            if end.wrapping_sub(self.pointer(Pointer::ReadReleased).load(Ordering::Acquire))
                > CAPACITY
            {
                pause();
                continue;
            }
            // Relaxed: a claim publishes nothing, it only shares out the room.
            if claimed
                .compare_exchange_weak(start, end, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                break (start, padding);
            }
            pause();
        };
        if padding > 0 {
            self.header(start).store(
                u64::from(PADDING) << 32 | (padding - HEADER),
                Ordering::Relaxed,
            );
        }
        let at = start + padding;
        self.header(at).store(
            u64::from(client) << 32 | payload.len() as u64,
            Ordering::Relaxed,
        );
        let place = self
            .0
            .at(DATA + (at % CAPACITY + HEADER) as usize, payload.len());
        // SAFETY: the claim above makes these bytes ours alone until they are published; `at` checked the bounds.
        unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), place, payload.len()) };
        self.publish(Pointer::WritePublished, start, at + record, pause);
    }

    /// Takes the next record, if `of` is a client's number only one of that client; the client and the length. Waits with `pause` only for those
    /// who claimed before.
    pub(super) fn pop(
        &self,
        of: Option<u32>,
        into: &mut [u8],
        mut pause: impl FnMut(),
    ) -> Option<(u32, usize)> {
        let claimed = self.pointer(Pointer::ReadClaimed);
        loop {
            // Acquire only to keep the next load behind this one.
            let start = claimed.load(Ordering::Acquire);
            // Acquire, partner: the Release in `publish` by the producers: the record's bytes are there.
            let published = self
                .pointer(Pointer::WritePublished)
                .load(Ordering::Acquire);
            // `published` is the younger of the two values, so it can't be behind a claim.
            if published == start {
                return None;
            }
            // May be nonsense if others have taken the record meanwhile; then the claim below fails.
            let header = self.header(start).load(Ordering::Relaxed);
            let (client, length) = ((header >> 32) as u32, header & u64::from(u32::MAX));
            let end = start + HEADER + length.next_multiple_of(8);
            if client != PADDING && of.is_some_and(|me| client != me) {
                return None;
            }
            if claimed
                .compare_exchange_weak(start, end, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
            {
                pause();
                continue;
            }
            let length = length as usize;
            if client == PADDING {
                self.publish(Pointer::ReadReleased, start, end, &mut pause);
                continue;
            }
            let place = self
                .0
                .at(DATA + (start % CAPACITY + HEADER) as usize, length);
            // SAFETY: the claim makes the record ours alone until it is released; `at` checked the bounds, the slice its own.
            unsafe { std::ptr::copy_nonoverlapping(place, into[..length].as_mut_ptr(), length) };
            self.publish(Pointer::ReadReleased, start, end, pause);
            return Some((client, length));
        }
    }

    /// Moves a published pointer from `start` to `end`, after all who claimed before.
    fn publish(&self, which: Pointer, start: u64, end: u64, mut pause: impl FnMut()) {
        let pointer = self.pointer(which);
        // Acquire, partner: the Release below by the one before: what it published is published by us too.
        while pointer.load(Ordering::Acquire) != start {
            pause();
        }
        pointer.store(end, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Yields; a test that waits for longer than any machine needs has failed.
    fn patiently() -> impl FnMut() {
        let end = Instant::now() + Duration::from_secs(60);
        move || {
            assert!(Instant::now() < end, "waited in vain");
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_record_arrives_once_and_whole_at_whom_it_is_for() {
        const EACH: u64 = 3000;
        let path = std::env::temp_dir().join(format!("compare-old-{}", std::process::id()));
        let ring = Ring::create(&path).expect("shared memory");
        std::fs::remove_file(&path).expect("the link");
        std::thread::scope(|scope| {
            for producer in 0..3u64 {
                let ring = &ring;
                scope.spawn(move || {
                    let mut wait = patiently();
                    for n in 0..EACH {
                        // Sizes that do not divide the capacity, so that records meet its end everywhere; several laps.
                        let size = 20_000 + (n % 7) as usize * 8 + producer as usize;
                        let mut payload = vec![n as u8; size];
                        payload[..8].copy_from_slice(&n.to_le_bytes());
                        payload[8..16].copy_from_slice(&producer.to_le_bytes());
                        ring.push((n % 2) as u32, &payload, &mut wait);
                    }
                });
            }
            for me in 0..2u32 {
                let ring = &ring;
                scope.spawn(move || {
                    let mut wait = patiently();
                    let mut buffer = vec![0; 30_000];
                    let mut next = [u64::from(me); 3];
                    while next.iter().any(|&n| n < EACH) {
                        let Some((client, length)) = ring.pop(Some(me), &mut buffer, &mut wait)
                        else {
                            wait();
                            continue;
                        };
                        assert_eq!(client, me);
                        let n = u64::from_le_bytes(buffer[..8].try_into().expect("8"));
                        let producer =
                            u64::from_le_bytes(buffer[8..16].try_into().expect("8")) as usize;
                        assert_eq!(n, next[producer]);
                        assert_eq!(length, 20_000 + (n % 7) as usize * 8 + producer);
                        assert!(buffer[16..length].iter().all(|&b| b == n as u8));
                        next[producer] += 2;
                    }
                });
            }
        });
    }

    #[test]
    fn a_request_says_whose_it_is_and_carries_nothing_but_the_payload() {
        let path = std::env::temp_dir().join(format!("compare-from-{}", std::process::id()));
        let ring = Ring::create(&path).expect("shared memory");
        std::fs::remove_file(&path).expect("the link");
        let nobody_waits = || panic!("alone, nobody waits");
        ring.push(7, b"ours", nobody_waits);
        ring.push(3, b"another's", nobody_waits);
        let mut buffer = [0; 16];
        assert_eq!(ring.pop(None, &mut buffer, nobody_waits), Some((7, 4)));
        assert_eq!(&buffer[..4], b"ours");
        assert_eq!(ring.pop(Some(7), &mut buffer, nobody_waits), None);
        assert_eq!(ring.pop(None, &mut buffer, nobody_waits), Some((3, 9)));
        assert_eq!(&buffer[..9], b"another's");
    }
}
