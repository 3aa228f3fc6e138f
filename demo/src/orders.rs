//! The body of a `batch`: orders of 32 bytes, each answered by an acknowledgement of 32 bytes in the same place.
//!
//! ```text
//!  order            0 id   8 price   16 quantity, side   24 check of the three
//!  acknowledgement  0 id   8 price at which it was filled   16 quantity filled, status   24 check of the three
//! ```
//! Used by [`crate::protocol`] for both sides. The exchange keeps no book: every order is filled one tick better
//! than its limit, so that an acknowledgement can't be a copy of its order. Bytes behind the last whole order are zero.

use crate::protocol::{Wrong, mix, word64};

/// Size of an order and of its acknowledgement.
pub(crate) const BYTES: usize = 32;
/// Status of a filled order, in the upper half of the quantity word.
const FILLED: u64 = 1 << 32;

/// What makes a record's fourth word.
fn check_word(words: [u64; 3]) -> u64 {
    mix(words[0] ^ words[1].rotate_left(21) ^ words[2].rotate_left(42))
}

/// The order in place `index` of a batch.
fn order(client: u64, sequence: u64, index: usize) -> [u64; 3] {
    let id = mix(client ^ sequence.rotate_left(32)).wrapping_add(index as u64);
    [id, 10_000 + id % 1_000, 1 + id % 100]
}

/// What the exchange answers to an order.
fn fill([id, price, quantity]: [u64; 3]) -> [u64; 3] {
    [id, price.wrapping_sub(1), quantity | FILLED]
}

fn store(place: &mut [u8], words: [u64; 3]) {
    for (slot, word) in
        place
            .chunks_exact_mut(8)
            .zip([words[0], words[1], words[2], check_word(words)])
    {
        slot.copy_from_slice(&word.to_le_bytes());
    }
}

fn load(place: &[u8]) -> Option<[u64; 3]> {
    let words = [0, 8, 16].map(|at| word64(place, at));
    (word64(place, 24) == check_word(words)).then_some(words)
}

/// Fills `body` with as many orders as fit.
pub(crate) fn write(body: &mut [u8], client: u64, sequence: u64) {
    for (index, place) in body.chunks_exact_mut(BYTES).enumerate() {
        store(place, order(client, sequence, index));
    }
}

/// The exchange's check: every order is whole and the one that belongs here.
pub(crate) fn check(body: &[u8], client: u64, sequence: u64) -> Result<(), Wrong> {
    compare(body, |index| order(client, sequence, index))
}

/// The trader's check: every order was filled as it should be.
pub(crate) fn check_acknowledgements(body: &[u8], client: u64, sequence: u64) -> Result<(), Wrong> {
    compare(body, |index| fill(order(client, sequence, index)))
}

fn compare(body: &[u8], expected: impl Fn(usize) -> [u64; 3]) -> Result<(), Wrong> {
    let places = body.chunks_exact(BYTES);
    let rest = places.remainder();
    let rest_at = body.len() - rest.len();
    for (index, place) in places.enumerate() {
        if load(place) != Some(expected(index)) {
            return Err(Wrong::Order(index));
        }
    }
    if rest.iter().any(|b| *b != 0) {
        return Err(Wrong::Body(rest_at));
    }
    Ok(())
}

/// Writes the acknowledgements of `body`, which [`check`] has accepted.
pub(crate) fn acknowledge(body: &[u8], out: &mut impl std::io::Write) -> std::io::Result<()> {
    let (orders, rest) = body.split_at(body.len() - body.len() % BYTES);
    // By the kilobyte, not one by one: each write has a price, and a reply can't be had as one slice.
    let mut replies = [0; 32 * BYTES];
    for some in orders.chunks(replies.len()) {
        let replies = &mut replies[..some.len()];
        for (reply, order) in replies
            .chunks_exact_mut(BYTES)
            .zip(some.chunks_exact(BYTES))
        {
            store(reply, fill([0, 8, 16].map(|at| word64(order, at))));
        }
        out.write_all(replies)?;
    }
    out.write_all(rest)
}
