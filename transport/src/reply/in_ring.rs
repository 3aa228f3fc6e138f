//! A reply that is written where the client will read it, until it outgrows its place.

use super::Client;
use crate::ring::plan::{Kind, STREAM_FROM_BYTES};
use crate::ring::producer::Slot;
use crate::ring::storage::Mapped;

/// A record being written in the ring, until it outgrows its place; then a private buffer, sent when there is room.
pub(crate) struct RingSink<'a> {
    pub(super) slot: Slot<'a, Mapped>,
    pub(super) stage: Stage,
    /// Used only then, and its owner's to keep or give back.
    spill: &'a mut Vec<u8>,
    pub(super) client: &'a Client,
    /// The request's.
    id: u64,
}

/// Where the bytes of a [`RingSink`] are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
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
        client: &'a Client,
        id: u64,
    ) -> Self {
        Self {
            slot,
            stage: Stage::Slot,
            spill,
            client,
            id,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self.stage {
            Stage::Slot | Stage::Sent => self.slot.written(),
            Stage::Spill => self.spill.len(),
        }
    }

    pub(super) fn clear(&mut self) {
        match self.stage {
            Stage::Slot => self.slot.clear(),
            Stage::Spill => self.spill.clear(),
            Stage::Sent => {}
        }
    }

    /// Sends the whole answer, piece by piece if it is large: the client then reads while we write. False as in [`Self::write`].
    pub(super) fn send(&mut self, bytes: &[u8]) -> bool {
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
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        if self.stage == Stage::Slot {
            if self.slot.try_write(bytes) {
                return true;
            }
            if !self.outgrow(bytes.len()) {
                return false;
            }
        }
        if !self.reserve(bytes.len()) {
            return false;
        }
        self.spill.extend_from_slice(bytes);
        true
    }

    /// Room for `more` bytes in the private buffer: twice what it had, or, where that can't be had, as much as is needed. Never by a failure to
    /// allocate: that would end the whole server, for one client too many.
    fn reserve(&mut self, more: usize) -> bool {
        self.spill.try_reserve(more).is_ok() || self.spill.try_reserve_exact(more).is_ok()
    }

    /// Goes on in the private buffer, with room for `more` bytes; false if there is no memory for that.
    #[cold]
    fn outgrow(&mut self, more: usize) -> bool {
        if !self.reserve(self.slot.written() + more) {
            return false;
        }
        self.slot.read_back(self.spill);
        self.stage = Stage::Spill;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use super::super::{Finished, Reply, Sink};
    use super::*;
    use crate::mem::mapping::Mapping;
    use crate::mem::memfd::{RING_NAME, create_rings};
    use crate::peer::Peer;
    use crate::ring::storage::connection_bytes;
    use crate::shm::Rings;

    #[test]
    fn where_there_is_no_memory_for_what_outgrows_its_place_the_handler_is_told_and_an_error_goes_out()
     {
        const CAPACITY: usize = 4096;
        /// More than any address space has.
        const LIMIT: usize = isize::MAX as usize;
        const CLIENT: Client = Client {
            peer: Peer::NOBODY,
            max_message: LIMIT,
        };
        const TOO_MUCH: &[u8] = &[0; 2000];
        let (fd, _) = create_rings(RING_NAME, connection_bytes(CAPACITY), false).expect("memory");
        let mapping = Mapping::shared(fd.as_fd(), connection_bytes(CAPACITY)).expect("mapped");
        let mapping = Arc::new(mapping);
        let mut server = Rings::server(&mapping, CAPACITY, 1024);
        let mut client = Rings::client(&mapping, CAPACITY, 1024);
        let mut spill = Vec::new();
        // As much as is needed is taken, not the largest message.
        {
            let place = server.tx.reserve(8).expect("room");
            let large = Client {
                max_message: 1 << 20,
                ..CLIENT
            };
            let mut reply = Reply::new(Sink::Ring(RingSink::new(place, &mut spill, &large, 6)));
            reply.extend_from_slice(b"as far").expect("room");
            reply.extend_from_slice(TOO_MUCH).expect("memory");
            assert!(matches!(reply.finish(6), Finished::Buffered(Kind::Reply)));
            assert_eq!(reply.len(), 2006);
        }
        assert_eq!((&spill[..6], &spill[6..]), (&b"as far"[..], TOO_MUCH));
        assert!(spill.capacity() < 2 * spill.len(), "{}", spill.capacity());
        spill.clear();
        let place = server.tx.reserve(8).expect("room");
        let mut reply = Reply::new(Sink::Ring(RingSink::new(place, &mut spill, &CLIENT, 7)));
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
