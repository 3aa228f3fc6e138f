//! Who may say what when, so that both sides always agree on the transport.
//!
//! Two machines, [`ClientHandshake`] and [`ServerHandshake`]: 256 bytes or a local result in, an action out. No
//! socket, no clock, no memory: [`super::drive`] carries the actions out, the property tests let the machines
//! loose on each other under every fault a channel has.
//!
//! ```text
//!     client                              server
//!     HELLO ───────────────────────────▶  checks version, sizes
//!     on the socket  ◀────────────────── WELCOME                  (or REFUSED, and it closes)
//!        …requests and replies as frames, until the client wants more…
//!     UPGRADE ─────────────────────────▶  makes and seals the memfd
//!     validates, maps  ◀─────────────── OFFER + descriptor        (or NO_OFFER: both stay on the socket)
//!     COMMIT, in doubt ────────────────▶  switches                (or DECLINE: both stay on the socket)
//!     switches  ◀────────────────────── READY
//! ```
//! Why no side can be on shared memory while the other serves the socket:
//! - H1: the server switches on COMMIT only, and never goes back to the socket.
//! - H2: the client sends COMMIT once, is then in doubt, and leaves that state for shared memory (READY) or to
//!   close, never for the socket.
//! - H3: the client switches on READY only, which the server sends only after it has switched.
//! - H4: messages of an upgrade carry its attempt's number, so none can be taken for one of a later attempt.
//!
//! A deadline, a lost peer or anything out of order means: close. Nothing is in flight while an upgrade is under
//! way; a request in the middle of one is out of order.

#[cfg(test)]
mod channel_tests;
mod client;
mod server;
#[cfg(test)]
mod tests;
#[cfg(any(test, fuzzing))]
pub(crate) mod world;

pub(crate) use client::{ClientAction, ClientHandshake};
pub(crate) use server::{ServerAction, ServerHandshake, ServerTerms};

use super::frame::{FrameError, HANDSHAKE_BYTES};
use super::messages::{Message, MessageError, Offer, Refused, Reject, Version};
use crate::config::{MAX_RING_BYTES, MIN_RING_BYTES};
use crate::error::Refusal;
use crate::limits::max_payload;
use crate::mem::StepError;

/// The ring memory's layout as the handshake needs to know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Both sides must have the same.
    pub(crate) version: u32,
    /// Bytes of the memfd for rings of these capacities (client to server, server to client). Only called with
    /// capacities that were checked.
    pub(crate) total_bytes: fn(u64, u64) -> u64,
}

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    /// See H4.
    pub(crate) attempt: u64,
}

impl Outgoing {
    pub(crate) fn encode(&self) -> [u8; HANDSHAKE_BYTES] {
        self.message.encode(self.attempt)
    }
}

/// What a connection serves at the moment, as the tests see it; the callers of `drive` know from its results.
#[cfg(any(test, fuzzing))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Nothing yet, or nothing at the moment: a message of the handshake is awaited.
    Waiting,
    /// Requests over the socket.
    Socket,
    /// Requests through the rings; the socket only tells whether the peer lives.
    Shm,
    /// Over.
    Closed,
}

/// Why a handshake, or the connection with it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Client: the server said no.
    Refused(Refused),
    /// The peer speaks another major version.
    Version {
        /// The peer's.
        theirs: Version,
    },
    /// The peer said what nobody of our version says at this point.
    Broken {
        /// How it counts.
        reject: Reject,
        /// What it was.
        what: &'static str,
    },
    /// The peer did not answer in time.
    Timeout,
    /// Server: what serving this client takes can't be had.
    NoRoom,
    /// The peer closed its socket or died.
    PeerGone,
    /// The peer said that it is closing.
    Bye,
    /// A call failed here.
    Failed(StepError),
}

impl Ending {
    pub(crate) const fn broken(what: &'static str) -> Self {
        Self::Broken {
            reject: Reject::Layout,
            what,
        }
    }

    /// How a server counts it; `None` for what is nobody's fault.
    pub(crate) fn reject(&self) -> Option<Reject> {
        match self {
            Self::Broken { reject, .. } => Some(*reject),
            Self::Version { .. } => Some(Reject::Version),
            Self::Timeout => Some(Reject::Timeout),
            Self::NoRoom => Some(Reject::Resources),
            Self::Refused(_) | Self::PeerGone | Self::Bye | Self::Failed(_) => None,
        }
    }
}

impl Ending {
    /// Client: what the server's no amounts to; `None` if it is none, but a limit of time or a call that failed here.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        Some(match self {
            Self::Refused(refused) => refused.refusal(),
            Self::Version { theirs } => Refusal::Version {
                theirs: (theirs.major, theirs.minor),
                ours: (Version::OURS.major, Version::OURS.minor),
            },
            Self::Broken { what, .. } => Refusal::Nonsense(what),
            Self::NoRoom => Refusal::Resources,
            Self::PeerGone => Refusal::Gone,
            Self::Bye => Refusal::Ending,
            Self::Timeout | Self::Failed(_) => return None,
        })
    }
}

impl From<MessageError> for Ending {
    fn from(e: MessageError) -> Self {
        match e {
            MessageError::Version { theirs } => Self::Version { theirs },
            MessageError::Frame(FrameError::Magic { .. }) => Self::Broken {
                reject: Reject::Magic,
                what: "wrong magic",
            },
            MessageError::Frame(e) => Self::broken(e.text()),
            MessageError::Field(what) => Self::broken(what),
        }
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Version { theirs } => {
                write!(
                    f,
                    "peer speaks protocol version {theirs}, we speak {}",
                    Version::OURS
                )
            }
            Self::Broken { what, .. } => write!(f, "peer broke the protocol: {what}"),
            Self::Timeout => f.write_str("peer did not answer in time"),
            Self::NoRoom => f.write_str("no memory left for this client"),
            Self::PeerGone => f.write_str("peer closed or died"),
            Self::Bye => f.write_str("peer said goodbye"),
            Self::Failed(e) => e.fallback(false).fmt(f),
        }
    }
}

/// Largest capacity and message that anybody may name.
const RING_RANGE: std::ops::RangeInclusive<u64> = MIN_RING_BYTES as u64..=MAX_RING_BYTES as u64;

/// True for a capacity that a ring can have.
fn possible_ring(bytes: u64) -> bool {
    bytes.is_power_of_two() && RING_RANGE.contains(&bytes)
}

/// The largest payload of a ring of this capacity, which is possible.
fn largest_message(ring_bytes: u64) -> u64 {
    max_payload(ring_bytes as usize) as u64
}

/// Huge pages come in these; the memfd may be rounded up to them, and to nothing else.
const HUGE_PAGE_BYTES: u64 = 2 << 20;

/// The sizes of an offer against what was agreed: `ring_bytes` the most we asked for, `max_message` from the
/// WELCOME. Every number is bounded before it is used in arithmetic.
fn possible_offer(
    offer: &Offer,
    layout: Layout,
    ring_bytes: u64,
    max_message: u64,
) -> Result<(), &'static str> {
    let (there, back) = (offer.client_to_server_bytes, offer.server_to_client_bytes);
    for capacity in [there, back] {
        if !possible_ring(capacity) {
            return Err("ring capacity");
        }
        if capacity > ring_bytes {
            return Err("ring above what was asked for");
        }
    }
    if offer.max_message != max_message || max_message > largest_message(there.min(back)) {
        return Err("largest message");
    }
    let exact = (layout.total_bytes)(there, back);
    if offer.total_bytes != exact && offer.total_bytes != exact.next_multiple_of(HUGE_PAGE_BYTES) {
        return Err("size of the ring memory");
    }
    Ok(())
}
