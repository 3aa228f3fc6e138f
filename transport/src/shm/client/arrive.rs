//! Taking replies out of the ring, and those that nobody waits for out of the way.

use super::{Arrived, ShmClient};
use crate::calls::{Answered, MAX_IN_FLIGHT};
use crate::error::{Lost, MAX_ERROR_BYTES, Poison, RequestError};
use crate::record::{self, Taken};
use crate::ring::consumer::Record;
use crate::ring::plan::{Kind, STREAM_FROM_BYTES};
use crate::stats::recorder::bump;

/// Replies that one look discards at most: a server that sends nothing but replies to nobody's requests must not keep the caller
/// from its clock.
pub(super) const MAX_DISCARDED: u32 = 64;
/// Looks that pass all the replies which an honest server can leave in front of the last live one: as many as were given up.
const LOOKS_PAST_LATE: usize = 2 * MAX_IN_FLIGHT / MAX_DISCARDED as usize;

impl ShmClient {
    /// The next live reply if it is there, copied out. Late ones are discarded on the way.
    #[inline(always)]
    pub(super) fn arrived(&mut self) -> Result<Option<Arrived>, Poison> {
        for _ in 0..MAX_DISCARDED {
            let Some(record) = self.rx.peek()? else {
                return Ok(None);
            };
            if !self.copy_out(&record)? {
                return Ok(None);
            }
            if let Some(arrived) = self.accept(&record)? {
                return Ok(Some(arrived));
            }
        }
        Ok(None)
    }

    /// The connection is over, and nothing more will be committed: what was is still an answer, however many late ones stand in front of it. A look
    /// that discarded all it may has not seen the end of the ring. The looks are bounded: a server whose socket has ended may still write.
    #[cold]
    #[inline(never)]
    pub(super) fn left_behind<T>(
        &mut self,
        take: &impl Fn(&mut Self) -> Result<Option<T>, Poison>,
        end: Lost,
    ) -> Result<T, RequestError> {
        for _ in 0..LOOKS_PAST_LATE {
            match take(self) {
                Ok(Some(arrived)) => {
                    // Else the next call would send a request, wait for the answer, and find out again; this one can say that nothing was sent.
                    if self.calls.live() == 0 {
                        self.lose(end);
                    }
                    return Ok(arrived);
                }
                Ok(None) if self.rx.is_ready() => {}
                Ok(None) => break,
                Err(poison) => return Err(self.lose(Lost::Poisoned(poison))),
            }
        }
        Err(self.lose(end))
    }

    /// Copies a reply into the buffer, unless it is a large one that nobody waits for: 64 of those in each of 64 looks, which have no clock in
    /// between, would be minutes, and still be many seconds if each was followed while it creeps in. `Ok(false)` as in
    /// [`crate::ring::consumer::Consumer::read`].
    #[inline(always)]
    pub(super) fn copy_out(&mut self, record: &Record) -> Result<bool, Poison> {
        if self.is_costly_for_nobody(record) {
            return self.rx.is_there(record);
        }
        self.rx.read(record, &mut self.buffer)
    }

    /// Whether a reply that nobody waits for would take long to copy or to follow.
    #[inline(always)]
    pub(super) fn is_costly_for_nobody(&mut self, record: &Record) -> bool {
        // By what is in registers first: a small reply is copied in less time than its request is looked up.
        (record.length >= STREAM_FROM_BYTES || record.is_streamed())
            && !self.calls.is_live(record.id)
    }

    #[inline(always)]
    fn accept(&mut self, record: &Record) -> Result<Option<Arrived>, Poison> {
        self.is_error(record)?;
        self.release(record);
        Ok(self.answer(record))
    }

    /// Whether a record is an error's text, and not a reply. Nothing else may come from a server.
    #[inline(always)]
    pub(super) fn is_error(&self, record: &Record) -> Result<bool, Poison> {
        if record.kind == Kind::Reply {
            return Ok(false);
        }
        self.checked_error(record).map(|()| true)
    }

    #[cold]
    fn checked_error(&self, record: &Record) -> Result<(), Poison> {
        let index = self.rx.index();
        if record.kind != Kind::Error {
            let kind = record.kind as u32;
            return Err(Poison::RecordKind { kind, index });
        }
        // Its text is made a `String`, in which a byte may become three: not of a message's size.
        if record.length > MAX_ERROR_BYTES {
            let length = record.length as u64;
            return Err(Poison::RecordLength { length, index });
        }
        Ok(())
    }

    /// Gives a record back to the server.
    #[inline(always)]
    pub(super) fn release(&mut self, record: &Record) {
        let released = self.rx.release(record);
        self.released += released.record;
        record::released(&self.slot, &self.rx, released, record.length);
        if self.released > self.tx.plan().capacity() / 8 {
            self.ring_bell();
        }
    }

    /// Matches a reply to its request.
    #[inline(always)]
    pub(super) fn answer(&mut self, record: &Record) -> Option<Arrived> {
        match self.calls.answer(record.id) {
            Answered::Live(timed) => {
                record::taken(&self.slot, &mut self.rx, Taken::Live);
                if let Some(timed) = timed {
                    self.timing.replied(&self.slot, timed);
                }
                Some(Arrived {
                    id: record.id,
                    length: record.length,
                    failed: record.kind == Kind::Error,
                })
            }
            Answered::Late => {
                record::taken(&self.slot, &mut self.rx, Taken::Void);
                bump(&self.slot.req().late_replies, 1);
                None
            }
            Answered::Unknown => {
                record::taken(&self.slot, &mut self.rx, Taken::Void);
                bump(&self.slot.rx().rx_invalid, 1);
                None
            }
        }
    }

    /// Discards replies to requests that were given up, up to the first that somebody waits for; how many. Without this, a caller who
    /// gave all up would find the connection full and nothing to receive, for ever.
    #[cold]
    pub(super) fn discard_late(&mut self) -> Result<u32, RequestError> {
        let mut discarded = 0;
        while discarded < MAX_IN_FLIGHT as u32 {
            match self.discard_one() {
                Ok(true) => discarded += 1,
                Ok(false) => break,
                Err(poison) => return Err(self.lose(Lost::Poisoned(poison))),
            }
        }
        Ok(discarded)
    }

    fn discard_one(&mut self) -> Result<bool, Poison> {
        let Some(record) = self.rx.peek()? else {
            return Ok(false);
        };
        if self.calls.is_live(record.id) || !self.rx.is_there(&record)? {
            return Ok(false);
        }
        self.accept(&record).map(|_| true)
    }
}
