//! The client's half of a shared-memory connection.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::link::{Rings, alive};
use crate::calls::{Answered, Calls, MAX_IN_FLIGHT, RequestId, Timed};
use crate::clock::{Ticks, monotonic_ns};
use crate::error::{CloseReason, Lost, Poison, RequestError};
use crate::mem::fork;
use crate::record;
use crate::ring::consumer::{Consumer, Record};
use crate::ring::plan::Kind;
use crate::ring::producer::{NoSlot, Producer, Sent};
use crate::ring::storage::{Bell, Flag, Mapped};
use crate::stats::recorder::{bump, set};
use crate::stats::sampler::Sampler;
use crate::stats::slot::SlotWriter;
use crate::wait::policy::Waiter;
use crate::wait::{Look, futex};

/// Looks for a reply before the server's doorbell is tried: a server that is awake answers within them, and then the
/// fence and the look at its flag are saved; one that sleeps takes microseconds to wake, beside which they are nothing.
const LOOKS_BEFORE_BELL: u32 = 16;

/// Replies that one look discards at most: a server that sends nothing but replies to nobody's requests must not keep the caller
/// from its clock.
const MAX_DISCARDED: u32 = 64;

/// A client connection over shared memory: two rings, and one buffer of the largest message into which every
/// reply is copied, reused across calls. Nothing is allocated per request.
pub struct ShmClient {
    tx: Producer<Mapped>,
    rx: Consumer<Mapped>,
    socket: UnixStream,
    buffer: Box<[u8]>,
    calls: Calls,
    waiter: Waiter,
    sampler: Sampler,
    last_sample: Ticks,
    slot: Arc<SlotWriter>,
    timeout: Duration,
    /// Ring bytes of replies released since the server's doorbell was last tried.
    released: u64,
    /// Fork generation of the owner.
    generation: u64,
    lost: Option<CloseReason>,
}

impl std::fmt::Debug for ShmClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShmClient")
            .field("in_flight", &self.calls.live())
            .field("lost", &self.lost)
            .finish()
    }
}

/// A reply that was found: already copied into the buffer.
struct Arrived {
    id: u64,
    length: usize,
    failed: bool,
}

impl ShmClient {
    pub(crate) fn new(
        rings: Rings,
        socket: UnixStream,
        calls: Calls,
        max_message: usize,
        waiter: Waiter,
        timeout: Duration,
        slot: Arc<SlotWriter>,
    ) -> Self {
        Self {
            tx: rings.tx,
            rx: rings.rx,
            socket,
            // Error texts may be longer than a very small largest message; they are cut by the server to fit the ring.
            buffer: vec![0; max_message].into_boxed_slice(),
            calls,
            waiter,
            sampler: Sampler::new(u64::from(slot.index().unwrap_or(0))),
            last_sample: Ticks::now(),
            slot,
            timeout,
            released: 0,
            generation: fork::generation(),
            lost: None,
        }
    }

    /// Largest payload of a request or reply, in bytes.
    pub fn max_message(&self) -> usize {
        self.buffer.len()
    }

    /// Requests waiting for a reply.
    pub fn in_flight(&self) -> usize {
        self.calls.live()
    }

    /// Sends a request and waits for its reply, for at most the configured request timeout. The reply is a private copy, valid
    /// until the next call.
    ///
    /// # Errors
    /// [`RequestError`]; `Full` also if other requests are in flight: receive their replies first.
    #[inline]
    pub fn fire_bytes(&mut self, request: &[u8]) -> Result<&[u8], RequestError> {
        if self.calls.live() > 0 {
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        let (id, sent) = self.publish(request)?;
        let early = self.look_briefly();
        // Booked while the request travels, not before: its publication does not wait for the books.
        self.book(sent, request.len());
        let reply = match early {
            Ok(Some(arrived)) => Ok(arrived),
            Ok(None) => {
                self.ring_bell();
                self.await_long()
            }
            Err(error) => Err(error),
        };
        let Arrived { length, failed, .. } = match reply {
            Ok(arrived) => arrived,
            Err(error) => {
                self.calls.abandon(id);
                return Err(error);
            }
        };
        self.deliver(length, failed)
    }

    /// Sends a request without waiting for the reply. Blocks only while the ring is full and no reply is there to be
    /// received, for at most the request timeout.
    ///
    /// # Errors
    /// [`RequestError::Full`]: receive replies, then try again; nothing was sent.
    #[inline]
    pub fn submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        let (id, sent) = self.publish(request)?;
        self.book(sent, request.len());
        self.ring_bell();
        Ok(RequestId(id))
    }

    /// Waits for the next reply, for at most the request timeout. Replies come in the order of submission. The slice is valid until the next call.
    ///
    /// # Errors
    /// [`RequestError::NothingInFlight`] if there is nothing to wait for. After `Timeout` the requests in flight stay so.
    #[inline]
    pub fn receive(&mut self) -> Result<(RequestId, &[u8]), RequestError> {
        self.usable()?;
        if self.calls.live() == 0 {
            return Err(RequestError::NothingInFlight);
        }
        let Arrived { id, length, failed } = self.await_reply()?;
        self.deliver(length, failed)
            .map(|bytes| (RequestId(id), bytes))
    }

    /// The next reply if it is there already.
    ///
    /// # Errors
    /// As [`Self::receive`], without `Timeout`.
    #[inline]
    pub fn try_receive(&mut self) -> Result<Option<(RequestId, &[u8])>, RequestError> {
        self.usable()?;
        match self.arrived() {
            Ok(None) => Ok(None),
            Ok(Some(Arrived { id, length, failed })) => self
                .deliver(length, failed)
                .map(|bytes| Some((RequestId(id), bytes))),
            Err(poison) => Err(self.lose(Lost::Poisoned(poison))),
        }
    }

    /// Gives up all requests in flight: their replies will be discarded and counted. Returns how many.
    pub fn cancel_all(&mut self) -> usize {
        let n = self.calls.abandon_all();
        if self.generation != fork::generation() {
            // A fork's copy: the stats page is not mapped here.
            return n;
        }
        set(&self.slot.req().in_flight, 0);
        n
    }

    /// Checks that the server still holds its end of the socket. For callers that only ever use [`Self::try_receive`].
    ///
    /// # Errors
    /// [`RequestError::Disconnected`] if not.
    pub fn check_alive(&mut self) -> Result<(), RequestError> {
        self.usable()?;
        alive(&self.socket).map_err(|lost| self.lose(lost))
    }

    #[inline(always)]
    fn usable(&self) -> Result<(), RequestError> {
        if self.generation != fork::generation() {
            return Err(RequestError::Forked);
        }
        match self.lost {
            None => Ok(()),
            Some(_) => Err(RequestError::Disconnected {
                reason: Lost::PeerGone,
                in_flight: 0,
            }),
        }
    }

    fn deliver(&self, length: usize, failed: bool) -> Result<&[u8], RequestError> {
        let bytes = &self.buffer[..length];
        if failed {
            bump(&self.slot.req().errors, 1);
            return Err(RequestError::Remote {
                message: crate::stats::sanitise(bytes),
            });
        }
        Ok(bytes)
    }

    /// Publishes a request; neither books it nor rings the bell.
    #[inline]
    fn publish(&mut self, request: &[u8]) -> Result<(u64, Sent), RequestError> {
        self.usable()?;
        if request.len() > self.buffer.len() {
            let tx = self.slot.tx();
            bump(&tx.tx_rejected_size, 1);
            set(&tx.tx_rejected_bytes, request.len() as u64);
            return Err(RequestError::TooLarge {
                size: request.len(),
                limit: self.buffer.len(),
            });
        }
        if self.calls.next_id().is_none() {
            self.await_place()?;
        }
        let Some(id) = self.calls.next_id() else {
            return Err(RequestError::Full {
                in_flight: self.calls.live().min(MAX_IN_FLIGHT),
            });
        };
        let timed = self.sampler.due().map(|weight| Timed {
            begun: Ticks::now(),
            weight,
        });
        let sent = match self.tx.push(Kind::Request, id, request) {
            Ok(sent) => sent,
            Err(NoSlot::Poisoned(poison)) => return Err(self.lose(Lost::Poisoned(poison))),
            Err(NoSlot::Full { occupancy }) => self.send_blocked(id, request, occupancy)?,
        };
        self.calls.open(id, timed);
        Ok((id, sent))
    }

    /// Books a request that was published.
    #[inline(always)]
    fn book(&self, sent: Sent, length: usize) {
        record::sent(self.slot.tx(), &self.tx, sent, length);
        let req = self.slot.req();
        bump(&req.requests, 1);
        set(&req.in_flight, self.calls.live() as u64);
    }

    /// Waits for room in the ring.
    #[cold]
    fn send_blocked(
        &mut self,
        id: u64,
        request: &[u8],
        occupancy: u64,
    ) -> Result<Sent, RequestError> {
        record::full(self.slot.tx(), occupancy);
        let begun = Ticks::now();
        set(&self.slot.tx().tx_blocked_since_ns, begun.monotonic_ns());
        // The server may sleep in front of a full ring whose bell was put off, or because our replies fill its ring.
        self.ring_bell();
        let full = || RequestError::Full { in_flight: 0 };
        let found = loop {
            let left = self
                .timeout
                .saturating_sub(Duration::from_nanos(Ticks::now().ns_since(begun)));
            let mut room = Room {
                tx: &mut self.tx,
                rx: &self.rx,
                socket: &self.socket,
                length: request.len(),
            };
            let (found, waited) = match room.look() {
                Some(found) => (Some(found), None),
                None => {
                    let (found, waited) = self.waiter.wait(&mut room, left);
                    (found, Some(waited))
                }
            };
            if let Some(waited) = waited {
                record::waited(
                    &self.slot,
                    &self.waiter,
                    &waited,
                    matches!(found, Some(Ok(true))),
                );
            }
            // A reply in the way that nobody waits for is not the caller's to receive.
            let in_the_way = matches!(found, Some(Ok(false)));
            if in_the_way && !left.is_zero() && self.discard_late()? > 0 {
                self.ring_bell();
                continue;
            }
            break found;
        };
        let tx = self.slot.tx();
        bump(&tx.tx_blocked_ns, Ticks::now().ns_since(begun));
        set(&tx.tx_blocked_since_ns, 0);
        match found {
            Some(Ok(true)) => match self.tx.push(Kind::Request, id, request) {
                Ok(sent) => Ok(sent),
                Err(NoSlot::Full { .. }) => Err(full()),
                Err(NoSlot::Poisoned(poison)) => Err(self.lose(Lost::Poisoned(poison))),
            },
            // A reply is there: receiving it is what makes room.
            Some(Ok(false)) | None => Err(RequestError::Full {
                in_flight: self.calls.live(),
            }),
            Some(Err(lost)) => Err(self.lose(lost)),
        }
    }

    /// Wakes the server if it sleeps, for either ring: always on a futex, whatever its words say. One fence for both.
    #[inline]
    fn ring_bell(&mut self) {
        if self.tx.must_wake().is_some() {
            futex::wake(self.tx.storage().futex(Flag::Empty));
            bump(&self.slot.tx().tx_wakes, 1);
        }
        self.released = 0;
        if self.rx.must_wake_fenced() {
            futex::wake(self.rx.storage().futex(Flag::Full));
            bump(&self.slot.rx().rx_wakes, 1);
        }
    }

    /// Discards replies to requests that were given up, up to the first that somebody waits for; how many. Without this, a caller who
    /// gave all up would find the connection full and nothing to receive, for ever.
    #[cold]
    fn discard_late(&mut self) -> Result<u32, RequestError> {
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

    /// The next request's place is held by one that was given up: discards late replies, and waits for them, for at most the
    /// request timeout, as long as nobody waits for a reply that the caller could receive.
    #[cold]
    fn await_place(&mut self) -> Result<(), RequestError> {
        let begun = Ticks::now();
        loop {
            self.discard_late()?;
            let left = self
                .timeout
                .saturating_sub(Duration::from_nanos(Ticks::now().ns_since(begun)));
            if self.calls.next_id().is_some() || self.calls.live() > 0 || left.is_zero() {
                return Ok(());
            }
            self.ring_bell();
            let mut look = Incoming {
                rx: &mut self.rx,
                socket: &self.socket,
                slot: &self.slot,
                parked: false,
            };
            if look.look().is_some() {
                continue;
            }
            let (found, waited) = self.waiter.wait(&mut look, left);
            let parked = look.parked;
            let there = matches!(found, Some(Ok(())));
            record::waited(&self.slot, &self.waiter, &waited, there);
            if parked {
                self.sampler.paused();
                set(&self.slot.req().oldest_ns, 0);
                set(&self.slot.wait().waiting_since_ns, 0);
            }
            if let Some(Err(lost)) = found {
                return Err(self.lose(lost));
            }
        }
    }

    fn discard_one(&mut self) -> Result<bool, Poison> {
        let Some(record) = self.rx.peek()? else {
            return Ok(false);
        };
        if self.calls.is_live(record.id) || !self.rx.read(&record, &mut self.buffer)? {
            return Ok(false);
        }
        self.accept(&record).map(|_| true)
    }

    /// The next live reply if it is there, copied out. Late ones are discarded on the way.
    #[inline(always)]
    fn arrived(&mut self) -> Result<Option<Arrived>, Poison> {
        for _ in 0..MAX_DISCARDED {
            let Some(record) = self.rx.peek()? else {
                return Ok(None);
            };
            if !self.rx.read(&record, &mut self.buffer)? {
                return Ok(None);
            }
            if let Some(arrived) = self.accept(&record)? {
                return Ok(Some(arrived));
            }
        }
        Ok(None)
    }

    #[inline(always)]
    fn accept(&mut self, record: &Record) -> Result<Option<Arrived>, Poison> {
        if record.kind != Kind::Reply && record.kind != Kind::Error {
            return Err(Poison::RecordKind {
                kind: record.kind as u32,
                index: self.rx.index(),
            });
        }
        let released = self.rx.release(record);
        self.released += released.record;
        record::received(self.slot.rx(), &self.rx, released, record.length);
        if self.released > self.tx.plan().capacity() / 8 {
            self.ring_bell();
        }
        match self.calls.answer(record.id) {
            Answered::Live(timed) => {
                let req = self.slot.req();
                bump(&req.replies, 1);
                set(&req.in_flight, self.calls.live() as u64);
                if let Some(timed) = timed {
                    self.sample(timed);
                }
                Ok(Some(Arrived {
                    id: record.id,
                    length: record.length,
                    failed: record.kind == Kind::Error,
                }))
            }
            Answered::Late => {
                bump(&self.slot.req().late_replies, 1);
                Ok(None)
            }
            Answered::Unknown => {
                bump(&self.slot.rx().rx_invalid, 1);
                Ok(None)
            }
        }
    }

    /// A timed request is complete.
    #[inline]
    fn sample(&mut self, timed: Timed) {
        let now = Ticks::now();
        self.slot
            .rtt()
            .record(now.ns_since(timed.begun), timed.weight);
        self.sampler.adapt(now.ns_since(self.last_sample));
        self.last_sample = now;
        let req = self.slot.req();
        set(&req.last_progress_ns, now.monotonic_ns());
        set(&req.sample_period, self.sampler.period());
    }

    /// Looks a few times: a server that is awake answers within them (see [`LOOKS_BEFORE_BELL`]).
    #[inline(always)]
    fn look_briefly(&mut self) -> Result<Option<Arrived>, RequestError> {
        for _ in 0..LOOKS_BEFORE_BELL {
            match self.arrived() {
                Ok(None) => std::hint::spin_loop(),
                Ok(arrived) => return Ok(arrived),
                Err(poison) => return Err(self.lose(Lost::Poisoned(poison))),
            }
        }
        Ok(None)
    }

    /// Waits for the next reply to requests whose bell was rung.
    #[inline]
    fn await_reply(&mut self) -> Result<Arrived, RequestError> {
        if let Some(arrived) = self.look_briefly()? {
            return Ok(arrived);
        }
        if self.released > 0 {
            self.ring_bell();
        }
        self.await_long()
    }

    fn await_long(&mut self) -> Result<Arrived, RequestError> {
        let begun = Ticks::now();
        loop {
            let left = self
                .timeout
                .saturating_sub(Duration::from_nanos(Ticks::now().ns_since(begun)));
            let mut look = Incoming {
                rx: &mut self.rx,
                socket: &self.socket,
                slot: &self.slot,
                parked: false,
            };
            let (found, waited) = match look.look() {
                Some(found) => (Some(found), None),
                None => {
                    let (found, waited) = self.waiter.wait(&mut look, left);
                    (found, Some(waited))
                }
            };
            let parked = look.parked;
            if let Some(waited) = waited {
                record::waited(
                    &self.slot,
                    &self.waiter,
                    &waited,
                    matches!(found, Some(Ok(()))),
                );
            }
            if parked {
                self.sampler.paused();
                set(&self.slot.req().oldest_ns, 0);
                set(&self.slot.wait().waiting_since_ns, 0);
            }
            match found {
                Some(Ok(())) => match self.arrived() {
                    Ok(Some(arrived)) => return Ok(arrived),
                    // A late reply, or half a record: wait on.
                    Ok(None) => {}
                    Err(poison) => return Err(self.lose(Lost::Poisoned(poison))),
                },
                Some(Err(lost)) => {
                    // What the server committed before it died is still an answer.
                    return match self.arrived() {
                        Ok(Some(arrived)) => Ok(arrived),
                        Ok(None) => Err(self.lose(lost)),
                        Err(poison) => Err(self.lose(Lost::Poisoned(poison))),
                    };
                }
                None => {}
            }
            if Duration::from_nanos(Ticks::now().ns_since(begun)) >= self.timeout {
                bump(&self.slot.req().timeouts, 1);
                return Err(RequestError::Timeout {
                    timeout: self.timeout,
                });
            }
        }
    }

    #[cold]
    fn lose(&mut self, reason: Lost) -> RequestError {
        let close = match &reason {
            Lost::Poisoned(_) | Lost::BadFrame(_) => CloseReason::Poisoned,
            Lost::PeerGone | Lost::Io(_) => CloseReason::PeerGone,
        };
        self.lost = Some(close);
        self.slot.close(close);
        // The server must not wait for us any longer than we for it; errors don't matter, the end is the message.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        RequestError::Disconnected {
            reason,
            in_flight: self.calls.abandon_all(),
        }
    }
}

/// Waits for a record in the reply ring.
struct Incoming<'a> {
    rx: &'a mut Consumer<Mapped>,
    socket: &'a UnixStream,
    slot: &'a SlotWriter,
    parked: bool,
}

impl Look for Incoming<'_> {
    type Found = Result<(), Lost>;

    #[inline(always)]
    fn look(&mut self) -> Option<Self::Found> {
        self.rx.is_ready().then_some(Ok(()))
    }

    fn park(&mut self, limit: Duration) {
        if !self.parked {
            self.parked = true;
            let now = monotonic_ns();
            set(&self.slot.req().oldest_ns, now);
            set(&self.slot.wait().waiting_since_ns, now);
        }
        self.rx.announce(Bell::Futex);
        fault_point!(Announced);
        if !self.rx.is_ready() {
            futex::wait(self.rx.storage().futex(Flag::Empty), 1, limit);
        }
        fault_point!(Woken);
        self.rx.retract();
    }

    fn tend(&mut self) -> Option<Self::Found> {
        if let Err(poison) = self.rx.cross_check() {
            return Some(Err(Lost::Poisoned(poison)));
        }
        alive(self.socket).err().map(Err)
    }
}

/// Waits for room in the request ring: `true` when there is, `false` when a reply wants to be received first.
struct Room<'a> {
    tx: &'a mut Producer<Mapped>,
    rx: &'a Consumer<Mapped>,
    socket: &'a UnixStream,
    length: usize,
}

impl Look for Room<'_> {
    type Found = Result<bool, Lost>;

    fn look(&mut self) -> Option<Self::Found> {
        if self.rx.is_ready() {
            return Some(Ok(false));
        }
        match self.tx.reserve(self.length) {
            Ok(_unused) => Some(Ok(true)),
            Err(NoSlot::Full { .. }) => None,
            Err(NoSlot::Poisoned(poison)) => Some(Err(Lost::Poisoned(poison))),
        }
    }

    fn park(&mut self, limit: Duration) {
        self.tx.announce();
        if self.look().is_none() {
            // A reply that arrives meanwhile rings another bell; the limit bounds how late it is seen.
            let limit = limit.min(Duration::from_millis(5));
            futex::wait(self.tx.storage().futex(Flag::Full), 1, limit);
        }
        self.tx.retract();
    }

    fn tend(&mut self) -> Option<Self::Found> {
        alive(self.socket).err().map(Err)
    }
}
