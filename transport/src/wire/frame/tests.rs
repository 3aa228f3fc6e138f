//! The decoder against the obvious model: frames in a list, cut anywhere.

use super::*;
use proptest::prelude::*;

const MAX: u32 = 4000;

fn frame(kind: Kind, id: u64, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        kind,
        id,
        length: payload.len() as u32,
        aux: 0,
    };
    [&header.encode()[..], payload].concat()
}

/// Feeds `stream` in pieces of the given sizes and collects what comes out.
fn decode_in_pieces(
    decoder: &mut Decoder,
    mut stream: &[u8],
    pieces: &[usize],
) -> Result<Vec<(Header, Vec<u8>)>, FrameError> {
    let mut out = Vec::new();
    let mut sizes = pieces.iter().copied().cycle();
    while !stream.is_empty() {
        let space = decoder.space();
        assert!(
            !space.is_empty(),
            "a decoder without a whole frame has room"
        );
        let n = sizes
            .next()
            .unwrap_or(1)
            .clamp(1, space.len())
            .min(stream.len());
        space[..n].copy_from_slice(&stream[..n]);
        decoder.filled(n);
        stream = &stream[n..];
        while let Some(f) = decoder.next()? {
            out.push((f.header, f.bytes[HEADER_BYTES..].to_vec()));
        }
    }
    Ok(out)
}

fn any_frame() -> impl Strategy<Value = (Kind, u64, Vec<u8>)> {
    let payload = |range| prop::collection::vec(any::<u8>(), range);
    prop_oneof![
        (Just(Kind::Request), any::<u64>(), payload(0..=MAX as usize)),
        (Just(Kind::Reply), any::<u64>(), payload(0..=64)),
        (
            Just(Kind::ErrorReply),
            any::<u64>(),
            payload(0..=MAX_ERROR_BYTES)
        ),
        (Just(Kind::Upgrade), any::<u64>(), payload(232..=232)),
    ]
}

proptest! {
    #[test]
    fn frames_come_out_as_they_went_in_wherever_the_stream_is_cut(
        frames in prop::collection::vec(any_frame(), 0..40),
        pieces in prop::collection::vec(1usize..5000, 1..20),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|(k, id, p)| frame(*k, *id, p)).collect();
        let mut decoder = Decoder::new(MAX).expect("memory");
        let before = decoder.buffer.as_ptr();
        let out = decode_in_pieces(&mut decoder, &stream, &pieces).unwrap();
        prop_assert_eq!(out.len(), frames.len());
        for ((header, payload), (kind, id, sent)) in out.iter().zip(&frames) {
            prop_assert_eq!((header.kind, header.id), (*kind, *id));
            prop_assert_eq!(payload, sent);
        }
        prop_assert_eq!(decoder.pending(), 0);
        prop_assert_eq!(before, decoder.buffer.as_ptr(), "nothing was allocated on the way");
    }

    #[test]
    fn any_bytes_are_frames_or_an_error_never_a_panic(
        noise in prop::collection::vec(any::<u8>(), 0..3000),
        pieces in prop::collection::vec(1usize..200, 1..5),
        with_magic in any::<bool>(),
    ) {
        let mut stream = noise;
        if with_magic && stream.len() >= 4 {
            stream[..4].copy_from_slice(&MAGIC.to_le_bytes());
        }
        let mut decoder = Decoder::new(MAX).expect("memory");
        if let Err(e) = decode_in_pieces(&mut decoder, &stream, &pieces) {
            prop_assert_eq!(decoder.next().map(|_| ()), Err(e), "an error stays");
            prop_assert!(!e.text().is_empty());
        }
    }

    #[test]
    fn a_header_survives_encoding(id in any::<u64>(), aux in any::<u32>(), length in 0..=MAX) {
        let header = Header { kind: Kind::Reply, id, length, aux };
        prop_assert_eq!(Header::decode(&header.encode(), MAX), Ok(header));
    }
}

#[test]
fn a_length_above_the_limit_is_refused_before_any_of_it_is_read() {
    let refused = |kind: Kind, length: u32| {
        let header = Header {
            kind,
            id: 0,
            length,
            aux: 0,
        };
        Header::decode(&header.encode(), MAX).unwrap_err()
    };
    for kind in [Kind::Request, Kind::Reply] {
        for found in [MAX + 1, u32::MAX] {
            assert_eq!(
                refused(kind, found),
                FrameError::Length {
                    kind,
                    found,
                    limit: MAX
                }
            );
        }
    }
    let too_long = MAX_ERROR_BYTES as u32 + 1;
    assert!(matches!(
        refused(Kind::ErrorReply, too_long),
        FrameError::Length { .. }
    ));
    for found in [0, 231, 233] {
        assert!(matches!(
            refused(Kind::Hello, found),
            FrameError::Length { limit: 232, .. }
        ));
    }
}

#[test]
fn an_empty_message_is_a_message() {
    let mut decoder = Decoder::new(MAX).expect("memory");
    let out = decode_in_pieces(&mut decoder, &frame(Kind::Request, 9, &[]), &[24]).unwrap();
    assert_eq!(out.len(), 1);
    assert!(out[0].1.is_empty());
}

#[test]
fn kinds_are_what_their_numbers_say_and_others_are_refused() {
    for n in 0..64 {
        match Kind::from_number(n) {
            Some(kind) => assert_eq!(kind as u32, n),
            None => {
                let mut bytes = Header {
                    kind: Kind::Bye,
                    id: 0,
                    length: 0,
                    aux: 0,
                }
                .encode();
                bytes[4] = n as u8;
                assert_eq!(
                    Header::decode(&bytes, MAX),
                    Err(FrameError::Kind { found: n })
                );
            }
        }
    }
}
