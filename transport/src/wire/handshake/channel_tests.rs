//! The two machines against each other, over a channel that loses, repeats, reorders, corrupts and cuts.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::tests::{Bytes, hello, layout, offer, terms};
use super::*;
use crate::error::Step;

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
struct World<'a> {
    client: ClientHandshake,
    server: ServerHandshake,
    to_client: VecDeque<(Bytes, usize)>,
    to_server: VecDeque<(Bytes, usize)>,
    dice: Dice<'a>,
    /// Upgrades that both sides finished on shared memory.
    upgraded: usize,
}

impl<'a> World<'a> {
    fn new(dice: &'a [u8]) -> Self {
        let (client, first) = ClientHandshake::start(hello(), layout());
        Self {
            client,
            server: ServerHandshake::new(terms(), Admission::Admitted),
            to_client: VecDeque::new(),
            to_server: VecDeque::from([(first.encode(), 0)]),
            dice: Dice(dice.iter().cycle()),
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

    fn client_upgrades(&mut self) {
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
    fn settle(&mut self) {
        while !self.to_client.is_empty() || !self.to_server.is_empty() {
            self.deliver_to_client(0);
            self.deliver_to_server(0);
        }
    }

    /// The promise: never one side on shared memory while the other serves the socket.
    fn check(&self) {
        let modes = (self.client.mode(), self.server.mode());
        assert!(
            modes != (Mode::Shm, Mode::Socket) && modes != (Mode::Socket, Mode::Shm),
            "split brain: {:?} against {:?}",
            self.client,
            self.server
        );
    }

    /// Nothing more comes: deadlines pass, the end of the stream is seen. Then everything must have ended.
    fn end(&mut self) {
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
enum Event {
    DeliverToClient(usize),
    DeliverToServer(usize),
    RepeatToClient(usize),
    RepeatToServer(usize),
    Lose(bool, usize),
    Corrupt(bool, usize, usize, u8),
    ClientUpgrades,
    ClientDeadline,
    ServerDeadline,
    Cut,
}

fn event() -> impl Strategy<Value = Event> {
    let at = 0..3usize;
    prop_oneof![
        6 => Just(Event::DeliverToClient(0)),
        6 => Just(Event::DeliverToServer(0)),
        4 => Just(Event::ClientUpgrades),
        1 => at.clone().prop_map(Event::DeliverToClient),
        1 => at.clone().prop_map(Event::DeliverToServer),
        1 => at.clone().prop_map(Event::RepeatToClient),
        1 => at.clone().prop_map(Event::RepeatToServer),
        1 => (any::<bool>(), at.clone()).prop_map(|(to, at)| Event::Lose(to, at)),
        // Byte 4 is the kind: a DECLINE turned into a COMMIT would be a client that lies to its server, and is
        // then alone with the consequences. No channel does it.
        1 => (any::<bool>(), at, (0..HANDSHAKE_BYTES - 1).prop_map(|b| if b < 4 { b } else { b + 1 }), any::<u8>())
            .prop_map(|(to, at, byte, value)| Event::Corrupt(to, at, byte, value)),
        1 => prop_oneof![Just(Event::ClientDeadline), Just(Event::ServerDeadline), Just(Event::Cut)],
    ]
}

impl World<'_> {
    fn apply(&mut self, event: &Event) {
        let queue = |world: &mut Self, to_client| match to_client {
            true => std::mem::take(&mut world.to_client),
            false => std::mem::take(&mut world.to_server),
        };
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
            Event::Cut => {
                queue(self, true);
                queue(self, false);
                self.client.close(Ending::PeerGone);
                self.server.close(Ending::PeerGone);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn never_is_one_side_on_shared_memory_while_the_other_serves_the_socket(
        events in prop::collection::vec(event(), 0..60),
        dice in prop::collection::vec(any::<u8>(), 1..12),
    ) {
        let mut world = World::new(&dice);
        for event in &events {
            world.apply(event);
            world.check();
        }
        world.end();
    }

    #[test]
    fn without_faults_both_agree_after_every_attempt(
        dice in prop::collection::vec(any::<u8>(), 1..12),
        attempts in 1..6usize,
    ) {
        let mut world = World::new(&dice);
        for _ in 0..attempts {
            world.settle();
            world.check();
            prop_assert_ne!(world.client.mode(), Mode::Closed);
            prop_assert_eq!(world.client.mode(), world.server.mode());
            world.client_upgrades();
        }
        world.end();
        prop_assert_eq!(world.upgraded == 1, world.client.mode() == Mode::Shm);
    }

    #[test]
    fn noise_ends_a_handshake_and_never_panics(
        noise in prop::collection::vec(prop::collection::vec(any::<u8>(), HANDSHAKE_BYTES), 1..4),
        headers in any::<bool>(),
        fds in 0..3usize,
    ) {
        let mut world = World::new(&[1]);
        world.settle();
        world.client_upgrades();
        for mut piece in noise {
            if headers {
                piece[..20].copy_from_slice(&Message::Ready.encode(1)[..20]);
                piece[4] = piece[30] % 20;
            }
            let mut bytes = [0; HANDSHAKE_BYTES];
            bytes.copy_from_slice(&piece);
            world.to_server.push_back((bytes, fds));
            world.to_client.push_back((bytes, fds));
            let mut fresh = ServerHandshake::new(terms(), Admission::Admitted);
            fresh.on_message(&bytes, fds);
        }
        world.settle();
        if !headers {
            prop_assert_eq!(world.client.mode(), Mode::Closed);
            prop_assert_eq!(world.server.mode(), Mode::Closed);
        }
    }
}
