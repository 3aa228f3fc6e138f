//! Both machines and a channel between them, for the property tests and the fuzz target: no socket, no clock, and
//! an outside world that fails whenever the input says so. Not part of the library.

use std::collections::VecDeque;

use super::*;
use crate::config::TransportChoice;
use crate::error::Step;
use crate::wire::messages::{Hello, Name};

pub(crate) type Bytes = [u8; HANDSHAKE_BYTES];

pub(crate) fn layout() -> Layout {
    Layout {
        version: 3,
        total_bytes: |there, back| 4096 + there + back,
    }
}

pub(crate) fn hello() -> Hello {
    Hello {
        pid: 42,
        wait_policy: 1,
        features: 0,
        ring_bytes: 1 << 16,
        max_message: 4096,
        transport: TransportChoice::Auto,
        name: Name::new("trader"),
    }
}

pub(crate) fn terms() -> ServerTerms {
    ServerTerms {
        ring_bytes: 1 << 20,
        max_message: 1 << 16,
        shm: true,
        features: 1,
        name: Name::new("exchange"),
        connection_id: 77,
        client_number: 1,
    }
}

pub(crate) fn offer(ring_bytes: u64, max_message: u64) -> Offer {
    Offer {
        layout_version: layout().version,
        total_bytes: (layout().total_bytes)(ring_bytes, ring_bytes),
        client_to_server_bytes: ring_bytes,
        server_to_client_bytes: ring_bytes,
        max_message,
    }
}

fn failure() -> StepError {
    StepError {
        step: Step::MemfdCreate,
        errno: libc::EMFILE,
        limit: 64,
        used: 64,
    }
}

/// What the outside decides in a run: one number per question, in the order they come up.
struct Dice<'a>(std::iter::Cycle<std::slice::Iter<'a, u8>>);

impl Dice<'_> {
    fn fails(&mut self) -> bool {
        self.0.next().is_some_and(|n| n % 3 == 0)
    }
}

/// Both machines and the messages between them.
pub(crate) struct World<'a> {
    pub(crate) client: ClientHandshake,
    pub(crate) server: ServerHandshake,
    pub(crate) to_client: VecDeque<(Bytes, usize)>,
    pub(crate) to_server: VecDeque<(Bytes, usize)>,
    dice: Dice<'a>,
    /// Serving the next client that is admitted finds no memory.
    no_room: bool,
    /// Upgrades that both sides finished on shared memory.
    pub(crate) upgraded: usize,
}

impl<'a> World<'a> {
    pub(crate) fn new(dice: &'a [u8]) -> Self {
        let (client, first) = ClientHandshake::start(hello(), layout());
        Self {
            client,
            server: ServerHandshake::new(terms()),
            to_client: VecDeque::new(),
            to_server: VecDeque::from([(first.encode(), 0)]),
            dice: Dice(dice.iter().cycle()),
            no_room: false,
            upgraded: 0,
        }
    }

    fn client_does(&mut self, mut action: ClientAction) {
        loop {
            match action {
                ClientAction::UseSocket(_) | ClientAction::StayOnSocket(_) => {}
                ClientAction::SwitchToShm(_) => self.upgraded += 1,
                ClientAction::Map(_) => {
                    let failed = self.dice.fails();
                    let result = if failed { Err(failure()) } else { Ok(()) };
                    action = self.client.mapped(result);
                    continue;
                }
                ClientAction::Send(m) | ClientAction::Decline(m, _) => {
                    self.to_server.push_back((m.encode(), 0));
                }
                // What it sent before still arrives; the other side then sees the end.
                ClientAction::Close(_) => {}
            }
            return;
        }
    }

    fn server_does(&mut self, mut action: ServerAction) {
        loop {
            let (message, fds) = match action {
                ServerAction::Admit(..) if std::mem::take(&mut self.no_room) => {
                    action = self.server.no_room();
                    continue;
                }
                ServerAction::MakeOffer {
                    ring_bytes,
                    max_message,
                } => {
                    let failed = self.dice.fails();
                    action = self.server.made(if failed {
                        Err(failure())
                    } else {
                        Ok(offer(ring_bytes, max_message))
                    });
                    continue;
                }
                ServerAction::SendOffer(m) => {
                    let failed = self.dice.fails();
                    if !failed {
                        self.to_client.push_back((m.encode(), 1));
                    }
                    action = self
                        .server
                        .offer_sent(if failed { Err(failure()) } else { Ok(()) });
                    continue;
                }
                ServerAction::Admit(m, ..) | ServerAction::Refuse(m, _) => (m, 0),
                ServerAction::NoOffer(m, _) | ServerAction::SwitchToShm(m, _) => (m, 0),
                ServerAction::AwaitAnswer
                | ServerAction::StayOnSocket(_)
                | ServerAction::Close(_) => return,
            };
            self.to_client.push_back((message.encode(), fds));
            return;
        }
    }

    pub(crate) fn client_upgrades(&mut self) {
        if let Some(m) = self.client.upgrade() {
            self.to_server.push_back((m.encode(), 0));
        }
    }

    fn deliver_to_client(&mut self, at: usize) {
        if let Some((bytes, fds)) = self.to_client.remove(at) {
            let action = self.client.on_message(&bytes, fds);
            self.client_does(action);
        }
    }

    fn deliver_to_server(&mut self, at: usize) {
        if let Some((bytes, fds)) = self.to_server.remove(at) {
            let action = self.server.on_message(&bytes, fds);
            self.server_does(action);
        }
    }

    /// Delivers everything in order until nothing moves.
    pub(crate) fn settle(&mut self) {
        while !self.to_client.is_empty() || !self.to_server.is_empty() {
            self.deliver_to_client(0);
            self.deliver_to_server(0);
        }
    }

    /// The promise: never one side on shared memory while the other serves the socket.
    pub(crate) fn check(&self) {
        let modes = (self.client.mode(), self.server.mode());
        assert!(
            modes != (Mode::Shm, Mode::Socket) && modes != (Mode::Socket, Mode::Shm),
            "split brain: {:?} against {:?}",
            self.client,
            self.server
        );
    }

    /// Nothing more comes: deadlines pass, the end of the stream is seen. Then everything must have ended.
    pub(crate) fn end(&mut self) {
        self.settle();
        if self.client.mode() == Mode::Waiting {
            self.client.close(Ending::Timeout);
        }
        if self.server.mode() == Mode::Waiting {
            self.server.timed_out();
        }
        let closed = [self.client.mode(), self.server.mode()].contains(&Mode::Closed);
        if closed {
            self.client.close(Ending::PeerGone);
            self.server.close(Ending::PeerGone);
        }
        self.check();
        let modes = (self.client.mode(), self.server.mode());
        assert!(
            [
                (Mode::Socket, Mode::Socket),
                (Mode::Shm, Mode::Shm),
                (Mode::Closed, Mode::Closed)
            ]
            .contains(&modes),
            "not settled: {modes:?}"
        );
    }
}

/// What happens to the channel or at its ends.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    DeliverToClient(usize),
    DeliverToServer(usize),
    RepeatToClient(usize),
    RepeatToServer(usize),
    Lose(bool, usize),
    Corrupt(bool, usize, usize, u8),
    ClientUpgrades,
    ClientDeadline,
    ServerDeadline,
    NoRoom,
    Cut,
}

impl World<'_> {
    pub(crate) fn apply(&mut self, event: &Event) {
        match *event {
            Event::DeliverToClient(at) => self.deliver_to_client(at),
            Event::DeliverToServer(at) => self.deliver_to_server(at),
            Event::RepeatToClient(at) => self.to_client.extend(self.to_client.get(at).copied()),
            Event::RepeatToServer(at) => self.to_server.extend(self.to_server.get(at).copied()),
            Event::Lose(true, at) => drop(self.to_client.remove(at)),
            Event::Lose(false, at) => drop(self.to_server.remove(at)),
            Event::Corrupt(true, at, byte, value) => {
                if let Some(m) = self.to_client.get_mut(at) {
                    m.0[byte] = value;
                }
            }
            Event::Corrupt(false, at, byte, value) => {
                if let Some(m) = self.to_server.get_mut(at) {
                    m.0[byte] = value;
                }
            }
            Event::ClientUpgrades => self.client_upgrades(),
            Event::ClientDeadline if self.client.mode() == Mode::Waiting => {
                self.client.close(Ending::Timeout);
            }
            Event::ServerDeadline if self.server.mode() == Mode::Waiting => {
                let action = self.server.timed_out();
                self.server_does(action);
            }
            Event::ClientDeadline | Event::ServerDeadline => {}
            Event::NoRoom => self.no_room = true,
            Event::Cut => {
                self.to_client.clear();
                self.to_server.clear();
                self.client.close(Ending::PeerGone);
                self.server.close(Ending::PeerGone);
            }
        }
    }
}

impl Event {
    /// An event for any four bytes; most of them keep the handshake going. No corruption of byte 4, the kind: a
    /// DECLINE turned into a COMMIT would be a client that lies to its server, and is then alone with the
    /// consequences. No channel does it.
    pub(crate) fn from_bytes([what, at, byte, value]: [u8; 4]) -> Self {
        let (to_client, at) = (at & 4 == 0, usize::from(at & 3));
        match what % 24 {
            0..=5 => Self::DeliverToClient(0),
            6..=11 => Self::DeliverToServer(0),
            12..=15 => Self::ClientUpgrades,
            16 if to_client => Self::DeliverToClient(at),
            16 => Self::DeliverToServer(at),
            17 if to_client => Self::RepeatToClient(at),
            17 => Self::RepeatToServer(at),
            18 => Self::Lose(to_client, at),
            19 | 20 if byte != 4 => Self::Corrupt(to_client, at, byte.into(), value),
            19 | 20 => Self::Lose(to_client, at),
            21 => Self::ClientDeadline,
            22 => Self::ServerDeadline,
            23 if value % 2 == 1 => Self::NoRoom,
            _ => Self::Cut,
        }
    }
}
