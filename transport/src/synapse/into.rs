//! The blocking calls with a limit of their own, and with the reply in a vector of the caller's.

use std::time::Duration;

use super::{Synapse, Transport, lost};
use crate::calls::RequestId;
use crate::error::RequestError;

impl Synapse {
    /// As [`Self::fire_bytes`], but waits for at most `limit` instead of [`Config::request_timeout`](crate::Config::request_timeout), for room and reply
    /// together. Zero looks once.
    ///
    /// # Errors
    /// As there.
    pub fn fire_bytes_within(
        &mut self,
        request: &[u8],
        limit: Duration,
    ) -> Result<&[u8], RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.fire_bytes_within(request, limit),
            Transport::Socket(socket) => socket.fire_bytes_within(request, limit),
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::receive`], but waits for at most `limit` instead of [`Config::request_timeout`](crate::Config::request_timeout). Zero looks once.
    ///
    /// # Errors
    /// As there.
    pub fn receive_within(&mut self, limit: Duration) -> Result<(RequestId, &[u8]), RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.receive_within(limit),
            Transport::Socket(socket) => socket.receive_within(limit),
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::fire_bytes`], but the reply becomes what is in `into`, in one copy, and the connection is free for the next call: for replies that are
    /// kept, and for calls in a loop. Nothing is allocated once the vector is large enough. Don't clear it in between: what it has to grow is zeroed first.
    ///
    /// # Errors
    /// As there; `into` is as it was then.
    pub fn fire_bytes_into(
        &mut self,
        request: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.fire_bytes_into(request, into),
            Transport::Socket(socket) => socket.fire_bytes_into(request, into),
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::receive`], but the reply becomes what is in `into`, as with [`Self::fire_bytes_into`].
    ///
    /// # Errors
    /// As there; `into` is as it was then.
    pub fn receive_into(&mut self, into: &mut Vec<u8>) -> Result<RequestId, RequestError> {
        match &mut self.transport {
            Transport::Shm(shm) => shm.receive_into(into),
            Transport::Socket(socket) => socket.receive_into(into),
            Transport::Changing => Err(lost()),
        }
    }
}
