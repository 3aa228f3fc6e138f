//! The messages' bytes: what survives, what is refused, what stays readable across versions.

use super::codec::TRANSPORTS;
use super::*;
use crate::error::Step;
use crate::wire::frame::HANDSHAKE_BYTES;
use proptest::prelude::*;

fn step_error() -> impl Strategy<Value = StepError> {
    (1u32..=15, any::<i32>(), any::<u64>(), any::<u64>()).prop_map(|(step, errno, limit, used)| {
        StepError {
            step: Step::from_number(step).unwrap(),
            errno,
            limit,
            used,
        }
    })
}

fn message() -> impl Strategy<Value = Message> {
    let words = any::<(u32, u32, u64, u64, u64, u64)>();
    prop_oneof![
        (words, 0..3usize, ".{0,70}").prop_map(|((a, b, c, d, e, _), t, name)| {
            Message::Hello(Hello {
                pid: a,
                wait_policy: b,
                features: c,
                ring_bytes: d,
                max_message: e,
                transport: TRANSPORTS[t].0,
                name: Name::new(&name),
            })
        }),
        (words, ".{0,70}").prop_map(|((a, _, c, d, e, _), name)| {
            Message::Welcome(Welcome {
                client_number: a,
                features: c,
                connection_id: d,
                max_message: e,
                name: Name::new(&name),
            })
        }),
        words.prop_map(|(a, b, c, d, e, _)| Message::Refused(Refused {
            reason: a,
            server: Version::from_word(e as u32),
            client: Version::from_word(b),
            limit: c,
            used: d,
        })),
        words.prop_map(|(a, _, c, d, e, g)| Message::Offer(Offer {
            layout_version: a,
            total_bytes: c,
            client_to_server_bytes: d,
            server_to_client_bytes: e,
            max_message: g,
        })),
        step_error().prop_map(Message::NoOffer),
        step_error().prop_map(Message::Decline),
        prop_oneof![
            Just(Message::Upgrade),
            Just(Message::Commit),
            Just(Message::Ready),
            Just(Message::Bye)
        ],
    ]
}

proptest! {
    #[test]
    fn every_message_survives_encoding(message in message(), attempt in any::<u64>()) {
        prop_assert_eq!(Message::decode(&message.encode(attempt)), Ok((message, attempt)));
    }

    #[test]
    fn any_256_bytes_are_a_message_or_an_error(
        body in prop::collection::vec(any::<u8>(), HANDSHAKE_BYTES),
        message in message(),
        flips in prop::collection::vec((0..HANDSHAKE_BYTES, any::<u8>()), 0..4),
    ) {
        let mut bytes = [0; HANDSHAKE_BYTES];
        bytes.copy_from_slice(&body);
        let _ = Message::decode(&bytes);
        let mut bytes = message.encode(1);
        for (at, value) in flips {
            bytes[at] = value;
        }
        if let Ok((decoded, attempt)) = Message::decode(&bytes) {
            // What was understood means the same when said again, even if unnamed bytes differ.
            prop_assert_eq!(Message::decode(&decoded.encode(attempt)).map(|m| m.1), Ok(attempt));
            let _ = format!("{decoded:?}");
        }
    }
}

#[test]
fn another_major_version_is_named_whatever_else_it_sent() {
    let theirs = Version { major: 7, minor: 3 };
    let mut bytes = Message::Upgrade.encode(1);
    bytes[20..24].copy_from_slice(&theirs.to_word().to_le_bytes());
    assert_eq!(
        Message::decode(&bytes),
        Err(MessageError::Version { theirs })
    );
    bytes[4] = 99;
    assert_eq!(
        Message::decode(&bytes),
        Err(MessageError::Version { theirs })
    );
    assert_eq!(
        MessageError::Version { theirs }.to_string(),
        "protocol version 7.3, ours is 1.0"
    );
}

#[test]
fn a_newer_minor_version_is_understood() {
    let mut bytes = Message::Ready.encode(4);
    bytes[20] = 9;
    assert_eq!(Message::decode(&bytes), Ok((Message::Ready, 4)));
}

#[test]
fn a_refusal_is_understood_across_major_versions() {
    let refused = Refused {
        reason: Reject::Version as u32,
        server: Version { major: 2, minor: 1 },
        client: Version::OURS,
        limit: 0,
        used: 0,
    };
    let (got, _) = Message::decode(&Message::Refused(refused).encode(0)).unwrap();
    assert_eq!(got, Message::Refused(refused));
    assert_eq!(
        refused.to_string(),
        "it speaks protocol version 2.1, we speak 1.0"
    );
}

#[test]
fn names_are_cut_at_a_character_and_never_break_the_message() {
    assert_eq!(Name::new("exchange").to_string(), "exchange");
    let long = "ä".repeat(40);
    assert_eq!(Name::new(&long).to_string(), "ä".repeat(31));
    assert_eq!(
        Name([0xff; 64]).to_string().chars().next(),
        Some('\u{fffd}')
    );
    assert_eq!(Name::new("a\0b").to_string(), "a");
}
