//! Fewer copies, for those who ask: requests written in place, and replies of a trusted server read in place.

use super::{Synapse, Transport, lost};
use crate::calls::RequestId;
use crate::draft::Draft;
use crate::error::RequestError;
use crate::in_place::{InPlace, TrustedServer};

impl Synapse {
    /// Reserves room for a request of up to `room` bytes, to be written where it will be sent from. Waits for that room as
    /// [`Self::submit`] does; nothing is sent before [`Draft::submit`] or [`Draft::fire`].
    ///
    /// ```no_run
    /// use std::io::Write;
    ///
    /// # fn send(synapse: &mut transport::Synapse) -> Result<(), Box<dyn std::error::Error>> {
    /// let mut draft = synapse.draft(64)?;
    /// write!(draft, "order {} at {:.2}", 7, 101.25)?;
    /// let reply: &[u8] = draft.fire()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::submit`], with `room` for the size.
    #[inline]
    pub fn draft(&mut self, room: usize) -> Result<Draft<'_>, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.draft(room),
            Transport::Socket(socket) => socket.draft(room),
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::fire_bytes`], but the reply is not copied: it is read where the server wrote it, until what is returned is dropped. Pays for
    /// large replies of which little is looked at, or that are copied to where they belong anyway.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn fire_in_place(
        &mut self,
        request: &[u8],
        trusted: TrustedServer,
    ) -> Result<InPlace<'_>, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => {
                let lying = shm.fire_in_hand(request)?;
                Ok(InPlace::in_ring(shm, lying, trusted))
            }
            Transport::Socket(socket) => {
                socket.fire_bytes(request)?;
                Ok(InPlace::in_buffer(socket))
            }
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::receive`], in place.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn receive_in_place(
        &mut self,
        trusted: TrustedServer,
    ) -> Result<(RequestId, InPlace<'_>), RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => {
                let (id, lying) = shm.receive_in_hand()?;
                Ok((id, InPlace::in_ring(shm, lying, trusted)))
            }
            Transport::Socket(socket) => {
                let (id, _) = socket.receive()?;
                Ok((id, InPlace::in_buffer(socket)))
            }
            Transport::Changing => Err(lost()),
        }
    }
}
