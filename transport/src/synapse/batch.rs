//! Many requests in one call.

use super::Synapse;
use crate::calls::RequestId;
use crate::error::RequestError;

/// Requests queued for each look whether the server sleeps, which costs more than sending a small one.
const QUEUED_PER_BELL: usize = 16;

/// A batch under way: however it is left, a panic of `on_reply` included, none of its replies is left to who asks next.
struct InFlight<'a>(&'a mut Synapse);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.cancel_all();
    }
}

impl Synapse {
    /// Sends all requests, pipelined as far as the connection allows, and calls `on_reply` with each one's index and what became of it, in order:
    /// its reply, or the error with which the server answered it ([`RequestError::Remote`], and no other). Such an error is the end of that one request.
    ///
    /// # Errors
    /// [`RequestError::Full`] if anything is in flight already: nothing was sent. Else the first error that is not the answer to one request: it ends the
    /// batch. Requests then still in flight are given up, as they are if `on_reply` panics; it has seen every answer that came before.
    pub fn fire_batch<R: AsRef<[u8]>>(
        &mut self,
        requests: &[R],
        mut on_reply: impl FnMut(usize, Result<&[u8], RequestError>),
    ) -> Result<(), RequestError> {
        if self.in_flight() > 0 {
            return Err(RequestError::Full {
                in_flight: self.in_flight(),
            });
        }
        let batch = InFlight(self);
        batch.0.run_batch(requests, &mut on_reply)?;
        // All are answered.
        std::mem::forget(batch);
        Ok(())
    }

    fn run_batch<R: AsRef<[u8]>>(
        &mut self,
        requests: &[R],
        on_reply: &mut impl FnMut(usize, Result<&[u8], RequestError>),
    ) -> Result<(), RequestError> {
        let (mut sent, mut answered) = (0, 0);
        while answered < requests.len() {
            while sent < requests.len() {
                match self.queue(requests[sent].as_ref()) {
                    Ok(_) => sent += 1,
                    Err(RequestError::Full { .. }) if sent > answered => break,
                    Err(error) => return Err(error),
                }
                // The first wakes a server that sleeps; of the others some, in case it fell asleep again.
                if sent % QUEUED_PER_BELL == 1 {
                    self.notify();
                }
                // In a ring, a look without a fence. What the socket has is seen by reading it.
                while (self.is_ready() || !self.is_shm())
                    && let Some(answer) = answer(self.try_receive())?
                {
                    on_reply(answered, answer);
                    answered += 1;
                }
            }
            if answered < sent
                && let Some(answer) = answer(self.receive().map(Some))?
            {
                on_reply(answered, answer);
                answered += 1;
            }
        }
        Ok(())
    }
}

/// Tells an error that is an answer from one that ends the batch.
fn answer(
    received: Result<Option<(RequestId, &[u8])>, RequestError>,
) -> Result<Option<Result<&[u8], RequestError>>, RequestError> {
    match received {
        Ok(found) => Ok(found.map(|(_, reply)| Ok(reply))),
        Err(error @ RequestError::Remote { .. }) => Ok(Some(Err(error))),
        Err(error) => Err(error),
    }
}
