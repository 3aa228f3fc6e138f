//! What requests and replies contain, so that a wrong reply can be told from a right one.
//!
//! ```text
//!  0        4        8        16         24     28     32                                          size
//!  ┌────────┬────────┬────────┬──────────┬──────┬──────┬───────────────────────────────────────────┐
//!  │ magic  │ kind   │ client │ sequence │ size │ seal │ body                                      │
//!  └────────┴────────┴────────┴──────────┴──────┴──────┴───────────────────────────────────────────┘
//!   ping, bytes:  body = the client's pattern, with an 8-byte stamp of (client, sequence, place) every 256 bytes
//!                 and one in its last 8 bytes
//!   batch:        body = orders of 32 bytes (see `orders`), the rest is zero
//! ```
//! All words are little-endian. `seal` mixes the other header words. A reply is as long as its request and has the
//! same header with [`REPLY`] in `kind`; its body is the request's, or for a batch the acknowledgements.
//!
//! **What is verified.** The exchange checks every request's length, header and last stamp, and every order. The
//! trader checks every reply's length, header and all stamps (every order's acknowledgement), so a reply that is
//! swapped with another client's or another request's, truncated, or stale in any 256-byte piece is always found.
//! The bytes between stamps are compared too in every reply up to [`SMALL`] bytes and in one of
//! [`THOROUGH_EVERY`] larger ones (`--verify full`: in all), so a flipped bit there is found with that probability.
//! At 20,000 bytes the stamps cost some 50 ns, the full compare some 500 ns.

use crate::orders;

mod header;

pub(crate) use header::word64;
use header::{Header, REPLY};

/// Bytes before the body; also the smallest message.
pub(crate) const HEADER: usize = 32;
/// Bytes from one stamp to the next.
const STRIDE: usize = 256;
/// Up to this size every byte of every reply is compared.
pub(crate) const SMALL: usize = 1024;
/// Of the larger replies one in so many is compared byte by byte.
pub(crate) const THOROUGH_EVERY: u64 = 16;
/// The odd constant of splitmix64: multiples of it differ in every bit position soon.
pub(crate) const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[repr(u32)]
pub(crate) enum Mode {
    /// Round trips of small messages.
    Ping = 1,
    /// The exchange sends the payload back.
    Bytes = 2,
    /// Orders, as many as fit, each acknowledged.
    Batch = 3,
}

impl Mode {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Bytes => "bytes",
            Self::Batch => "batch",
        }
    }

    /// SIZE when none is given: a cache line, the benchmark's 20,000, and 64 orders.
    pub(crate) fn default_size(self) -> usize {
        match self {
            Self::Ping => 64,
            Self::Bytes => 20_000,
            Self::Batch => HEADER + 64 * orders::BYTES,
        }
    }
}

/// How a message is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Wrong {
    /// Too short for a header, or not as long as it says or as was sent.
    #[error("wrong length: {found} bytes instead of {expected}")]
    Length { found: usize, expected: usize },
    /// Magic, kind or seal make no sense.
    #[error("damaged header")]
    Header,
    /// A sound reply, but to another client.
    #[error("reply for client {found:#x} instead of {expected:#x}")]
    Client { found: u64, expected: u64 },
    /// A sound reply, but to another request.
    #[error("reply to request {found} instead of {expected}")]
    Sequence { found: u64, expected: u64 },
    /// The piece at this offset belongs to another message, or is damaged.
    #[error("body differs at or after byte {0}")]
    Body(usize),
    /// An order or its acknowledgement is damaged or not the one expected.
    #[error("order {0} differs")]
    Order(usize),
}

/// splitmix64's finaliser: every input bit changes half of the output bits.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// First stamp of a message; the one at body offset `at` is `stamp(base, at)`.
fn stamp_base(client: u64, sequence: u64) -> u64 {
    mix(client.wrapping_mul(GOLDEN) ^ sequence)
}

fn stamp(base: u64, at: usize) -> u64 {
    base.wrapping_add((at as u64 + 1).wrapping_mul(GOLDEN))
}

/// Where the last stamp of a body of this length stands; bodies under 8 bytes have none.
fn last_stamp(length: usize) -> Option<usize> {
    length.checked_sub(8)
}

/// One client's requests: makes them one by one in the same buffer, and checks the replies.
pub(crate) struct Script {
    mode: Mode,
    client: u64,
    /// The last request made. Between the stamps it never changes, which is what full compares rely on.
    request: Vec<u8>,
    /// Compare all bytes of all replies.
    thorough: bool,
}

impl Script {
    /// `client` must differ from every other client's of the same exchange; `size` is at least [`HEADER`].
    pub(crate) fn new(mode: Mode, client: u64, size: usize, thorough: bool) -> Self {
        let mut request = vec![0; size.max(HEADER)];
        if mode != Mode::Batch {
            let mut state = mix(client ^ GOLDEN);
            for piece in request.chunks_mut(8) {
                state = state.wrapping_add(GOLDEN);
                piece.copy_from_slice(&mix(state).to_le_bytes()[..piece.len()]);
            }
        }
        Self {
            mode,
            client,
            request,
            thorough,
        }
    }

    /// Request number `sequence`, valid until the next call.
    pub(crate) fn request(&mut self, sequence: u64) -> &[u8] {
        let header = Header {
            kind: self.mode as u32,
            client: self.client,
            sequence,
            size: self.request.len() as u32,
        };
        self.request[..HEADER].copy_from_slice(&header.bytes());
        let body = &mut self.request[HEADER..];
        if self.mode == Mode::Batch {
            orders::write(body, self.client, sequence);
            return &self.request;
        }
        let base = stamp_base(self.client, sequence);
        if let Some(last) = last_stamp(body.len()) {
            for at in (0..=last).step_by(STRIDE) {
                body[at..at + 8].copy_from_slice(&stamp(base, at).to_le_bytes());
            }
            body[last..].copy_from_slice(&stamp(base, last).to_le_bytes());
        }
        &self.request
    }

    /// Is `reply` the right answer to request number `sequence`? What is looked at stands in the module's text.
    pub(crate) fn check(&self, sequence: u64, reply: &[u8]) -> Result<(), Wrong> {
        let header = Header::of(reply)?;
        if header.kind != self.mode as u32 | REPLY {
            return Err(Wrong::Header);
        }
        if header.client != self.client {
            return Err(Wrong::Client {
                found: header.client,
                expected: self.client,
            });
        }
        if header.sequence != sequence {
            return Err(Wrong::Sequence {
                found: header.sequence,
                expected: sequence,
            });
        }
        if reply.len() != self.request.len() {
            return Err(Wrong::Length {
                found: reply.len(),
                expected: self.request.len(),
            });
        }
        let body = &reply[HEADER..];
        if self.mode == Mode::Batch {
            return orders::check_acknowledgements(body, self.client, sequence);
        }
        self.check_stamps(sequence, body)?;
        if self.thorough || reply.len() <= SMALL || sequence.is_multiple_of(THOROUGH_EVERY) {
            self.check_pattern(body)?;
        }
        Ok(())
    }

    fn check_stamps(&self, sequence: u64, body: &[u8]) -> Result<(), Wrong> {
        let base = stamp_base(self.client, sequence);
        let Some(last) = last_stamp(body.len()) else {
            return Ok(());
        };
        if word64(body, last) != stamp(base, last) {
            return Err(Wrong::Body(last));
        }
        // A stamp that the last one lies over is not looked at.
        for at in (0..last).step_by(STRIDE) {
            if at + 8 <= last && word64(body, at) != stamp(base, at) {
                return Err(Wrong::Body(at));
            }
        }
        Ok(())
    }

    /// Compares what lies between the stamps with the request's bytes.
    fn check_pattern(&self, body: &[u8]) -> Result<(), Wrong> {
        let ours = &self.request[HEADER..];
        let end = last_stamp(body.len()).unwrap_or(body.len());
        for from in (0..end).step_by(STRIDE) {
            let to = (from + STRIDE).min(end);
            let skip = if last_stamp(body.len()).is_some() {
                8
            } else {
                0
            };
            let from = (from + skip).min(to);
            if body[from..to] != ours[from..to] {
                return Err(Wrong::Body(from));
            }
        }
        Ok(())
    }
}

/// The exchange's side: checks a request and writes its reply to `out`.
///
/// # Errors
/// What is wrong with the request (nothing was written), or the error of `out`.
pub(crate) fn answer(request: &[u8], out: &mut impl std::io::Write) -> Result<(), AnswerError> {
    let header = Header::of(request)?;
    let body = &request[HEADER..];
    let reply = Header {
        kind: header.kind | REPLY,
        ..header
    };
    if header.kind == Mode::Batch as u32 {
        orders::check(body, header.client, header.sequence)?;
        out.write_all(&reply.bytes())?;
        return Ok(orders::acknowledge(body, out)?);
    }
    if header.kind != Mode::Ping as u32 && header.kind != Mode::Bytes as u32 {
        return Err(Wrong::Header.into());
    }
    if let Some(last) = last_stamp(body.len())
        && word64(body, last) != stamp(stamp_base(header.client, header.sequence), last)
    {
        return Err(Wrong::Body(last).into());
    }
    out.write_all(&reply.bytes())?;
    Ok(out.write_all(body)?)
}

/// Why a request got no proper reply.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    /// The request is damaged.
    #[error("damaged request: {0}")]
    Request(#[from] Wrong),
    /// There was no room for the reply.
    #[error("reply: {0}")]
    Reply(#[from] std::io::Error),
}

#[cfg(test)]
mod tests;
