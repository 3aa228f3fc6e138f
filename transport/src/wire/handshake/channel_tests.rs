//! The two machines against each other, over a channel that loses, repeats, reorders, corrupts and cuts.

use proptest::prelude::*;

use super::world::{Event, World, terms};
use super::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, ..ProptestConfig::default() })]

    #[test]
    fn never_is_one_side_on_shared_memory_while_the_other_serves_the_socket(
        events in prop::collection::vec(any::<[u8; 4]>().prop_map(Event::from_bytes), 0..60),
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
            let mut fresh = ServerHandshake::new(terms());
            fresh.on_message(&bytes, fds);
        }
        world.settle();
        if !headers {
            prop_assert_eq!(world.client.mode(), Mode::Closed);
            prop_assert_eq!(world.server.mode(), Mode::Closed);
        }
    }
}
