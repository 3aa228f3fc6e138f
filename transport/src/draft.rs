//! A request written straight into the memory it is sent from.

use std::io;

use crate::calls::RequestId;
use crate::error::RequestError;
use crate::ring::producer::Place;
use crate::shm::ShmClient;
use crate::synapse::{SocketClient, Synapse, Transport, lost};

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
        match self.transport_mut() {
            Transport::Shm(shm) => {
                let place = shm.reserve(room)?;
                Ok(Draft::in_ring(shm, place, room))
            }
            Transport::Socket(socket) => {
                socket.reserve(room)?;
                Ok(Draft::in_buffer(socket, room))
            }
            Transport::Changing => Err(lost()),
        }
    }
}

/// A request being written, in shared memory: into the record reserved for it. From [`crate::Synapse::draft`].
///
/// Saves the copy of a request that would be put together elsewhere first. The server is given nothing of it before it is sent, and dropping
/// it (in a panic, too) sends nothing: the room is free again. It lies in memory that the server could look at and scribble on meanwhile: it
/// can't be read back, and a secret that may yet be thought better of does not belong in it. On the socket the same calls fill a private buffer.
#[derive(Debug)]
pub struct Draft<'a> {
    home: Home<'a>,
    room: usize,
}

#[derive(Debug)]
enum Home<'a> {
    Ring(&'a mut ShmClient, Place),
    Socket(&'a mut SocketClient, Vec<u8>),
}

impl<'a> Draft<'a> {
    fn in_ring(client: &'a mut ShmClient, place: Place, room: usize) -> Self {
        Self {
            home: Home::Ring(client, place),
            room,
        }
    }

    fn in_buffer(client: &'a mut SocketClient, room: usize) -> Self {
        Self {
            home: Home::Socket(client, Vec::with_capacity(room)),
            room,
        }
    }

    /// Bytes written so far.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.home {
            Home::Ring(_, place) => place.written(),
            Home::Socket(_, buffer) => buffer.len(),
        }
    }

    /// True if nothing was written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the reserved room that are left.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.room - self.len()
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`RequestError::DraftFull`] beyond the room that was reserved; nothing of these bytes was written, and what was before stays.
    /// [`RequestError::Forked`] in a forked child.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), RequestError> {
        if bytes.len() > self.remaining() {
            return Err(RequestError::DraftFull {
                size: self.len().saturating_add(bytes.len()),
                room: self.room,
            });
        }
        match &mut self.home {
            Home::Ring(client, place) => client.write_draft(place, bytes),
            Home::Socket(_, buffer) => {
                buffer.extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Sends what was written, which may be less than the room. The reply is received as after [`crate::Synapse::submit`].
    ///
    /// # Errors
    /// As there, but not `Full`: there is room for it since it was begun. (Over the socket it is possible all the same where the system has made the
    /// socket's buffer small and the server stands still, or where the server ends meanwhile; what was written is lost then.)
    #[inline]
    pub fn submit(self) -> Result<RequestId, RequestError> {
        match self.home {
            Home::Ring(client, place) => client.submit_draft(&place),
            Home::Socket(client, buffer) => client.submit(&buffer),
        }
    }

    /// Sends what was written and waits for the reply, as [`crate::Synapse::fire_bytes`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn fire(self) -> Result<&'a [u8], RequestError> {
        match self.home {
            Home::Ring(client, place) => {
                if client.in_flight() > 0 {
                    return Err(RequestError::Full {
                        in_flight: client.in_flight(),
                    });
                }
                client.fire_draft(&place)
            }
            Home::Socket(client, buffer) => client.fire_bytes(&buffer),
        }
    }
}

impl io::Write for Draft<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.remaining());
        if n == 0 && !bytes.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                "the draft has filled the room reserved for it",
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
