//! The SPSC ring: one producer, one consumer, records of bytes, in memory that the two do not trust each other with.
//!
//! [`plan`] is pure arithmetic, [`storage`] is bytes and atomics (a mapping, or a heap twin for models),
//! [`producer`] and [`consumer`] are the protocol. Nothing here waits, records statistics or knows about processes: calls
//! return what happened and callers decide.
//!
//! # Byte map of a connection's memory
//! ```text
//! 0x0000  request ring control (client produces, server consumes)
//!           +0x000  tail       u64   producer → consumer   end of the last committed record, free-running
//!           +0x008  produced   u64   producer → viewers    record bytes ever committed, padding not counted
//!           +0x010  cpu        u64   client → server         request ring only: where the client gave its CPU away, plus 1; 0 = it did not
//!           +0x080  full flag  u32   futex: 1 = the producer sleeps until there is room
//!           +0x100  head       u64   consumer → producer   end of the last released record, free-running
//!           +0x108  consumed   u64   consumer → viewers    record bytes ever released, padding not counted
//!           +0x180  empty flag u32   0 = awake, 1 = the consumer sleeps on this futex for a record, 2 = … for a byte from the socket
//!           +0x200  window     u64   server → producer     advice: wrap after so many bytes while the ring is nearly empty
//!           +0x208  leave      u64   server → client         reply ring only: the CPU that the server would have for itself, plus 1; 0 = none
//! 0x0400  reply ring control (server produces, client consumes), the same
//! 0x1000  request ring data, capacity bytes
//! 0x1000 + capacity  reply ring data
//! ```
//! Lines that different sides write are 128 bytes apart.
//!
//! # Records
//! ```text
//! +0  commit word u64   0 = nothing here yet; else  length (bits 0–31) | kind (32–39) | flags (40–47)
//! +8  id          u64
//! +16 payload           length bytes, then up to 7 bytes to the next multiple of 8
//! ```
//! A record never spans the end of the ring: a padding record (only its commit word) skips to the start, and the
//! producer may write one long before the end, so that a nearly empty ring is not walked end to end.
//!
//! # The protocol, and why it is right
//! * I1 The word at `tail` is 0 whenever `tail` is the place of the next record: before a record is committed, the
//!   producer zeroes the commit word *behind* it. That word is always free: a reservation needs `record + 8` bytes.
//! * I2 The producer stores a record's bytes, then the commit word with Release. The consumer loads the commit word at its
//!   own head with Acquire: seeing non-zero, it sees the bytes. It needs neither the producer's index nor its line.
//! * I3 The consumer copies a record out, then stores `head` with Release. The producer loads `head` with Acquire before it writes into
//!   bytes that head has passed: it never overwrites what is still being read.
//! * I4 `tail` is stored with Release after the commit word. A consumer that loads it with Acquire and finds it ahead of its head
//!   must find the commit word non-zero; if not, the memory was tampered with (a punched hole, a scribbling peer).
//! * I5 A large record is published in pieces: its commit word carries [`plan::STREAMED`], and `tail` then moves through the
//!   record as pieces become valid, so that the reader's copy overlaps the writer's. The reader never reads beyond `tail`.
//! * I6 Everything read from shared memory is read once into a local and bounded before use. Own indices are private copies.

pub(crate) mod consumer;
#[cfg(any(test, fuzzing))]
pub(crate) mod heap;
pub(crate) mod plan;
pub(crate) mod producer;
pub(crate) mod storage;

#[cfg(test)]
mod claims_tests;
#[cfg(test)]
mod growth_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod instant_tests;
#[cfg(test)]
mod loom_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod window_tests;
