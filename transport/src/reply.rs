//! What a handler writes its answer into: straight into the reply ring, or into the buffer of a socket connection.

mod in_ring;

use std::io;

use crate::error::MAX_ERROR_BYTES;
use crate::peer::Peer;
use crate::ring::plan::Kind;
pub(crate) use in_ring::RingSink;
use in_ring::Stage;

/// Why bytes were not added to a reply. Nothing of them was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// It would be larger than the connection's largest message.
    #[error("reply of {size} bytes is above the largest allowed ({limit})")]
    TooLarge {
        /// What it would have been, in bytes.
        size: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// [`Reply::send`] has answered: the client may have read it.
    #[error("the reply was sent already")]
    AlreadySent,
    /// [`Reply::fail`] has answered: behind its text nothing else can stand.
    #[error("the reply is an error already")]
    Failed,
    /// It does not fit into the ring as it stands, and there is no memory for a buffer in which it could wait for room.
    #[error("no memory for a reply of {size} bytes, which would wait for room")]
    NoMemory {
        /// What it would have been, in bytes.
        size: usize,
    },
}

/// A reply being written. What was appended when the handler returns is sent; an empty reply is legal.
///
/// Bytes go straight into shared memory and can't be read back: the client may already see (and scribble on) them.
pub struct Reply<'a> {
    sink: Sink<'a>,
    failed: bool,
    /// [`Reply::send`] was called: nothing can change any more.
    whole: bool,
}

/// What a reply has to know of who gets it. By reference: each word of a reply is stored for each request.
pub(crate) struct Client {
    pub(crate) peer: Peer,
    /// The connection's largest, in bytes.
    pub(crate) max_message: usize,
}

pub(crate) enum Sink<'a> {
    Ring(RingSink<'a>),
    /// A buffer whose capacity is the largest message; it never grows.
    Buffer(&'a mut Vec<u8>, &'a Client),
}

/// What became of a finished reply.
pub(crate) enum Finished {
    /// It is in the ring.
    Sent,
    /// It stands in the buffer, to be sent by its owner.
    Buffered(Kind),
}

impl std::fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply")
            .field("len", &self.len())
            .field("failed", &self.failed)
            .finish()
    }
}

impl<'a> Reply<'a> {
    pub(crate) fn new(sink: Sink<'a>) -> Self {
        Self {
            sink,
            failed: false,
            whole: false,
        }
    }

    /// Who asks.
    ///
    /// ```
    /// # use transport::Reply;
    /// fn handler(request: &[u8], reply: &mut Reply<'_>) {
    ///     match reply.peer().uid {
    ///         0 => reply.send(request).unwrap_or_else(|e| reply.fail(e)),
    ///         uid => reply.fail(format_args!("not for user {uid}")),
    ///     }
    /// }
    /// ```
    #[inline]
    pub fn peer(&self) -> Peer {
        self.client().peer
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        match &self.sink {
            Sink::Ring(ring) => ring.len(),
            Sink::Buffer(buffer, _) => buffer.len(),
        }
    }

    /// True if nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that may still be appended.
    pub fn remaining(&self) -> usize {
        match &self.sink {
            _ if self.whole || self.failed => 0,
            Sink::Ring(ring) => ring.client.max_message - ring.len(),
            Sink::Buffer(buffer, client) => client.max_message - buffer.len(),
        }
    }

    /// The connection's largest message.
    fn limit(&self) -> usize {
        self.client().max_message
    }

    fn client(&self) -> &'a Client {
        match &self.sink {
            Sink::Ring(ring) => ring.client,
            Sink::Buffer(_, client) => client,
        }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// If the reply would exceed the connection's largest message, was sent already or has failed, or if there is no memory. What was
    /// appended before stays.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        if bytes.len() > self.remaining() {
            return Err(self.refusal(bytes.len()));
        }
        match &mut self.sink {
            Sink::Ring(ring) => {
                if !ring.write(bytes) {
                    return Err(self.no_memory(bytes.len()));
                }
            }
            Sink::Buffer(buffer, _) => buffer.extend_from_slice(bytes),
        }
        Ok(())
    }

    /// Answers with these bytes, at once: a large answer is read by the client while it is being copied, so this is quicker than
    /// [`Self::extend_from_slice`]. A client that sleeps is woken when the handler returns, so let that be soon. Nothing can be appended
    /// afterwards, and it is too late to [`Self::fail`].
    ///
    /// # Errors
    /// If the reply would exceed the connection's largest message, was sent already or has failed, or if there is no memory. Nothing
    /// changes then.
    #[inline]
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), ReplyError> {
        if self.whole || self.failed {
            return Err(self.refusal(bytes.len()));
        }
        match &mut self.sink {
            Sink::Ring(ring) if bytes.len() <= ring.client.max_message - ring.len() => {
                if !ring.send(bytes) {
                    return Err(self.no_memory(bytes.len()));
                }
            }
            _ => self.extend_from_slice(bytes)?,
        }
        self.whole = true;
        Ok(())
    }

    #[cold]
    fn no_memory(&self, more: usize) -> ReplyError {
        ReplyError::NoMemory {
            size: self.len().saturating_add(more),
        }
    }

    /// Why no `more` bytes fit.
    #[cold]
    fn refusal(&self, more: usize) -> ReplyError {
        if self.whole {
            ReplyError::AlreadySent
        } else if self.failed {
            ReplyError::Failed
        } else {
            ReplyError::TooLarge {
                size: self.len().saturating_add(more),
                limit: self.limit(),
            }
        }
    }

    /// Turns the reply into an error with this text (cut at 1 KiB); what was appended is dropped, and nothing can be appended any more: to
    /// fail again is to say it in other words. The client's call returns [`crate::error::RequestError::Remote`].
    pub fn fail(&mut self, message: impl std::fmt::Display) {
        if self.whole {
            return;
        }
        let text = message.to_string();
        let mut end = text.len().min(MAX_ERROR_BYTES).min(self.limit());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        match &mut self.sink {
            Sink::Ring(ring) => {
                ring.clear();
                if !ring.write(&text.as_bytes()[..end]) {
                    // No room and no memory: an error without a text is one, too.
                    ring.clear();
                }
            }
            Sink::Buffer(buffer, _) => {
                buffer.clear();
                buffer.extend_from_slice(&text.as_bytes()[..end]);
            }
        }
        self.failed = true;
    }

    /// True once [`Self::fail`] was called.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Sends a reply that stands in the ring. By reference: what is moved is copied, as a whole, and waits for what was just written to it.
    #[inline]
    pub(crate) fn finish(&mut self, id: u64) -> Finished {
        let kind = if self.failed {
            Kind::Error
        } else {
            Kind::Reply
        };
        match &mut self.sink {
            Sink::Ring(ring) if ring.stage == Stage::Slot => {
                ring.slot.commit(kind, id);
                ring.stage = Stage::Sent;
                Finished::Sent
            }
            Sink::Ring(ring) if ring.stage == Stage::Sent => Finished::Sent,
            Sink::Ring(_) | Sink::Buffer(..) => Finished::Buffered(kind),
        }
    }
}

impl io::Write for Reply<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.remaining());
        if n == 0 && !bytes.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                self.refusal(bytes.len()),
            ));
        }
        self.extend_from_slice(&bytes[..n])
            .map_err(io::Error::other)?;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
