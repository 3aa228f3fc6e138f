//! Many requests in one call.

use super::Synapse;
use crate::error::RequestError;

impl Synapse {
    /// Sends all requests, pipelined as far as the connection allows, and calls `on_reply` with each one's index and reply, in order.
    ///
    /// # Errors
    /// [`RequestError::Full`] if anything is in flight already: nothing was sent. Else the first error, and an answer that is an error
    /// ([`RequestError::Remote`]) is one: it ends the batch. Requests then still in flight are given up; `on_reply` has seen every reply that
    /// came before it.
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
        let result = self.run_batch(requests, &mut on_reply);
        if result.is_err() {
            self.cancel_all();
        }
        result
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
