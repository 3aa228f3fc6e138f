//! What a client waits for: a reply, or room for a request.

use std::time::Duration;

use super::line::Line;
use crate::calls::Calls;
use crate::clock::monotonic_ns;
use crate::error::Lost;
use crate::ring::consumer::Consumer;
use crate::ring::producer::{NoSlot, Producer};
use crate::ring::storage::{Bell, Flag, Mapped, Storage, Word};
use crate::stats::recorder::set;
use crate::stats::slot::SlotWriter;
use crate::wait::{Look, futex};

/// Waits for a record in the reply ring.
pub(super) struct Incoming<'a> {
    pub(super) rx: &'a mut Consumer<Mapped>,
    pub(super) line: &'a mut Line,
    pub(super) slot: &'a SlotWriter,
    pub(super) calls: &'a mut Calls,
    /// Since when (monotonic ns) the page says that it waits; 0 if it does not say so.
    pub(super) told_ns: u64,
}

impl Incoming<'_> {
    /// Tells viewers who waits, and since when.
    fn tell(&mut self) {
        if self.told_ns == 0 {
            self.told_ns = monotonic_ns();
            self.slot.waits_here();
            set(
                &self.slot.req().oldest_ns,
                self.calls.waited_since(self.told_ns),
            );
        }
    }
}

impl Look for Incoming<'_> {
    type Found = Result<(), Lost>;

    #[inline(always)]
    fn look(&mut self) -> Option<Self::Found> {
        self.rx.is_ready().then_some(Ok(()))
    }

    fn park(&mut self, limit: Duration) {
        self.tell();
        set(&self.slot.wait().waiting_since_ns, self.told_ns);
        self.rx.announce(Bell::Futex);
        fault_point!(Announced);
        if !self.rx.is_ready() {
            futex::wait(self.rx.storage().futex(Flag::Empty), 1, limit);
        }
        fault_point!(Woken);
        self.rx.retract();
    }

    fn tend(&mut self) -> Option<Self::Found> {
        // Who only ever spins is here for the first time after 50 ms.
        self.tell();
        if let Err(poison) = self.rx.cross_check() {
            return Some(Err(Lost::Poisoned(poison)));
        }
        self.line.alive().err().map(Err)
    }

    #[inline]
    fn is_to_leave(&self) -> Option<usize> {
        // Relaxed: a number that publishes nothing else. 0 is no wish.
        let wish = self.rx.storage().load(Word::Leave).checked_sub(1)?;
        usize::try_from(wish).ok()
    }
}

/// Waits for room in the request ring: `true` when there is, `false` when a reply wants to be received first.
pub(super) struct Room<'a> {
    pub(super) tx: &'a mut Producer<Mapped>,
    pub(super) rx: &'a Consumer<Mapped>,
    pub(super) line: &'a mut Line,
    pub(super) length: usize,
}

impl Look for Room<'_> {
    type Found = Result<bool, Lost>;

    fn look(&mut self) -> Option<Self::Found> {
        if self.rx.is_ready() {
            return Some(Ok(false));
        }
        match self.tx.reserve(self.length) {
            Ok(_unused) => Some(Ok(true)),
            Err(NoSlot::Full { .. }) => None,
            Err(NoSlot::Poisoned(poison)) => Some(Err(Lost::Poisoned(poison))),
        }
    }

    fn park(&mut self, limit: Duration) {
        self.tx.announce();
        if self.look().is_none() {
            // A reply that arrives meanwhile rings another bell; the limit bounds how late it is seen.
            let limit = limit.min(Duration::from_millis(5));
            futex::wait(self.tx.storage().futex(Flag::Full), 1, limit);
        }
        self.tx.retract();
    }

    fn tend(&mut self) -> Option<Self::Found> {
        match self.line.alive() {
            Ok(()) => None,
            // One that came after the look, and before the end: it is received before that is told.
            Err(_) if self.rx.is_ready() => Some(Ok(false)),
            Err(lost) => Some(Err(lost)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::mem::mapping::Mapping;
    use crate::mem::memfd::{RING_NAME, create_rings};
    use crate::ring::plan::Kind;
    use crate::ring::storage::connection_bytes;
    use crate::shm::Rings;
    use crate::stats::SlotKind;

    const CAPACITY: usize = 4 << 10;

    /// Both ends of a connection.
    fn rings() -> (Rings, Rings) {
        let bytes = connection_bytes(CAPACITY);
        let (fd, _) = create_rings(RING_NAME, bytes, false).expect("memory");
        let mapping = Arc::new(Mapping::shared(fd.as_fd(), bytes).expect("mapped"));
        let server = Rings::server(&mapping, CAPACITY, 64);
        (Rings::client(&mapping, CAPACITY, 64), server)
    }

    #[test]
    fn who_waits_for_room_is_told_of_a_reply_that_came_before_the_end_and_then_of_the_end() {
        let (mut client, mut server) = rings();
        while client.tx.push(Kind::Request, 1, &[0; 64]).is_ok() {}
        let (socket, servers) = UnixStream::pair().expect("sockets");
        let mut line = Line::new(socket);
        let mut room = Room {
            tx: &mut client.tx,
            rx: &client.rx,
            line: &mut line,
            length: 64,
        };
        assert!(room.look().is_none() && room.tend().is_none());
        // After the look, and before the end.
        server.tx.push(Kind::Reply, 1, b"last").expect("room");
        drop(servers);
        assert!(matches!(room.tend(), Some(Ok(false))));
        let record = client.rx.peek().expect("whole").expect("a reply");
        client.rx.release(&record);
        let mut room = Room {
            tx: &mut client.tx,
            rx: &client.rx,
            line: &mut line,
            length: 64,
        };
        assert!(matches!(room.tend(), Some(Err(Lost::PeerGone))));
    }

    #[test]
    fn who_waits_for_a_reply_sees_which_cpu_the_server_wants_and_any_number_is_only_that() {
        let (mut client, server) = rings();
        let (socket, _servers) = UnixStream::pair().expect("sockets");
        let incoming = Incoming {
            rx: &mut client.rx,
            line: &mut Line::new(socket),
            slot: &SlotWriter::private(SlotKind::Connection),
            calls: &mut Calls::new(),
            told_ns: 0,
        };
        let told = [(0, None), (1, Some(0)), (8, Some(7))];
        for (word, cpu) in told {
            server.tx.storage().store(Word::Leave, word);
            assert_eq!(incoming.is_to_leave(), cpu);
        }
        server.tx.storage().store(Word::Leave, u64::MAX);
        assert!(incoming.is_to_leave().is_some_and(|cpu| cpu > 1 << 30));
    }
}
