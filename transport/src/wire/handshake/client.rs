//! The client's half of the handshake.

use super::{Ending, Layout, Outgoing, largest_message, possible_offer};
use crate::error::{Fallback, Step};
use crate::mem::StepError;
use crate::wire::frame::HANDSHAKE_BYTES;
use crate::wire::messages::{Hello, Message, Offer, Welcome};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAction {
    /// Admitted: the connection is on the socket.
    UseSocket(Welcome),
    /// Validate and map the descriptor that came with this, then call [`ClientHandshake::mapped`].
    Map(Offer),
    /// Send this (COMMIT) and wait for the answer.
    Send(Outgoing),
    /// Send this (DECLINE); the connection stays on the socket.
    Decline(Outgoing, Fallback),
    /// The server could not; the connection stays on the socket.
    StayOnSocket(Fallback),
    /// Both have switched.
    SwitchToShm(Offer),
    /// Close the socket; nothing may be sent or taken any more.
    Close(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitWelcome,
    Socket,
    AwaitOffer,
    Mapping(Offer),
    /// In doubt (H2).
    AwaitReady(Offer),
    Shm,
    Closed,
}

/// The client's state, from HELLO to close.
#[derive(Clone, Debug)]
pub(crate) struct ClientHandshake {
    state: State,
    layout: Layout,
    /// The most we asked for.
    ring_bytes: u64,
    /// Asked for; from the WELCOME on: agreed.
    max_message: u64,
    attempt: u64,
}

impl ClientHandshake {
    /// Begins with the message to send; then wait for the answer.
    pub(crate) fn start(hello: Hello, layout: Layout) -> (Self, Outgoing) {
        let machine = Self {
            state: State::AwaitWelcome,
            layout,
            ring_bytes: hello.ring_bytes,
            max_message: hello.max_message.min(largest_message(hello.ring_bytes)),
            attempt: 0,
        };
        (machine, outgoing(Message::Hello(hello), 0))
    }

    /// Begins an upgrade: the message to send, or `None` unless the connection is on the socket. No request may
    /// be in flight, and none sent before this is settled.
    pub(crate) fn upgrade(&mut self) -> Option<Outgoing> {
        if self.state != State::Socket {
            return None;
        }
        self.attempt += 1;
        self.state = State::AwaitOffer;
        Some(outgoing(Message::Upgrade, self.attempt))
    }

    /// A message came, with `fds` descriptors.
    pub(crate) fn on_message(&mut self, bytes: &[u8; HANDSHAKE_BYTES], fds: usize) -> ClientAction {
        let (message, attempt) = match Message::decode(bytes) {
            Ok(decoded) => decoded,
            Err(e) => return self.close(e.into()),
        };
        let an_offer = matches!(message, Message::Offer(_));
        if fds > 0 && !an_offer {
            return self.close(Ending::broken("descriptor without an offer"));
        }
        let of_attempt = match message {
            Message::Welcome(_) | Message::Refused(_) | Message::Bye => 0,
            _ => self.attempt,
        };
        if attempt != of_attempt {
            return self.close(Ending::broken("message of another attempt"));
        }
        match (self.state, message) {
            (State::Closed, _) => ClientAction::Close(Ending::PeerGone),
            (_, Message::Bye) => self.close(Ending::Bye),
            (State::AwaitWelcome, Message::Welcome(welcome)) => self.welcomed(welcome),
            (State::AwaitWelcome, Message::Refused(refused)) => {
                self.close(Ending::Refused(refused))
            }
            (State::AwaitOffer, Message::Offer(offer)) => self.offered(offer),
            (State::AwaitOffer, Message::NoOffer(e)) => {
                self.state = State::Socket;
                ClientAction::StayOnSocket(e.fallback(true))
            }
            (State::AwaitReady(offer), Message::Ready) => {
                self.state = State::Shm;
                ClientAction::SwitchToShm(offer)
            }
            _ => self.close(Ending::broken("message out of order")),
        }
    }

    fn welcomed(&mut self, welcome: Welcome) -> ClientAction {
        if !(1..=self.max_message).contains(&welcome.max_message) {
            return self.close(Ending::broken("largest message"));
        }
        self.max_message = welcome.max_message;
        self.state = State::Socket;
        ClientAction::UseSocket(welcome)
    }

    fn offered(&mut self, offer: Offer) -> ClientAction {
        self.state = State::Mapping(offer);
        if offer.layout_version != self.layout.version {
            // Another program version, no broken one: the socket still serves.
            return self.mapped(Err(StepError {
                step: Step::Layout,
                errno: 0,
                limit: self.layout.version.into(),
                used: offer.layout_version.into(),
            }));
        }
        match possible_offer(&offer, self.layout, self.ring_bytes, self.max_message) {
            Ok(()) => ClientAction::Map(offer),
            Err(what) => self.close(Ending::broken(what)),
        }
    }

    /// How validating and mapping went.
    pub(crate) fn mapped(&mut self, result: Result<(), StepError>) -> ClientAction {
        let State::Mapping(offer) = self.state else {
            return self.close(Ending::broken("mapping without an offer"));
        };
        match result {
            Ok(()) => {
                self.state = State::AwaitReady(offer);
                ClientAction::Send(outgoing(Message::Commit, self.attempt))
            }
            Err(e) => {
                self.state = State::Socket;
                let decline = outgoing(Message::Decline(e), self.attempt);
                ClientAction::Decline(decline, e.fallback(false))
            }
        }
    }

    /// The connection failed: a deadline passed, the peer is gone, a call failed. In doubt, close.
    pub(crate) fn close(&mut self, why: Ending) -> ClientAction {
        self.state = State::Closed;
        ClientAction::Close(why)
    }

    /// What is served now.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn mode(&self) -> super::Mode {
        use super::Mode;
        match self.state {
            State::AwaitWelcome | State::AwaitOffer | State::Mapping(_) | State::AwaitReady(_) => {
                Mode::Waiting
            }
            State::Socket => Mode::Socket,
            State::Shm => Mode::Shm,
            State::Closed => Mode::Closed,
        }
    }
}

const fn outgoing(message: Message, attempt: u64) -> Outgoing {
    Outgoing { message, attempt }
}
