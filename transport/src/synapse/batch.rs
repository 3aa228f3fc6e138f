//! Many requests in one call.

use super::Synapse;
use crate::error::RequestError;

/// A batch under way: however it is left, a panic of `on_reply` included, none of its replies is left to who asks next.
struct InFlight<'a>(&'a mut Synapse);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.cancel_all();
    }
}

impl Synapse {
    /// Sends all requests, pipelined as far as the connection allows, and calls `on_reply` with each one's index and reply, in order.
    ///
    /// # Errors
    /// [`RequestError::Full`] if anything is in flight already: nothing was sent. Else the first error, and an answer that is an error
    /// ([`RequestError::Remote`]) is one: it ends the batch. Requests then still in flight are given up, as they are if `on_reply` panics; it
    /// has seen every reply that came before the error.
    pub fn fire_batch<R: AsRef<[u8]>>(
        &mut self,
        requests: &[R],
        mut on_reply: impl FnMut(usize, &[u8]),
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
        on_reply: &mut impl FnMut(usize, &[u8]),
    ) -> Result<(), RequestError> {
        let (mut sent, mut answered) = (0, 0);
        while answered < requests.len() {
            while sent < requests.len() {
                match self.queue(requests[sent].as_ref()) {
                    Ok(_) => sent += 1,
                    Err(RequestError::Full { .. }) if sent > answered => break,
                    Err(error) => return Err(error),
                }
                while let Some((_, reply)) = self.try_receive()? {
                    on_reply(answered, reply);
                    answered += 1;
                }
            }
            if answered < sent {
                let (_, reply) = self.receive()?;
                on_reply(answered, reply);
                answered += 1;
            }
        }
        Ok(())
    }
}
