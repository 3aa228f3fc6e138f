//! The server's half of the handshake.

use super::{Ending, Outgoing, largest_message, possible_ring};
use crate::error::{Fallback, Step};
use crate::mem::StepError;
use crate::wire::frame::{FrameError, HANDSHAKE_BYTES};
use crate::wire::messages::{
    Hello, Message, MessageError, Name, Offer, Refused, Reject, Version, Welcome,
};

/// What the server has for this client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServerTerms {
    /// Largest ring per direction; possible.
    pub(crate) ring_bytes: u64,
    /// Largest message.
    pub(crate) max_message: u64,
    /// False: the server is configured for the socket only.
    pub(crate) shm: bool,
    /// `FEATURE_*` bits.
    pub(crate) features: u64,
    pub(crate) name: Name,
    /// Drawn at random.
    pub(crate) connection_id: u64,
    pub(crate) client_number: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerAction {
    /// Take the memory that serving it takes, or call [`ServerHandshake::no_room`]. Then send this (WELCOME); the connection is on the socket,
    /// with this largest message.
    Admit(Outgoing, Hello, u64),
    /// Send this (REFUSED) if it can be sent at once, and close.
    Refuse(Outgoing, Ending),
    /// Make sealed rings of at most this capacity each, for this largest message, then call
    /// [`ServerHandshake::made`].
    MakeOffer { ring_bytes: u64, max_message: u64 },
    /// Send this (OFFER) with the descriptor, then call [`ServerHandshake::offer_sent`].
    SendOffer(Outgoing),
    /// Wait for the client's answer.
    AwaitAnswer,
    /// Send this (NO_OFFER); the connection stays on the socket.
    NoOffer(Outgoing, Fallback),
    /// The client declined; the connection stays on the socket. Free the rings.
    StayOnSocket(Fallback),
    /// Send this (READY) and serve the rings from now on; if it can't be sent, close.
    SwitchToShm(Outgoing, Offer),
    /// Close the socket, free the rings.
    Close(Ending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitHello,
    Socket,
    Making,
    Sending(Offer),
    AwaitAnswer(Offer),
    Shm,
    Closed,
}

/// The server's state for one connection, from accept to close.
#[derive(Clone, Debug)]
pub(crate) struct ServerHandshake {
    state: State,
    terms: ServerTerms,
    /// What it said it speaks; 0.0 until it said something.
    client: Version,
    /// Agreed once the HELLO has come.
    ring_bytes: u64,
    max_message: u64,
    attempt: u64,
}

impl ServerHandshake {
    /// For a connection just accepted: wait for its first message.
    pub(crate) fn new(terms: ServerTerms) -> Self {
        Self {
            state: State::AwaitHello,
            terms,
            client: Version { major: 0, minor: 0 },
            ring_bytes: terms.ring_bytes,
            max_message: terms.max_message,
            attempt: 0,
        }
    }

    /// A message came, with `fds` descriptors (there should be none: only the server sends one).
    pub(crate) fn on_message(&mut self, bytes: &[u8; HANDSHAKE_BYTES], fds: usize) -> ServerAction {
        let decoded = Message::decode(bytes);
        if !matches!(decoded, Err(MessageError::Frame(FrameError::Magic { .. }))) {
            self.client = Version::of_message(bytes);
        }
        let (message, attempt) = match decoded {
            Ok(decoded) => decoded,
            Err(e) => return self.violated(e.into()),
        };
        if fds > 0 {
            return self.violated(Ending::broken("descriptor from a client"));
        }
        let expected = match message {
            Message::Hello(_) | Message::Bye => 0,
            // Attempts count from 1; each begins with its UPGRADE.
            Message::Upgrade => self.attempt.wrapping_add(1),
            _ => self.attempt,
        };
        if attempt != expected {
            return self.violated(Ending::broken("message of another attempt"));
        }
        match (self.state, message) {
            (State::Closed, _) => ServerAction::Close(Ending::PeerGone),
            (_, Message::Bye) => self.close(Ending::Bye),
            (State::AwaitHello, Message::Hello(hello)) => self.greeted(hello),
            (State::Socket, Message::Upgrade) => self.asked(),
            (State::AwaitAnswer(offer), Message::Commit) => {
                self.state = State::Shm;
                ServerAction::SwitchToShm(self.say(Message::Ready), offer)
            }
            (State::AwaitAnswer(_), Message::Decline(e)) => {
                self.state = State::Socket;
                ServerAction::StayOnSocket(e.fallback(true))
            }
            _ => self.violated(Ending::broken("message out of order")),
        }
    }

    fn greeted(&mut self, hello: Hello) -> ServerAction {
        if !possible_ring(hello.ring_bytes) || hello.max_message == 0 {
            return self.refuse(Ending::broken("sizes in HELLO"));
        }
        self.ring_bytes = self.terms.ring_bytes.min(hello.ring_bytes);
        self.max_message = (self.terms.max_message)
            .min(hello.max_message)
            .min(largest_message(self.ring_bytes));
        self.state = State::Socket;
        let welcome = Message::Welcome(Welcome {
            client_number: self.terms.client_number,
            features: self.terms.features,
            connection_id: self.terms.connection_id,
            max_message: self.max_message,
            name: self.terms.name,
        });
        ServerAction::Admit(self.say(welcome), hello, self.max_message)
    }

    /// What serving the client takes can't be had; it has not been welcomed yet.
    pub(crate) fn no_room(&mut self) -> ServerAction {
        match self.state {
            State::Socket => self.refuse(Ending::NoRoom),
            _ => self.close(Ending::NoRoom),
        }
    }

    /// The client broke the protocol: who has not introduced itself is told why, everybody else closed.
    fn violated(&mut self, why: Ending) -> ServerAction {
        if self.state == State::AwaitHello {
            return self.refuse(why);
        }
        self.close(why)
    }

    /// Not served, and the client is told why: one of another version can then tell its user.
    fn refuse(&mut self, why: Ending) -> ServerAction {
        self.state = State::Closed;
        let refused = Refused {
            reason: why.reject().unwrap_or(Reject::Layout) as u32,
            server: Version::OURS,
            client: self.client,
            limit: 0,
            used: 0,
        };
        let refused = Outgoing {
            message: Message::Refused(refused),
            attempt: 0,
        };
        ServerAction::Refuse(refused, why)
    }

    fn asked(&mut self) -> ServerAction {
        self.attempt += 1;
        self.state = State::Making;
        if !self.terms.shm {
            return self.made(Err(StepError::new(Step::Disabled, 0)));
        }
        ServerAction::MakeOffer {
            ring_bytes: self.ring_bytes,
            max_message: self.max_message,
        }
    }

    /// How making the rings went.
    pub(crate) fn made(&mut self, result: Result<Offer, StepError>) -> ServerAction {
        match (self.state, result) {
            (State::Making, Ok(offer)) => {
                self.state = State::Sending(offer);
                ServerAction::SendOffer(self.say(Message::Offer(offer)))
            }
            (State::Making, Err(e)) => self.no_offer(e),
            _ => self.close(Ending::broken("rings nobody asked for")),
        }
    }

    /// How sending the OFFER went. An error means that no byte of it went out; if some did, call
    /// [`Self::close`] instead.
    pub(crate) fn offer_sent(&mut self, result: Result<(), StepError>) -> ServerAction {
        match (self.state, result) {
            (State::Sending(offer), Ok(())) => {
                self.state = State::AwaitAnswer(offer);
                ServerAction::AwaitAnswer
            }
            (State::Sending(_), Err(e)) => self.no_offer(e),
            _ => self.close(Ending::broken("offer nobody made")),
        }
    }

    fn no_offer(&mut self, e: StepError) -> ServerAction {
        self.state = State::Socket;
        ServerAction::NoOffer(self.say(Message::NoOffer(e)), e.fallback(false))
    }

    /// No message came in time.
    pub(crate) fn timed_out(&mut self) -> ServerAction {
        self.violated(Ending::Timeout)
    }

    /// The connection failed: the peer is gone, a call failed. In doubt, close.
    pub(crate) fn close(&mut self, why: Ending) -> ServerAction {
        self.state = State::Closed;
        ServerAction::Close(why)
    }

    /// What is served now.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn mode(&self) -> super::Mode {
        use super::Mode;
        match self.state {
            State::AwaitHello | State::Making | State::Sending(_) | State::AwaitAnswer(_) => {
                Mode::Waiting
            }
            State::Socket => Mode::Socket,
            State::Shm => Mode::Shm,
            State::Closed => Mode::Closed,
        }
    }

    fn say(&self, message: Message) -> Outgoing {
        let attempt = match message {
            Message::Welcome(_) => 0,
            _ => self.attempt,
        };
        Outgoing { message, attempt }
    }
}
