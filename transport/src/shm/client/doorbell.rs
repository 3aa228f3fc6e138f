//! For callers that wait for descriptors instead of in here: asking for a byte over the socket, and calls that never wait.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Relaxed;

#[cfg(feature = "tokio")]
use super::Arrived;
use super::ShmClient;
use crate::calls::RequestId;
use crate::clock::Ticks;
use crate::error::{Lost, RequestError};
use crate::ring::storage::Bell;
use crate::stats::recorder::{bump, set};

/// Why a connection ends on which the server answers nobody.
pub(crate) const FLOODED: &str = "replies to no request, without end";

impl ShmClient {
    /// What becomes readable when an armed doorbell rings, and when the server is gone.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.line.fd()
    }

    /// Whether a look for a reply would find one, or the end. No system call.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.rx.is_ready() || self.line.has_ended()
    }

    /// Asks the server for a byte over the socket with its next reply. False: something is there already, and nothing was asked.
    pub(crate) fn arm(&mut self) -> Result<bool, RequestError> {
        self.not_lost()?;
        if self.armed.is_some() {
            // It may have been armed for replies that nobody waits for.
            let oldest_ns = &self.slot.req().oldest_ns;
            if self.calls.live() > 0 && oldest_ns.load(Relaxed) == 0 {
                let now = Ticks::now().monotonic_ns();
                set(oldest_ns, self.calls.waited_since(now));
            }
            return Ok(true);
        }
        if self.released > 0 || self.bell_due {
            self.ring_bell();
        }
        self.line.expect_bell();
        self.rx.announce(Bell::Socket);
        if self.is_ready() {
            self.take_announcement();
            return Ok(false);
        }
        if let Err(poison) = self.rx.cross_check() {
            return Err(self.lose(Lost::Poisoned(poison)));
        }
        self.slot.waits_here();
        let begun = Ticks::now();
        let now = begun.monotonic_ns();
        // For what was given up nobody waits any more.
        if self.calls.live() > 0 {
            set(&self.slot.req().oldest_ns, self.calls.waited_since(now));
        }
        set(&self.slot.wait().waiting_since_ns, now);
        self.armed = Some(begun);
        Ok(true)
    }

    /// Takes [`Self::arm`] back, and the bytes off the socket. The end, if that is met, is what the next look for a reply reports, or, with nothing in
    /// flight, any call.
    pub(crate) fn disarm(&mut self) {
        // A fork's copy has no rings.
        if self.is_of_this_process() {
            self.take_back();
            self.drain();
        }
    }

    /// Takes bells off the socket. An end that nobody in flight can be told of is noted on the page here: the caller may never look for a reply again.
    fn drain(&mut self) {
        self.line.drain();
        if self.line.has_ended() && self.lost.is_none() && self.calls.live() == 0 {
            self.lose(self.line.end());
        }
    }

    /// The same where nobody has waited for the descriptor, or that said nothing: no system call, unless the server has taken the announcement. Also before a
    /// wait of ours, or a look at the socket: either takes the announcement or its bell, and who arms after that must not take it for asked.
    #[inline]
    pub(crate) fn withdraw(&mut self) {
        let is_due = self.armed.is_some() || self.line.expects_bell();
        if is_due && self.is_of_this_process() {
            self.take_back();
            if self.line.expects_bell() {
                self.drain();
            }
        }
    }

    /// Before it is armed anew: who armed, and then did something else, may have had that undone. Who armed last and has not disarmed may have been woken, be it
    /// by the end.
    pub(crate) fn let_go(&mut self) {
        if self.armed.is_some() {
            self.disarm();
        } else {
            self.withdraw();
        }
    }

    fn take_announcement(&mut self) {
        if self.rx.withdraw() {
            self.line.withdrawn();
        }
    }

    fn take_back(&mut self) {
        if let Some(begun) = self.armed.take() {
            self.take_announcement();
            self.timing.paused();
            let (req, wait) = (self.slot.req(), self.slot.wait());
            set(&req.oldest_ns, 0);
            set(&wait.waiting_since_ns, 0);
            bump(&wait.waits, 1);
            bump(&wait.sleeps, 1);
            bump(&wait.sleep_ns, Ticks::now().ns_since(begun));
            if self.rx.is_ready() {
                bump(&wait.ended_sleep, 1);
            } else {
                bump(&wait.timed_out, 1);
            }
        }
    }

    /// As [`Self::submit`], but where that would wait, `Full` comes at once.
    pub(crate) fn try_submit(&mut self, request: &[u8]) -> Result<RequestId, RequestError> {
        let id = self.publish_as::<false>(request)?;
        self.book(request.len());
        self.ring_bell();
        Ok(RequestId(id))
    }

    /// The next reply if it is there: its id, and what it says. A flood of replies to nobody ends the connection: the thread is not ours.
    #[cfg(feature = "tokio")]
    #[expect(
        clippy::type_complexity,
        reason = "one use, and names would hide that an error reply has an id"
    )]
    pub(crate) fn next_reply(
        &mut self,
    ) -> Result<Option<(u64, Result<&[u8], RequestError>)>, RequestError> {
        if !self.line.is_open() {
            self.not_lost()?;
            let Arrived { id, length, failed } =
                self.left_behind(&Self::arrived, self.line.end())?;
            return Ok(Some((id, self.deliver(id, length, failed))));
        }
        match self.arrived() {
            Ok(Some(Arrived { id, length, failed })) => {
                Ok(Some((id, self.deliver(id, length, failed))))
            }
            Ok(None) if self.calls.is_flooded() => Err(self.lose(Lost::BadFrame(FLOODED))),
            Ok(None) => Ok(None),
            Err(poison) => Err(self.lose(Lost::Poisoned(poison))),
        }
    }

    /// False once the connection is lost, and in a forked child.
    pub(crate) fn is_usable(&self) -> bool {
        matches!(self.usable(), Ok(()) | Err(RequestError::Full { .. }))
    }

    /// Gives one request up.
    pub(crate) fn abandon(&mut self, id: u64) {
        self.calls.abandon(id);
        if self.generation == crate::mem::fork::generation() {
            self.has_given_up();
        }
    }

    /// Tells the page so. Who is armed may wait for nothing any more.
    pub(super) fn has_given_up(&self) {
        set(&self.slot.taken().given_up, self.calls.given_up());
        if self.armed.is_some() && self.calls.live() == 0 {
            set(&self.slot.req().oldest_ns, 0);
        }
    }

    /// Requests whose reply has not come, given-up ones included.
    pub(crate) fn unanswered(&self) -> usize {
        self.calls.unanswered()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Duration;

    use super::super::tests::connected;
    use super::*;
    use crate::calls::MAX_IN_FLIGHT;
    use crate::ring::plan::Kind;
    use crate::shm::Rings;

    /// What a loop may do between two waits for its descriptor, and what waits otherwise in it or looks at the socket.
    type Otherwise = fn(&mut ShmClient, &mut Rings);

    const OTHERWISE: [(&str, Otherwise); 4] = [
        ("a wait for a reply", |client, _| {
            client.receive().expect_err("nobody answers");
        }),
        (
            "a wait for room",
            |client, _| {
                while client.submit(&[0; 64]).is_ok() {}
            },
        ),
        ("a wait for a free id", |client, server| {
            for _ in 1..MAX_IN_FLIGHT {
                client.submit(b"").expect("room");
                let record = server.rx.peek().expect("whole").expect("sent");
                server.rx.release(&record);
            }
            client.calls.abandon_all();
            client.submit(b"").expect_err("all are taken");
        }),
        ("a look at the socket", |client, _| {
            client.check_alive().expect("lives");
        }),
    ];

    #[test]
    fn who_armed_and_then_waited_otherwise_is_rung_for_once_it_arms_again() {
        for (name, otherwise) in OTHERWISE {
            let (mut client, mut server, mut theirs) = connected();
            client.timeout = Duration::from_millis(1);
            client.submit(b"one").expect("room");
            let record = server.rx.peek().expect("whole").expect("sent");
            server.rx.release(&record);
            assert!(client.arm().expect("lives"));
            assert_eq!(server.tx.must_wake(), Some(Bell::Socket));
            theirs.write_all(&[0]).expect("room");
            otherwise(&mut client, &mut server);
            assert!(client.arm().expect("lives"), "{name}");
            assert_eq!(server.tx.must_wake(), Some(Bell::Socket), "{name}");
        }
    }

    #[test]
    fn a_request_is_waited_for_since_the_first_of_the_waits_into_which_that_is_cut() {
        let (mut client, mut server, _theirs) = connected();
        let slot = std::sync::Arc::clone(&client.slot);
        let told = || slot.req().oldest_ns.load(Relaxed);
        let arm = |client: &mut ShmClient| {
            assert!(client.arm().expect("lives"));
            let since = told();
            client.disarm();
            since
        };
        client.submit(b"one").expect("room");
        client.submit(b"two").expect("room");
        let first = arm(&mut client);
        assert_ne!(first, 0);
        assert_eq!(arm(&mut client), first);
        client
            .receive_within(Duration::from_millis(1))
            .expect_err("nobody answers");
        assert_eq!(arm(&mut client), first);
        let record = server.rx.peek().expect("whole").expect("sent");
        server.tx.push(Kind::Reply, record.id, b"").expect("room");
        client.try_receive().expect("lives").expect("a reply");
        assert!(arm(&mut client) > first, "another one is the oldest");
        client.cancel_all();
        assert_eq!(arm(&mut client), 0, "nobody waits");
    }

    #[test]
    fn a_bell_that_was_taken_back_is_not_looked_for_and_one_that_nobody_asked_for_is_the_end() {
        let (mut client, server, mut theirs) = connected();
        client.submit(b"one").expect("room");
        for taken in [false, true, true] {
            assert!(client.arm().expect("lives"));
            if taken {
                assert_eq!(server.tx.must_wake(), Some(Bell::Socket));
            }
            client.withdraw();
            assert_eq!(client.line.expects_bell(), taken);
            if taken {
                theirs.write_all(&[0]).expect("room");
                client.withdraw();
                assert!(!client.line.expects_bell(), "heard");
            }
        }
        theirs.write_all(&[0]).expect("room");
        client.withdraw();
        assert!(!client.line.has_ended(), "none is looked for");
        client.disarm();
        assert!(client.line.has_ended());
    }

    #[test]
    fn late_bells_are_heard_once_each_whatever_was_armed_since() {
        let (mut client, server, mut theirs) = connected();
        client.submit(b"one").expect("room");
        for _ in 0..3 {
            assert!(client.arm().expect("lives"));
            assert_eq!(server.tx.must_wake(), Some(Bell::Socket));
            client.disarm();
        }
        theirs.write_all(&[0, 0]).expect("room");
        client.disarm();
        assert!(client.line.expects_bell());
        client.check_alive().expect("lives");
        theirs.write_all(&[0]).expect("room");
        client.check_alive().expect("lives");
        assert!(!client.line.expects_bell());
        client.check_alive().expect("lives");
    }
}
