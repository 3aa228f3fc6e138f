//! Several requests in flight: submit, receive, give up.

use super::doorbell::FLOODED;
use super::{Arrived, ShmClient};
use crate::calls::RequestId;
use crate::error::{Lost, RequestError};
use crate::mem::fork;

impl ShmClient {
    /// Sends a request without waiting for the reply. Blocks only while the ring is full and no reply is there to be
    /// received, for at most the request timeout.
    ///
    /// # Errors
    /// [`RequestError::Full`]: receive replies, then try again; nothing was sent.
    #[inline]
    pub(crate) fn submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        let id = self.publish(request)?;
        self.book(request.len());
        self.ring_bell();
        Ok(RequestId(id))
    }

    /// As [`Self::submit`], but a server that sleeps is woken only by the next call that is not `queue`: one look at its doorbell for many
    /// requests, which costs more than sending a small one. End with a call that receives, or with [`Self::notify`]. [`Self::try_receive`] that finds a
    /// reply wakes whom it can see asleep without a fence, and the one that finds none whoever sleeps.
    ///
    /// # Errors
    /// As [`Self::submit`].
    #[inline]
    pub(crate) fn queue(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        let id = self.publish(request)?;
        self.book(request.len());
        self.bell_due = true;
        Ok(RequestId(id))
    }

    /// Wakes the server, if it sleeps, for what was [`queue`](Self::queue)d.
    #[inline]
    pub(crate) fn notify(&mut self) {
        if self.bell_due && self.usable().is_ok() {
            self.ring_bell();
        }
    }

    /// Waits for the next reply, for at most the request timeout. Replies come in the order of submission. The slice is valid until the next call.
    ///
    /// # Errors
    /// [`RequestError::NothingInFlight`] if there is nothing to wait for. After `Timeout` the requests in flight stay so.
    #[inline]
    pub(crate) fn receive(&mut self) -> Result<(RequestId, &[u8]), RequestError> {
        let Arrived { id, length, failed } = self.await_reply(Self::arrived)?;
        self.deliver(id, length, failed)
            .map(|bytes| (RequestId(id), bytes))
    }

    /// The next reply if it is there already.
    ///
    /// # Errors
    /// As [`Self::receive`], without `Timeout`.
    #[inline]
    pub(crate) fn try_receive(&mut self) -> Result<Option<(RequestId, &[u8])>, RequestError> {
        if !self.line.is_open() {
            return self.try_receive_last();
        }
        match self.arrived() {
            // Who looks here has no clock: a `Group` would find this connection ready again and again.
            Ok(None) if self.calls.is_flooded() => Err(self.lose(Lost::BadFrame(FLOODED))),
            Ok(None) => {
                // A server that waits for the last room that was made is told here: no fence for a look that finds nothing, and so
                // it may be the next one that sees it wait.
                if self.bell_due || self.released > 0 && self.rx.is_awaited() {
                    self.ring_bell();
                }
                Ok(None)
            }
            Ok(Some(Arrived { id, length, failed })) => {
                // Who takes what is there looks until nothing is, mostly: the fence is left to that look.
                if self.bell_due && self.tx.is_announced() {
                    self.ring_bell();
                }
                self.deliver(id, length, failed)
                    .map(|bytes| Some((RequestId(id), bytes)))
            }
            Err(poison) => Err(self.lose(Lost::Poisoned(poison))),
        }
    }

    /// The same once the end was met. Out of line: not a word of it stands in the way of a look.
    #[cold]
    #[inline(never)]
    fn try_receive_last(&mut self) -> Result<Option<(RequestId, &[u8])>, RequestError> {
        self.not_lost()?;
        let Arrived { id, length, failed } = self.left_behind(&Self::arrived, self.line.end())?;
        self.deliver(id, length, failed)
            .map(|bytes| Some((RequestId(id), bytes)))
    }

    /// Gives up all requests in flight: their replies will be discarded and counted. Returns how many.
    pub(crate) fn cancel_all(&mut self) -> usize {
        let n = self.calls.abandon_all();
        if self.generation != fork::generation() {
            // A fork's copy: the stats page is not mapped here.
            return n;
        }
        self.has_given_up();
        n
    }
}
