//! Replies read where they lie, from a server that is trusted.

use std::ops::Deref;

use crate::calls::RequestId;
use crate::error::RequestError;
use crate::shm::{Lying, ShmClient};
use crate::synapse::{SocketClient, Synapse, Transport, lost};

/// The promise that a server leaves a reply alone once it has sent it: what reading in place rests on, and copying does not.
///
/// A reply in shared memory can be written to by the server for as long as it has the memory mapped. A `&[u8]` whose bytes change is
/// undefined behaviour, and a check of bytes that change afterwards is no check. A [`crate::Membrane`] never touches a reply that
/// it has published, not even when it is killed; that a server is one, and is nobody else's, is what this promises.
#[derive(Clone, Copy, Debug)]
pub struct TrustedServer(());

impl TrustedServer {
    /// Makes the promise.
    ///
    /// # Safety
    /// The server of each connection that this is used with must not write to a reply once it has sent it, for as long as the
    /// [`InPlace`] of that reply exists: it is a [`crate::Membrane`], in a process that is trusted like one's own. What the kernel knows of that process
    /// is in [`crate::Synapse::peer`]: look at the user at least, unless nobody else can make files where the socket is.
    #[must_use]
    pub const unsafe fn promise() -> Self {
        Self(())
    }
}

impl Synapse {
    /// As [`Self::fire_bytes`], but the reply is not copied: it is read where the server wrote it, until what is returned is dropped. Pays for
    /// large replies of which little is looked at, or that are copied to where they belong anyway.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn fire_in_place(
        &mut self,
        request: &[u8],
        trusted: TrustedServer,
    ) -> Result<InPlace<'_>, RequestError> {
        match self.transport_mut() {
            Transport::Shm(shm) => {
                let lying = shm.fire_in_hand(request)?;
                Ok(InPlace::in_ring(shm, lying, trusted))
            }
            Transport::Socket(socket) => {
                socket.fire_bytes(request)?;
                Ok(InPlace::in_buffer(socket))
            }
            Transport::Changing => Err(lost()),
        }
    }

    /// As [`Self::receive`], in place.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn receive_in_place(
        &mut self,
        trusted: TrustedServer,
    ) -> Result<(RequestId, InPlace<'_>), RequestError> {
        match self.transport_mut() {
            Transport::Shm(shm) => {
                let (id, lying) = shm.receive_in_hand()?;
                Ok((id, InPlace::in_ring(shm, lying, trusted)))
            }
            Transport::Socket(socket) => {
                let (id, _) = socket.receive()?;
                Ok((id, InPlace::in_buffer(socket)))
            }
            Transport::Changing => Err(lost()),
        }
    }
}

/// A reply where it lies: in the ring, whose room the server gets back when this is dropped; on the socket, in the private buffer.
///
/// From [`crate::Synapse::fire_in_place`]. Holding it holds up nothing but that room: the server answers on until the ring is full.
///
/// # Panics
/// If read in a forked child, which does not have the ring.
#[derive(Debug)]
pub struct InPlace<'a> {
    home: Home<'a>,
}

#[derive(Debug)]
enum Home<'a> {
    Ring(&'a mut ShmClient, Lying),
    Socket(&'a SocketClient),
}

impl<'a> InPlace<'a> {
    /// Only with a promise: see `deref`.
    fn in_ring(client: &'a mut ShmClient, lying: Lying, _: TrustedServer) -> Self {
        Self {
            home: Home::Ring(client, lying),
        }
    }

    /// The reply that was received last.
    fn in_buffer(client: &'a SocketClient) -> Self {
        Self {
            home: Home::Socket(client),
        }
    }
}

impl Deref for InPlace<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.home {
            // A fault would be all that a fork learned.
            Home::Ring(client, _) if !client.is_of_this_process() => {
                panic!("a reply in memory of the parent process, read in its fork")
            }
            // SAFETY: `in_ring` wants a `TrustedServer`, and whoever made one promised that the server leaves these bytes alone for as long as
            // `self` exists, which the slice does not outlive.
            Home::Ring(client, lying) => unsafe { client.bytes_in_hand(lying) },
            Home::Socket(client) => client.last_reply(),
        }
    }
}

impl Drop for InPlace<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Home::Ring(client, lying) = &mut self.home {
            client.give_back(lying);
        }
    }
}
