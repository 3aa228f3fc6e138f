//! The places, and what happens at one.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

macro_rules! points {
    ($($name:ident $text:literal $client:literal $server:literal;)*) => {
        /// A place in the transport, by what has just been done there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        #[expect(missing_docs, reason = "each one's text is its documentation")]
        pub enum Point { $($name),* }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What has just been done there.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }

            /// Whether a client comes by.
            pub const fn in_client(self) -> bool {
                match self { $(Self::$name => $client),* }
            }

            /// Whether a server comes by.
            pub const fn in_server(self) -> bool {
                match self { $(Self::$name => $server),* }
            }
        }
    };
}

points! {
    //                                                                client server
    Connected       "client connected, nothing said"                   true  false;
    HelloSent       "HELLO sent"                                       true  false;
    Welcomed        "WELCOME received"                                 true  false;
    UpgradeSent     "UPGRADE sent"                                     true  false;
    OfferReceived   "OFFER received with its descriptor, not mapped"   true  false;
    OfferMapped     "OFFER's memory mapped, server not told"           true  false;
    CommitSent      "COMMIT sent, in doubt"                            true  false;
    ReadyReceived   "READY received, not yet on the rings"             true  false;
    Accepted        "connection accepted, nothing read"                false true;
    HelloReceived   "HELLO received, no answer"                        false true;
    WelcomeSent     "WELCOME sent"                                     false true;
    UpgradeReceived "UPGRADE received, nothing made"                   false true;
    RingsMade       "rings made and mapped, not offered"               false true;
    OfferSent       "OFFER sent with its descriptor"                   false true;
    CommitReceived  "COMMIT received, READY not sent"                  false true;
    ReadySent       "READY sent, rings not yet served"                 false true;
    HandedOver      "connection handed to its poller"                  false true;
    HalfFrame       "half a frame sent over the socket"                true  true;
    Reserved        "room reserved in the ring"                        true  false;
    MidWrite        "half of a payload (or of its piece) written"      true  true;
    Prepared        "record written, commit word not stored"           true  true;
    Committed       "commit word stored, padding before it not"        true  true;
    Piece           "one piece of a streamed record published"         true  false;
    BeforeTail      "record committed, tail not stored"                true  true;
    AfterTail       "tail stored, nobody woken"                        true  true;
    Peeked          "a record found, not read"                         true  true;
    MidRead         "half of a payload copied out"                     true  true;
    BeforeRelease   "a record read, head not stored"                   true  true;
    AfterRelease    "head stored, nobody woken"                        true  true;
    InHandler       "request taken, handler not yet called"            false true;
    Handled         "handler done, its reply not committed"            false true;
    Announced       "about to sleep: announced, not asleep"            true  true;
    PathProbed      "a path found stale, not yet removed"              false false;
    Woken           "awake again, announcement not taken back"         true  true;
}

/// What happens at an armed place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// SIGKILL to this process.
    Kill,
    /// SIGSTOP to this process; it goes on after SIGCONT.
    Stop,
    /// This thread sleeps.
    Delay(Duration),
}

/// Number of the armed point plus one; 0 = none.
static ARMED: AtomicU32 = AtomicU32::new(0);
/// Passes left before it happens.
static PASSES: AtomicU64 = AtomicU64::new(0);
/// 0 kill, 1 stop, else nanoseconds of delay plus two.
static ACTION: AtomicU64 = AtomicU64::new(0);

/// Lets `action` happen when this process comes by `point` for the `nth` time from now (from 1), once.
pub fn arm(point: Point, nth: u64, action: Action) {
    let action = match action {
        Action::Kill => 0,
        Action::Stop => 1,
        Action::Delay(time) => u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 2) + 2,
    };
    ACTION.store(action, Ordering::Relaxed);
    PASSES.store(nth, Ordering::Relaxed);
    // Release pairs with the Acquire in `hit`: who sees the point sees the rest.
    ARMED.store(point as u32 + 1, Ordering::Release);
}

/// This thread is at `point`.
#[inline]
pub(crate) fn hit(point: Point) {
    if ARMED.load(Ordering::Acquire) != point as u32 + 1 {
        return;
    }
    if PASSES.fetch_sub(1, Ordering::Relaxed) != 1 {
        return;
    }
    match ACTION.load(Ordering::Relaxed) {
        // SAFETY: both calls signal this very process; no memory is involved.
        0 => unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
        },
        // SAFETY: as above.
        1 => unsafe {
            libc::kill(libc::getpid(), libc::SIGSTOP);
        },
        ns => std::thread::sleep(Duration::from_nanos(ns - 2)),
    }
}
