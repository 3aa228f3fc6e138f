//! One request over the socket.

use std::time::Duration;

use super::Connection;
use crate::handler;
use crate::reply::{Client, Reply, Sink};
use crate::stats::recorder::{bump, raise};
use crate::wire::edge::{Deadline, send_until};
use crate::wire::frame::{Header, Kind};

/// How long a client on the socket may take to accept a reply. Generous, because a stopped client is not dead; bounded, because its
/// thread and buffers are held meanwhile.
const REPLY_PATIENCE: Duration = Duration::from_secs(60);

impl Connection<'_> {
    /// Answers one request over the socket; false if the client is gone.
    pub(super) fn answer(
        &mut self,
        header: Header,
        request: &[u8],
        buffer: &mut Vec<u8>,
        max_message: usize,
    ) -> bool {
        let slot = &self.slot;
        let (req, taken, given) = (slot.req(), slot.taken(), slot.sent());
        bump(&taken.rx_socket_messages, 1);
        bump(&taken.rx_socket_bytes, request.len() as u64);
        raise(&taken.rx_peak_bytes, request.len() as u64);
        bump(&req.socket_requests, 1);
        buffer.clear();
        let client = Client {
            peer: self.peer,
            max_message,
        };
        let timed = self.timing.begin_handler(slot);
        let mut reply = Reply::new(Sink::Buffer(buffer, &client));
        if !handler::answer(&self.shared.handler, request, &mut reply) {
            bump(&req.panics, 1);
        }
        let failed = reply.failed();
        if timed {
            self.timing.handled(slot);
        }
        if failed {
            bump(&req.errors, 1);
        }
        let kind = if failed {
            Kind::ErrorReply
        } else {
            Kind::Reply
        };
        // The length fits: the buffer is bounded by the largest message.
        let answer = Header {
            kind,
            id: header.id,
            length: buffer.len() as u32,
            aux: 0,
        };
        let sent = send_until(
            self.socket,
            &answer.encode(),
            buffer,
            None,
            Deadline::after(REPLY_PATIENCE),
        );
        bump(&given.tx_socket_messages, 1);
        bump(&given.tx_socket_bytes, buffer.len() as u64);
        raise(&given.tx_peak_bytes, buffer.len() as u64);
        sent.is_ok()
    }
}
