//! Requests written where they will be sent from.

use super::{Arrived, ShmClient};
use crate::calls::{MAX_IN_FLIGHT, RequestId};
use crate::clock::Ticks;
use crate::error::{Lost, RequestError};
use crate::mem::fork;
use crate::ring::plan::Kind;
use crate::ring::producer::{NoSlot, Place};

impl ShmClient {
    /// Room for one request, as [`crate::Synapse::draft`]; and an id is free for it.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub(crate) fn reserve(&mut self, room: usize) -> Result<Place, RequestError> {
        self.usable()?;
        self.check_size(room)?;
        let mut began = None;
        if self.calls.next_id().is_none() {
            self.await_place(*began.insert(Ticks::now()))?;
        }
        if self.calls.next_id().is_none() {
            return Err(RequestError::Full {
                in_flight: self.calls.live().min(MAX_IN_FLIGHT),
            });
        }
        let error = match self.tx.reserve(room) {
            Ok(slot) => return Ok(slot.lay_aside()),
            Err(error) => error,
        };
        if let NoSlot::Full { occupancy } = error {
            self.await_room(room, occupancy, began.unwrap_or_else(Ticks::now))?;
        }
        match self.tx.reserve(room) {
            Ok(slot) => Ok(slot.lay_aside()),
            Err(NoSlot::Full { .. }) => Err(RequestError::Full {
                in_flight: self.calls.live(),
            }),
            Err(NoSlot::Poisoned(poison)) => Err(self.lose(Lost::Poisoned(poison))),
        }
    }

    /// Appends to a draft; the room was reserved.
    #[inline]
    pub(crate) fn write_draft(
        &mut self,
        place: &mut Place,
        bytes: &[u8],
    ) -> Result<(), RequestError> {
        if self.generation != fork::generation() {
            // The memory is not mapped here.
            return Err(RequestError::Forked);
        }
        let mut slot = self.tx.resume(place);
        let wrote = slot.try_write(bytes);
        assert!(wrote, "more than was reserved");
        *place = slot.lay_aside();
        Ok(())
    }

    /// Publishes a draft and wakes the server.
    #[inline]
    pub(crate) fn submit_draft(&mut self, place: &Place) -> Result<RequestId, RequestError> {
        let id = self.publish_draft(place)?;
        self.book(place.written());
        self.ring_bell();
        Ok(RequestId(id))
    }

    /// Publishes a draft and waits for its reply, as [`Self::fire_bytes`]; nothing else is in flight.
    #[inline]
    pub(crate) fn fire_draft(&mut self, place: &Place) -> Result<&[u8], RequestError> {
        let id = self.publish_draft(place)?;
        let Arrived { length, failed, .. } = self.take_reply(id, place.written(), Self::arrived)?;
        self.deliver(id, length, failed)
    }

    /// As [`Self::publish`](Self::publish): neither books it nor rings the bell.
    #[inline(always)]
    fn publish_draft(&mut self, place: &Place) -> Result<u64, RequestError> {
        self.usable()?;
        let Some(id) = self.calls.next_id() else {
            return Err(RequestError::Full {
                in_flight: self.calls.live(),
            });
        };
        let timed = self.timing.begin();
        self.tx.resume(place).commit(Kind::Request, id);
        self.enter(id, timed);
        Ok(id)
    }
}
