//! What a handler writes its answer into: straight into the reply ring, or into the buffer of a socket connection.

use std::io;

use crate::ring::plan::Kind;
use crate::ring::producer::{Sent, Slot};
use crate::ring::storage::Mapped;

/// Longest error text that goes to a client, in bytes.
pub(crate) const MAX_ERROR_BYTES: usize = 1024;

/// The reply is larger than the connection's largest message; nothing of this piece was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("reply of {size} bytes is above the largest allowed ({limit})")]
pub struct ReplyTooLarge {
    /// What it would have been.
    pub size: usize,
    /// The limit.
    pub limit: usize,
}

/// A reply being written. What was appended when the handler returns is sent; an empty reply is legal.
///
/// Bytes go straight into shared memory and can't be read back: the client may already see (and scribble on) them.
pub struct Reply<'a> {
    sink: Sink<'a>,
    failed: bool,
}

pub(crate) enum Sink<'a> {
    Ring(RingSink<'a>),
    /// A buffer whose capacity is the largest message; it never grows.
    Buffer(&'a mut Vec<u8>, usize),
}

/// A record being written in the ring, until it outgrows its place; then a private buffer, sent when there is room.
pub(crate) struct RingSink<'a> {
    slot: Option<Slot<'a, Mapped>>,
    /// Used only then: allocated the first time, and kept.
    spill: &'a mut Vec<u8>,
    limit: usize,
}

impl<'a> RingSink<'a> {
    pub(crate) fn new(slot: Slot<'a, Mapped>, spill: &'a mut Vec<u8>, limit: usize) -> Self {
        Self {
            slot: Some(slot),
            spill,
            limit,
        }
    }

    fn len(&self) -> usize {
        self.slot.as_ref().map_or(self.spill.len(), Slot::written)
    }

    fn clear(&mut self) {
        match &mut self.slot {
            Some(slot) => slot.clear(),
            None => self.spill.clear(),
        }
    }

    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        if let Some(slot) = &mut self.slot {
            if slot.try_write(bytes) {
                return;
            }
            slot.read_back(self.spill);
            self.slot = None;
        }
        self.spill.extend_from_slice(bytes);
    }
}

/// What became of a finished reply.
pub(crate) enum Finished {
    /// It is in the ring.
    Sent(Sent),
    /// It stands in the buffer, to be sent by its owner.
    Buffered(Kind),
}

impl std::fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("len", &self.len())
            .field("failed", &self.failed)
            .finish()
    }
}

impl<'a> Reply<'a> {
    pub(crate) fn new(sink: Sink<'a>) -> Self {
        Self {
            sink,
            failed: false,
        }
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        match &self.sink {
            Sink::Ring(ring) => ring.len(),
            Sink::Buffer(buffer, _) => buffer.len(),
        }
    }

    /// True if nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that may still be appended.
    pub fn remaining(&self) -> usize {
        match &self.sink {
            Sink::Ring(ring) => ring.limit - ring.len(),
            Sink::Buffer(buffer, limit) => limit - buffer.len(),
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the reply would exceed the connection's largest message. What was appended before stays.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), ReplyTooLarge> {
        if bytes.len() > self.remaining() {
            return Err(ReplyTooLarge {
                size: self.len().saturating_add(bytes.len()),
                limit: self.len() + self.remaining(),
            });
        }
        match &mut self.sink {
            Sink::Ring(ring) => ring.write(bytes),
            Sink::Buffer(buffer, _) => buffer.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Turns the reply into an error with this text (cut at 1 KiB); what was appended is dropped. The client's call returns
    /// [`crate::error::RequestError::Remote`].
    pub fn fail(&mut self, message: impl std::fmt::Display) {
        let text = message.to_string();
        let mut end = text
            .len()
            .min(MAX_ERROR_BYTES)
            .min(self.len() + self.remaining());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        match &mut self.sink {
            Sink::Ring(ring) => {
                ring.clear();
                ring.write(&text.as_bytes()[..end]);
            }
            Sink::Buffer(buffer, _) => {
                buffer.clear();
                buffer.extend_from_slice(&text.as_bytes()[..end]);
            }
        }
        self.failed = true;
    }

    /// True once [`Self::fail`] was called.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Sends a reply that stands in the ring.
    pub(crate) fn finish(self, id: u64) -> Finished {
        let kind = if self.failed {
            Kind::Error
        } else {
            Kind::Reply
        };
        match self.sink {
            Sink::Ring(RingSink {
                slot: Some(slot), ..
            }) => Finished::Sent(slot.commit(kind, id)),
            Sink::Ring(_) | Sink::Buffer(..) => Finished::Buffered(kind),
        }
    }
}

impl io::Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.remaining());
        if n == 0 && !bytes.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the reply has reached the largest message",
            ));
        }
        self.extend_from_slice(&bytes[..n])
            .map_err(io::Error::other)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
