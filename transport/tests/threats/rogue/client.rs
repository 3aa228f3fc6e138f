//! A client on shared memory, made of bytes.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::{
    COMMIT, DATA, Memory, OFFER, READY, REPLY_RECORD, Raw, Rings, UPGRADE, WELCOME, hello, message,
};

/// A client on shared memory, made of bytes.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    pub(crate) rings: Rings,
    pub(crate) connection: u64,
    pub(crate) max_message: usize,
}

impl Client {
    /// Goes through the whole handshake.
    pub(crate) fn connect(path: &Path) -> Self {
        Self::connect_after(path, Duration::ZERO)
    }

    /// The same, with a pause between the welcome and what it asks for.
    pub(crate) fn connect_after(path: &Path, pause: Duration) -> Self {
        let mut raw = Raw::connect(path);
        raw.say(&hello(1 << 16, 20_000));
        let welcome = raw.expect(WELCOME);
        let (connection, max_message) = (welcome.u64(40), welcome.u64(48) as usize);
        std::thread::sleep(pause);
        raw.say(&message(UPGRADE, 1, &[]));
        let mut offer = raw.expect(OFFER);
        assert_eq!(offer.fds.len(), 1);
        assert_eq!(offer.u64(32), DATA as u64 + offer.u64(40) + offer.u64(48));
        let memory = Memory::map(offer.fds.remove(0), offer.u64(40));
        raw.say(&message(COMMIT, 1, &[]));
        raw.expect(READY);
        Self {
            raw,
            rings: Rings::client(memory),
            connection,
            max_message,
        }
    }

    /// A request and its reply.
    pub(crate) fn call(&mut self, id: u64, payload: &[u8]) -> Vec<u8> {
        self.rings.send(id, payload);
        let (kind, replied, bytes) = self.rings.await_record();
        assert_eq!((kind, replied), (REPLY_RECORD, id));
        bytes
    }

    /// The descriptor of the rings, which a well-behaved client would have closed.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.rings.memory.fd.as_fd()
    }
}
