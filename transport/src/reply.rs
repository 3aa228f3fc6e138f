//! What a handler writes its answer into: straight into the reply ring, or into the buffer of a socket connection.

use std::io;

use crate::ring::plan::{Kind, STREAM_FROM_BYTES};
use crate::ring::producer::Slot;
use crate::ring::storage::Mapped;

/// Longest error text that goes to a client, in bytes.
pub(crate) const MAX_ERROR_BYTES: usize = 1024;

/// Why bytes were not added to a reply. Nothing of them was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// It would be larger than the connection's largest message.
    #[error("reply of {size} bytes is above the largest allowed ({limit})")]
    TooLarge {
        /// What it would have been, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// [`Reply::send`] has answered: the client may have read it.
    #[error("the reply was sent already")]
    AlreadySent,
    /// [`Reply::fail`] has answered: behind its text nothing else can stand.
    #[error("the reply is an error already")]
    Failed,
    /// It does not fit into the ring as it stands, and there is no memory for a buffer in which it could wait for room.
    #[error("no memory for a reply of {size} bytes, which would wait for room")]
    NoMemory {
        /// What it would have been, in bytes.
        size: usize,
    },
}

/// A reply being written. What was appended when the handler returns is sent; an empty reply is legal.
///
/// Bytes go straight into shared memory and can't be read back: the client may already see (and scribble on) them.
pub struct Reply<'a> {
    sink: Sink<'a>,
    failed: bool,
    /// [`Reply::send`] was called: nothing can change any more.
    whole: bool,
}

pub(crate) enum Sink<'a> {
    Ring(RingSink<'a>),
    /// A buffer whose capacity is the largest message; it never grows.
    Buffer(&'a mut Vec<u8>, usize),
}

/// A record being written in the ring, until it outgrows its place; then a private buffer, sent when there is room.
pub(crate) struct RingSink<'a> {
    slot: Slot<'a, Mapped>,
    stage: Stage,
    /// Used only then: allocated the first time, for the largest message if there is so much, and kept.
    spill: &'a mut Vec<u8>,
    limit: usize,
    /// The request's.
    id: u64,
}

/// Where the bytes of a [`RingSink`] are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In the slot, to be committed.
    Slot,
    /// In the private buffer; the slot is void.
    Spill,
    /// With the client, all of them; the slot tells how many.
    Sent,
}

impl<'a> RingSink<'a> {
    pub(crate) fn new(
        slot: Slot<'a, Mapped>,
        spill: &'a mut Vec<u8>,
        limit: usize,
        id: u64,
    ) -> Self {
        Self {
            slot,
            stage: Stage::Slot,
            spill,
            limit,
            id,
        }
    }

    fn len(&self) -> usize {
        match self.stage {
            Stage::Slot | Stage::Sent => self.slot.written(),
            Stage::Spill => self.spill.len(),
        }
    }

    fn clear(&mut self) {
        match self.stage {
            Stage::Slot => self.slot.clear(),
            Stage::Spill => self.spill.clear(),
            Stage::Sent => {}
        }
    }

    /// Sends the whole answer, piece by piece if it is large: the client then reads while we write. False as in [`Self::write`].
    fn send(&mut self, bytes: &[u8]) -> bool {
        let streams = bytes.len() >= STREAM_FROM_BYTES
            && self.stage == Stage::Slot
            && self.slot.written() == 0
            && self.slot.fits(bytes.len());
        if streams {
            self.slot.stream(Kind::Reply, self.id, bytes);
            self.stage = Stage::Sent;
            true
        } else {
            self.write(bytes)
        }
    }

    /// Appends bytes; false if there is no memory for them, and nothing was. In a register: a `Result` would be handed on through memory.
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> bool {
        if self.stage == Stage::Slot {
            if self.slot.try_write(bytes) {
                return true;
            }
            if !self.outgrow(bytes.len()) {
                return false;
            }
        }
        // Never by a failure to allocate: that would end the whole server, for one client too many.
        if self.spill.try_reserve(bytes.len()).is_err() {
            return false;
        }
        self.spill.extend_from_slice(bytes);
        true
    }

    /// Goes on in the private buffer, with room for `more` bytes; false if there is no memory for that.
    #[cold]
    fn outgrow(&mut self, more: usize) -> bool {
        // For the largest message at once, so that it need not grow again; where that can't be had, for what is there.
        let enough = self.slot.written() + more;
        if self.spill.try_reserve_exact(self.limit).is_err()
            && self.spill.try_reserve(enough).is_err()
        {
            return false;
        }
        self.slot.read_back(self.spill);
        self.stage = Stage::Spill;
        true
    }
}

/// What became of a finished reply.
pub(crate) enum Finished {
    /// It is in the ring.
    Sent,
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
            whole: false,
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
            _ if self.whole || self.failed => 0,
            Sink::Ring(ring) => ring.limit - ring.len(),
            Sink::Buffer(buffer, limit) => limit - buffer.len(),
        }
    }

    /// The connection's largest message.
    fn limit(&self) -> usize {
        match &self.sink {
            Sink::Ring(ring) => ring.limit,
            Sink::Buffer(_, limit) => *limit,
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the reply would exceed the connection's largest message, was sent already or has failed, or if there is no memory. What was
    /// appended before stays.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        if bytes.len() > self.remaining() {
            return Err(self.refusal(bytes.len()));
        }
        match &mut self.sink {
            Sink::Ring(ring) => {
                if !ring.write(bytes) {
                    return Err(self.no_memory(bytes.len()));
                }
            }
            Sink::Buffer(buffer, _) => buffer.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Answers with these bytes, at once: a large answer is read by the client while it is being copied, so this is quicker than
    /// [`Self::extend_from_slice`]. A client that sleeps is woken when the handler returns, so let that be soon. Nothing can be appended
    /// afterwards, and it is too late to [`Self::fail`].
    ///
    /// # Errors
    /// If the reply would exceed the connection's largest message, was sent already or has failed, or if there is no memory. Nothing
    /// changes then.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        if self.whole || self.failed {
            return Err(self.refusal(bytes.len()));
        }
        match &mut self.sink {
            Sink::Ring(ring) if bytes.len() <= ring.limit - ring.len() => {
                if !ring.send(bytes) {
                    return Err(self.no_memory(bytes.len()));
                }
            }
            _ => self.extend_from_slice(bytes)?,
        }
        self.whole = true;
        Ok(())
    }

    #[cold]
    fn no_memory(&self, more: usize) -> ReplyError {
        ReplyError::NoMemory {
            size: self.len().saturating_add(more),
        }
    }

    /// Why no `more` bytes fit.
    #[cold]
    fn refusal(&self, more: usize) -> ReplyError {
        if self.whole {
            ReplyError::AlreadySent
        } else if self.failed {
            ReplyError::Failed
        } else {
            ReplyError::TooLarge {
                size: self.len().saturating_add(more),
                limit: self.limit(),
            }
        }
    }

    /// Turns the reply into an error with this text (cut at 1 KiB); what was appended is dropped, and nothing can be appended any more: to
    /// fail again is to say it in other words. The client's call returns [`crate::error::RequestError::Remote`].
    pub fn fail(&mut self, message: impl std::fmt::Display) {
        if self.whole {
            return;
        }
        let text = message.to_string();
        let mut end = text.len().min(MAX_ERROR_BYTES).min(self.limit());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        match &mut self.sink {
            Sink::Ring(ring) => {
                ring.clear();
                if !ring.write(&text.as_bytes()[..end]) {
                    // No room and no memory: an error without a text is one, too.
                    ring.clear();
                }
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

    /// Sends a reply that stands in the ring. By reference: what is moved is copied, as a whole, and waits for what was just written to it.
    #[inline]
    pub(crate) fn finish(&mut self, id: u64) -> Finished {
        let kind = if self.failed {
            Kind::Error
        } else {
            Kind::Reply
        };
        match &mut self.sink {
            Sink::Ring(ring) if ring.stage == Stage::Slot => {
                ring.slot.commit(kind, id);
                ring.stage = Stage::Sent;
                Finished::Sent
            }
            Sink::Ring(ring) if ring.stage == Stage::Sent => Finished::Sent,
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
                self.refusal(bytes.len()),
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use super::*;
    use crate::mem::mapping::Mapping;
    use crate::mem::memfd::{RING_NAME, create_rings};
    use crate::ring::storage::connection_bytes;
    use crate::shm::Rings;

    #[test]
    fn where_there_is_no_memory_for_what_outgrows_its_place_the_handler_is_told_and_an_error_goes_out()
     {
        const CAPACITY: usize = 4096;
        /// More than any address space has.
        const LIMIT: usize = isize::MAX as usize;
        const TOO_MUCH: &[u8] = &[0; 2000];
        let (fd, _) = create_rings(RING_NAME, connection_bytes(CAPACITY), false).expect("memory");
        let mapping = Mapping::shared(fd.as_fd(), connection_bytes(CAPACITY)).expect("mapped");
        let mapping = Arc::new(mapping);
        let mut server = Rings::server(&mapping, CAPACITY, 1024);
        let mut client = Rings::client(&mapping, CAPACITY, 1024);
        let mut spill = Vec::new();
        // Where only the largest message finds no memory, one that is there does.
        {
            let place = server.tx.reserve(8).expect("room");
            let mut reply = Reply::new(Sink::Ring(RingSink::new(place, &mut spill, LIMIT, 6)));
            reply.extend_from_slice(b"as far").expect("room");
            reply.extend_from_slice(TOO_MUCH).expect("memory");
            assert!(matches!(reply.finish(6), Finished::Buffered(Kind::Reply)));
            assert_eq!(reply.len(), 2006);
        }
        assert_eq!((&spill[..6], &spill[6..]), (&b"as far"[..], TOO_MUCH));
        spill.clear();
        let place = server.tx.reserve(8).expect("room");
        let mut reply = Reply::new(Sink::Ring(RingSink::new(place, &mut spill, LIMIT, 7)));
        reply.extend_from_slice(b"as far").expect("room");
        // Nobody has so much, and nothing of it is looked at before there is a place for it.
        let Sink::Ring(ring) = &mut reply.sink else {
            unreachable!("made so");
        };
        assert!(!ring.outgrow(LIMIT - 6));
        assert_eq!(reply.len(), 6, "nothing was moved");
        reply.fail("no memory");
        assert!(matches!(reply.finish(7), Finished::Sent));
        let record = client.rx.peek().expect("sense").expect("a record");
        assert_eq!((record.kind, record.id), (Kind::Error, 7));
        let mut text = [0; 1024];
        assert!(client.rx.read(&record, &mut text).expect("sense"));
        assert_eq!(&text[..record.length], b"no memory");
    }
}
