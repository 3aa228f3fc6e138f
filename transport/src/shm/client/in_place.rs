//! Replies read where they lie.

use super::ShmClient;
use super::arrive::MAX_DISCARDED;
use crate::calls::RequestId;
use crate::error::{Poison, RequestError};
use crate::mem::fork;
use crate::ring::consumer::Record;

/// A reply in hand: answered for, and its record not given back, unless it is an error's, whose text is in the buffer.
#[derive(Debug)]
pub(crate) struct Lying {
    record: Record,
    failed: bool,
}

impl Lying {
    /// Its bytes.
    pub(super) fn length(&self) -> usize {
        self.record.length
    }
}

impl ShmClient {
    /// Sends a request and takes its reply in hand, until [`Self::give_back`].
    #[inline]
    pub(crate) fn fire_in_hand(&mut self, request: &[u8]) -> Result<Lying, RequestError> {
        let lying = self.fire_and(request, Self::lying)?;
        self.unless_failed(lying)
    }

    /// Waits for the next reply and takes it in hand, until [`Self::give_back`].
    #[inline]
    pub(crate) fn receive_in_hand(&mut self) -> Result<(RequestId, Lying), RequestError> {
        let lying = self.await_reply(Self::lying)?;
        let id = RequestId(lying.record.id);
        self.unless_failed(lying).map(|lying| (id, lying))
    }

    #[inline]
    fn unless_failed(&self, lying: Lying) -> Result<Lying, RequestError> {
        let length = lying.record.length.min(self.buffer.len());
        self.deliver(lying.record.id, length, lying.failed)?;
        Ok(lying)
    }

    /// The next live reply if it is there, whole, still in the ring.
    #[inline(always)]
    fn lying(&mut self) -> Result<Option<Lying>, Poison> {
        for _ in 0..MAX_DISCARDED {
            let Some(record) = self.rx.peek()? else {
                return Ok(None);
            };
            let failed = self.is_error(&record)?;
            let whole = if failed {
                self.copy_out(&record)?
            } else if self.is_costly_for_nobody(&record) {
                self.rx.is_there(&record)?
            } else {
                self.rx.is_whole(&record)?
            };
            if !whole {
                return Ok(None);
            }
            let live = self.answer(&record).is_some();
            if failed || !live {
                self.release(&record);
            }
            if live {
                return Ok(Some(Lying { record, failed }));
            }
        }
        Ok(None)
    }

    /// The bytes of a reply in hand.
    ///
    /// # Safety
    /// The server does not write to them for as long as the slice lives.
    #[inline]
    pub(crate) unsafe fn bytes_in_hand(&self, lying: &Lying) -> &[u8] {
        let at = self.rx.payload_offset();
        // SAFETY: the caller's promise; our side never writes to the server's ring. The record is the one at the ring's head still, which was
        // checked to lie within it and is whole: `lying` is given back before anything else is taken.
        unsafe { self.rx.storage().bytes(at, lying.record.length) }
    }

    /// False in a forked child: the rings are not mapped there.
    #[inline]
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.generation == fork::generation()
    }

    /// Gives a reply in hand back to the server.
    #[inline]
    pub(crate) fn give_back(&mut self, lying: &Lying) {
        if self.is_of_this_process() {
            self.release(&lying.record);
        }
    }
}
