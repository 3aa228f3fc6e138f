//! Calls with a limit of their own, and replies that go where the caller wants them.

use std::time::Duration;

use super::{Arrived, SocketClient};
use crate::calls::RequestId;
use crate::error::RequestError;

impl SocketClient {
    /// As [`crate::Synapse::fire_bytes_within`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn fire_bytes_within(
        &mut self,
        request: &[u8],
        limit: Duration,
    ) -> Result<&[u8], RequestError> {
        let usual = std::mem::replace(&mut self.timeout, limit);
        let arrived = self.fire(request);
        self.timeout = usual;
        let Arrived { id, failed } = arrived?;
        self.deliver(id, failed)
    }

    /// As [`crate::Synapse::receive_within`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn receive_within(
        &mut self,
        limit: Duration,
    ) -> Result<(RequestId, &[u8]), RequestError> {
        let usual = std::mem::replace(&mut self.timeout, limit);
        let arrived = self.receive_one();
        self.timeout = usual;
        let Arrived { id, failed } = arrived?;
        self.deliver(id, failed).map(|bytes| (RequestId(id), bytes))
    }

    /// As [`crate::Synapse::fire_bytes_into`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn fire_bytes_into(
        &mut self,
        request: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        let reply = self.fire_bytes(request)?;
        into.clear();
        into.extend_from_slice(reply);
        Ok(())
    }

    /// As [`crate::Synapse::receive_into`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn receive_into(&mut self, into: &mut Vec<u8>) -> Result<RequestId, RequestError> {
        let (id, reply) = self.receive()?;
        into.clear();
        into.extend_from_slice(reply);
        Ok(id)
    }
}
