//! Sending a request: its id, its place in the ring, the server's doorbell, and the wait when there is no room.

use super::ShmClient;
use super::looks::{Incoming, Room};
use crate::calls::MAX_IN_FLIGHT;
use crate::clock::Ticks;
use crate::error::{Lost, RequestError};
use crate::record;
use crate::ring::plan::Kind;
use crate::ring::producer::NoSlot;
use crate::ring::storage::Flag;
use crate::stats::recorder::{bump, set};
use crate::wait::{Look, futex};

impl ShmClient {
    /// Publishes a request; neither books it nor rings the bell.
    #[inline(always)]
    pub(super) fn publish(&mut self, request: &[u8]) -> Result<u64, RequestError> {
        self.publish_as::<true>(request)
    }

    /// The same; with `WAIT` false, `Full` comes at once where it would wait.
    #[inline]
    pub(super) fn publish_as<const WAIT: bool>(
        &mut self,
        request: &[u8],
    ) -> Result<u64, RequestError> {
        self.usable()?;
        self.check_size(request.len())?;
        if self.calls.next_id().is_none() {
            if WAIT {
                self.place_blocked()?;
            } else {
                self.discard_late()?;
            }
        }
        let Some(id) = self.calls.next_id() else {
            return Err(RequestError::Full {
                in_flight: self.calls.live().min(MAX_IN_FLIGHT),
            });
        };
        let timed = self.timing.begin();
        match self.tx.push(Kind::Request, id, request) {
            Ok(()) => {}
            Err(NoSlot::Poisoned(poison)) => return Err(self.lose(Lost::Poisoned(poison))),
            Err(NoSlot::Full { occupancy }) if WAIT => self.send_blocked(id, request, occupancy)?,
            Err(NoSlot::Full { occupancy }) => {
                record::full(self.slot.tx(), occupancy);
                return Err(RequestError::Full {
                    in_flight: self.calls.live(),
                });
            }
        }
        self.enter(id, timed);
        Ok(id)
    }

    #[inline(always)]
    pub(super) fn check_size(&self, size: usize) -> Result<(), RequestError> {
        let limit = self.buffer.len();
        if size > limit {
            let tx = self.slot.tx();
            bump(&tx.tx_rejected_size, 1);
            set(&tx.tx_rejected_bytes, size as u64);
            return Err(RequestError::TooLarge { size, limit });
        }
        Ok(())
    }

    /// Enters a request that was published among those in flight.
    #[inline(always)]
    pub(super) fn enter(&mut self, id: u64, timed: bool) {
        if timed {
            self.enter_timed(id);
        } else {
            self.calls.open(id, None);
        }
    }

    #[cold]
    #[inline(never)]
    fn enter_timed(&mut self, id: u64) {
        self.calls.open(id, Some(self.timing.begun()));
    }

    /// Books a request that was published.
    #[inline(always)]
    pub(super) fn book(&mut self, length: usize) {
        record::sent(&self.slot, &mut self.tx, length);
    }

    /// Wakes the server if it sleeps, for either ring: always on a futex, whatever its words say. One fence for both.
    #[inline]
    pub(super) fn ring_bell(&mut self) {
        if self.tx.must_wake().is_some() {
            futex::wake(self.tx.storage().futex(Flag::Empty));
            bump(&self.slot.tx().tx_wakes, 1);
            self.waiter.has_woken();
        }
        (self.released, self.bell_due) = (0, false);
        if self.rx.must_wake_fenced() {
            futex::wake(self.rx.storage().futex(Flag::Full));
            bump(&self.slot.rx().rx_wakes, 1);
        }
    }

    /// Since when the request that is about to be sent waits for that: from now on, unless it does already.
    fn blocked_since(&mut self) -> Ticks {
        let id = self.calls.upcoming_id();
        if self.blocked.0 != id {
            self.blocked = (id, Ticks::now());
        }
        self.blocked.1
    }

    /// Waits for the next request's place.
    #[cold]
    fn place_blocked(&mut self) -> Result<(), RequestError> {
        let begun = self.blocked_since();
        let waited = self.await_place(begun);
        if self.calls.next_id().is_none() {
            // It is not sent now. The next with this id begins anew.
            self.blocked.0 = 0;
        }
        waited
    }

    /// Waits for room in the ring, and sends then.
    #[cold]
    fn send_blocked(
        &mut self,
        id: u64,
        request: &[u8],
        occupancy: u64,
    ) -> Result<(), RequestError> {
        let begun = self.blocked_since();
        let sent = match self.await_room(request.len(), occupancy, begun) {
            Ok(()) => match self.tx.push(Kind::Request, id, request) {
                Ok(()) => return Ok(()),
                Err(NoSlot::Full { .. }) => RequestError::Full {
                    in_flight: self.calls.live(),
                },
                Err(NoSlot::Poisoned(poison)) => self.lose(Lost::Poisoned(poison)),
            },
            Err(error) => error,
        };
        self.blocked.0 = 0;
        Err(sent)
    }

    /// Waits for room in the ring, for what is left of the request timeout of a call that `began` then.
    #[cold]
    pub(super) fn await_room(
        &mut self,
        length: usize,
        occupancy: u64,
        began: Ticks,
    ) -> Result<(), RequestError> {
        // This may meet the end, and then nothing is waited for.
        self.withdraw();
        self.usable()?;
        record::full(self.slot.tx(), occupancy);
        let blocked = Ticks::now();
        set(&self.slot.tx().tx_blocked_since_ns, blocked.monotonic_ns());
        // The server may sleep in front of a full ring whose bell was put off, or because our replies fill its ring.
        self.ring_bell();
        let found = loop {
            let left = self.left_since(began);
            let mut room = Room {
                tx: &mut self.tx,
                rx: &self.rx,
                line: &mut self.line,
                length,
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
            // A reply in the way that nobody waits for is not the caller's to receive. Nor is half of one: its rest, or room, is waited for.
            let in_the_way = matches!(found, Some(Ok(false)));
            if in_the_way && !left.is_zero() {
                let discarded = self.discard_late()?;
                if discarded > 0 {
                    self.ring_bell();
                }
                if discarded > 0 || !self.rx.is_ready() {
                    continue;
                }
            }
            break found;
        };
        let tx = self.slot.tx();
        bump(&tx.tx_blocked_ns, Ticks::now().ns_since(blocked));
        set(&tx.tx_blocked_since_ns, 0);
        match found {
            // Room may be the last that the server has made.
            Some(Ok(_)) if self.line.has_ended() && self.calls.live() == 0 => {
                Err(self.lose(self.line.end()))
            }
            Some(Ok(true)) => self.usable(),
            // A reply is there: receiving it is what makes room.
            Some(Ok(false)) | None => Err(RequestError::Full {
                in_flight: self.calls.live(),
            }),
            Some(Err(lost)) => Err(self.lose(lost)),
        }
    }

    /// The next request's place is held by one that was given up: discards late replies, and waits for them, for what is left of the
    /// request timeout of a call that `began` then, as long as nobody waits for a reply that the caller could receive.
    #[cold]
    pub(super) fn await_place(&mut self, began: Ticks) -> Result<(), RequestError> {
        self.withdraw();
        self.usable()?;
        loop {
            self.discard_late()?;
            let left = self.left_since(began);
            if self.calls.next_id().is_some() || self.calls.live() > 0 {
                return Ok(());
            }
            self.ring_bell();
            let mut look = Incoming {
                rx: &mut self.rx,
                line: &mut self.line,
                slot: &self.slot,
                calls: &mut self.calls,
                told_ns: 0,
            };
            if !left.is_zero() && look.look().is_some() {
                continue;
            }
            // Also without any time: calls that only look learn of the end here.
            let (found, waited) = self.waiter.wait(&mut look, left);
            let told = look.told_ns != 0;
            let there = matches!(found, Some(Ok(())));
            record::waited(&self.slot, &self.waiter, &waited, there);
            if told {
                self.timing.paused();
                set(&self.slot.req().oldest_ns, 0);
                set(&self.slot.wait().waiting_since_ns, 0);
            }
            if let Some(Err(lost)) = found {
                return Err(self.lose(lost));
            }
            if left.is_zero() {
                return Ok(());
            }
        }
    }
}
