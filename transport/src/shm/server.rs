//! The server's half of one shared-memory connection: take requests, run the handler, answer in place.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::inbox::Ends;
use super::link::{Rings, alive, ring};
use crate::clock::Ticks;
use crate::error::{CloseReason, Poison};
use crate::handler::{self, Handler};
use crate::peer::Peer;
use crate::record::{self, Taken};
use crate::reply::{Client, Finished, Reply, RingSink, Sink};
use crate::ring::consumer::Consumer;
use crate::ring::plan::Kind;
use crate::ring::producer::{NoSlot, Producer};
use crate::ring::storage::{Bell, Flag, Mapped, Storage, Word};
use crate::stats::recorder::{bump, set};
use crate::stats::slot::SlotWriter;
use crate::timing::Timing;
use crate::wait::futex::{self, WaitWord};
use crate::wire::drive;

/// Requests served for one connection before the next one has its turn…
const TURN_MESSAGES: u32 = 16;
/// …or bytes of requests, or of replies where those are larger, whichever is reached first.
const TURN_BYTES: usize = 256 << 10;
/// Where more than this was taken for answers that wait for room, it is given back when one is sent: no budget counts it.
const SPILL_KEPT_BYTES: usize = 64 << 10;
/// What a first reply is expected to need; afterwards, the size of the last one.
const FIRST_EXPECTED_BYTES: usize = 4 << 10;

/// One connection as its serving thread owns it.
pub(crate) struct ShmServer {
    tx: Producer<Mapped>,
    rx: Consumer<Mapped>,
    slot: Arc<SlotWriter>,
    timing: Timing,
    ends: Arc<Ends>,
    /// The doorbell of a client that waits for descriptors; nothing else travels over it from here.
    socket: Arc<UnixStream>,
    client: Client,
    expected_reply: usize,
    /// Since when a request is there but the reply ring has no room for an answer of the expected size.
    blocked: Option<Ticks>,
    /// An answer that outgrew its place in the ring. Never allocated for as long as that does not happen, and not kept once it is large.
    spill: Vec<u8>,
    /// Kind and id of an answer that stands in `spill` and waits for room.
    pending: Option<(Kind, u64)>,
    /// A handler that was timed took [`LONG_NS`] or more in this turn. One that follows quick ones is found to be long when the next request
    /// is drawn: until then others wait for up to [`TURN_MESSAGES`] of its kind.
    long: bool,
    /// The client's memory made no sense; the next turn ends the connection.
    poisoned: bool,
    /// Given back with the memory. Last: dropped after it.
    _kept: Kept,
}

/// What a connection's memory takes of a budget; given back when the last who has the memory mapped drops it.
pub(crate) type Kept = Arc<dyn Send + Sync>;

/// A handler that takes this long (100 µs) is longer than the clock that books it by three orders of magnitude.
const LONG_NS: u64 = 100_000;

/// What a turn did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing was there, or there was no room for an answer.
    Idle,
    /// So many requests were answered.
    Served(u32),
    /// So many, and a handler took [`LONG_NS`] or more: the time is worth booking now.
    ServedLong(u32),
    /// The connection is over.
    Over(CloseReason),
}

impl ShmServer {
    pub(crate) fn new(
        rings: Rings,
        max_message: usize,
        peer: Peer,
        slot: Arc<SlotWriter>,
        ends: Arc<Ends>,
        socket: Arc<UnixStream>,
        kept: Kept,
    ) -> Self {
        Self {
            tx: rings.tx,
            rx: rings.rx,
            timing: Timing::new(&slot),
            slot,
            ends,
            socket,
            client: Client { peer, max_message },
            expected_reply: FIRST_EXPECTED_BYTES.min(max_message),
            blocked: None,
            spill: Vec::new(),
            pending: None,
            long: false,
            poisoned: false,
            _kept: kept,
        }
    }

    /// Whether a turn would find something to do.
    #[inline(always)]
    pub(crate) fn is_ready(&mut self) -> bool {
        if self.poisoned {
            return true;
        }
        if self.blocked.is_some() {
            let need = if self.pending.is_some() {
                self.spill.len()
            } else {
                self.expected_reply
            };
            return !matches!(self.tx.reserve(need), Err(NoSlot::Full { .. }));
        }
        self.rx.is_ready()
    }

    /// Whether the client's socket has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.ends.is_gone()
    }

    /// Who else has to do with it.
    pub(super) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// Publishes whose it is now.
    pub(super) fn served_by(&self, poller_slot: Option<u32>) {
        self.slot.served_by(poller_slot);
    }

    /// True while the reply ring has no room.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// Bytes of memory taken for answers that wait for room.
    #[cfg(test)]
    pub(super) fn waits_with(&self) -> usize {
        self.spill.capacity()
    }

    /// Serves what is there, up to a bound. `buffer` is the poller's request buffer, at least `max_message` long.
    pub(crate) fn turn(&mut self, handler: &Handler, buffer: &mut [u8]) -> Turn {
        let (mut served, mut bytes) = (0, 0);
        if self.poisoned {
            return Turn::Over(CloseReason::Poisoned);
        }
        // Handlers that take their time must keep neither the replies before them from a client that sleeps, nor other clients from
        // their turn.
        while served < TURN_MESSAGES && bytes < TURN_BYTES && !self.long {
            let turn = match self.flush() {
                Ok(false) => Ok(None),
                Ok(true) => self.serve_one(handler, buffer),
                Err(poison) => Err(poison),
            };
            match turn {
                Ok(Some(length)) => {
                    served += 1;
                    bytes += length;
                }
                Ok(None) => break,
                Err(_) => self.poisoned = true,
            }
            if self.poisoned {
                bump(&self.slot.rx().rx_invalid, 1);
                return Turn::Over(CloseReason::Poisoned);
            }
        }
        if served == 0 {
            return Turn::Idle;
        }
        self.ring_bell();
        if std::mem::take(&mut self.long) {
            return Turn::ServedLong(served);
        }
        Turn::Served(served)
    }

    /// Takes one request and answers it; the length of the larger of the two, or `None` if there is no request or no room for the answer.
    #[inline]
    fn serve_one(&mut self, handler: &Handler, buffer: &mut [u8]) -> Result<Option<usize>, Poison> {
        let Some(record) = self.rx.peek()? else {
            // The client took a request back that had waited for room: no longer ready just because there is room.
            self.unblock();
            return Ok(None);
        };
        if record.kind != Kind::Request {
            return Err(Poison::RecordKind {
                kind: record.kind as u32,
                index: self.rx.index(),
            });
        }
        // Room for an answer of the expected size first; one that outgrows it waits in `spill`.
        let room = match self.tx.reserve(self.expected_reply) {
            Ok(slot) => slot,
            Err(NoSlot::Full { occupancy }) => {
                self.block(occupancy);
                return Ok(None);
            }
            Err(NoSlot::Poisoned(poison)) => return Err(poison),
        };
        // Before the read: a request of which only half is there waits for its client from here on, not for room.
        if let Some(since) = self.blocked {
            self.blocked = None;
            unblocked(&self.slot, since);
        }
        if !self.rx.read(&record, buffer)? {
            return Ok(None);
        }
        let released = self.rx.release(&record);
        // Before the handler, so that a stuck one shows as a request without a reply; the rest is booked after the answer.
        record::taken(&self.slot, &mut self.rx, Taken::Live);
        let timed = self.timing.begin_handler(&self.slot);
        let mut reply = Reply::new(Sink::Ring(RingSink::new(
            room,
            &mut self.spill,
            &self.client,
            record.id,
        )));
        fault_point!(InHandler);
        if !handler::answer(handler, &buffer[..record.length], &mut reply) {
            bump(&self.slot.req().panics, 1);
        }
        if timed {
            self.long |= self.timing.handled(&self.slot) >= LONG_NS;
        }
        if reply.failed() {
            bump(&self.slot.req().errors, 1);
        }
        fault_point!(Handled);
        let length = reply.len();
        match reply.finish(record.id) {
            Finished::Sent => {
                record::sent(&self.slot, &mut self.tx, length);
            }
            Finished::Buffered(kind) => {
                self.pending = Some((kind, record.id));
                self.flush()?;
            }
        }
        record::released(&self.slot, &self.rx, released, record.length);
        if self.expected_reply != length {
            self.expected_reply = length;
        }
        Ok(Some(record.length.max(length)))
    }

    /// Sends the answer that waits for room, if there is one; false if it has to wait on.
    #[inline]
    fn flush(&mut self) -> Result<bool, Poison> {
        match self.pending {
            None => Ok(true),
            Some((kind, id)) => self.flush_pending(kind, id),
        }
    }

    #[cold]
    fn flush_pending(&mut self, kind: Kind, id: u64) -> Result<bool, Poison> {
        match self.tx.push(kind, id, &self.spill) {
            Ok(()) => {
                record::sent(&self.slot, &mut self.tx, self.spill.len());
                if self.spill.capacity() > SPILL_KEPT_BYTES {
                    self.spill = Vec::new();
                }
                self.spill.clear();
                self.pending = None;
                self.unblock();
                self.ring_bell();
                Ok(true)
            }
            Err(NoSlot::Full { occupancy }) => {
                self.block(occupancy);
                Ok(false)
            }
            Err(NoSlot::Poisoned(poison)) => Err(poison),
        }
    }

    /// Notes that the reply ring has no room.
    #[cold]
    fn block(&mut self, occupancy: u64) {
        if self.blocked.is_none() {
            record::full(self.slot.tx(), occupancy);
            let now = Ticks::now();
            set(&self.slot.tx().tx_blocked_since_ns, now.monotonic_ns());
            self.blocked = Some(now);
        }
    }

    /// Notes that the reply ring is not what is waited for any more.
    #[inline]
    fn unblock(&mut self) {
        if let Some(since) = self.blocked.take() {
            unblocked(&self.slot, since);
        }
    }

    /// Wakes the client if it sleeps, for either ring. One fence for both.
    #[inline]
    fn ring_bell(&mut self) {
        if let Some(bell) = self.tx.must_wake() {
            ring(bell, self.tx.storage().futex(Flag::Empty), &self.socket);
            bump(&self.slot.tx().tx_wakes, 1);
        }
        if self.rx.must_wake_fenced() {
            futex::wake(self.rx.storage().futex(Flag::Full));
            bump(&self.slot.rx().rx_wakes, 1);
        }
    }

    /// Tells the client which CPU the serving thread would rather have for itself, if any.
    pub(crate) fn tell_to_leave(&self, cpu: Option<usize>) {
        // Relaxed: advice, that publishes nothing else.
        let wish = cpu.map_or(0, |cpu| cpu as u64 + 1);
        self.tx.storage().store(Word::Leave, wish);
    }

    /// The serving thread slept: what comes next is no longer the busy stream whose every n-th request is timed.
    pub(crate) fn paused(&mut self) {
        self.timing.paused();
    }

    /// Announces that the serving thread is about to sleep, and gives the word to sleep on. A SeqCst fence must follow before the next look.
    pub(crate) fn announce_unfenced(&self) -> WaitWord {
        if self.blocked.is_some() {
            self.tx.announce_unfenced();
            WaitWord::new(self.tx.storage().futex(Flag::Full), 1)
        } else {
            self.rx.announce_unfenced(Bell::Futex);
            WaitWord::new(self.rx.storage().futex(Flag::Empty), 1)
        }
    }

    /// Takes the announcement back.
    pub(crate) fn retract(&self) {
        if self.blocked.is_some() {
            self.tx.retract();
        } else {
            self.rx.retract();
        }
    }

    /// Checks the client's index against the records, on slow paths; nonsense ends the connection at its next turn.
    pub(crate) fn cross_check(&mut self) {
        if self.rx.cross_check().is_err() && !self.poisoned {
            bump(&self.slot.rx().rx_invalid, 1);
            self.poisoned = true;
        }
    }

    /// Whether an answer waits for room, in vain also now. No request is taken any more. The socket is asked as well: who says otherwise that a client is gone
    /// waits for this thread by then.
    pub(super) fn still_owes(&mut self) -> bool {
        !self.poisoned
            && !self.is_gone()
            && matches!(self.flush(), Ok(false))
            && alive(&self.socket).is_ok()
    }

    /// Gives the connection up: the control thread closes its socket. When the server ends, the client is told here and now: that thread
    /// waits until the last poller is done, and one of them may be in a handler for long.
    pub(crate) fn end(self, reason: CloseReason) {
        self.slot.close(reason);
        if reason == CloseReason::Shutdown {
            drive::bye(&*self.socket);
            // One that has ended already says the same.
            let _ = self.socket.shutdown(Shutdown::Both);
        }
        let ends = Arc::clone(&self.ends);
        drop(self);
        // After the memory is unmapped.
        ends.set_over();
    }
}

/// Books the time without room.
#[cold]
fn unblocked(slot: &SlotWriter, since: Ticks) {
    bump(&slot.tx().tx_blocked_ns, Ticks::now().ns_since(since));
    set(&slot.tx().tx_blocked_since_ns, 0);
}
