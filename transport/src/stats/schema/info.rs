//! Word offsets within a slot's info block. Word 0 is the seqlock's sequence: odd while being written.

/// Sequence: odd while a write is under way.
pub const SEQUENCE: usize = 0;
/// [`super::super::SlotState`]; 0 = free.
pub const STATE: usize = 1;
/// [`super::super::SlotKind`].
pub const KIND: usize = 2;
/// Connection id, drawn at random by the server; joins the two sides' slots. For a poller: its number.
pub const CONNECTION_ID: usize = 3;
/// Small number of the client at this server, from 1, reused after close.
pub const CLIENT_NUMBER: usize = 4;
/// Transport in use: 1 socket, 2 shm.
pub const TRANSPORT: usize = 5;
/// Transport wanted: 1 socket, 2 shm.
pub const WANTED: usize = 6;
/// [`crate::error::Step`] at which shared memory failed; 0 = none.
pub const FALLBACK_STEP: usize = 7;
/// errno of that step; 0 = none.
pub const FALLBACK_ERRNO: usize = 8;
/// The limit that stood in the way at that moment (RLIMIT_NOFILE soft, bytes, …); 0 = unknown.
pub const FALLBACK_LIMIT: usize = 9;
/// Usage at that moment in the limit's unit; 0 = unknown.
pub const FALLBACK_USED: usize = 10;
/// 1 if the step failed in the peer's process, 0 if in ours.
pub const FALLBACK_AT_PEER: usize = 11;
/// Peer's pid by SO_PEERCRED.
pub const PEER_PID: usize = 12;
/// Peer's uid by SO_PEERCRED.
pub const PEER_UID: usize = 13;
/// Start time (clock ticks) of the peer when it connected; 0 = unknown.
pub const PEER_START_TICKS: usize = 14;
/// Thread that owns this side (gettid); for a client the thread that last went to sleep for a reply, before that the one that connected.
pub const TID: usize = 15;
/// [`crate::WaitPolicy`] as its stable number.
pub const WAIT_POLICY: usize = 16;
/// Capacity of the outgoing ring in bytes; 0 on the socket.
pub const TX_CAPACITY: usize = 17;
/// Capacity of the incoming ring in bytes.
pub const RX_CAPACITY: usize = 18;
/// Largest payload in bytes.
pub const MAX_MESSAGE: usize = 19;
/// CLOCK_MONOTONIC when opened.
pub const OPENED_NS: usize = 20;
/// CLOCK_MONOTONIC when closed; 0 while open.
pub const CLOSED_NS: usize = 21;
/// [`crate::error::CloseReason`].
pub const CLOSE_REASON: usize = 22;
/// Slot index of the poller that serves this connection, plus one; 0 = this slot's own waiter.
pub const POLLER_SLOT: usize = 23;
/// Huge pages: 0 not asked, 1 in use, 2 asked but short, 3 short and transparent ones instead.
pub const HUGE_PAGES: usize = 24;
/// st_ino of the ring's memfd.
pub const RING_INODE: usize = 25;
/// Peer's name from its hello, UTF-8, zero padded, 8 words.
pub const PEER_NAME: usize = 32;
