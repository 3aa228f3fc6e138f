//! Calls with a limit of their own, and replies that go straight to where the caller wants them.

use std::time::Duration;

use super::{Arrived, Lying, ShmClient};
use crate::calls::RequestId;
use crate::error::RequestError;
use crate::ring::storage::Storage;

impl ShmClient {
    /// As [`Self::fire_bytes`], for at most `limit`.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn fire_bytes_within(
        &mut self,
        request: &[u8],
        limit: Duration,
    ) -> Result<&[u8], RequestError> {
        let usual = std::mem::replace(&mut self.timeout, limit);
        let arrived = self.fire_and(request, Self::arrived);
        self.timeout = usual;
        let Arrived { id, length, failed } = arrived?;
        self.deliver(id, length, failed)
    }

    /// As [`Self::receive`], for at most `limit`.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn receive_within(
        &mut self,
        limit: Duration,
    ) -> Result<(RequestId, &[u8]), RequestError> {
        let usual = std::mem::replace(&mut self.timeout, limit);
        let arrived = self.await_reply(Self::arrived);
        self.timeout = usual;
        let Arrived { id, length, failed } = arrived?;
        self.deliver(id, length, failed)
            .map(|bytes| (RequestId(id), bytes))
    }

    /// As [`Self::fire_bytes`], with the reply copied from the ring into `into`.
    ///
    /// # Errors
    /// As there; `into` is as it was then.
    pub(crate) fn fire_bytes_into(
        &mut self,
        request: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        let lying = self.fire_in_hand(request)?;
        self.copy_to(&lying, into);
        Ok(())
    }

    /// As [`Self::receive`], with the reply copied from the ring into `into`.
    ///
    /// # Errors
    /// As there; `into` is as it was then.
    pub(crate) fn receive_into(&mut self, into: &mut Vec<u8>) -> Result<RequestId, RequestError> {
        let (id, lying) = self.receive_in_hand()?;
        self.copy_to(&lying, into);
        Ok(id)
    }

    /// A copy, so the server need not be trusted: as long as the record was when it was checked, with whatever bytes.
    fn copy_to(&mut self, lying: &Lying, into: &mut Vec<u8>) {
        // What is in it is written over, and only what is added to it has to be made first.
        into.resize(lying.length(), 0);
        let at = self.rx.payload_offset();
        self.rx.storage().read(at, into);
        self.give_back(lying);
    }
}
