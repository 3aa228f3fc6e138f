//! What the fuzz targets call: the parsers of what a peer sends, on any bytes. Not part of the library; compiled
//! for tests, which replay the committed corpus, and under cargo-fuzz.

use crate::error::MAX_ERROR_BYTES;
use crate::limits::max_payload;
use crate::ring;
use crate::ring::consumer::Consumer;
use crate::ring::heap::Heap;
use crate::ring::plan::Plan;
use crate::ring::producer::{NoSlot, Producer};
use crate::ring::storage::{Storage, Word};
use crate::wire::frame::{Decoder, HANDSHAKE_BYTES, HEADER_BYTES};
use crate::wire::handshake::world::{Event, World, hello, layout, terms};
use crate::wire::handshake::{ClientAction, ClientHandshake, Mode, ServerHandshake};
use crate::wire::messages::Message;

/// A byte stream, cut into pieces as its first bytes say: frames within their limits, or an error that stays.
pub fn frame(bytes: &[u8]) {
    let Some(([limit, first, second], mut stream)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let max_message = u32::from(*limit) * 64;
    let mut decoder = Decoder::new(max_message).expect("memory");
    let mut pieces = [first, second].into_iter().cycle();
    let (mut taken, total) = (0, stream.len());
    while !stream.is_empty() {
        let space = decoder.space();
        assert!(!space.is_empty(), "no whole frame and no room for one");
        let piece = pieces.next().map_or(1, |n| usize::from(*n) * 8 + 1);
        let n = piece.min(space.len()).min(stream.len());
        space[..n].copy_from_slice(&stream[..n]);
        decoder.filled(n);
        stream = &stream[n..];
        loop {
            match decoder.next() {
                Ok(Some(frame)) => {
                    let largest = (max_message as usize)
                        .max(MAX_ERROR_BYTES)
                        .max(HANDSHAKE_BYTES);
                    assert!(frame.bytes.len() <= HEADER_BYTES + largest);
                    assert_eq!(frame.bytes[..HEADER_BYTES], frame.header.encode());
                    if let Some(message) = frame.handshake() {
                        message_means_the_same_when_said_again(message);
                    }
                    taken += frame.bytes.len();
                }
                Ok(None) => break,
                Err(e) => {
                    assert_eq!(decoder.next().map(|_| ()), Err(e));
                    return;
                }
            }
        }
    }
    assert_eq!(
        taken + decoder.pending(),
        total,
        "every byte is in a frame or waits"
    );
}

fn message_means_the_same_when_said_again(bytes: &[u8; HANDSHAKE_BYTES]) {
    if let Ok((message, attempt)) = Message::decode(bytes) {
        let _text = format!("{message:?}");
        let again = Message::decode(&message.encode(attempt));
        // A refusal keeps its sender's version; every other message is said again in ours.
        assert_eq!(again, Ok((message, attempt)));
    }
}

/// The handshake: the machines against each other under the faults that the first part of the input says, then
/// each of them against a peer that sends the rest. The input begins with the number of faults and of the
/// outside world's dice.
pub fn handshake(bytes: &[u8]) {
    let Some(([faults, dice], rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let (dice, rest) = rest.split_at(usize::from(*dice).min(rest.len()));
    let (faults, garbage) = rest.split_at((usize::from(*faults) * 4).min(rest.len()));

    let mut world = World::new(if dice.is_empty() { &[1] } else { dice });
    for fault in faults.as_chunks().0 {
        world.apply(&Event::from_bytes(*fault));
        world.check();
    }
    world.end();

    let mut server = ServerHandshake::new(terms());
    let (mut client, _) = ClientHandshake::start(hello(), layout());
    for message in garbage.as_chunks().0 {
        message_means_the_same_when_said_again(message);
        let fds = usize::from(message[HANDSHAKE_BYTES - 1]) % 3;
        let was_closed = (client.mode(), server.mode());
        let mut action = client.on_message(message, fds);
        if let ClientAction::Map(_) = action {
            action = client.mapped(Ok(()));
        }
        if let ClientAction::UseSocket(_) = action {
            client.upgrade();
        }
        server.on_message(message, fds);
        if was_closed.0 == Mode::Closed {
            assert_eq!(client.mode(), Mode::Closed, "closed is for good");
        }
        if was_closed.1 == Mode::Closed {
            assert_eq!(server.mode(), Mode::Closed, "closed is for good");
        }
    }
}

/// A ring as its two roles see it whose other side writes anything anywhere: the input is what stands in it at first, then turns of eight
/// bytes, each a store of the peer's and a call of ours. Every call ends, within its bounds, with a checked record or an error.
pub fn ring_consumer(bytes: &[u8]) {
    const CAPACITY: usize = 4096;
    let plan = Plan::new(CAPACITY, max_payload(CAPACITY));
    let ring = Heap::new(CAPACITY);
    let (fill, turns) = bytes.split_at(bytes.len().min(256));
    for (i, word) in fill.as_chunks::<8>().0.iter().enumerate() {
        ring.set_word(i * 8, u64::from_le_bytes(*word));
    }
    let mut consumer = Consumer::new(ring.clone(), plan);
    let mut producer = Producer::new(Heap::new(CAPACITY), plan);
    let mut buffer = vec![0; plan.max_payload()];
    let mut end = consumer.index();
    for &[call, at, low, high, length, kind, flags, spread] in turns.as_chunks::<8>().0 {
        let offset = (usize::from(at) | usize::from(spread & 1) << 8) * 8;
        let index = u64::from(low) | u64::from(high) << 8 | u64::from(spread >> 1) << 57;
        let commit = u64::from(length)
            | u64::from(high & 7) << 8
            | u64::from(kind % 6) << 32
            | u64::from(flags & 3) << 40;
        match call % 6 {
            0 => ring.set_word(offset, commit),
            1 => ring.set_word(offset, index),
            2 => ring.store(Word::Tail, index),
            // What an honest producer would say now.
            3 => ring.store(
                Word::Tail,
                consumer.index().wrapping_add(u64::from(low) * 8),
            ),
            4 => producer.storage().store(Word::Head, index),
            _ => producer.storage().store(Word::Window, index),
        }
        let looks = consumer.follow_loads();
        let sane = consumer.cross_check().is_ok();
        if consumer.is_ready()
            && sane
            && let Ok(Some(record)) = consumer.peek()
        {
            assert!(
                record.length <= plan.max_payload() && record.kind != ring::plan::Kind::Padding
            );
            if consumer.read(&record, &mut buffer) == Ok(true) {
                let released = consumer.release(&record);
                // Since the last release: padding may have been passed on the way to a record that was not whole then.
                let moved = consumer.index().wrapping_sub(end);
                end = consumer.index();
                assert_eq!(moved, released.record + released.padding);
                assert!(moved <= 2 * CAPACITY as u64);
            }
        }
        assert!(consumer.follow_loads() - looks <= 1000 + plan.max_payload() as u64 / 64);
        let payload = usize::from(length) * 8;
        match producer.push(
            ring::plan::Kind::Reply,
            1,
            &buffer[..payload.min(plan.max_payload())],
        ) {
            Ok(()) => {
                let seen = producer.take_look();
                assert!(
                    seen.is_none_or(|seen| seen.padding.max(seen.occupancy) <= CAPACITY as u64)
                );
            }
            Err(NoSlot::Full { occupancy }) => assert!(occupancy <= CAPACITY as u64),
            Err(NoSlot::Poisoned(_)) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let files = std::fs::read_dir(dir.join(target)).unwrap();
        let seeds: Vec<_> = files
            .map(|file| std::fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty(), "no seeds for {target}");
        seeds
    }

    #[test]
    fn the_committed_corpus_of_frames_passes() {
        seeds("frame").iter().for_each(|seed| frame(seed));
    }

    #[test]
    fn the_committed_corpus_of_rings_passes() {
        seeds("ring_consumer")
            .iter()
            .for_each(|seed| ring_consumer(seed));
    }

    #[test]
    fn the_committed_corpus_of_handshakes_passes() {
        seeds("handshake").iter().for_each(|seed| handshake(seed));
    }
}
