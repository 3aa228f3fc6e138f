//! The blocking call: send, look, wait for the one reply.

use super::looks::Incoming;
use super::{Arrived, ShmClient};
use crate::clock::Ticks;
use crate::error::{Lost, Poison, RequestError};
use crate::record;
use crate::ring::storage::{Storage, Word};
use crate::stats::recorder::{bump, set};
use crate::wait::Look;
use crate::wait::migration::current_cpu;

/// Looks for a reply before the server's doorbell is tried: a server that is awake answers within them, and then the
/// fence and the look at its flag are saved; one that sleeps takes microseconds to wake, beside which they are nothing.
const LOOKS_BEFORE_BELL: u32 = 64;
/// Looks between two pauses among them. A pause takes 35 ns on a recent EPYC, half as long as a line's way there and back, and a reply
/// that comes meanwhile waits for its end; with none at all the looks get in the way of the server's stores.
const LOOKS_PER_PAUSE: u32 = 4;

impl ShmClient {
    /// Sends a request and waits for its reply, for at most the configured request timeout. The reply is a private copy, valid
    /// until the next call.
    ///
    /// # Errors
    /// [`RequestError`]; `Full` also if other requests are in flight: receive their replies first.
    #[inline]
    pub(crate) fn fire_bytes(&mut self, request: &[u8]) -> Result<&[u8], RequestError> {
        let Arrived { length, failed, .. } = self.fire_and(request, Self::arrived)?;
        // The reply's id is the last one sent. Carrying it along would cost each call a register, and only an error tells it.
        self.deliver(self.calls.upcoming_id() - 1, length, failed)
    }

    /// Sends a request, and takes its reply with `take`.
    #[inline(always)]
    pub(super) fn fire_and<T>(
        &mut self,
        request: &[u8],
        take: impl Fn(&mut Self) -> Result<Option<T>, Poison>,
    ) -> Result<T, RequestError> {
        if self.calls.live() > 0 {
            self.usable()?;
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        }
        let id = self.publish(request)?;
        self.take_reply(id, request.len(), take)
    }

    /// Takes the reply to the only request in flight, of `length` bytes, which was published and neither booked nor belled.
    #[inline(always)]
    pub(super) fn take_reply<T>(
        &mut self,
        id: u64,
        length: usize,
        take: impl Fn(&mut Self) -> Result<Option<T>, Poison>,
    ) -> Result<T, RequestError> {
        // As in `look_briefly`, but returned from where it is found: a result that is handed on through memory, written
        // field by field and copied as a whole, keeps the next request waiting. Booked after these looks, while the server works or once its reply is
        // there: the request does not wait for its books. The next one does.
        for n in 1..=self.brief_looks() {
            match take(self) {
                Ok(None) if n % LOOKS_PER_PAUSE == 0 => std::hint::spin_loop(),
                Ok(None) => {}
                Ok(Some(arrived)) => {
                    self.book(length);
                    return Ok(arrived);
                }
                Err(poison) => {
                    self.book(length);
                    let error = self.lose(Lost::Poisoned(poison));
                    self.abandon(id);
                    return Err(error);
                }
            }
        }
        self.book(length);
        self.fire_on(id, &take)
    }

    /// The reply to the only request does not come soon: wakes the server, and waits.
    #[cold]
    #[inline(never)]
    fn fire_on<T>(
        &mut self,
        id: u64,
        take: &impl Fn(&mut Self) -> Result<Option<T>, Poison>,
    ) -> Result<T, RequestError> {
        self.ring_bell();
        // Of the one timeout, what waiting for room has left of it.
        let (blocked, since) = self.blocked;
        let began = if blocked == id { since } else { Ticks::now() };
        let reply = self.await_long(take, began);
        if let Err(error) = &reply {
            self.abandon(id);
            if let RequestError::Timeout { .. } = error {
                bump(&self.slot.req().timeouts, 1);
            }
        }
        reply
    }

    /// How many looks come before the server's doorbell is tried: it is likely to answer within [`LOOKS_BEFORE_BELL`].
    ///
    /// In a crowd it needs the CPU that the looks would take; and one whose sleep is announced for all to see is woken first.
    #[inline(always)]
    fn brief_looks(&self) -> u32 {
        if self.waiter.crowded() || self.tx.is_announced() {
            1
        } else {
            LOOKS_BEFORE_BELL
        }
    }

    /// Looks a few times.
    #[inline(always)]
    fn look_briefly<T>(
        &mut self,
        take: &impl Fn(&mut Self) -> Result<Option<T>, Poison>,
    ) -> Result<Option<T>, RequestError> {
        for n in 1..=self.brief_looks() {
            match take(self) {
                Ok(None) if n % LOOKS_PER_PAUSE == 0 => std::hint::spin_loop(),
                Ok(None) => {}
                Ok(arrived) => return Ok(arrived),
                Err(poison) => return Err(self.lose(Lost::Poisoned(poison))),
            }
        }
        Ok(None)
    }

    /// Waits for the next reply.
    #[inline]
    pub(super) fn await_reply<T>(
        &mut self,
        take: impl Fn(&mut Self) -> Result<Option<T>, Poison>,
    ) -> Result<T, RequestError> {
        if !self.line.is_open() {
            return self.last_reply(&take);
        }
        if self.calls.live() == 0 {
            return Err(RequestError::NothingInFlight);
        }
        if let Some(arrived) = self.look_briefly(&take)? {
            // The caller may work on this one for long: what was queued behind it must not lie there unheard.
            if self.bell_due {
                self.ring_bell();
            }
            return Ok(arrived);
        }
        if self.released > 0 || self.bell_due {
            self.ring_bell();
        }
        self.await_long(&take, Ticks::now())
    }

    /// The same once the end was met: what was committed before it is there, and is not waited for.
    #[cold]
    #[inline(never)]
    fn last_reply<T>(
        &mut self,
        take: &impl Fn(&mut Self) -> Result<Option<T>, Poison>,
    ) -> Result<T, RequestError> {
        self.not_lost()?;
        if self.calls.live() == 0 {
            return Err(RequestError::NothingInFlight);
        }
        self.left_behind(take, self.line.end())
    }

    /// Tells the server where we wait, if the CPU is given away meanwhile: then it serves us best from there.
    fn tell_cpu(&mut self, slept: bool) {
        let cpu = if slept || self.waiter.crowded() {
            current_cpu().map_or(0, |cpu| cpu as u64 + 1)
        } else {
            0
        };
        if cpu != self.told_cpu {
            self.told_cpu = cpu;
            self.tx.storage().store(Word::Cpu, cpu);
        }
    }

    fn await_long<T>(
        &mut self,
        take: &impl Fn(&mut Self) -> Result<Option<T>, Poison>,
        began: Ticks,
    ) -> Result<T, RequestError> {
        self.withdraw();
        loop {
            let left = self.left_since(began);
            let mut look = Incoming {
                rx: &mut self.rx,
                line: &mut self.line,
                slot: &self.slot,
                calls: &mut self.calls,
                told_ns: 0,
            };
            let (found, waited) = match look.look() {
                Some(found) => (Some(found), None),
                None if look.line.has_ended() => (Some(Err(look.line.end())), None),
                None => {
                    let (found, waited) = self.waiter.wait(&mut look, left);
                    (found, Some(waited))
                }
            };
            let told = look.told_ns != 0;
            if let Some(waited) = waited {
                record::waited(
                    &self.slot,
                    &self.waiter,
                    &waited,
                    matches!(found, Some(Ok(()))),
                );
                if waited.yields + waited.sleeps > 0 {
                    self.tell_cpu(waited.sleeps > 0);
                }
            }
            if told {
                self.timing.paused();
                set(&self.slot.req().oldest_ns, 0);
                set(&self.slot.wait().waiting_since_ns, 0);
            }
            match found {
                Some(Ok(())) => match take(self) {
                    Ok(Some(arrived)) => return Ok(arrived),
                    // A late reply, or half a record: wait on.
                    Ok(None) => {}
                    Err(poison) => return Err(self.lose(Lost::Poisoned(poison))),
                },
                Some(Err(lost)) => return self.left_behind(take, lost),
                None => {}
            }
            if self.left_since(began).is_zero() {
                return Err(RequestError::Timeout {
                    timeout: self.timeout,
                });
            }
        }
    }
}
